//! The program `node`. Its supervisor starts the first process of a node. The first process creates the namespaces of
//! the node and starts the daemons, and it ends with the test. Then the supervisor kills all processes of the node and
//! removes its control groups.
//!
//! A node has no PID namespace of its own, because host-local searches for network namespaces only if it sees all
//! processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, dup2_stdout, sethostname, setsid};
use serde_json::Value;

use crate::group::Group;

/// The argument of the first process. Without it, the program is the supervisor.
const FIRST: &str = "--first";

/// The directories that each node has for itself. It shares all others with the machine.
pub(crate) const PRIVATE: [&str; 5] = ["etc", "opt", "run", "var/lib", "var/log"];

/// Files of /proc that each node replaces by a file of its own, with the name of that file. A reboot changes the boot
/// ID. The kubelet writes to the others, and must not change the machine.
pub(crate) const OWN_FILES: [(&str, &str); 7] = [
    ("/proc/sys/kernel/random/boot_id", "boot_id"),
    ("/proc/sys/kernel/panic", "panic"),
    ("/proc/sys/kernel/panic_on_oops", "panic_on_oops"),
    ("/proc/sys/kernel/keys/root_maxbytes", "root_maxbytes"),
    ("/proc/sys/kernel/keys/root_maxkeys", "root_maxkeys"),
    ("/proc/sys/vm/overcommit_memory", "overcommit_memory"),
    ("/proc/sys/vm/panic_on_oom", "panic_on_oom"),
];

/// The directory of the logs, below the directory of the node.
pub(crate) const LOGS: &str = "logs";

/// `node ROOT NAME GROUP`. [`crate::Node`] writes commands to its stdin.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        [FIRST, root, name, group] => be_first(Path::new(root), name, group),
        [root, name, group] => supervise(root, name, group),
        _ => Err("usage: node ROOT NAME GROUP".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Stderr is the log of the node.
            let _ = writeln!(io::stderr(), "node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(root: &str, name: &str, group: &str) -> Result<(), String> {
    // Ctrl-C must end only the test. The end of the test then ends the node.
    setsid().map_err(|e| format!("leave the terminal: {e}"))?;
    set_child_subreaper(true).map_err(|e| format!("become the parent of orphans: {e}"))?;
    let groups = Group::new(group)?;
    let program = std::env::current_exe().map_err(|e| format!("find this program: {e}"))?;
    let first = Command::new(program).args([FIRST, root, name, group]).spawn();
    let first = first.map_err(|e| format!("start the first process: {e}"))?;
    // The test reads stdout until the first process closes it, so the supervisor must not hold it open.
    let null = OpenOptions::new().write(true).open("/dev/null").map_err(|e| format!("open /dev/null: {e}"))?;
    dup2_stdout(&null).map_err(|e| format!("replace stdout: {e}"))?;
    let first = pid(first.id());
    // This loop also reaps orphans of the node.
    while waitpid(None, None).map_err(|e| format!("wait for a process: {e}"))?.pid() != Some(first) {}
    end_all()?;
    groups.remove();
    Ok(())
}

/// Kills all children until none is left. The kernel makes the children of a killed process our children.
fn end_all() -> Result<(), String> {
    loop {
        for child in children()? {
            // The process may have ended already.
            let _ = kill(child, Signal::SIGKILL);
        }
        match waitpid(None, None) {
            Ok(_) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(e) => return Err(format!("wait for a process: {e}")),
        }
    }
}

fn children() -> Result<Vec<Pid>, String> {
    let own = std::process::id();
    Ok(processes()?.filter(|number| parent(*number) == Some(own)).map(pid).collect())
}

/// The numbers of all processes.
pub(crate) fn processes() -> Result<impl Iterator<Item = u32>, String> {
    let entries = fs::read_dir("/proc").map_err(|e| format!("read /proc: {e}"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The number of the parent is the second field after the name, which is in parentheses. (proc_pid_stat(5))
fn parent(process: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

pub(crate) fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap_or(i32::MAX))
}

fn be_first(root: &Path, name: &str, group: &str) -> Result<(), String> {
    let groups = Group::new(group)?;
    groups.enter()?;
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(|e| format!("a node needs root: {e}"))?;
    sethostname(name).map_err(|e| format!("set the host name: {e}"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| format!("make the mounts private: {e}"))?;
    groups.mount()?;
    let own_files = OWN_FILES.map(|(path, file)| (root.join(file), PathBuf::from(path)));
    let directories = PRIVATE.map(|directory| (root.join(directory), Path::new("/").join(directory)));
    for (from, to) in own_files.into_iter().chain(directories) {
        mount(Some(&from), &to, none, MsFlags::MS_BIND, none)
            .map_err(|e| format!("mount {} on {}: {e}", from.display(), to.display()))?;
    }
    serve(root)
}

/// Starts a program for each line of stdin, and answers with its process ID.
fn serve(root: &Path) -> Result<(), String> {
    answer(std::process::id())?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| format!("read a command: {e}"))?;
        let command: Value = serde_json::from_str(&line).map_err(|e| format!("{line}: {e}"))?;
        let log = root.join(LOGS).join(command["log"].as_str().unwrap_or("log"));
        let log = OpenOptions::new().create(true).append(true).open(&log).map_err(|e| format!("open a log: {e}"))?;
        let child = start(&command, &log)?;
        answer(child.id())?;
        thread::spawn(move || reap(child, log));
    }
    Ok(())
}

fn start(command: &Value, log: &File) -> Result<Child, String> {
    let words = command["command"].as_array().map_or(&[][..], Vec::as_slice);
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let (program, arguments) = words.split_first().ok_or("a command without a program")?;
    let copy = || log.try_clone().map_err(|e| format!("copy the descriptor of a log: {e}"));
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", command["path"].as_str().unwrap_or_default())
        .env("HOME", "/run")
        .stdin(Stdio::null())
        .stdout(copy()?)
        .stderr(copy()?)
        .spawn()
        .map_err(|e| format!("start {program}: {e}"))
}

fn reap(mut child: Child, mut log: File) {
    let end = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    let _ = writeln!(log, "(process {} ended: {end})", child.id());
}

fn answer(number: u32) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{number}").and_then(|()| stdout.flush()).map_err(|e| format!("answer: {e}"))
}
