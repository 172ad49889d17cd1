//! A node: a machine of the LAN with its own directories, mounts, control groups and host name. Its programs use their
//! default paths.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use e2e::lab::Machine;
use e2e::patience::await_within;
use e2e::runtime::{PATH, copy_shared_etc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::init::{self, LOGS, OWN_FILES, PRIVATE, pid};

const FIRST_LOG: &str = "node";

/// Without these names nft prints numbers. Then kube-proxy, when it starts again, takes its own rules for others'.
const PROTOCOLS: &str = "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n";

/// The longest time that all processes of a node may take to end.
const END: Duration = Duration::from_secs(60);

/// A running node. Its drop ends all its processes.
#[derive(Debug)]
pub struct Node {
    /// Its name in Kubernetes.
    pub name: &'static str,
    pub machine: Machine,
    root: PathBuf,
    processes: Mutex<Processes>,
    /// The process ID of kube-proxy, if it runs.
    kube_proxy: Mutex<Option<Pid>>,
}

/// The supervisor, and the pipes to the first process.
#[derive(Debug)]
struct Processes {
    supervisor: Child,
    // None after the end of the node.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    first: u32,
}

impl Node {
    /// Creates the directories of a node below `root`, and starts it without any daemon.
    pub fn new(name: &'static str, machine: Machine, root: &Path) -> Self {
        for directory in PRIVATE {
            let is_hidden = root.starts_with(Path::new("/").join(directory));
            assert!(!is_hidden, "a node hides {}: set TMPDIR to another directory", root.display());
            make(&root.join(directory));
        }
        make(&root.join(LOGS));
        copy_shared_etc(&root.join("etc"));
        // In Debian, /usr/sbin/iptables is a link to a link there.
        let status = Command::new("cp").args(["--archive", "/etc/alternatives"]).arg(root.join("etc")).status();
        assert!(status.expect("start cp").success(), "copy /etc/alternatives");
        write(&root.join("etc/protocols"), PROTOCOLS);
        let id = uuid().replace('-', "");
        write(&root.join("etc/machine-id"), &id);
        for (path, file) in OWN_FILES {
            let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("read {path}: {e}"));
            write(&root.join(file), &text);
        }
        write(&root.join("boot_id"), &uuid());
        let processes = Processes::start(name, &machine, root);
        Self { name, machine, root: root.to_owned(), processes: Mutex::new(processes), kube_proxy: Mutex::new(None) }
    }

    /// Starts a program with the directories of `peers` first in its PATH. Returns its process ID.
    pub fn spawn(&self, log: &str, peers: &[PathBuf], command: &[&str]) -> Pid {
        let path: Vec<String> = peers.iter().map(|peer| peer.display().to_string()).collect();
        let path = [&path[..], &[PATH.to_owned()]].concat().join(":");
        let line = json!({"log": log, "path": path, "command": command}).to_string();
        self.processes().ask(&line).unwrap_or_else(|e| panic!("start {command:?}: {e}:\n{}", self.log(FIRST_LOG)))
    }

    /// Kills all processes and starts the node again without any daemon. /run is then empty, and the boot ID has
    /// changed. The other directories stay.
    pub fn reboot(&self) {
        let mut processes = self.processes();
        processes.end(&self.root);
        *self.kube_proxy() = None;
        let run = self.root.join("run");
        fs::remove_dir_all(&run).unwrap_or_else(|e| panic!("empty {}: {e}", run.display()));
        make(&run);
        write(&self.root.join("boot_id"), &uuid());
        *processes = Processes::start(self.name, &self.machine, &self.root);
    }

    /// A command that runs the program of its further arguments in the node.
    pub fn enter(&self) -> Command {
        let first = self.processes().first.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &first, "--mount", "--net", "--uts", "--"]);
        command
    }

    /// Runs a program in the node. Returns its stdout. Panics if it fails.
    pub fn run(&self, command: &[&str]) -> String {
        let output = self.enter().args(command).output().expect("start nsenter");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} on {}: {}: {stderr}", self.name, output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Kills all shims of containerd and all processes in network namespaces of pods, and waits until they are gone.
    pub fn kill_shims_and_pods(&self) {
        let first = self.processes().first;
        let namespace = |process: u32, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
        let mounts = namespace(first, "mnt");
        let pods: Vec<_> = self.pod_namespace_ids();
        let is_meant = |process: u32| {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            let is_shim = name.starts_with("containerd-shim") && namespace(process, "mnt") == mounts;
            is_shim || namespace(process, "net").is_some_and(|netns| pods.contains(&netns))
        };
        await_within(END, "shims and pods are gone", || {
            let meant: Vec<u32> = init::processes()?.filter(|process| is_meant(*process)).collect();
            for process in &meant {
                let _ = kill(pid(*process), Signal::SIGKILL);
            }
            if meant.is_empty() { Ok(()) } else { Err(format!("{meant:?}")) }
        });
    }

    /// The directory with the node's own directories, without the file systems that the node mounts in them.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path by which this process reaches a path of the node, with all mounts of the node.
    pub fn see(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.processes().first))
    }

    pub fn write(&self, path: &str, text: &str) {
        write(&self.root.join(path.trim_start_matches('/')), text);
    }

    /// The log of a program.
    pub fn log(&self, name: &str) -> String {
        let path = self.root.join(LOGS).join(name);
        fs::read(&path).map_or_else(|e| e.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn log_ends(&self, lines: usize) -> String {
        let mut text = String::new();
        for name in names(&self.root.join(LOGS)) {
            let log = self.log(&name);
            let all: Vec<&str> = log.lines().collect();
            let end = all[all.len().saturating_sub(lines)..].join("\n");
            text += &format!("---- {} of {}:\n{end}\n", name, self.name);
        }
        text
    }

    /// The sorted names in a directory of the node. Without the directory, there are none.
    pub fn names_in(&self, path: &str) -> Vec<String> {
        names(&self.see(path))
    }

    pub(crate) fn kube_proxy(&self) -> MutexGuard<'_, Option<Pid>> {
        self.kube_proxy.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.processes().end(&self.root);
    }
}

