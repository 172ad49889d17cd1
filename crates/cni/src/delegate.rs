//! Delegation: one plugin asks the IPAM plugin that its configuration names. (spec section 4)
//!
//! When CNI_PATH leads to this very file, the plugin is called as a function, with the same input; when it leads to
//! any other, that file is executed. Both ways behave alike.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::MAX_BYTES;
use crate::env::Attachment;
use crate::error::{Code, Error};
use crate::plugin::{Call, Plugin};
use crate::result::Leased;
use crate::wire;

/// How long another program may take to answer. A DHCP lease is given up after 208 s by the reference's plugin, which
/// is the slowest that we know of.
const ANSWER_WITHIN: Duration = Duration::from_secs(240);
/// What every pipe takes before anybody reads, a page. (pipe(7), "Pipe capacity")
const PIPE_HOLDS: usize = 4096;
/// How long it may live on after it has closed its stdout: nothing that it does then can reach us.
const EXIT_WITHIN: Duration = Duration::from_secs(5);

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
    /// Finds the plugin that `ipam.type` names; `None` when it names none.
    ///
    /// Code 4 without a CNI_PATH, code 7 for a name with a slash in it or one that is not found.
    pub fn find(call: &Call<'a>) -> Result<Option<Self>, Error> {
        let Some(name) = call.conf.ipam_type else { return Ok(None) };
        let quoted = format_args!("\"{name}\"");
        if name.contains('/') || name == "." || name == ".." {
            return Err(Error::config("ipam.type", quoted, "is a path, not the name of a plugin"));
        }
        let ours_by_name = call.program.plugin(name);
        if ours_by_name.is_some_and(|plugin| !plugin.is_ipam()) {
            // It would ask this very plugin again, without end.
            return Err(Error::config("ipam.type", quoted, "is no IPAM plugin"));
        }
        let folders = call.variables.folders();
        if folders.is_empty() {
            let cause = format!("CNI_PATH is not set, and ipam.type {quoted} has to be found in it");
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

    /// Leases addresses. A result without any is an error (code 7): nothing could be attached with it.
    pub fn add<'s>(&'s self, attachment: &'s Attachment) -> Result<Leased<'s>, Error> {
        let leased = match &self.target {
            Target::Here(plugin) => plugin.lease(&self.call, attachment)?,
            Target::File(path) => {
                let answer = self.execute(path, "ADD")?;
                // Some say what is wrong and exit with 0 all the same.
                if let Some(error) = Error::from_json(&answer) {
                    return Err(error);
                }
                let source = format!("result of IPAM plugin {}", path.display());
                Leased { result: wire::decode(&answer, self.call.conf.version, &source)?, give_back: None }
            }
        };
        if leased.result.ips.is_empty() {
            let cause = "it returned no addresses; for an attachment without any, say \"ipam\": {}";
            return Err(Error::config("ipam.type", format_args!("\"{}\"", self.name), cause));
        }
        Ok(leased)
    }

    /// Whether it is a part of this program, so that its CHECK is known to change nothing.
    pub fn is_here(&self) -> bool {
        matches!(self.target, Target::Here(_))
    }

    /// Releases what the attachment holds.
    pub fn del(&self, attachment: &Attachment) -> Result<(), Error> {
        match &self.target {
            Target::Here(plugin) => plugin.del(&self.call, attachment),
            Target::File(path) => self.execute(path, "DEL").map(drop),
        }
    }

    /// Whether [`Ipam::del`] needs the address on the link. The reference's `dhcp` sends its DHCPRELEASE from a socket that
    /// is bound to the leased address. Without that address nothing is sent, and the server keeps the lease.
    pub fn releases_from_its_address(&self) -> bool {
        self.name == "dhcp" && matches!(self.target, Target::File(_))
    }

    /// Sees that the attachment still holds its addresses.
    pub fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        match &self.target {
            Target::Here(plugin) => plugin.check(&self.call, attachment),
            Target::File(path) => self.execute(path, "CHECK").map(drop),
        }
    }

    /// Asks whether an ADD would get an address.
    pub fn status(&self) -> Result<(), Error> {
        match &self.target {
            Target::Here(plugin) => plugin.status(&self.call),
            Target::File(path) => self.execute(path, "STATUS").map(drop),
        }
    }

    /// Frees what belongs to no valid attachment.
    pub fn gc(&self) -> Result<(), Error> {
        match &self.target {
            Target::Here(plugin) => plugin.gc(&self.call),
            Target::File(path) => self.execute(path, "GC").map(drop),
        }
    }

    fn execute(&self, path: &Path, command: &str) -> Result<Vec<u8>, Error> {
        let limits = Limits { answer: ANSWER_WITHIN, exit: EXIT_WITHIN };
        execute(path, command, self.call.stdin, limits)
    }
}

