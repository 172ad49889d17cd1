//! What is counted, and how it is told: a line of JSON per scenario, which also comes out of a guest.

use std::fmt;
use std::io::Write;
use std::time::Instant;

use serde_json::{Value, json};

use super::End;

const PREFIX: &str = "faults: ";
const PROGRESS: usize = 200;

/// The figures of one scenario, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What was tried.
    pub name: String,
    pub calls: usize,
    pub possible: usize,
    pub injected: usize,
    /// Runs that were killed.
    pub killed: usize,
    pub failed: usize,
    pub succeeded: usize,
    /// Runs that ended in an abort: no memory, or no way home.
    pub aborted: usize,
    /// Runs in which the call did not come: it is not made in every one.
    pub missed: usize,
    pub leaks: Vec<String>,
    /// How long it took, in ms.
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
        say(&format!("{PREFIX}{}", self.to_json()));
        self
    }

    /// Adds those of another scenario.
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

    /// Of a line that some test has printed; `None` of any other.
    pub fn from_line(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line.trim().strip_prefix(PREFIX)?).ok()?;
        let number = |key: &str| value[key].as_u64().and_then(|number| usize::try_from(number).ok());
        Some(Self {
            name: value["name"].as_str()?.to_owned(),
            calls: number("calls")?,
            possible: number("possible")?,
            injected: number("injected")?,
            killed: number("killed")?,
            failed: number("failed")?,
            succeeded: number("succeeded")?,
            aborted: number("aborted")?,
            missed: number("missed")?,
            leaks: value["leaks"]
                .as_array()?
                .iter()
                .map(|leak| leak.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            millis: value["millis"].as_u64()?,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name, "calls": self.calls, "possible": self.possible, "injected": self.injected,
            "killed": self.killed, "failed": self.failed, "succeeded": self.succeeded, "aborted": self.aborted,
            "missed": self.missed, "leaks": self.leaks, "millis": self.millis,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} faults injected: {} killed, {} returned an error, {} succeeded all the same, {} aborted; {} leaks",
            self.injected,
            self.killed,
            self.failed,
            self.succeeded,
            self.aborted,
            self.leaks.len()
        )
    }
}

/// Past the harness, which would keep it to itself till the end.
fn say(line: &str) {
    // Nobody needs to listen.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        let mut figures = Figures::new("macvlan ADD".into(), 200, 900);
        figures.count(End::Failed, true);
        figures.count(End::Succeeded, false);
        figures.leaks.push("a \"leak\"".into());
        assert_eq!((figures.injected, figures.failed, figures.missed), (1, 1, 1));
        assert_eq!(Figures::from_line(&format!("{PREFIX}{}", figures.to_json())), Some(figures));
        assert_eq!(Figures::from_line("test a ... ok"), None);
    }
}
