//! The tests of all executables, and a run of them on the current kernel.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::interrupt;
use e2e::needs::LEDGER_VARIABLE;
use e2e::plugin::PATIENCE_VARIABLE;
use serde::{Deserialize, Serialize};

use crate::executables::Executable;
use crate::lane::{Lane, is_left_over};

/// The outcome of one test in one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Absent(String),
    /// The test did not run for another reason.
    Lost(String),
}

/// The outcomes of tests by their full names, such as `e2e/macvlan: hard_links::mtu`.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) outcomes: Outcomes,
    pub(crate) took: Duration,
    pub(crate) times: BTreeMap<String, Duration>,
    pub(crate) kernel: String,
}

/// The selected tests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Suite {
    executables: Vec<(Executable, Vec<String>)>,
}

impl Suite {
    /// Lists the tests of each executable. With words, only those whose full name contains one of them.
    pub(crate) fn list(executables: Vec<Executable>, words: &[String]) -> Result<Self, String> {
        let mut listed = Vec::new();
        for executable in executables {
            let tests = list(&executable)?;
            let wanted = |test: &String| {
                let name = full_name(&executable, test);
                words.is_empty() || words.iter().any(|word| name.contains(word))
            };
            let tests: Vec<String> = tests.into_iter().filter(wanted).collect();
            if !tests.is_empty() {
                listed.push((executable, tests));
            }
        }
        Ok(Self { executables: listed })
    }

    /// The full names of all tests.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.executables.iter().flat_map(|(executable, tests)| tests.iter().map(|test| full_name(executable, test)))
    }

    pub(crate) fn programs(&self) -> impl Iterator<Item = &Executable> {
        self.executables.iter().map(|(executable, _)| executable)
    }

    /// The tests that the lane runs.
    pub(crate) fn of(&self, lane: Lane) -> Self {
        self.only(|test| lane.runs(test))
    }

    /// The tests that the guest runs after other lanes have run all but `missing`.
    pub(crate) fn left_over(&self, missing: &[&str]) -> Self {
        self.only(|test| !is_left_over(test) || missing.contains(&test))
    }

    fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        let keep = |(executable, tests): &(Executable, Vec<String>)| {
            let tests = tests.iter().filter(|test| wanted(&full_name(executable, test)));
            (executable.clone(), tests.cloned().collect::<Vec<_>>())
        };
        Self { executables: self.executables.iter().map(keep).filter(|(_, tests)| !tests.is_empty()).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.executables.is_empty()
    }

    /// Runs all tests. `scratch` is a directory for the ledgers.
    pub(crate) fn run(&self, lane: Lane, scratch: &Path) -> Result<Report, String> {
        let begun = Instant::now();
        let mut report = Report { kernel: kernel(), ..Report::default() };
        for (executable, tests) in &self.executables {
            let ledger = scratch.join(executable.name.replace('/', "-"));
            let started = Instant::now();
            let outcomes = run(executable, tests, lane, &ledger)?;
            interrupt::check()?;
            report.times.insert(executable.name.clone(), started.elapsed());
            report.outcomes.extend(outcomes.into_iter().map(|(test, what)| (full_name(executable, &test), what)));
        }
        report.took = begun.elapsed();
        Ok(report)
    }
}

fn full_name(executable: &Executable, test: &str) -> String {
    format!("{}: {test}", executable.name)
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

fn list(executable: &Executable) -> Result<Vec<String>, String> {
    let output = Command::new(&executable.program)
        .args(["--list", "--format", "terse"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("start {}: {e}", executable.program.display()))?;
    if !output.status.success() {
        return Err(format!("list the tests of {}: {}", executable.name, output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs tests of one executable and prints its output.
fn run(executable: &Executable, tests: &[String], lane: Lane, ledger: &Path) -> Result<Outcomes, String> {
    println!("-- {}", executable.name);
    let failed = |what: &str, e: std::io::Error| format!("{what} {}: {e}", executable.program.display());
    let mut child = Command::new(&executable.program)
        .arg("--exact")
        .args(tests)
        .current_dir(&executable.folder)
        // The ledger needs at least two. More are faster, because many tests wait.
        .env("RUST_TEST_THREADS", threads().to_string())
        .env(LEDGER_VARIABLE, ledger)
        .env(PATIENCE_VARIABLE, lane.patience().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed("start", e))?;
    let mut said = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines() {
        let line = line.map_err(|e| failed("read the output of", e))?;
        println!("{line}");
        if let Some((test, word)) = test_line(&line) {
            said.insert(test.to_owned(), word.to_owned());
        }
    }
    let status = child.wait().map_err(|e| failed("wait for", e))?;
    let absent = read_ledger(ledger)?;
    let outcome = |test: &String| match (said.get(test).map(String::as_str), absent.get(test)) {
        (Some("ok"), Some(missing)) => Outcome::Absent(missing.clone()),
        (Some("ok"), None) => Outcome::Passed,
        (Some(word), _) if word.starts_with("FAILED") => Outcome::Failed,
        (Some(word), _) => Outcome::Lost(format!("the harness said \"{word}\"")),
        (None, _) => Outcome::Lost(format!("the harness did not report it and ended with {status}")),
    };
    Ok(tests.iter().map(|test| (test.clone(), outcome(test))).collect())
}

/// More threads than processors, because many tests wait.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).saturating_mul(2).clamp(4, 8)
}

/// The name and outcome in a line of the test harness such as `test hard_links::mtu ... ok`.
fn test_line(line: &str) -> Option<(&str, &str)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.strip_suffix(" - should panic").unwrap_or(name), outcome.trim()))
}

fn read_ledger(ledger: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = match fs::read_to_string(ledger) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(format!("read {}: {e}", ledger.display())),
    };
    let line = |line: &str| line.split_once('\t').map(|(test, what)| (test.to_owned(), what.to_owned()));
    Ok(text.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_harness_have_a_name_and_an_outcome() {
        assert_eq!(test_line("test hard_links::mtu ... ok"), Some(("hard_links::mtu", "ok")));
        assert_eq!(test_line("test a - should panic ... FAILED"), Some(("a", "FAILED")));
        assert_eq!(test_line("test result: ok. 3 passed; 0 failed"), None);
        assert_eq!(test_line("test a ... ignored, slow"), Some(("a", "ignored, slow")));
    }
}
