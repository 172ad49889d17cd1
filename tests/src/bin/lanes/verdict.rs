//! What ran where, over all lanes, and whether that is good.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::runtimes::is_dispensable;
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

    /// The full names of all tests.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().map(String::as_str)
    }

    /// Whether a test ran in any lane.
    pub(crate) fn ran(&self, test: &str) -> bool {
        self.reports.values().any(|report| has_run(report, test))
    }

    /// Why a test ran in no lane, lane by lane.
    pub(crate) fn why_not(&self, test: &str) -> String {
        let why = |(lane, report): (&Lane, &Report)| match report.outcomes.get(test) {
            Some(Outcome::Absent(why) | Outcome::Lost(why)) => format!("{lane}: {why}"),
            Some(Outcome::Passed | Outcome::Failed) | None => format!("{lane}: not run"),
        };
        self.reports.iter().map(why).collect::<Vec<_>>().join("; ")
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

    /// The tests that ran in no lane and should have.
    fn lost(&self) -> impl Iterator<Item = (&str, String)> {
        self.missing().into_iter().filter(|(test, _)| !is_dispensable(test))
    }

    /// Whether no test failed, and, if every lane was wanted, each ran in one.
    pub(crate) fn good(&self) -> bool {
        self.failed().is_empty() && (!self.whole || self.lost().next().is_none()) && !self.tests.is_empty()
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
            for (test, why) in self.lost() {
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
        let mut verdict = Verdict { tests, reports: BTreeMap::new(), whole: true, guest_spared: guest.is_none() };
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
    fn what_cannot_run_in_one_lane_may_run_in_the_other() {
        let verdict = verdict(&[("a", Outcome::Passed), ("b", absent())], Some(&[("b", Outcome::Passed)]));
        assert!(verdict.good());
        assert!(verdict.to_string().contains("only in the guest: 1\n  b\n"), "{verdict}");
    }

    #[test]
    fn what_ran_nowhere_is_a_failure() {
        let verdict = verdict(&[("a", Outcome::Passed), ("b", absent())], Some(&[("b", absent())]));
        assert!(!verdict.good());
        let why = "RAN NOWHERE: b (native: the kernel has no ipvlan; guest: the kernel has no ipvlan)";
        assert!(verdict.to_string().contains(why), "{verdict}");
    }

    #[test]
    fn a_failure_in_either_lane_is_one() {
        let passed = [("a", Outcome::Passed), ("b", Outcome::Passed)];
        assert!(verdict(&passed, None).good());
        let failed = verdict(&passed, Some(&[("a", Outcome::Failed)]));
        assert!(!failed.good());
        assert!(failed.to_string().contains("FAILED in lane guest: a"), "{failed}");
    }

    /// An ignored test, or one whose executable died, has not run, whatever its lane was asked for.
    #[test]
    fn a_lost_test_is_a_failure_and_has_not_run() {
        let lost = Outcome::Lost("the harness said \"ignored\"".into());
        let verdict = verdict(&[("a", Outcome::Passed), ("b", lost)], None);
        assert_eq!(verdict.missing(), [("b", "native: the harness said \"ignored\"".to_owned())]);
        assert!(!verdict.good());
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
    fn a_machine_without_podman_is_told_so_and_is_good_enough() {
        let verdict = with_runtimes(Outcome::Absent("podman 5 has no CNI".into()), Some(Outcome::Passed));
        let table = Table::of(&verdict);
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
        assert!(!Table::of(&there).is_lacking());
        for libcni in [None, Some(absent())] {
            let table = Table::of(&with_runtimes(Outcome::Passed, libcni));
            assert!(table.is_lacking());
            assert!(table.to_string().contains("libcni                  DID NOT RUN, and must: "), "{table}");
        }
    }
}
