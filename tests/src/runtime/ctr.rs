//! The outcome of a call of `ctr`.

use std::process::{ExitStatus, Output};

/// A call of `ctr` that has ended.
#[derive(Clone, Debug)]
pub struct Ctr {
    /// How it ended; `ctr run` passes on how the container did.
    pub status: ExitStatus,
    /// What it, or the container, printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
    label: String,
    log: String,
}

impl Ctr {
    /// `log` is what containerd has said so far.
    pub(crate) fn new(label: String, output: &Output, log: String) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            label,
            log,
        }
    }

    /// Everything about it, for an assertion's message.
    pub fn text(&self) -> String {
        let Self { status, stdout, stderr, label, log } = self;
        format!("{label}: {status}\nstdout: {stdout}\nstderr: {stderr}\ncontainerd says:\n{log}")
    }

    /// Asserts success, and returns what was printed.
    #[track_caller]
    pub fn done(&self) -> &str {
        assert!(self.status.success(), "did not succeed: {}", self.text());
        &self.stdout
    }

    /// Asserts failure with a complaint that names all of these.
    #[track_caller]
    pub fn fails(&self, names: &[&str]) {
        assert_eq!(self.status.code(), Some(1), "did not fail: {}", self.text());
        for name in names {
            assert!(self.stderr.contains(name), "the complaint does not name {name:?}: {}", self.text());
        }
    }
}
