//! A command that runs beside the guest, which leaves the machine a processor: it builds something that a later lane needs.

use std::process::{Child, Command, Stdio};

/// A shell command in the background. It ends with this program, however this program ends.
#[derive(Debug)]
pub(crate) struct Meanwhile {
    command: String,
    child: Child,
}

impl Meanwhile {
    /// Starts it, at the lowest priority.
    pub(crate) fn start(command: &str) -> Result<Self, String> {
        // A PID namespace: its end is the end of all processes that the command starts.
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

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|e| format!("wait for {}: {e}", self.command))?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", self.command)) }
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        // It has ended already, except after an error elsewhere.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A build goes on in processes that the shell has started.
    #[test]
    fn dropped_it_ends_with_all_its_processes() {
        let folder = tempfile::tempdir().expect("make a directory");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
        let meanwhile = Meanwhile::start(&format!("(echo begun; sleep 600) >{} & wait", pipe.display()));
        let mut reader = std::io::BufReader::new(std::fs::File::open(&pipe).expect("open a pipe"));
        let mut text = String::new();
        std::io::BufRead::read_line(&mut reader, &mut text).expect("read a pipe");
        drop(meanwhile);
        // It ends when nobody has the other end any more.
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
