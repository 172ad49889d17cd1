//! Delegation: a plugin calls the IPAM plugin that its configuration names. (spec section 4)
//!
//! If CNI_PATH leads to this very file, the plugin is called as a function with the same input. Otherwise the file is
//! executed. Both ways behave alike.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::config::{self, MAX_BYTES, NetConf};
use crate::conflict::Conflict;
use crate::env::Attachment;
use crate::error::{Code, Error};
use crate::object::Object;
use crate::plugin::{Call, Plugin};
use crate::result::Leased;
use crate::wire;

/// The time in which another program must answer. The slowest that we know, the reference's `dhcp`, gives up after
/// 208 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(240);
/// The time in which it must end after it has closed its stdout.
const EXIT_WITHIN: Duration = Duration::from_secs(5);

/// Runs a program to its end: path, a variable to set in our environment, stdin. The limits are: time until its
/// stdout ends, time until it ends after that, bytes of its answer. The program must end with the calling process.
/// Otherwise an IPAM plugin could lease after the DEL.
///
/// If a system call fails before the program has started, the error has the errno. If a limit is exceeded, the
/// program is killed, and the error is `TimedOut` or `FileTooLarge` without an errno.
pub type Run = fn(&Path, (&str, &str), &[u8], Duration, Duration, usize) -> io::Result<Output>;

/// For programs that never run an IPAM plugin.
pub const RUN_NOTHING: Run = |_, _, _, _, _, _| Err(ErrorKind::Unsupported.into());

/// The IPAM plugin of one call.
pub struct Ipam<'a> {
    call: Call<'a>,
    name: &'a str,
    target: Target<'a>,
}

enum Target<'a> {
    Here(&'a dyn Plugin),
    File(PathBuf),
}

impl<'a> Ipam<'a> {
    /// Finds the plugin that `ipam.type` names. `None` if the key is not set.
    ///
    /// Code 4 if CNI_PATH is not set. Code 7 if the name has a slash or is not found.
    pub fn find(call: &Call<'a>) -> Result<Option<Self>, Error> {
        let Some(name) = call.conf.ipam_type else { return Ok(None) };
        let quoted = format_args!("\"{name}\"");
        if name.contains('/') || name == "." || name == ".." {
            return Err(Error::config("ipam.type", quoted, "is a path, not the name of a plugin"));
        }
        let ours_by_name = call.program.plugin(name);
        if ours_by_name.is_some_and(|plugin| !plugin.is_ipam()) {
            // It would call itself without end.
            return Err(Error::config("ipam.type", quoted, "is not an IPAM plugin"));
        }
        let folders = call.variables.folders();
        if folders.is_empty() {
            let cause =
                format!("CNI_PATH is not set: it must have the directory of the IPAM plugin {quoted} (ipam.type)");
            return Err(Error::new(Code::INVALID_ENVIRONMENT, cause));
        }
        let found = folders.iter().map(|folder| folder.join(name)).find_map(|path| Some((identity(&path)?, path)));
        let Some((file, path)) = found else {
            let path = call.variables.path.clone().unwrap_or_default();
            let cause = format!("no such program in CNI_PATH \"{}\"", path.to_string_lossy());
            return Err(Error::config("ipam.type", quoted, cause));
        };
        let ours = fs::metadata("/proc/self/exe").ok().map(|ours| (ours.dev(), ours.ino()));
        let target = match ours_by_name {
            Some(plugin) if ours == Some(file) => Target::Here(plugin),
            _ => Target::File(path),
        };
        Ok(Some(Self { call: Call { plugin: name, ..*call }, name, target }))
    }

    /// Leases addresses. A result without addresses is an error (code 7).
    pub fn add<'s>(&'s self, attachment: &'s Attachment) -> Result<Leased<'s>, Error> {
        let leased = match &self.target {
            Target::Here(plugin) => plugin.lease(&self.call, attachment)?,
            Target::File(path) => {
                let answer = self.execute(path, "ADD", self.call.stdin)?;
                // Some plugins print an error object and exit with 0.
                if let Some(error) = Error::from_json(&answer) {
                    return Err(error);
                }
                let source = format!("result of IPAM plugin {}", path.display());
                Leased { result: wire::decode(&answer, self.call.conf.version, &source)?, give_back: None }
            }
        };
        if leased.result.ips.is_empty() {
            let cause = "the plugin returned no address; for an interface without addresses, write \"ipam\": {}";
            return Err(Error::config("ipam.type", format_args!("\"{}\"", self.name), cause));
        }
        Ok(leased)
    }

    /// Returns true if it is a part of this program. Then its CHECK changes nothing.
    pub fn is_here(&self) -> bool {
        matches!(self.target, Target::Here(_))
    }

    /// Releases all leases of the attachment.
    pub fn del(&self, attachment: &Attachment) -> Result<(), Error> {
        match &self.target {
            Target::Here(plugin) => plugin.del(&self.call, attachment),
            Target::File(path) => self.execute(path, "DEL", self.call.stdin).map(drop),
        }
    }

