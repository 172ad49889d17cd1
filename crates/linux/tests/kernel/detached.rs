//! Processes that outlive the process that has started them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::{env, process};

use linux::process::detach;
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// Names the directory of [`starter`]. If it is set, the test itself is the starter.
const FOLDER: &str = "DETACHED_FOLDER";
/// The long time in which a process must have ended.
const SOON: Duration = Duration::from_secs(20);

/// The process that detaches another one. The other one waits until `go` is opened, and then writes to `report`. It uses
/// a FIFO for each, so that no one has to look again and again.
#[allow(clippy::disallowed_macros, reason = "the output of this process is part of the test")]
fn starter(folder: &Path) {
    let [go, report] = ["go", "report"].map(|name| folder.join(name));
    let _open = File::open(folder).expect("open the directory");
    write!(io::stdout(), "from the starter").expect("write to stdout");
    detach(move || {
        let descriptors = descriptors();
        let _ = write!(io::stdout(), "from the copy");
        fs::read(go).expect("wait for the test");
        fs::write(report, format!("{descriptors}{}", standing())).expect("report");
        panic!("from the copy");
    })
    .expect("start the copy");
}

/// Each open descriptor with its file, without the one that this function opens.
fn descriptors() -> String {
    let entries: Vec<_> =
        fs::read_dir("/proc/self/fd").expect("own descriptors").flatten().map(|entry| entry.path()).collect();
    let links = entries.iter().filter_map(|path| Some((path, fs::read_link(path).ok()?)));
    let mut lines: Vec<_> = links.map(|(path, file)| format!("{} {}\n", path.display(), file.display())).collect();
    lines.sort();
    lines.concat()
}

/// The session, the working directory and the blocked signals of this process.
fn standing() -> String {
    // SAFETY: getsid(2) takes only a number. 0 is this process.
    let session = unsafe { libc::getsid(0) };
    let status = fs::read_to_string("/proc/self/status").expect("own status");
    let blocked = status.lines().find(|line| line.starts_with("SigBlk:")).expect("blocked signals");
    let folder = env::current_dir().expect("own directory");
    let is_leader = session.unsigned_abs() == process::id();
    format!("leads its session: {is_leader}\nin {}\n{blocked}\n", folder.display())
}

fn block_sigterm() {
    // SAFETY: all bytes zero are a valid `sigset_t`, and the set is a local variable.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Runs [`starter`] to its end, and to the end of its output.
fn start(folder: &Path) -> Output {
    let mut command = Command::new(env::current_exe().expect("own path"));
    let test = "detached::a_detached_process_outlives_its_parent_and_keeps_nothing_of_it";
    // With one test thread, the test runs in the main thread.
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).current_dir(folder).stdin(Stdio::null());
    // SAFETY: sigprocmask(2) can be called between fork(2) and execve(2).
    unsafe {
        command.pre_exec(|| {
            block_sigterm();
            Ok(())
        })
    };
    command.output().expect("run the starter")
}

fn within<T: Send + 'static>(time: Duration, what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(time).unwrap_or_else(|_| panic!("{what}: not within {time:?}"))
}

#[test]
fn a_detached_process_outlives_its_parent_and_keeps_nothing_of_it() {
    if let Some(folder) = env::var_os(FOLDER) {
        return starter(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let [go, report] = ["go", "report"].map(|name| folder.path().join(name));
    for path in [&go, &report] {
        mkfifo(path, Mode::S_IRWXU).unwrap();
    }
    let path = folder.path().to_owned();
    let ended = within(SOON, "the end of the parent's output", move || start(&path));
    let [stdout, stderr] = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(ended.status.success(), "{stdout}{stderr}");
    assert_eq!(stdout.matches("from the starter").count(), 1, "{stdout}");
    assert!(!format!("{stdout}{stderr}").contains("from the copy"), "{stdout}{stderr}");

    let reported = within(SOON, "the report", move || {
        File::create(go).unwrap().write_all(b"go").unwrap();
        fs::read_to_string(report).unwrap()
    });
    let streams = [0, 1, 2].map(|number| format!("/proc/self/fd/{number} /dev/null\n")).concat();
    let expected = format!("{streams}leads its session: true\nin /\nSigBlk:\t0000000000000000\n");
    assert_eq!(reported, expected);
}
