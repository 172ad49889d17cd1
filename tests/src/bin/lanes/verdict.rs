//! The outcomes of all lanes, and the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::lane::Lane;
use crate::runtimes::is_dispensable;
use crate::suite::{Outcome, Report, Suite};

#[derive(Debug)]
pub(crate) struct Verdict {
    tests: BTreeSet<String>,
    reports: BTreeMap<Lane, Report>,
    /// True if all lanes were selected. Then a test that ran in no lane is a failure.
    whole: bool,
    /// Errors of a lane or a build.
    errors: Vec<String>,
}

impl Verdict {
    pub(crate) fn new(suite: &Suite, whole: bool) -> Self {
        Self { tests: suite.names().collect(), reports: BTreeMap::new(), whole, errors: Vec::new() }
    }

    pub(crate) fn add(&mut self, lane: Lane, report: Report) {
        self.reports.insert(lane, report);
    }

    pub(crate) fn add_error(&mut self, error: String) {
        self.errors.push(error);
    }

    /// The tests that could not run in any lane so far.
    pub(crate) fn absent(&self) -> Vec<&str> {
        let is_absent = |test: &&str| {
            let mut outcomes = self.reports.values().filter_map(|report| report.outcomes.get(*test));
            outcomes.any(|outcome| matches!(outcome, Outcome::Absent(_)))
        };
        self.tests().filter(|test| !self.ran(test)).filter(is_absent).collect()
    }

    /// The tests that ran in no lane, each with the reason.
    fn missing(&self) -> Vec<(&str, String)> {
        self.tests.iter().filter(|test| !self.ran(test)).map(|test| (test.as_str(), self.why_not(test))).collect()
    }

    pub(crate) fn tests(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().map(String::as_str)
    }

    pub(crate) fn ran(&self, test: &str) -> bool {
        self.reports.values().any(|report| has_run(report, test))
    }

    /// The reasons why a test ran in no lane.
    pub(crate) fn why_not(&self, test: &str) -> String {
        let why = |(lane, report): (&Lane, &Report)| match report.outcomes.get(test) {
            Some(Outcome::Absent(why) | Outcome::Lost(why)) => Some(format!("{lane}: {why}")),
            Some(Outcome::Passed | Outcome::Failed) | None => None,
        };
        let reasons: Vec<String> = self.reports.iter().filter_map(why).collect();
        if reasons.is_empty() { "no lane has it".to_owned() } else { reasons.join("; ") }
    }

    /// The tests that failed, each with its lane.
    pub(crate) fn failed(&self) -> Vec<(Lane, &str)> {
        let mut failed = Vec::new();
        for (lane, report) in &self.reports {
            for (test, what) in &report.outcomes {
                if matches!(what, Outcome::Failed | Outcome::Lost(_)) {
                    failed.push((*lane, test.as_str()));
                }
            }
        }
        failed
    }

    /// The tests that ran in no lane, without optional ones.
    fn lost(&self) -> impl Iterator<Item = (&str, String)> {
        self.missing().into_iter().filter(|(test, _)| !is_dispensable(test))
    }

