//! Boots a guest, reads its output and ends it. [`crate::init`] runs inside.
//!
//! User-Mode Linux is a program that runs a kernel, with the root file system of the machine as its own (hostfs). Its
//! processes are processes of the machine too, and would continue on its kernel if it died alone. So it has a PID
//! namespace, which ends with us and ends all of them.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use e2e::interrupt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::suite::{Report, Suite};
use crate::watch::{self, Watch};

/// Names the plan, for init in the guest.
pub(crate) const PLAN_VARIABLE: &str = "UNDERLAY_GUEST_PLAN";
/// What init says when the guest is up: the boot is over, and what follows is for the terminal.
pub(crate) const UP: &str = "lanes: the guest is up";

const PROGRAM: &str = "linux.uml";
/// The guest's memory, of which it takes what it needs.
const MEMORY: &str = "2G";
/// The longest time until an interruption or a guest that stands still is noticed.
const LOOKS_UP_EVERY: Duration = Duration::from_millis(500);
/// From the last word to the end of the process, and from being killed to being gone.
const GOES_WITHIN: Duration = Duration::from_secs(20);
/// How much of the console is shown when something went wrong.
const TAIL: usize = 60;
/// Variables that tests may go by, taken along.
const VARIABLES: [&str; 9] = [
    "PATH",
    "UNDERLAY_BIN",
    "UNDERLAY_REFERENCE_BIN",
    "UNDERLAY_PEERS",
    "CARGO_TARGET_DIR",
    "UNDERLAY_FAULTS",
    "UNDERLAY_FAULTS_OFFSET",
    "RUST_BACKTRACE",
    "LANG",
];

/// The directory that this program and the guest share, and the names in it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange(PathBuf);

impl Exchange {
    /// The one that the plan at this path belongs to.
    pub(crate) fn of_plan(plan: &Path) -> Self {
        Self(plan.parent().map(Path::to_owned).unwrap_or_default())
    }

    /// What to run.
    pub(crate) fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    /// What came of it.
    pub(crate) fn report(&self) -> PathBuf {
        self.0.join("report.json")
    }

    /// How init ended: "ok", or what went wrong.
    pub(crate) fn status(&self) -> PathBuf {
        self.0.join("status")
    }

    /// A mount point.
    pub(crate) fn cover(&self) -> PathBuf {
        self.0.join("cover")
    }

    /// This program.
    pub(crate) fn program(&self) -> PathBuf {
        self.0.join("lanes")
    }

    fn memory(&self) -> PathBuf {
        self.0.join("memory")
    }

    fn preload(&self) -> PathBuf {
        self.0.join("xstate.so")
    }
}

/// Boots a guest, runs the suite in it, and brings its report home.
pub(crate) fn run(suite: &Suite) -> Result<Report, String> {
    let folders = suite.programs().filter_map(|executable| executable.program.parent().map(Path::to_owned));
    visit("suite", suite.to_json(), folders, |exchange| {
        let report = serde_json::from_str(&read(exchange.report())?).ok();
        report.as_ref().and_then(Report::from_json).ok_or_else(|| "the guest's report cannot be read".to_owned())
    })
}

/// Boots a guest and runs that command in it: a program and its arguments. What it prints is printed.
pub(crate) fn run_command(command: &[String]) -> Result<(), String> {
    let program = command.first().ok_or("there is no command to run in the guest")?;
    let program = fs::canonicalize(program).map_err(|e| format!("{program}: {e}"))?;
    let words = [program.to_string_lossy().into_owned()].into_iter().chain(command[1..].iter().cloned());
    let words: Vec<String> = words.collect();
    visit("command", json!(words), program.parent().map(Path::to_owned).into_iter(), |_| Ok(()))
}

/// Boots a guest for an errand, and takes home what came of it.
fn visit<T>(
    kind: &str,
    errand: Value,
    folders: impl Iterator<Item = PathBuf>,
    take_home: impl FnOnce(&Exchange) -> Result<T, String>,
) -> Result<T, String> {
    let directory = tempfile::Builder::new().prefix("underlay-guest.").tempdir();
    let directory = directory.map_err(|e| format!("make a directory for the guest: {e}"))?;
    let exchange = Exchange(directory.path().to_owned());
    for folder in [exchange.cover(), exchange.memory()] {
        fs::create_dir(&folder).map_err(|e| format!("make {}: {e}", folder.display()))?;
    }
    let plan = plan(kind, errand, folders, &exchange);
    fs::write(exchange.plan(), plan.to_string()).map_err(|e| format!("write {}: {e}", exchange.plan().display()))?;
    // Not by its own path: building the tests may have replaced the file there.
    let program = exchange.program();
    fs::copy("/proc/self/exe", &program).map_err(|e| format!("copy this program to {}: {e}", program.display()))?;
    compile_preload(&exchange.preload())?;

    let mut guest = Guest::boot(&exchange)?;
    let ended = guest.listen().and_then(|()| guest.wait());
    let outcome = ended.and_then(|()| match read(exchange.status())?.as_str() {
        "ok" => take_home(&exchange),
        status => Err(format!("in the guest: {status}")),
    });
    outcome.map_err(|error| format!("{error}\n{}", guest.tail()))
}

