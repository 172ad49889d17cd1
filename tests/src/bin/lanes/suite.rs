//! The tests of all executables, and one run of them on the kernel that this program finds itself on.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::interrupt;
use e2e::needs::LEDGER_VARIABLE;
use e2e::plugin::PATIENCE_VARIABLE;
use serde_json::{Value, json};

use crate::executables::Executable;
use crate::lane::{Lane, is_left_over};

/// What came of one test in one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Absent(String),
    /// It did not run, for whatever other reason.
    Lost(String),
}

/// The outcome of every test that was due, by its full name, such as `e2e/macvlan: hard_links::mtu`.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// One run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) outcomes: Outcomes,
    /// From beginning to end.
    pub(crate) took: Duration,
    pub(crate) times: BTreeMap<String, Duration>,
    /// Which kernel it was.
    pub(crate) kernel: String,
}

/// All tests that are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suite {
    executables: Vec<(Executable, Vec<String>)>,
}

impl Suite {
    /// Asks each executable for its tests, and keeps those whose full name contains one of the words, if there are any.
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

    /// The executables.
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

    /// True if there is no test.
    pub(crate) fn is_empty(&self) -> bool {
        self.executables.is_empty()
    }

    /// For the guest.
    pub(crate) fn to_json(&self) -> Value {
        let entry = |(executable, tests): &(Executable, Vec<String>)| json!([executable.to_json(), tests]);
        self.executables.iter().map(entry).collect()
    }

    /// The inverse of [`Suite::to_json`].
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let entry = |entry: &Value| {
            let tests = entry[1].as_array()?.iter().map(|test| test.as_str().map(str::to_owned));
            Some((Executable::from_json(&entry[0])?, tests.collect::<Option<_>>()?))
        };
        Some(Self { executables: value.as_array()?.iter().map(entry).collect::<Option<_>>()? })
    }

    /// Runs all tests, here. `scratch` is a directory for the ledgers.
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

/// Runs these tests of one executable, its output going on to ours.
fn run(executable: &Executable, tests: &[String], lane: Lane, ledger: &Path) -> Result<Outcomes, String> {
    println!("-- {}", executable.name);
    let failed = |what: &str, e: std::io::Error| format!("{what} {}: {e}", executable.program.display());
    let mut child = Command::new(&executable.program)
        .arg("--exact")
        .args(tests)
        .current_dir(&executable.folder)
        // Two at least, for the ledger; more, for the tests that wait.
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
        (None, _) => Outcome::Lost(format!("the harness said nothing of it and ended with {status}")),
    };
    Ok(tests.iter().map(|test| (test.clone(), outcome(test))).collect())
}

/// More than processors, since tests wait a good deal: for duplicate address detection, for silence on the wire.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).saturating_mul(2).clamp(4, 8)
}

/// A test's name and its outcome in a line of the harness's: `test hard_links::mtu ... ok`.
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

impl Report {
    /// For the way out of the guest.
    pub(crate) fn to_json(&self) -> Value {
        let outcome = |outcome: &Outcome| match outcome {
            Outcome::Passed => json!(["passed", ""]),
            Outcome::Failed => json!(["failed", ""]),
            Outcome::Absent(what) => json!(["absent", what]),
            Outcome::Lost(why) => json!(["lost", why]),
        };
        let outcomes: BTreeMap<_, _> = self.outcomes.iter().map(|(name, what)| (name, outcome(what))).collect();
        let times: BTreeMap<_, _> = self.times.iter().map(|(name, took)| (name, took.as_millis())).collect();
        json!({"outcomes": outcomes, "millis": self.took.as_millis(), "times": times, "kernel": self.kernel})
    }

    /// The inverse of [`Report::to_json`].
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let outcome = |value: &Value| {
            let text = value[1].as_str()?.to_owned();
            Some(match value[0].as_str()? {
                "passed" => Outcome::Passed,
                "failed" => Outcome::Failed,
                "absent" => Outcome::Absent(text),
                "lost" => Outcome::Lost(text),
                _ => return None,
            })
        };
        let outcomes = value["outcomes"].as_object()?.iter();
        let times = value["times"].as_object()?.iter();
        Some(Self {
            outcomes: outcomes.map(|(name, what)| Some((name.clone(), outcome(what)?))).collect::<Option<_>>()?,
            took: Duration::from_millis(value["millis"].as_u64()?),
            times: times
                .map(|(name, millis)| Some((name.clone(), Duration::from_millis(millis.as_u64()?))))
                .collect::<Option<_>>()?,
            kernel: value["kernel"].as_str()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_harness() {
        assert_eq!(test_line("test hard_links::mtu ... ok"), Some(("hard_links::mtu", "ok")));
        assert_eq!(test_line("test a - should panic ... FAILED"), Some(("a", "FAILED")));
        assert_eq!(test_line("test result: ok. 3 passed; 0 failed"), None);
        assert_eq!(test_line("test a ... ignored, slow"), Some(("a", "ignored, slow")));
    }

    #[test]
    fn a_report_comes_out_of_the_guest_as_it_was() {
        let outcomes = [
            ("a", Outcome::Passed),
            ("b", Outcome::Failed),
            ("c", Outcome::Absent("ipvlan".into())),
            ("d", Outcome::Lost("why".into())),
        ];
        let report = Report {
            outcomes: outcomes.into_iter().map(|(name, what)| (name.to_owned(), what)).collect(),
            took: Duration::from_millis(1500),
            times: BTreeMap::from([("e2e/macvlan".to_owned(), Duration::from_millis(1200))]),
            kernel: "Linux 6.1".into(),
        };
        let back = Report::from_json(&report.to_json()).unwrap();
        assert_eq!((back.outcomes, back.took, back.kernel), (report.outcomes, report.took, report.kernel));
        assert_eq!(back.times, report.times);
    }
}
