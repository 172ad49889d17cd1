//! The outcome of a call of `ctr` or podman.

use std::process::{ExitStatus, Output};

#[derive(Clone, Debug)]
pub struct Ctr {
    /// For `ctr run`, the status of the container.
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    label: String,
    log: String,
}

impl Ctr {
    /// `log` is the log of the daemon.
    pub(crate) fn new(label: String, output: &Output, log: String) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            label,
            log,
        }
    }

    /// All of it, for the message of an assertion.
    pub fn text(&self) -> String {
        let Self { status, stdout, stderr, label, log } = self;
        format!("{label}: {status}\nstdout: {stdout}\nstderr: {stderr}\nlog:\n{log}")
    }

    /// Asserts success, and returns the stdout.
    #[track_caller]
    pub fn done(&self) -> &str {
        assert!(self.status.success(), "did not succeed: {}", self.text());
        &self.stdout
    }

    /// Asserts failure with a message that names all of these.
    #[track_caller]
    pub fn fails(&self, names: &[&str]) {
        assert_eq!(self.status.code(), Some(1), "did not fail: {}", self.text());
        for name in names {
            assert!(self.stderr.contains(name), "the message does not name {name:?}: {}", self.text());
        }
    }
}