    /// Returns true if no test failed. With all lanes, each test must have run in one.
    pub(crate) fn good(&self) -> bool {
        self.failed().is_empty()
            && self.errors.is_empty()
            && (!self.whole || self.lost().next().is_none())
            && !self.tests.is_empty()
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
        if self.whole {
            for lane in Lane::ALL.into_iter().filter(|lane| !self.reports.contains_key(lane)) {
                writeln!(f, "{lane}: there was no test to run")?;
            }
        }
        if let Some(guest) = self.reports.get(&Lane::Guest)
            && self.whole
        {
            let elsewhere =
                |test: &str| self.reports.iter().any(|(lane, report)| *lane != Lane::Guest && has_run(report, test));
            let only: Vec<_> = self.tests().filter(|test| has_run(guest, test) && !elsewhere(test)).collect();
            writeln!(f, "only in the guest: {}", only.len())?;
            for test in only {
                writeln!(f, "  {test}")?;
            }
        }
        for (lane, test) in self.failed() {
            writeln!(f, "FAILED in lane {lane}: {test}")?;
        }
        if self.whole {
            for (test, why) in self.lost() {
                writeln!(f, "RAN NOWHERE: {test} ({why})")?;
            }
        } else {
            writeln!(f, "(only one lane ran, so a test that cannot run there is not a failure)")?;
        }
        for error in &self.errors {
            writeln!(f, "FAILED: {error}")?;
        }
        if self.tests.is_empty() {
            writeln!(f, "NO TEST in that lane has such a name")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::Table;

    fn report(outcomes: &[(&str, Outcome)]) -> Report {
        let outcomes = outcomes.iter().map(|(name, what)| ((*name).to_owned(), what.clone())).collect();
        Report { outcomes, ..Report::default() }
    }

    fn verdict(native: &[(&str, Outcome)], guest: Option<&[(&str, Outcome)]>) -> Verdict {
        let tests = ["a", "b"].into_iter().map(str::to_owned).collect();
        let mut verdict = Verdict { tests, reports: BTreeMap::new(), whole: true, errors: Vec::new() };
        verdict.add(Lane::Native, report(native));
        if let Some(guest) = guest {
            verdict.add(Lane::Guest, report(guest));
        }
        verdict
    }

    fn absent() -> Outcome {
        Outcome::Absent("the kernel has no ipvlan".into())
    }

    #[test]
    fn a_test_that_cannot_run_in_one_lane_may_run_in_another() {
        assert_eq!(verdict(&[("a", Outcome::Passed), ("b", absent())], None).absent(), ["b"]);
        let verdict = verdict(&[("a", Outcome::Passed), ("b", absent())], Some(&[("b", Outcome::Passed)]));
        assert_eq!(verdict.absent(), [""; 0]);
        assert!(verdict.good());
        assert!(verdict.to_string().contains("only in the guest: 1\n  b\n"), "{verdict}");
    }

    #[test]
    fn a_test_that_ran_in_no_lane_is_a_failure() {
        let verdict = verdict(&[("a", Outcome::Passed), ("b", absent())], Some(&[("b", absent())]));
        assert!(!verdict.good());
        let why = "RAN NOWHERE: b (native: the kernel has no ipvlan; guest: the kernel has no ipvlan)";
        assert!(verdict.to_string().contains(why), "{verdict}");
    }

    #[test]
    fn a_failure_in_any_lane_is_a_failure() {
        let passed = [("a", Outcome::Passed), ("b", Outcome::Passed)];
        assert!(verdict(&passed, None).good());
        let failed = verdict(&passed, Some(&[("a", Outcome::Failed)]));
        assert!(!failed.good());
        assert!(failed.to_string().contains("FAILED in lane guest: a"), "{failed}");
    }

    #[test]
    fn a_lane_that_runs_alone_needs_only_its_own_runtimes() {
        let verdict = verdict(&[("a", Outcome::Passed)], None);
        assert!(Table::of(&verdict, Some(Lane::Runtime)).is_lacking());
        for lane in [Lane::Unit, Lane::Native, Lane::Compliance, Lane::Guest] {
            let table = Table::of(&verdict, Some(lane));
            assert!(!table.is_lacking() && table.to_string().is_empty(), "{lane}: {table}");
        }
    }

    /// An ignored test, or one whose executable died.
    #[test]
    fn a_lost_test_is_a_failure_and_has_not_run() {
        let lost = Outcome::Lost("the harness said \"ignored\"".into());
        let verdict = verdict(&[("a", Outcome::Passed), ("b", lost)], None);
        assert_eq!(verdict.missing(), [("b", "native: the harness said \"ignored\"".to_owned())]);
        assert_eq!(verdict.absent(), [""; 0]);
        assert!(!verdict.good());
    }

    #[test]
    fn an_error_of_a_lane_is_a_failure_and_keeps_the_other_reports() {
        let mut verdict = verdict(&[("a", Outcome::Passed), ("b", Outcome::Passed)], None);
        verdict.add_error("lane guest: the guest has said nothing".to_owned());
        assert!(!verdict.good());
        let said = verdict.to_string();
        assert!(
            said.contains("2 passed") && said.contains("FAILED: lane guest: the guest has said nothing\n"),
            "{said}"
        );
    }

    #[test]
    fn a_test_that_no_lane_has_is_a_failure() {
        let mut verdict = verdict(&[("a", Outcome::Passed), ("b", Outcome::Passed)], None);
        verdict.tests.insert("c".to_owned());
        assert!(!verdict.good());
        let said = verdict.to_string();
        assert!(said.contains("RAN NOWHERE: c (no lane has it)\n"), "{said}");
        assert!(said.contains("kubernetes: there was no test to run\n"), "{said}");
    }

    fn with_runtimes(podman: Outcome, libcni: Option<Outcome>) -> Verdict {
        let cri = ["runtimes/cri: a", "e2e/containerd: a", "kubernetes/cluster: a"].map(|test| (test, Outcome::Passed));
        let libcni = libcni.map(|outcome| ("runtimes/libcni: a", outcome));
        let outcomes: Vec<_> = cri.into_iter().chain(libcni).chain([("runtimes/podman: a", podman)]).collect();
        let mut verdict = verdict(&outcomes, None);
        verdict.tests = outcomes.into_iter().map(|(name, _)| name.to_owned()).collect();
        verdict
    }

    #[test]
    fn without_podman_the_run_succeeds_and_says_so() {
        let verdict = with_runtimes(Outcome::Absent("podman 5 has no CNI".into()), Some(Outcome::Passed));
        let table = Table::of(&verdict, None);
        assert!(
            table.to_string().contains("podman                  did not run: native: podman 5 has no CNI\n"),
            "{table}"
        );
        assert!(verdict.good() && !table.is_lacking());
        assert!(!verdict.to_string().contains("RAN NOWHERE"), "{verdict}");
    }

    #[test]
    fn libcni_and_containerd_must_have_run() {
        let there = with_runtimes(Outcome::Passed, Some(Outcome::Passed));
        assert!(!Table::of(&there, None).is_lacking());
        for libcni in [None, Some(absent())] {
            let table = Table::of(&with_runtimes(Outcome::Passed, libcni), None);
            assert!(table.is_lacking());
            assert!(table.to_string().contains("libcni                  DID NOT RUN, and must: "), "{table}");
        }
    }
}
