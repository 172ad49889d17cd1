//! Boots a guest, reads its output and ends it. [`crate::init`] runs inside.
//!
//! User-Mode Linux is a program that runs a kernel. It uses the root file system of the machine (hostfs). Its processes
//! are also processes of the machine, and would continue if only the kernel died. So it runs in a PID namespace, which
//! ends with this program and ends all of them.

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

/// The path of the plan, for init in the guest.
pub(crate) const PLAN_VARIABLE: &str = "UNDERLAY_GUEST_PLAN";
/// Init prints this line after the boot. The lines after it are printed to the terminal.
pub(crate) const UP: &str = "lanes: the guest is up";

const PROGRAM: &str = "linux.uml";
/// The maximum memory of the guest.
const MEMORY: &str = "2G";
/// The longest time until an interrupt or a guest that hangs is noticed.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The longest time from the last line to the end of the process, and from the kill to the end.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// The number of lines of the console that are printed after an error.
const TAIL: usize = 60;
const VARIABLES: &str = "PATH UNDERLAY_BIN UNDERLAY_REFERENCE_BIN UNDERLAY_PEERS CARGO_TARGET_DIR UNDERLAY_FAULTS \
    UNDERLAY_FAULTS_OFFSET RUST_BACKTRACE LANG";

/// The directory that this program and the guest share.
#[derive(Clone, Debug)]
pub(crate) struct Exchange(PathBuf);

impl Exchange {
    /// The directory of the plan at this path.
    pub(crate) fn of_plan(plan: &Path) -> Self {
        Self(plan.parent().map(Path::to_owned).unwrap_or_default())
    }

    pub(crate) fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.0.join("report.json")
    }

    /// "ok" or the error of init.
    pub(crate) fn status(&self) -> PathBuf {
        self.0.join("status")
    }

    /// A mount point.
    pub(crate) fn cover(&self) -> PathBuf {
        self.0.join("cover")
    }

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

/// Boots a guest, runs the suite in it, and returns its report.
pub(crate) fn run(suite: &Suite) -> Result<Report, String> {
    let folders = suite.programs().filter_map(|executable| executable.program.parent().map(Path::to_owned));
    visit("suite", json!(suite), folders, |exchange| {
        serde_json::from_str(&read(exchange.report())?).map_err(|e| format!("read the guest's report: {e}"))
    })
}

/// Boots a guest, runs a program with its arguments in it, and prints its output.
pub(crate) fn run_command(command: &[String]) -> Result<(), String> {
    let program = command.first().ok_or("there is no command to run in the guest")?;
    let program = fs::canonicalize(program).map_err(|e| format!("{program}: {e}"))?;
    let words = [program.to_string_lossy().into_owned()].into_iter().chain(command[1..].iter().cloned());
    let words: Vec<String> = words.collect();
    visit("command", json!(words), program.parent().map(Path::to_owned).into_iter(), |_| Ok(()))
}

/// Boots a guest for a suite or a command, and returns the result.
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
    // A copy of the running program: the build of the tests may have replaced the file.
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

/// The suite or command, the environment, and the paths that must stay visible although the guest has its own /tmp and
/// /run.
fn plan(kind: &str, errand: Value, folders: impl Iterator<Item = PathBuf>, exchange: &Exchange) -> Value {
    let environment: Vec<(&str, String)> =
        VARIABLES.split(' ').filter_map(|name| Some((name, env::var(name).ok()?))).collect();
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

fn compile_preload(to: &Path) -> Result<(), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/xstate.c");
    let status = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(to).arg(&source).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("compile {}: cc: {status}", source.display())),
        Err(e) => Err(format!("start cc: {e}")),
    }
}

fn read(path: PathBuf) -> Result<String, String> {
    fs::read_to_string(&path).map_err(|e| format!("the guest ended without {}: {e}", path.display()))
}

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
        // The kernel's command line cannot have other characters.
        let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'"';
        if !exchange.0.as_os_str().as_encoded_bytes().iter().all(plain) {
            let path = exchange.0.display();
            return Err(format!("{path}: a guest cannot use a path with spaces or special characters: set TMPDIR"));
        }
        // Its memory is on a new tmpfs, because /dev/shm may be small or not allow execution.
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

    /// Prints its output until it ends.
    fn listen(&mut self) -> Result<(), String> {
        let mut watch = Watch::new(watch::patience()?, Instant::now());
        let mut up = false;
        loop {
            match self.console.recv_timeout(CHECK_EVERY) {
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

    /// Waits for the end of a guest that has closed its console. Its exit status does not matter, because the guest has
    /// written a file with the status.
    fn wait(&mut self) -> Result<(), String> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let (done, watched) = mpsc::channel::<()>();
        let killed = thread::scope(|scope| {
            let watch = scope.spawn(move || {
                let late = watched.recv_timeout(ENDS_WITHIN) == Err(RecvTimeoutError::Timeout);
                late && kill(pid, Signal::SIGKILL).is_ok()
            });
            let waited = self.child.wait();
            drop(done);
            let killed = watch.join().unwrap_or_default();
            waited.map(|_| killed).map_err(|e| format!("wait for the guest: {e}"))
        })?;
        if killed { Err(format!("the guest did not end within {ENDS_WITHIN:?}, and was killed")) } else { Ok(()) }
    }

    fn tail(&self) -> String {
        let lines: Vec<String> = self.tail.iter().map(|line| format!("  | {line}")).collect();
        format!("the end of the guest's console:\n{}", lines.join("\n"))
    }
}

impl Drop for Guest {
    /// Kills the guest if it runs. The console closes when its last process has ended.
    fn drop(&mut self) {
        // Both do nothing if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        while self.console.recv_timeout(ENDS_WITHIN).is_ok() {}
    }
}

fn assignment(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(format!("{name}="));
    text.push(path);
    text
}

/// Reads lines of any bytes, without the characters that a terminal adds at their end.
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