/// What to run, with which environment, and what of /tmp and /run has to stay visible: the guest has its own of those.
fn plan(kind: &str, errand: Value, folders: impl Iterator<Item = PathBuf>, exchange: &Exchange) -> Value {
    let environment: Vec<(&str, String)> =
        VARIABLES.into_iter().filter_map(|name| Some((name, env::var(name).ok()?))).collect();
    let mut needed: Vec<PathBuf> = vec![exchange.0.clone(), repository()];
    needed.extend(folders);
    needed.extend(environment.iter().filter(|(name, _)| name.ends_with("_BIN")).map(|(_, path)| path.into()));
    needed.sort();
    needed.dedup();
    json!({kind: errand, "environment": environment, "needed": needed})
}

fn repository() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::canonicalize(&path).unwrap_or(path)
}

/// See there why.
fn compile_preload(to: &Path) -> Result<(), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/xstate.c");
    let status = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(to).arg(&source).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("compile {}: cc: {status}", source.display())),
        Err(e) => Err(format!("start cc, which Rust too needs as its linker: {e}")),
    }
}

fn read(path: PathBuf) -> Result<String, String> {
    fs::read_to_string(&path).map_err(|e| format!("the guest ended without leaving {}: {e}", path.display()))
}

/// A guest that runs.
#[derive(Debug)]
struct Guest {
    child: Child,
    console: Receiver<String>,
    tail: VecDeque<String>,
}

impl Guest {
    fn boot(exchange: &Exchange) -> Result<Self, String> {
        let found =
            env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|at| at.join(PROGRAM).is_file()));
        if !found {
            return Err(format!("there is no {PROGRAM}: install user-mode-linux (Debian, Ubuntu)"));
        }
        // The kernel's command line has no way to write them.
        let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'"';
        if !exchange.0.as_os_str().as_encoded_bytes().iter().all(plain) {
            let path = exchange.0.display();
            return Err(format!("{path}: a path with spaces or the like cannot be named to a guest: set TMPDIR"));
        }
        // A tmpfs of its own for its memory: /dev/shm may be small, or not allow execution.
        let script = "mount -t tmpfs -o mode=700 none \"$0\" && exec \"$@\" 2>&1";
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "unshare"]);
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command
            .args(["--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc", "--", "sh", "-c", script])
            .arg(exchange.memory())
            .arg("env")
            .arg(assignment("LD_PRELOAD", &exchange.preload()))
            .args([PROGRAM, &format!("mem={MEMORY}"), "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"])
            .args(["con=null", "con0=fd:0,fd:1", "loglevel=4"])
            .arg(assignment("init", &exchange.program()))
            .arg(assignment(PLAN_VARIABLE, &exchange.plan()))
            .env("HOME", exchange.memory())
            .env("TMPDIR", exchange.memory())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(|e| format!("start setpriv, of util-linux: {e}"))?;
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (lines, console) = mpsc::channel();
        thread::spawn(move || read_lines(stdout, |line| lines.send(line).is_ok()));
        Ok(Self { child, console, tail: VecDeque::new() })
    }

    /// Passes on what it says, until it says no more.
    fn listen(&mut self) -> Result<(), String> {
        let mut watch = Watch::new(watch::patience()?, Instant::now());
        let mut up = false;
        loop {
            match self.console.recv_timeout(LOOKS_UP_EVERY) {
                Ok(line) => {
                    watch.hear(Instant::now());
                    if up {
                        println!("{line}");
                    }
                    up = up || line == UP;
                    self.remember(line);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    let used = watch::processor_time(self.child.id());
                    watch.look(Instant::now(), used).map_err(|why| format!("the guest {why}, and was killed"))?;
                }
            }
            interrupt::check()?;
        }
    }

    fn remember(&mut self, line: String) {
        self.tail.push_back(line);
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }

    /// Waits for the end of a guest that has closed its console. How it ended does not matter: what it has left does.
    fn wait(&mut self) -> Result<(), String> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let (done, watched) = mpsc::channel::<()>();
        let killed = thread::scope(|scope| {
            let watch = scope.spawn(move || {
                let late = watched.recv_timeout(GOES_WITHIN) == Err(RecvTimeoutError::Timeout);
                late && kill(pid, Signal::SIGKILL).is_ok()
            });
            let waited = self.child.wait();
            drop(done);
            let killed = watch.join().unwrap_or_default();
            waited.map(|_| killed).map_err(|e| format!("wait for the guest: {e}"))
        })?;
        if killed { Err(format!("the guest did not end within {GOES_WITHIN:?}, and was killed")) } else { Ok(()) }
    }

    fn tail(&self) -> String {
        let lines: Vec<String> = self.tail.iter().map(|line| format!("  | {line}")).collect();
        format!("the end of the guest's console:\n{}", lines.join("\n"))
    }
}

impl Drop for Guest {
    /// Whatever happened: nothing of it is left. The console closes when its last process is gone.
    fn drop(&mut self) {
        // Of a process that has ended already, both are no more than questions.
        let _ = self.child.kill();
        let _ = self.child.wait();
        while self.console.recv_timeout(GOES_WITHIN).is_ok() {}
    }
}

fn assignment(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(format!("{name}="));
    text.push(path);
    text
}

/// Lines as they come, whatever bytes they hold, without what a terminal adds.
fn read_lines(from: impl Read, mut take: impl FnMut(String) -> bool) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if !take(String::from_utf8_lossy(&line).trim_end().to_owned()) {
            return;
        }
        line.clear();
    }
}
