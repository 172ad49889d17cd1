//! The time that each phase of a run took, and its slowest executables.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::lane::Lane;
use crate::suite::Report;

/// The path of a file with the phases of `tests/run.sh` before this program. Each line has seconds, a tab, and a name.
pub(crate) const PHASES_VARIABLE: &str = "UNDERLAY_PHASES";

const SLOWEST: usize = 12;

#[derive(Debug, Default)]
pub(crate) struct Times {
    phases: Vec<(String, Duration)>,
    executables: Vec<(Duration, Lane, String)>,
}

impl Times {
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|e| format!("read {}: {e}", file.display()))?;
        let phase = |line: &str| {
            let (seconds, name) = line.split_once('\t')?;
            Some((name.to_owned(), Duration::from_secs(seconds.parse().ok()?)))
        };
        let phases = text.lines().map(|line| phase(line).ok_or_else(|| format!("{}: {line:?}", file.display())));
        Ok(Self { phases: phases.collect::<Result<_, _>>()?, ..Self::default() })
    }

    pub(crate) fn add(&mut self, name: &str, took: Duration) {
        self.phases.push((name.to_owned(), took));
    }

    /// Adds a lane and its executables.
    pub(crate) fn add_lane(&mut self, lane: Lane, report: &Report) {
        self.add(&lane.to_string(), report.took);
        self.executables.extend(report.times.iter().map(|(name, took)| (*took, lane, name.clone())));
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== where the time went ==")?;
        let mut all = Duration::ZERO;
        for (name, took) in &self.phases {
            writeln!(f, "{:>6.0} s  {name}", took.as_secs_f64())?;
            all += *took;
        }
        writeln!(f, "{:>6.0} s  in all", all.as_secs_f64())?;
        let mut executables: Vec<_> = self.executables.iter().collect();
        executables.sort_by(|a, b| b.cmp(a));
        if !executables.is_empty() {
            writeln!(f, "the slowest executables:")?;
        }
        for (took, lane, name) in executables.into_iter().take(SLOWEST) {
            writeln!(f, "{:>6.0} s  {lane:<10}  {name}", took.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn report(times: &[(&str, u64)]) -> Report {
        let times = times.iter().map(|(name, seconds)| ((*name).to_owned(), Duration::from_secs(*seconds)));
        let times: BTreeMap<_, _> = times.collect();
        Report { took: times.values().sum(), times, ..Report::default() }
    }

    #[test]
    fn phases_are_in_order_and_executables_are_sorted_by_time() {
        let directory = tempfile::tempdir().expect("make a directory");
        let file = directory.path().join("phases");
        fs::write(&file, "3\tpackages\n61\tbuild of bin/\n").expect("write the phases");
        let mut times = Times::read(&file).expect("read the phases");
        times.add_lane(Lane::Native, &report(&[("e2e/del", 20), ("e2e/macvlan", 5)]));
        times.add_lane(Lane::Guest, &report(&[("e2e/macvlan", 110)]));
        let expected = "== where the time went ==\n     3 s  packages\n    61 s  build of bin/\n    25 s  native\n   \
                        110 s  guest\n   199 s  in all\nthe slowest executables:\n   110 s  guest       e2e/macvlan\n    \
                        20 s  native      e2e/del\n     5 s  native      e2e/macvlan\n";
        assert_eq!(times.to_string(), expected);
    }

    #[test]
    fn at_most_twelve_executables_are_listed() {
        let mut times = Times::default();
        let names: Vec<String> = (0..20).map(|number| format!("e2e/{number}")).collect();
        times.add_lane(Lane::Native, &report(&names.iter().zip(1..).map(|(n, s)| (n.as_str(), s)).collect::<Vec<_>>()));
        assert_eq!(times.to_string().lines().filter(|line| line.contains("e2e/")).count(), SLOWEST);
    }
}