/// Device and inode of an executable file; `None` for anything else.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    (file.is_file() && file.permissions().mode() & 0o111 != 0).then_some((file.dev(), file.ino()))
}

#[derive(Clone, Copy)]
struct Limits {
    answer: Duration,
    exit: Duration,
}

/// Runs another plugin in our environment and returns what it wrote to stdout.
///
/// Its stderr is ours. Its error object is passed on as it is; a failure without one is code 6; one that does not end
/// in time is killed and is code 11.
fn execute(path: &Path, command: &str, stdin: &[u8], limits: Limits) -> Result<Vec<u8>, Error> {
    let plugin = format!("IPAM plugin {}", path.display());
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::ExecutableFileBusy => {
            Error::new(Code::TRY_AGAIN_LATER, format!("start {plugin}: it is being written: {error}"))
        }
        // No process or thread to be had now.
        std::io::ErrorKind::WouldBlock => Error::new(Code::TRY_AGAIN_LATER, format!("start {plugin}: {error}")),
        _ => Error::new(Code::IO_FAILURE, format!("start {plugin}: {error}")),
    };
    let child = Command::new(path)
        .env("CNI_COMMAND", command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(io)?;
    let mut running = Running(child);
    let (stdout, status) = converse(&mut running.0, stdin, limits, &plugin, io)?;
    if status.success() {
        return Ok(stdout);
    }
    Err(Error::from_json(&stdout).unwrap_or_else(|| {
        let shown = String::from_utf8_lossy(&stdout[..stdout.len().min(200)]);
        let cause = format!("{plugin}: {command} failed ({status}) without an error object, stdout: \"{shown}\"");
        Error::new(Code::DECODING_FAILURE, cause)
    }))
}

