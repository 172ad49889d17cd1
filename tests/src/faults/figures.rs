//! The figures of a scenario. They are printed as one line of JSON, also by a guest.

use std::fmt;
use std::io::Write;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::End;

const PREFIX: &str = "faults: ";
const PROGRESS: usize = 200;

/// The figures of one scenario, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The name of the scenario.
    pub name: String,
    pub calls: usize,
    pub possible: usize,
    pub injected: usize,
    /// Runs that were killed.
    pub killed: usize,
    pub failed: usize,
    pub succeeded: usize,
    /// Runs that ended with an abort.
    pub aborted: usize,
    /// Runs that did not make the call.
    pub missed: usize,
    pub leaks: Vec<String>,
    pub millis: u64,
}

impl Figures {
    pub(super) fn new(name: String, calls: usize, possible: usize) -> Self {
        Self { name, calls, possible, ..Self::default() }
    }

    pub(super) fn count(&mut self, end: End, struck: bool) {
        if !struck {
            self.missed += 1;
            return;
        }
        self.injected += 1;
        *match end {
            End::Killed => &mut self.killed,
            End::Failed => &mut self.failed,
            End::Succeeded => &mut self.succeeded,
            End::Aborted => &mut self.aborted,
        } += 1;
    }

    pub(super) fn leak(&mut self, what: String) {
        self.injected += 1;
        say(&format!("LEAK: {what}"));
        self.leaks.push(what);
    }

    pub(super) fn report_progress(&self, begun: Instant) {
        let done = self.injected + self.missed;
        if done.is_multiple_of(PROGRESS) {
            say(&format!("  {}: {done} of {} after {:.0} s", self.name, self.possible, begun.elapsed().as_secs_f64()));
        }
    }

    pub(super) fn end(mut self, begun: Instant) -> Self {
        self.millis = begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        say(&self.to_line());
        self
    }

    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.possible += other.possible;
        self.injected += other.injected;
        self.killed += other.killed;
        self.failed += other.failed;
        self.succeeded += other.succeeded;
        self.aborted += other.aborted;
        self.missed += other.missed;
        self.leaks.extend(other.leaks.iter().cloned());
        self.millis += other.millis;
    }

    /// The figures of a line that a test has printed. `None` for another line.
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim().strip_prefix(PREFIX)?).ok()
    }

    fn to_line(&self) -> String {
        format!("{PREFIX}{}", json!(self))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} faults injected: {} killed, {} returned an error, {} succeeded nevertheless, {} aborted; {} leaks",
            self.injected,
            self.killed,
            self.failed,
            self.succeeded,
            self.aborted,
            self.leaks.len()
        )
    }
}

/// Prints at once. The test harness would print it only at the end.
fn say(line: &str) {
    // The line may be lost if stdout is closed.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_read_again() {
        let mut figures = Figures::new("macvlan ADD".into(), 200, 900);
        figures.count(End::Failed, true);
        figures.count(End::Succeeded, false);
        figures.leaks.push("a \"leak\"".into());
        assert_eq!((figures.injected, figures.failed, figures.missed), (1, 1, 1));
        assert_eq!(Figures::from_line(&figures.to_line()), Some(figures));
        assert_eq!(Figures::from_line("test a ... ok"), None);
    }
}
