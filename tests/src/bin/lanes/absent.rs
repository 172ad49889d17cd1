//! Stores the tests that the kernel of this machine could not run. If the guest lane runs alone, it runs these tests.

use std::fs;
use std::path::{Path, PathBuf};

use crate::lane::Lane;
use crate::suite::{Outcome, Report};

const LANES: [Lane; 3] = [Lane::Native, Lane::Runtime, Lane::Compliance];

/// A directory with one file for each lane.
#[derive(Debug)]
pub(crate) struct Absent(PathBuf);

impl Absent {
    /// In cargo's target directory, where this program is.
    pub(crate) fn beside_this_program() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| format!("find this program: {e}"))?;
        let target = program.ancestors().nth(2).ok_or("this program has no directory")?;
        Ok(Self(target.join("absent")))
    }

    /// Stores the result of a complete run of a lane.
    pub(crate) fn keep(&self, lane: Lane, report: &Report) -> Result<(), String> {
        if !LANES.contains(&lane) {
            return Ok(());
        }
        let absent = report.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Absent(_)));
        let text: String = absent.map(|(test, _)| format!("{test}\n")).collect();
        let path = self.file(lane);
        let written = fs::create_dir_all(&self.0).and_then(|()| fs::write(&path, text));
        written.map_err(|e| format!("write {}: {e}", path.display()))
    }

    /// All tests that could not run. `None` if a lane has never run.
    pub(crate) fn read(&self) -> Option<Vec<String>> {
        let texts = LANES.map(|lane| fs::read_to_string(self.file(lane)).ok());
        let texts: Option<Vec<String>> = texts.into_iter().collect();
        Some(texts?.iter().flat_map(|text| text.lines().map(str::to_owned)).collect())
    }

    fn file(&self, lane: Lane) -> PathBuf {
        Path::new(&self.0).join(lane.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_tests_are_known_after_every_lane_has_run() {
        let directory = tempfile::tempdir().expect("make a directory");
        let absent = Absent(directory.path().join("absent"));
        for lane in LANES {
            assert_eq!(absent.read(), None);
            let outcomes = [("here", Outcome::Passed), ("there", Outcome::Absent("no ipvlan".into()))];
            let outcomes = outcomes.into_iter().map(|(name, what)| (format!("e2e/{lane}: {name}"), what));
            let report = Report { outcomes: outcomes.collect::<BTreeMap<_, _>>(), ..Report::default() };
            absent.keep(lane, &report).expect("keep a report");
        }
        let expected = LANES.map(|lane| format!("e2e/{lane}: there"));
        assert_eq!(absent.read(), Some(expected.to_vec()));
    }
}