/// A child that does not outlive its use: killed where it still runs, on whichever way out.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already dead or not, neither is news; a zombie would be left without the wait.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn converse(
    child: &mut Child,
    stdin: &[u8],
    limits: Limits,
    plugin: &str,
    io: impl Fn(std::io::Error) -> Error,
) -> Result<(Vec<u8>, ExitStatus), Error> {
    let late = |cause: String| Error::new(Code::TRY_AGAIN_LATER, format!("{plugin}: {cause}; it was killed"));

    // Threads, because a plugin may answer before it has read its input, or never read it, and std has no deadlines.
    // They are not joined: after a kill, a grandchild that inherited the pipe could keep one waiting.
    if let Some(mut pipe) = child.stdin.take() {
        // A plugin that does not want its input closes the pipe: what it answers says whether that was right.
        if stdin.len() <= PIPE_HOLDS {
            let _ = pipe.write_all(stdin);
        } else {
            let input = stdin.to_vec();
            thread::Builder::new().spawn(move || pipe.write_all(&input)).map_err(&io)?;
        }
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(pipe) = child.stdout.take() {
        let read = move || {
            let mut answer = Vec::new();
            let read = pipe.take(MAX_BYTES as u64 + 1).read_to_end(&mut answer);
            sender.send(read.map(|_| answer))
        };
        thread::Builder::new().spawn(read).map_err(&io)?;
    }
    let stdout = match receiver.recv_timeout(limits.answer) {
        Ok(Ok(answer)) if answer.len() > MAX_BYTES => {
            let cause = format!("{plugin}: its answer is longer than {MAX_BYTES} bytes");
            return Err(Error::new(Code::DECODING_FAILURE, cause));
        }
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Err(Error::new(Code::IO_FAILURE, format!("read stdout of {plugin}: {error}")));
        }
        Err(RecvTimeoutError::Timeout) => return Err(late(format!("no answer within {:?}", limits.answer))),
        Err(RecvTimeoutError::Disconnected) => {
            return Err(Error::new(Code::INTERNAL, format!("{plugin}: the thread that reads its stdout is gone")));
        }
    };

    // It has closed its stdout, so it is gone within microseconds, or it hangs. std cannot wait with a deadline.
    let deadline = Instant::now() + limits.exit;
    let mut pause = Duration::from_micros(20);
    loop {
        let status = child.try_wait().map_err(|e| Error::new(Code::IO_FAILURE, format!("wait for {plugin}: {e}")))?;
        match status {
            Some(status) => return Ok((stdout, status)),
            None if Instant::now() >= deadline => {
                return Err(late(format!("closed its stdout and did not end within {:?}", limits.exit)));
            }
            None => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("ipam");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn run(text: &str, stdin: &[u8]) -> Result<Vec<u8>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { answer: Duration::from_millis(400), exit: Duration::from_millis(200) };
        // Another test's fork may hold the freshly written script open for a moment.
        loop {
            match execute(&script(folder.path(), text), "ADD", stdin, limits) {
                Err(error) if error.code == Code::TRY_AGAIN_LATER && error.msg.contains("being written") => {}
                answer => return answer,
            }
        }
    }

    #[test]
    fn input_and_command_arrive_and_the_answer_comes_back() {
        assert_eq!(run("echo $CNI_COMMAND; cat", b"{}").unwrap(), b"ADD\n{}");
    }

    #[test]
    fn a_megabyte_of_input_that_nobody_reads_blocks_nothing() {
        assert_eq!(run("echo done", &[b' '; 1 << 20]).unwrap(), b"done\n");
    }

    #[test]
    fn error_object_of_the_plugin_is_passed_on() {
        let error = run(r#"echo '{"code":101,"msg":"full","details":"d"}'; exit 1"#, b"{}").unwrap_err();
        assert_eq!(error, Error { code: Code(101), msg: "full".into(), details: "d".into() });
    }

    #[test]
    fn failure_without_an_error_object_shows_what_was_printed() {
        let error = run("echo oops; exit 3", b"{}").unwrap_err();
        assert_eq!(error.code, Code::DECODING_FAILURE);
        assert!(
            error.msg.ends_with("ADD failed (exit status: 3) without an error object, stdout: \"oops\n\""),
            "{error}"
        );
    }

    #[test]
    fn a_plugin_that_hangs_is_killed_and_said_to_be_busy() {
        let error = run("exec sleep 60", b"{}").unwrap_err();
        assert_eq!(error.code, Code::TRY_AGAIN_LATER);
        assert!(error.msg.ends_with("no answer within 400ms; it was killed"), "{error}");

        let error = run("exec sleep 60 >&-", b"{}").unwrap_err();
        assert_eq!(error.code, Code::TRY_AGAIN_LATER);
        assert!(error.msg.ends_with("closed its stdout and did not end within 200ms; it was killed"), "{error}");
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let limits = Limits { answer: ANSWER_WITHIN, exit: EXIT_WITHIN };
        let error = execute(Path::new("/nonexistent/ipam"), "ADD", b"", limits).unwrap_err();
        assert_eq!(error.code, Code::IO_FAILURE);
        assert_eq!(error.msg, "start IPAM plugin /nonexistent/ipam: No such file or directory (os error 2)");
    }
}
