//! What ran where, over all lanes, and whether that is good.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::suite::{Lane, Outcome, Report, Suite};

/// The reports of all lanes.
#[derive(Debug)]
pub(crate) struct Verdict {
    tests: BTreeSet<String>,
    reports: BTreeMap<Lane, Report>,
    /// Whether every lane was wanted, so that a test that ran in none is a failure.
    whole: bool,
    guest_spared: bool,
}

impl Verdict {
    /// Of no lane yet.
    pub(crate) fn new(suite: &Suite, whole: bool) -> Self {
        Self { tests: suite.names().collect(), reports: BTreeMap::new(), whole, guest_spared: false }
    }

    /// Adds a lane.
    pub(crate) fn add(&mut self, lane: Lane, report: Report) {
        self.reports.insert(lane, report);
    }

    /// Notes that there was nothing for the guest to do.
    pub(crate) fn spare_guest(&mut self) {
        self.guest_spared = true;
    }

    /// The tests that ran in no lane so far, and why not.
    pub(crate) fn missing(&self) -> Vec<(&str, String)> {
        self.tests.iter().filter(|test| !self.ran(test)).map(|test| (test.as_str(), self.why_not(test))).collect()
    }

    fn ran(&self, test: &str) -> bool {
        self.reports.values().any(|report| has_run(report, test))
    }

    fn why_not(&self, test: &str) -> String {
        let why = |(lane, report): (&Lane, &Report)| match report.outcomes.get(test) {
            Some(Outcome::Absent(what)) => format!("{lane}: the kernel has no {what}"),
            Some(Outcome::Lost(why)) => format!("{lane}: {why}"),
            Some(Outcome::Passed | Outcome::Failed) | None => format!("{lane}: not run"),
        };
        self.reports.iter().map(why).collect::<Vec<_>>().join("; ")
    }

    fn failed(&self) -> Vec<(Lane, &str)> {
        let failed = |(lane, report): (&Lane, &'_ Report)| {
            let lane = *lane;
            let bad = |what: &Outcome| matches!(what, Outcome::Failed | Outcome::Lost(_));
            let names: Vec<_> =
                report.outcomes.iter().filter(|(_, what)| bad(what)).map(|(name, _)| name.clone()).collect();
            names.into_iter().map(move |name| (lane, name))
        };
        let failed: Vec<(Lane, String)> = self.reports.iter().flat_map(failed).collect();
        failed.into_iter().filter_map(|(lane, name)| self.tests.get(&name).map(|test| (lane, test.as_str()))).collect()
    }

    /// Whether no test failed, and, if every lane was wanted, each ran in one.
    pub(crate) fn good(&self) -> bool {
        self.failed().is_empty() && (!self.whole || self.missing().is_empty()) && !self.tests.is_empty()
    }
}

fn has_run(report: &Report, test: &str) -> bool {
    matches!(report.outcomes.get(test), Some(Outcome::Passed | Outcome::Failed))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== what ran where ==")?;
        for (lane, report) in &self.reports {
            let count = |wanted: fn(&Outcome) -> bool| report.outcomes.values().filter(|what| wanted(what)).count();
            writeln!(
                f,
                "{lane} ({}): {} passed, {} failed, {} cannot run there, in {:.0} s",
                report.kernel,
                count(|what| *what == Outcome::Passed),
                count(|what| matches!(what, Outcome::Failed | Outcome::Lost(_))),
                count(|what| matches!(what, Outcome::Absent(_))),
                report.took.as_secs_f64(),
            )?;
        }
        if self.guest_spared {
            writeln!(f, "guest: not needed, this kernel has everything that the tests need")?;
        }
        if let (Some(native), Some(_)) = (self.reports.get(&Lane::Native), self.reports.get(&Lane::Guest)) {
            let only: Vec<_> = self.tests.iter().filter(|test| self.ran(test) && !has_run(native, test)).collect();
            writeln!(f, "only in the guest: {}", only.len())?;
            for test in only {
                writeln!(f, "  {test}")?;
            }
        }
        for (lane, test) in self.failed() {
            writeln!(f, "FAILED in lane {lane}: {test}")?;
        }
        if self.whole {
            for (test, why) in self.missing() {
                writeln!(f, "RAN NOWHERE: {test} ({why})")?;
            }
        } else {
            writeln!(f, "(not every lane was asked for: what ran nowhere is not judged)")?;
        }
        if self.tests.is_empty() {
            writeln!(f, "NO TEST has such a name")?;
        }
        Ok(())
    }
}
