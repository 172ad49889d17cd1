//! The trait of a plugin, and [`run`], which reads stdin, writes stdout once and returns the exit code.

use std::any::Any;
use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::config::{self, MAX_BYTES, NetConf};
use crate::delegate::Run;
use crate::env::{Attachment, Operation, Variables};
use crate::error::{Code, Error};
use crate::object::{Object, ReadKeys, Unread};
use crate::result::{AddResult, Leased};
use crate::version::Version;
use crate::wire;

/// A plugin.
pub trait Plugin: Sync {
    /// A few words for `--help`.
    fn about(&self) -> &'static str;
    /// True for an IPAM plugin. (`ipam.type`)
    fn is_ipam(&self) -> bool {
        false
    }
    /// ADD. If it fails, it leaves nothing.
    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<AddResult, Error>;
    /// ADD of an IPAM plugin that can release only its new leases.
    fn lease<'a>(&'a self, call: &'a Call<'a>, attachment: &'a Attachment) -> Result<Leased<'a>, Error> {
        Ok(Leased { result: self.add(call, attachment)?, give_back: None })
    }
    /// DEL. It succeeds if the attachment is gone.
    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Error>;
    /// CHECK. Changes nothing.
    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Error>;
    /// STATUS. Changes nothing.
    fn status(&self, call: &Call<'_>) -> Result<(), Error>;
    /// GC. It frees what does not belong to [`config::valid_attachments`].
    fn gc(&self, call: &Call<'_>) -> Result<(), Error>;
}

/// A program with several plugins. The name by which it is called selects the plugin.
pub struct Program {
    /// The name of the program.
    pub name: &'static str,
    /// Its release.
    pub release: &'static str,
    /// The plugins by name.
    pub plugins: &'static [(&'static str, &'static dyn Plugin)],
    /// Lines of help about commands for people. They may be empty. [`run`] does not execute such commands.
    pub commands: &'static str,
    /// Runs IPAM plugins that are other programs.
    pub run: Run,
}

impl Program {
    /// The plugin of that name.
    pub fn plugin(&self, name: &str) -> Option<&'static dyn Plugin> {
        self.plugins.iter().find(|(its, _)| *its == name).map(|(_, plugin)| *plugin)
    }

    /// The text of `--help`.
    fn help(&self, name: &str) -> String {
        let head = match self.plugin(name) {
            Some(plugin) => format!("{name}: {} ({} {})\n", plugin.about(), self.name, self.release),
            None => format!(
                "{} {}: CNI plugins that put containers straight onto the host's LAN\n",
                self.name, self.release
            ),
        };
        let mut text = format!("{head}CNI spec versions: {}\n", Version::list());
        if self.plugin(name).is_none() {
            for (name, plugin) in self.plugins {
                text.push_str(&format!("  {name:<12}{}\n", plugin.about()));
            }
            text.push_str("If the program is called by one of these names, it is that plugin. Its own commands are:\n");
            text.push_str(self.commands);
        } else if name == self.name && !self.commands.is_empty() {
            text.push_str("A runtime calls it. Its commands for people are:\n");
            text.push_str(self.commands);
        }
        text
    }
}

/// One call of a plugin.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The name of the plugin that is called.
    pub plugin: &'a str,
    /// The program that it is part of.
    pub program: &'a Program,
    /// The environment.
    pub variables: &'a Variables,
    /// The network configuration, untouched.
    pub stdin: &'a [u8],
    /// Its shared keys.
    pub conf: &'a NetConf<'a>,
}

impl<'a> Call<'a> {
    /// The keys of the network configuration.
    pub fn keys(&self) -> &Object<'a> {
        &self.conf.keys
    }

    /// Reads `prevResult`. `None` if it is not set.
    pub fn prev_result(&self) -> Result<Option<AddResult>, Error> {
        let previous = self.keys().object("prevResult")?;
        let read = || wire::read(&previous, self.conf.version);
        let read = previous.is_set().then(read).transpose();
        read.map_err(|error| Error { code: Code::INVALID_NETWORK_CONFIG, ..error })
    }

    /// Prints a remark for each key that was not read. Keys are noted during ADD only. Call it after the last key is
    /// read.
    pub fn remark_on_unread(&self, keys: &Object<'_>, others: &[&str]) {
        for Unread { path, nearest } in keys.unread(others) {
            let hint = nearest.map(|nearest| format!("; did you mean \"{nearest}\"?")).unwrap_or_default();
            self.warn(format_args!("ADD: the key \"{path}\" is not known and has no effect{hint}"));
        }
    }

    /// Prints a remark: one line on stderr. Runtimes log it.
    pub fn warn(&self, text: impl std::fmt::Display) {
        stderr(format_args!("{}: {text}", self.plugin));
    }
}

