//! One call of a plugin, with the environment and the input that a test sets, and its outcome.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::messages::assert_described;
use crate::trace::{Fault, Step, Trace, Watch, trace};
use crate::{Container, Namespace};

/// A plugin that takes longer is killed. This is longer than any plugin needs, including duplicate address detection.
const DEADLINE: Duration = Duration::from_secs(30);

/// A factor for the deadline of one call, for slow machines.
pub const PATIENCE_VARIABLE: &str = "UNDERLAY_PATIENCE";

fn deadline() -> Duration {
    DEADLINE * slowness()
}

/// The factor for times on this machine: 1, or more in a guest.
pub fn slowness() -> u32 {
    env::var(PATIENCE_VARIABLE).ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// The program of a plugin, and the namespace in which it runs.
#[derive(Clone, Debug)]
pub struct Plugin<'a> {
    host: &'a Namespace,
    program: PathBuf,
    path: Option<OsString>,
}

impl<'a> Plugin<'a> {
    pub fn new(host: &'a Namespace, program: PathBuf) -> Self {
        Self { host, program, path: None }
    }

    /// Sets `CNI_PATH`.
    pub fn search(mut self, path: impl Into<OsString>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Changes the namespace in which it runs.
    pub fn on(mut self, host: &'a Namespace) -> Self {
        self.host = host;
        self
    }

    pub fn add(&self, container: &Container, ifname: &str, conf: &Value) -> Call<'a> {
        self.attachment("ADD", container, ifname, conf)
    }

    pub fn del(&self, container: &Container, ifname: &str, conf: &Value) -> Call<'a> {
        self.attachment("DEL", container, ifname, conf)
    }

    /// `conf` must have the `prevResult`.
    pub fn check(&self, container: &Container, ifname: &str, conf: &Value) -> Call<'a> {
        self.attachment("CHECK", container, ifname, conf)
    }

    /// A call about one attachment, with the environment that a runtime sets.
    pub fn attachment(&self, command: &str, container: &Container, ifname: &str, conf: &Value) -> Call<'a> {
        self.call(command, conf)
            .env("CNI_CONTAINERID", &container.id)
            .env("CNI_NETNS", container.path())
            .env("CNI_IFNAME", ifname)
    }

    /// A call about no attachment, such as STATUS, GC or VERSION.
    pub fn call(&self, command: &str, conf: &Value) -> Call<'a> {
        let call = self.bare().env("CNI_COMMAND", command).stdin(conf.to_string());
        match &self.path {
            Some(path) => call.env("CNI_PATH", path),
            None => call,
        }
    }

    /// A call with an empty environment and no input.
    pub fn bare(&self) -> Call<'a> {
        Call { host: self.host, program: self.program.clone(), environment: BTreeMap::new(), stdin: Vec::new() }
    }
}

/// A call before it is made.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    host: &'a Namespace,
    program: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    stdin: Vec<u8>,
}

impl Call<'_> {
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.into(), value.as_ref().to_owned());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(OsStr::new(name));
        self
    }

    /// Sets `CNI_ARGS`.
    pub fn args(self, args: &str) -> Self {
        self.env("CNI_ARGS", args)
    }

    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn environment(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    pub fn input(&self) -> &[u8] {
        &self.stdin
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .envs(&self.environment)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn spawn(&self) -> Child {
        self.command().spawn().unwrap_or_else(|e| panic!("start {}: {e}", self.program.display()))
    }

    /// Makes the call and waits for its end.
    pub fn run(&self) -> Outcome {
        self.host.run(|| self.run_here())
    }

    /// As [`Call::run`], in all namespaces of the calling thread, for a test that has prepared them.
    pub fn run_here(&self) -> Outcome {
        let start = Instant::now();
        let child = self.spawn();
        let pid = child.id();
        let (status, stdout, stderr) =
            self.talk(child, |mut child| with_deadline(pid, || child.wait().expect("wait for a plugin")));
        Outcome::new(self, status, stdout, stderr, start.elapsed())
    }

    /// Makes the call and counts its processes and their memory.
    pub fn run_traced(&self) -> (Outcome, Trace) {
        self.run_under_trace(Watch::Cost)
    }

    /// Makes the call, and kills it when it enters or leaves a system call for the `stop`th time after it got its
    /// input. It may end before.
    pub fn run_killed_at(&self, stop: usize) -> Outcome {
        self.run_under_trace(Watch::KillAt(stop)).0
    }

    /// Makes the call and records the system calls of all its processes. With a fault, one of these fails.
    pub fn run_stepwise(&self, fault: Option<&Fault>) -> (Outcome, Trace) {
        self.run_under_trace(Watch::Steps(fault.cloned()))
    }

    /// Makes the call, stops it at that step, and calls `meanwhile` before it continues.
    pub fn run_held_at(&self, step: &Step, meanwhile: impl FnOnce() + Send) -> (Outcome, Trace) {
        self.run_under_trace(Watch::Hold(step.clone(), Box::new(meanwhile)))
    }

    fn run_under_trace(&self, watch: Watch<'_>) -> (Outcome, Trace) {
        self.host.run(|| {
            let start = Instant::now();
            // The plugin first reads its input, and it gets the input after the tracer has attached.
            let child = self.spawn();
            let tracer = trace(Pid::from_raw(child.id().cast_signed()), watch);
            let ((status, trace), stdout, stderr) = self.talk(child, |_| tracer.wait(deadline()));
            (Outcome::new(self, status, stdout, stderr, start.elapsed()), trace)
        })
    }

    /// Makes the call with a stdout that is a closed pipe.
    pub fn run_unheard(&self) -> Outcome {
        self.host.run(|| {
            let start = Instant::now();
            let (reader, writer) = std::io::pipe().expect("make a pipe");
            drop(reader);
            let mut command = self.command();
            let mut child = command.stdout(writer).spawn().expect("start a plugin");
            drop(command);
            let mut stdin = child.stdin.take().expect("stdin is a pipe");
            stdin.write_all(&self.stdin).expect("write a plugin's input");
            drop(stdin);
            let mut stderr = child.stderr.take().expect("stderr is a pipe");
            let pid = child.id();
            let (status, stderr) = with_deadline(pid, || {
                let stderr = drain(&mut stderr);
                (child.wait().expect("wait for a plugin"), stderr)
            });
            Outcome::new(self, status, Vec::new(), stderr, start.elapsed())
        })
    }

    /// Writes the input and reads the output of the child while `wait` waits for it.
    fn talk<T>(&self, mut child: Child, wait: impl FnOnce(Child) -> T) -> (T, Vec<u8>, Vec<u8>) {
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        let mut stderr = child.stderr.take().expect("stderr is a pipe");
        thread::scope(|scope| {
            scope.spawn(move || {
                // A plugin may end without reading its input. The write then fails.
                let _ = stdin.write_all(&self.stdin);
            });
            let out = scope.spawn(move || drain(&mut stdout));
            let err = scope.spawn(move || drain(&mut stderr));
            let waited = wait(child);
            let join = |reader: thread::ScopedJoinHandle<'_, Vec<u8>>| reader.join().expect("read a plugin's output");
            (waited, join(out), join(err))
        })
    }
}

fn drain(pipe: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).expect("read a plugin's output");
    bytes
}

