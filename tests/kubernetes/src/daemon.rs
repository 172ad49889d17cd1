//! A node for one daemon that a test can kill, pause and start again.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Node;
use crate::containerd::kill_now;

/// A daemon on a node of its own. Its files stay until it is dropped.
#[derive(Debug)]
pub struct Daemon {
    pub node: Node,
    /// The directories of its program.
    peers: Vec<PathBuf>,
    command: Vec<String>,
    /// `None` if it does not run.
    pid: Mutex<Option<Pid>>,
}

impl Daemon {
    /// Starts it. The first word of the command is the name of the program, and of its log.
    pub(crate) fn start_on(node: Node, peers: Vec<PathBuf>, command: Vec<String>) -> Self {
        let daemon = Self { node, peers, command, pid: Mutex::new(None) };
        daemon.start();
        daemon
    }

    /// Starts it, unless it runs. Does not wait until it serves.
    pub fn start(&self) {
        let mut pid = self.pid();
        if pid.is_none() {
            let words: Vec<&str> = self.command.iter().map(String::as_str).collect();
            *pid = Some(self.node.spawn(words[0], &self.peers, &words));
        }
    }

    /// Ends it by SIGKILL, if it runs, and waits until it is gone.
    pub fn stop(&self) {
        if let Some(pid) = self.pid().take() {
            kill_now(pid);
        }
    }

    /// Ends it by SIGKILL and starts it again. Does not wait until it serves.
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    /// Stops it by SIGSTOP. Its kernel still accepts connections, but nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Continues it after [`Daemon::pause`].
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.node.log(&self.command[0])
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().unwrap_or_else(|| panic!("{} does not run", self.command[0]));
        kill(pid, signal).unwrap_or_else(|e| panic!("send {signal} to {}: {e}", self.command[0]));
    }

    fn pid(&self) -> MutexGuard<'_, Option<Pid>> {
        self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