/// Answers one call. Returns the exit status: 0, 1 for an error, 2 for an unknown word on the command line.
pub fn run(program: &'static Program) -> u8 {
    let mut words = std::env::args_os();
    let name = words.next().map(|word| file_name(&word)).unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    let variables = Variables::of_process();

    let by_hand = variables.command.is_none() && (!words.is_empty() || std::io::stdin().is_terminal());
    if by_hand {
        let text = match words.first().map(|word| word.to_string_lossy()).as_deref() {
            Some("--version" | "-V") => format!("{} {}\n", program.name, program.release),
            // For installers: all names, one on each line.
            Some("--plugins") => program.plugins.iter().map(|(name, _)| format!("{name}\n")).collect(),
            Some("--help" | "-h") | None => program.help(&name),
            // A script with a mistake must fail.
            Some(word) => {
                stderr(format_args!("{name}: unexpected argument \"{word}\"; see {name} --help"));
                return 2;
            }
        };
        return u8::from(stdout(text.as_bytes()).is_err());
    }

    let hook = PanicPlace::install();
    let mut version = Version::NEWEST;
    let answered = panic::catch_unwind(AssertUnwindSafe(|| answer(program, &name, &variables, &mut version)))
        .unwrap_or_else(|payload| Err(hook.error(payload.as_ref())));
    match answered {
        Ok(()) => 0,
        Err(error) => {
            if let Err(cause) = stdout(&error.to_json(version)) {
                stderr(format_args!("{name}: {error} (and stdout: {cause})"));
            }
            1
        }
    }
}

fn file_name(word: &OsString) -> String {
    Path::new(word).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn answer(program: &'static Program, name: &str, variables: &Variables, version: &mut Version) -> Result<(), Error> {
    let operation = Operation::parse(variables)?;
    if operation == Operation::Version {
        return versions();
    }
    let stdin = read_stdin().map_err(prefix_stdin)?;
    let map = config::parse(&stdin).map_err(prefix_stdin)?;
    let read = ReadKeys::default();
    let keys = match &operation {
        Operation::Add(_) => Object::root(&map).noting(&read),
        _ => Object::root(&map),
    };
    *version = config::version(&keys)?;
    let conf = NetConf::read(keys)?;
    let plugin = program.plugin(name).ok_or_else(|| {
        let names: Vec<_> = program.plugins.iter().map(|(name, _)| *name).collect();
        let cause = format!("called by the name \"{name}\", which is not one of its plugins ({}); run underlay install to create their names", names.join(", "));
        Error::new(Code::INVALID_NETWORK_CONFIG, format!("{}: {cause}", program.name))
    })?;
    let call = Call { plugin: name, program, variables, stdin: &stdin, conf: &conf };

    let since = |since: Version, command: &str| match conf.version < since {
        true => Err(Error::new(
            Code::INCOMPATIBLE_VERSION,
            format!("cniVersion {}: {command} needs {since} or later", conf.version),
        )),
        false => Ok(()),
    };
    match operation {
        Operation::Add(attachment) => {
            if stdout_is_closed() {
                return Err(Error::new(Code::IO_FAILURE, "write result to stdout: it is closed"));
            }
            let result = plugin.add(&call, &attachment)?;
            stdout(&wire::encode(&result, conf.version)).map_err(|error| {
                // The caller does not know the attachment, so it is removed.
                let lost = Error::new(Code::IO_FAILURE, format!("write result to stdout: {error}"));
                match plugin.del(&call, &attachment) {
                    Ok(()) => lost,
                    Err(error) => lost.with_detail(format!("undo: {error}")),
                }
            })
        }
        Operation::Del(attachment) => plugin.del(&call, &attachment),
        Operation::Check(attachment) => {
            since(Version::V0_4_0, "CHECK")?;
            plugin.check(&call, &attachment)
        }
        Operation::Status => {
            since(Version::V1_1_0, "STATUS")?;
            plugin.status(&call)
        }
        Operation::Gc => {
            since(Version::V1_1_0, "GC")?;
            plugin.gc(&call)
        }
        Operation::Version => Ok(()),
    }
}

/// VERSION. The answer has the `cniVersion` of the request, if it is known. (spec section 2)
fn versions() -> Result<(), Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        cni_version: &'static str,
        supported_versions: [&'static str; 7],
    }
    let answer_to = asked_version().unwrap_or(Version::NEWEST);
    let answer = Answer { cni_version: answer_to.as_str(), supported_versions: Version::ALL.map(Version::as_str) };
    let mut json = serde_json::to_vec(&answer).unwrap_or_default();
    json.push(b'\n');
    stdout(&json).map_err(|error| Error::new(Code::IO_FAILURE, format!("write versions to stdout: {error}")))
}