    /// Releases all leases of the attachment, as [`Ipam::del`] does, and tells the plugin which of the addresses other
    /// machines on the LAN have: its configuration also has the key `addressConflicts`. host-local keeps these
    /// addresses from other containers for a while. A plugin that does not know the key releases them.
    pub fn reject(&self, attachment: &Attachment, conflicts: &[Conflict]) -> Result<(), Error> {
        let stdin = Conflict::add_to(self.call.stdin, conflicts);
        match &self.target {
            Target::Here(plugin) => {
                let map = config::parse(&stdin)?;
                let conf = NetConf::read(Object::root(&map))?;
                plugin.del(&Call { stdin: &stdin, conf: &conf, ..self.call }, attachment)
            }
            Target::File(path) => self.execute(path, "DEL", &stdin).map(drop),
        }
    }

    /// The name of the plugin. (`ipam.type`)
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Returns true if [`Ipam::del`] needs the address on the link. The reference's `dhcp` sends its DHCPRELEASE from a socket that
    /// is bound to the leased address. Without that address nothing is sent, and the server keeps the lease.
    pub fn releases_from_its_address(&self) -> bool {
        self.name == "dhcp" && matches!(self.target, Target::File(_))
    }

    /// Checks that the attachment still has its leases.
    pub fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        match &self.target {
            Target::Here(plugin) => plugin.check(&self.call, attachment),
            Target::File(path) => self.execute(path, "CHECK", self.call.stdin).map(drop),
        }
    }

    /// Checks that an ADD would get an address.
    pub fn status(&self) -> Result<(), Error> {
        match &self.target {
            Target::Here(plugin) => plugin.status(&self.call),
            Target::File(path) => self.execute(path, "STATUS", self.call.stdin).map(drop),
        }
    }

    /// Frees leases without a valid attachment.
    pub fn gc(&self) -> Result<(), Error> {
        match &self.target {
            Target::Here(plugin) => plugin.gc(&self.call),
            Target::File(path) => self.execute(path, "GC", self.call.stdin).map(drop),
        }
    }

    fn execute(&self, path: &Path, command: &str, stdin: &[u8]) -> Result<Vec<u8>, Error> {
        execute(self.call.program.run, path, command, stdin)
    }
}

/// Device and inode of an executable file. `None` for other files.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    (file.is_file() && file.permissions().mode() & 0o111 != 0).then_some((file.dev(), file.ino()))
}