impl Processes {
    fn start(name: &str, machine: &Machine, root: &Path) -> Self {
        let log = File::options().create(true).append(true).open(root.join(LOGS).join(FIRST_LOG));
        let log = log.expect("open a node's log");
        // The name of the Lab's directory is unique, so the name of the group is unique too.
        let group = root.strip_prefix(std::env::temp_dir()).unwrap_or(root);
        let group = group.to_string_lossy().trim_matches('/').replace('/', "-");
        let mut supervisor = machine.run(|| {
            Command::new(program())
                .arg(root)
                .args([name, &group])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|e| panic!("start {}: {e}", program().display()))
        });
        let commands = supervisor.stdin.take();
        let answers = BufReader::new(supervisor.stdout.take().expect("stdout is a pipe"));
        let mut processes = Self { supervisor, commands, answers, first: 0 };
        processes.first = processes.read().unwrap_or_else(|e| {
            let log = fs::read_to_string(root.join(LOGS).join(FIRST_LOG)).unwrap_or_default();
            panic!("start a node: {e}:\n{log}")
        });
        processes
    }

    fn ask(&mut self, line: &str) -> Result<Pid, String> {
        let commands = self.commands.as_mut().ok_or("the node has ended")?;
        writeln!(commands, "{line}").map_err(|e| e.to_string())?;
        self.read().map(pid)
    }

    fn read(&mut self) -> Result<u32, String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|e| e.to_string())?;
        line.trim().parse().map_err(|_| format!("the node answers {line:?}"))
    }

    /// The end of the pipe ends the first process, and so the node. The same happens when the test is killed.
    fn end(&mut self, root: &Path) {
        if self.commands.take().is_none() {
            return;
        }
        await_within(END, "the processes of a node end", || match self.supervisor.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => {
                let log = fs::read_to_string(root.join(LOGS).join(FIRST_LOG)).unwrap_or_default();
                // In a failed test, a second panic would abort the process.
                assert!(std::thread::panicking(), "the supervisor of a node: {status}:\n{log}");
                Ok(())
            }
            Ok(None) => Err("the supervisor is still there".to_owned()),
            Err(e) => Err(e.to_string()),
        });
    }
}

/// The program `node`. cargo puts it one directory above the test executables.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("find this program");
    let program = test.ancestors().skip(1).take(2).map(|directory| directory.join("node"));
    program.into_iter().find(|program| program.is_file()).expect("cargo has built the program `node`")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").expect("ask the kernel for an ID").trim().to_owned()
}

fn make(directory: &Path) {
    fs::create_dir_all(directory).unwrap_or_else(|e| panic!("make {}: {e}", directory.display()));
}

fn write(path: &Path, text: &str) {
    make(path.parent().expect("a file in a directory"));
    fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}