/// The `cniVersion` of a VERSION call. Callers may send nothing or keep stdin open, because the reference does not
/// read it. So wait only for a short time.
fn asked_version() -> Option<Version> {
    let (sender, receiver) = mpsc::channel();
    let read = move || sender.send(read_stdin());
    thread::Builder::new().spawn(read).ok()?;
    let stdin = receiver.recv_timeout(Duration::from_secs(1)).ok()?.ok()?;
    config::version(&Object::root(&config::parse(&stdin).ok()?)).ok()
}

fn read_stdin() -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(1024);
    let read = std::io::stdin().lock().take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::new(Code::IO_FAILURE, format!("read: {error}")))?;
    match bytes.len() > MAX_BYTES {
        true => Err(Error::new(Code::DECODING_FAILURE, format!("longer than {MAX_BYTES} bytes"))),
        false => Ok(bytes),
    }
}

/// Adds the source to errors about JSON. Other errors name their key.
fn prefix_stdin(error: Error) -> Error {
    match error.code {
        Code::DECODING_FAILURE | Code::IO_FAILURE => {
            Error { msg: format!("network configuration on stdin: {}", error.msg), ..error }
        }
        _ => error,
    }
}

/// Returns true if the caller has closed stdout. Then `linux::process::begin` has opened /dev/null in its place,
/// read-only. A caller that discards the result (Python's DEVNULL) opens it read-write.
fn stdout_is_closed() -> bool {
    let is_null = std::fs::read_link("/proc/self/fd/1").is_ok_and(|path| path == Path::new("/dev/null"));
    let flags = || {
        let text = std::fs::read_to_string("/proc/self/fdinfo/1").ok()?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(flags.trim(), 8).ok()
    };
    // O_RDONLY, the last two bits.
    is_null && flags().is_some_and(|flags| flags & 0o3 == 0)
}

/// Writes to stdout with one write.
fn stdout(bytes: &[u8]) -> std::io::Result<()> {
    if stdout_is_closed() {
        return Err(std::io::Error::other("it is closed"));
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn stderr(line: std::fmt::Arguments<'_>) {
    // One write, so that lines of parallel calls do not mix. eprintln would panic if stderr is closed.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// The place of a panic. Only the hook gets the place, and only `catch_unwind` gets the reason.
struct PanicPlace(Arc<Mutex<String>>);

impl PanicPlace {
    fn install() -> Self {
        let place = Arc::new(Mutex::new(String::new()));
        let noted = Arc::clone(&place);
        panic::set_hook(Box::new(move |info| {
            if let (Ok(mut noted), Some(place)) = (noted.lock(), info.location()) {
                *noted = format!(" at {}:{}", place.file(), place.line());
            }
        }));
        Self(place)
    }

    fn error(&self, payload: &(dyn Any + Send)) -> Error {
        let place = self.0.lock().map(|place| place.clone()).unwrap_or_default();
        let reason = payload.downcast_ref::<&str>().copied();
        let reason = reason.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic");
        Error::new(Code::INTERNAL, format!("bug{place}: {reason}"))
    }
}
