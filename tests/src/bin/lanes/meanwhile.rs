//! A command that runs while the guest runs, which uses only one processor. It builds programs for a later lane.

use std::process::{Child, Command, Stdio};

/// A shell command in the background. It ends with this program, also if this program is killed.
#[derive(Debug)]
pub(crate) struct Meanwhile {
    command: String,
    child: Child,
}

impl Meanwhile {
    /// Starts the command with the lowest priority.
    pub(crate) fn start(command: &str) -> Result<Self, String> {
        // The PID namespace ends all processes that the command has started.
        let mut words = vec!["--pdeathsig", "KILL", "--", "unshare"];
        if !nix::unistd::geteuid().is_root() {
            words.extend(["--user", "--map-root-user"]);
        }
        words.extend(["--pid", "--fork", "--kill-child=KILL", "--", "nice", "-n", "19", "sh", "-c", command]);
        let child = Command::new("setpriv")
            .args(words)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("start setpriv, of util-linux: {e}"))?;
        Ok(Self { command: command.to_owned(), child })
    }

    pub(crate) fn wait(mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|e| format!("wait for {}: {e}", self.command))?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", self.command)) }
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        // Both do nothing if the command has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_it_ends_all_its_processes() {
        let folder = tempfile::tempdir().expect("make a directory");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
        let meanwhile = Meanwhile::start(&format!("(echo begun; sleep 600) >{} & wait", pipe.display()));
        let mut reader = std::io::BufReader::new(std::fs::File::open(&pipe).expect("open a pipe"));
        let mut text = String::new();
        std::io::BufRead::read_line(&mut reader, &mut text).expect("read a pipe");
        drop(meanwhile);
        // The pipe ends when no process has its other end.
        std::io::Read::read_to_string(&mut reader, &mut text).expect("read a pipe");
        assert_eq!(text, "begun\n");
    }

    #[test]
    fn a_command_that_fails_is_named() {
        assert_eq!(Meanwhile::start("true").and_then(Meanwhile::wait), Ok(()));
        let failed = Meanwhile::start("exit 3").and_then(Meanwhile::wait);
        assert_eq!(failed, Err("exit 3: exit status: 3".to_owned()));
    }
}
