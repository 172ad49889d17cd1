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
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "nice", "-n", "19", "sh", "-c", command])
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

    #[test]
    fn a_command_that_fails_is_named() {
        assert_eq!(Meanwhile::start("true").and_then(Meanwhile::wait), Ok(()));
        let failed = Meanwhile::start("exit 3").and_then(Meanwhile::wait);
        assert_eq!(failed, Err("exit 3: exit status: 3".to_owned()));
    }
}