/// Runs another plugin and returns its stdout.
///
/// Its error object is passed on unchanged. A failure without an error object is code 6. A plugin that does not end
/// in time is code 11.
fn execute(run: Run, path: &Path, command: &str, stdin: &[u8]) -> Result<Vec<u8>, Error> {
    let plugin = format!("IPAM plugin {}", path.display());
    let failed = |error: io::Error| {
        let (code, msg) = match (error.raw_os_error(), error.kind()) {
            (None, ErrorKind::TimedOut) => (Code::TRY_AGAIN_LATER, format!("{plugin}: {error}; it was killed")),
            (None, ErrorKind::FileTooLarge) => (Code::DECODING_FAILURE, format!("{plugin}: {error}")),
            (None, _) => (Code::IO_FAILURE, format!("{plugin}: {error}")),
            (_, ErrorKind::ExecutableFileBusy) => {
                (Code::TRY_AGAIN_LATER, format!("start {plugin}: another program is writing this file: {error}"))
            }
            // The limit of processes is reached.
            (_, ErrorKind::WouldBlock) => (Code::TRY_AGAIN_LATER, format!("start {plugin}: {error}")),
            _ => (Code::IO_FAILURE, format!("start {plugin}: {error}")),
        };
        Error::new(code, msg)
    };
    let output = run(path, ("CNI_COMMAND", command), stdin, ANSWER_WITHIN, EXIT_WITHIN, MAX_BYTES).map_err(failed)?;
    let Output { status, stdout, .. } = output;
    if status.success() {
        return Ok(stdout);
    }
    Err(Error::from_json(&stdout).unwrap_or_else(|| {
        let shown = String::from_utf8_lossy(&stdout[..stdout.len().min(200)]);
        let cause = format!("{plugin}: {command} failed ({status}) and printed no error object, but: \"{shown}\"");
        Error::new(Code::DECODING_FAILURE, cause)
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;
    use crate::env::Variables;
    use crate::plugin::Program;
    use crate::result::AddResult;

    fn answer(run: Run) -> Result<Vec<u8>, Error> {
        execute(run, Path::new("/cni/ipam"), "ADD", b"{}")
    }

    fn refused(run: Run) -> (u32, String) {
        let error = answer(run).unwrap_err();
        (error.code.0, error.msg)
    }

    fn output(code: i32, stdout: &str) -> io::Result<Output> {
        Ok(Output { status: ExitStatus::from_raw(code << 8), stdout: stdout.into(), stderr: Vec::new() })
    }

    #[test]
    fn program_command_and_input_are_handed_over() {
        let run: Run = |path, (name, value), stdin, _, _, _| {
            output(0, &format!("{} {name}={value} {}", path.display(), String::from_utf8_lossy(stdin)))
        };
        assert_eq!(answer(run).unwrap(), b"/cni/ipam CNI_COMMAND=ADD {}");
    }

    #[test]
    fn error_object_of_the_plugin_is_passed_on() {
        let error = answer(|_, _, _, _, _, _| output(1, r#"{"code":101,"msg":"full","details":"d"}"#)).unwrap_err();
        assert_eq!(error, Error { code: Code(101), msg: "full".into(), details: "d".into() });
    }

    #[test]
    fn failure_without_an_error_object_shows_what_was_printed() {
        let expected = "IPAM plugin /cni/ipam: ADD failed (exit status: 3) and printed no error object, but: \"oops\"";
        assert_eq!(refused(|_, _, _, _, _, _| output(3, "oops")), (6, expected.into()));
    }

    #[test]
    fn what_keeps_a_plugin_from_its_end_is_named() {
        assert_eq!(
            refused(|_, _, _, _, _, _| Err(io::Error::from_raw_os_error(2))),
            (5, "start IPAM plugin /cni/ipam: No such file or directory (os error 2)".into())
        );
        assert_eq!(
            refused(|_, _, _, _, _, _| Err(io::Error::from_raw_os_error(26))),
            (
                11,
                "start IPAM plugin /cni/ipam: another program is writing this file: Text file busy (os error 26)"
                    .into()
            )
        );
        assert_eq!(
            refused(|_, _, _, _, _, _| Err(io::Error::new(ErrorKind::TimedOut, "no answer within 240s"))),
            (11, "IPAM plugin /cni/ipam: no answer within 240s; it was killed".into())
        );
        assert_eq!(
            refused(|_, _, _, _, _, _| Err(io::Error::new(ErrorKind::FileTooLarge, "its answer is too long"))),
            (6, "IPAM plugin /cni/ipam: its answer is too long".into())
        );
    }

    const CONF: &[u8] = br#"{"cniVersion":"1.1.0", "name":"lan", "ipam":{"type":"pool"}, "half" : 0.50}"#;
    const REJECTED: &str = r#"{"cniVersion":"1.1.0", "name":"lan", "ipam":{"type":"pool"}, "half" : 0.50,"addressConflicts":[{"address":"10.0.0.7","mac":"52:54:00:12:34:56"}]}"#;

    /// Answers every DEL with an error that has its input.
    struct Pool;

    impl Plugin for Pool {
        fn about(&self) -> &'static str {
            "repeats its input"
        }
        fn is_ipam(&self) -> bool {
            true
        }
        fn add(&self, _: &Call<'_>, _: &Attachment) -> Result<AddResult, Error> {
            Ok(AddResult::default())
        }
        fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Error> {
            let read = Conflict::read(call.keys())?.len();
            let stdin = String::from_utf8_lossy(call.stdin);
            Err(Error::new(Code(142), format!("{} {} {read} {stdin}", call.plugin, attachment.container_id)))
        }
        fn check(&self, _: &Call<'_>, _: &Attachment) -> Result<(), Error> {
            Ok(())
        }
        fn status(&self, _: &Call<'_>) -> Result<(), Error> {
            Ok(())
        }
        fn gc(&self, _: &Call<'_>) -> Result<(), Error> {
            Ok(())
        }
    }

    /// An executed plugin that does the same as [`Pool`].
    const POOL: Run = |path, (name, value), stdin, _, _, _| {
        let stdin = String::from_utf8_lossy(stdin).escape_default().to_string();
        output(1, &format!(r#"{{"code":142,"msg":"{} {name}={value} {stdin}"}}"#, path.display()))
    };

    fn rejected(target: Target<'_>) -> String {
        let program = Program { name: "test", release: "0", plugins: &[], commands: "", run: POOL };
        let map = config::parse(CONF).unwrap();
        let conf = NetConf::read(Object::root(&map)).unwrap();
        let variables = Variables::default();
        let call = Call { plugin: "pool", program: &program, variables: &variables, stdin: CONF, conf: &conf };
        let args = crate::env::Args::parse("".as_ref());
        let attachment = Attachment { container_id: "c1".into(), ifname: "eth0".into(), netns: None, args };
        let ipam = Ipam { call, name: "pool", target };
        assert_eq!(ipam.name(), "pool");
        let mac = Some("52:54:00:12:34:56".to_owned());
        let conflicts = [Conflict { address: "10.0.0.7".parse().unwrap(), mac }];
        let error = ipam.reject(&attachment, &conflicts).unwrap_err();
        assert_eq!(error.code, Code(142));
        error.msg
    }

    #[test]
    fn a_rejected_address_reaches_a_function_and_a_process_in_the_same_bytes() {
        assert_eq!(rejected(Target::Here(&Pool)), format!("pool c1 1 {REJECTED}"));
        assert_eq!(rejected(Target::File("/cni/pool".into())), format!("/cni/pool CNI_COMMAND=DEL {REJECTED}"));
    }
}