/// Kills `pid` if `wait` does not return within the deadline of one call.
pub fn with_deadline<T>(pid: u32, wait: impl FnOnce() -> T) -> T {
    killed_after(deadline(), pid, wait)
}

/// Kills `pid` if `wait` does not return within this time.
pub fn killed_after<T>(deadline: Duration, pid: u32, wait: impl FnOnce() -> T) -> T {
    let (done, watched) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if watched.recv_timeout(deadline) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        });
        let waited = wait();
        drop(done);
        waited
    })
}

/// The error object that a plugin printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    pub code: u64,
    pub msg: String,
    pub details: String,
}

/// The end of a call, and its output.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// The time from the start of the process to its end.
    pub wall: Duration,
    label: String,
    /// Whether CNI_PATH leads only to programs of this repository.
    is_ours: bool,
}

impl Outcome {
    fn new(call: &Call<'_>, status: ExitStatus, stdout: Vec<u8>, stderr: Vec<u8>, wall: Duration) -> Self {
        let name = call.program.file_name().unwrap_or_default();
        let command = call.environment.get(OsStr::new("CNI_COMMAND"));
        let folder = call.program.parent().unwrap_or(Path::new(""));
        let is_ours = call.environment.get(OsStr::new("CNI_PATH")).is_some_and(|path| path == folder.as_os_str())
            && folder.join("underlay").exists();
        if is_ours {
            let of_plugin = |line: &&str| line.split_once(": ").is_some_and(|(name, _)| folder.join(name).exists());
            String::from_utf8_lossy(&stderr).lines().filter(of_plugin).for_each(assert_described);
        }
        Self {
            is_ours,
            status,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            wall,
            label: format!("{} {}", name.to_string_lossy(), command.cloned().unwrap_or_default().to_string_lossy()),
        }
    }

    /// All of it, for the text of an assertion.
    pub fn text(&self) -> String {
        let stdout = String::from_utf8_lossy(&self.stdout);
        format!("{}: {} after {:?}\nstdout: {stdout}\nstderr: {}", self.label, self.status, self.wall, self.stderr)
    }

    /// The JSON on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("stdout is not JSON ({e}): {}", self.text()))
    }

    /// The result of a call that must have succeeded.
    pub fn result(&self) -> Value {
        assert!(self.status.success(), "did not succeed: {}", self.text());
        self.json()
    }

    /// Asserts success without any output, as DEL and CHECK do.
    pub fn done(&self) -> &Self {
        assert!(self.status.success(), "did not succeed: {}", self.text());
        assert!(self.stdout.is_empty(), "printed something: {}", self.text());
        self
    }

    /// The error object of a call that must have failed with one.
    pub fn error(&self) -> CniError {
        assert_eq!(self.status.signal(), None, "was killed: {}", self.text());
        assert_eq!(self.status.code(), Some(1), "did not fail: {}", self.text());
        let object = self.json();
        if self.is_ours {
            assert_described(object["msg"].as_str().unwrap_or_default());
        }
        CniError {
            code: object["code"].as_u64().unwrap_or_else(|| panic!("an error object without a code: {}", self.text())),
            msg: object["msg"].as_str().unwrap_or_default().to_owned(),
            details: object["details"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Asserts that the error has this code, a message with these names, and a cniVersion.
    pub fn fails(&self, code: u64, names: &[&str]) -> CniError {
        let error = self.error();
        assert_eq!(error.code, code, "another code: {}", self.text());
        for name in names {
            assert!(error.msg.contains(name), "the message does not name {name:?}: {}", self.text());
        }
        assert!(self.json()["cniVersion"].is_string(), "an error object without cniVersion: {}", self.text());
        error
    }
}

/// Writes a shell script that can be executed. Another process writes it. If this process wrote the file while another
/// thread forks, the child would hold it open, and the kernel would not execute it (ETXTBSY).
pub fn write_script(path: &Path, body: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("start /bin/sh");
    let mut stdin = writer.stdin.take().expect("stdin is a pipe");
    write!(stdin, "#!/bin/sh\n{body}\n").expect("write a script");
    drop(stdin);
    let status = writer.wait().expect("wait for /bin/sh");
    assert!(status.success(), "write {}", path.display());
}
