//! Decides from outside if a guest hangs, by its output and its processor time.
//!
//! A limit for the whole run would be wrong on a machine under load.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The number of seconds that a guest may hang.
pub(crate) const PATIENCE_VARIABLE: &str = "UNDERLAY_GUEST_PATIENCE";
/// Longer than any test prints nothing and uses no processor.
const SILENT_FOR: Duration = Duration::from_secs(180);
/// A guest that uses less than this part of a processor hangs. An idle kernel uses some time.
const IDLE_PART: u32 = 20;
/// The processor time that a guest may use without output, in units of the patience.
const SILENT_WORK: u32 = 3;
/// The unit of times in /proc. (proc(5), USER_HZ)
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Watch {
    patience: Duration,
    moved: Instant,
    /// The processor time at its last sign of life.
    seen: Duration,
    at_word: Option<Duration>,
}

impl Watch {
    pub(crate) fn new(patience: Duration, now: Instant) -> Self {
        Self { patience, moved: now, seen: Duration::ZERO, at_word: None }
    }

    /// The guest has printed a line.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.moved = now;
        self.at_word = None;
    }

    /// `used` is its processor time so far. Returns an error if the guest hangs.
    pub(crate) fn look(&mut self, now: Instant, used: Duration) -> Result<(), String> {
        let silent_work = used.saturating_sub(*self.at_word.get_or_insert(used));
        if used.saturating_sub(self.seen) >= self.patience / IDLE_PART {
            self.seen = used;
            self.moved = now;
        }
        if silent_work > self.patience * SILENT_WORK {
            return Err(format!("has used {:.0} s of processor time without a word", silent_work.as_secs_f64()));
        }
        if now.duration_since(self.moved) > self.patience {
            return Err(format!("has said nothing and used no processor for {:.0} s", self.patience.as_secs_f64()));
        }
        Ok(())
    }
}

pub(crate) fn patience() -> Result<Duration, String> {
    let Some(text) = std::env::var_os(PATIENCE_VARIABLE) else { return Ok(SILENT_FOR) };
    let seconds = text.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{PATIENCE_VARIABLE}: a number of seconds"))
}

/// The processor time of all processes in the PID namespace of the children of a process.
pub(crate) fn processor_time(parent: u32) -> Duration {
    let inode = |path: &Path| fs::metadata(path).ok().map(|namespace| namespace.ino());
    let Some(wanted) = inode(Path::new(&format!("/proc/{parent}/ns/pid_for_children"))) else { return Duration::ZERO };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = processes.filter(|process| inode(&process.path().join("ns/pid")) == Some(wanted));
    let ticks = inside.filter_map(|process| ticks(&fs::read_to_string(process.path().join("stat")).ok()?));
    TICK * ticks.sum::<u32>()
}

/// User and system time of the process and of the children that it has waited for. (proc(5), /proc/pid/stat)
fn ticks(stat: &str) -> Option<u32> {
    // The name of the process may have spaces and brackets.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|field| field.parse::<u32>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second. Returns the number of seconds until the error, and the error.
    fn watch(says: impl Fn(u64) -> bool, percent: u64) -> Option<(u64, String)> {
        let begun = Instant::now();
        let mut watch = Watch::new(SILENT_FOR, begun);
        for second in 1..6 * 3600 {
            let now = begun + Duration::from_secs(second);
            if says(second) {
                watch.hear(now);
            } else if let Err(why) = watch.look(now, Duration::from_millis(10 * percent * second)) {
                return Some((second, why));
            }
        }
        None
    }

    #[test]
    fn a_guest_that_hangs_is_an_error_although_its_kernel_uses_some_time() {
        for percent in [0, 1, 4] {
            let (after, why) = watch(|second| second < 10, percent).expect("an error");
            assert!((180..=200).contains(&after), "after {after} s");
            assert_eq!(why, "has said nothing and used no processor for 180 s");
        }
    }

    #[test]
    fn a_guest_that_sometimes_prints_a_line_is_never_an_error() {
        assert_eq!(watch(|second| second % 170 == 0, 0), None);
        assert_eq!(watch(|second| second % 170 == 0, 100), None);
    }

    /// The guest gets a tenth of a processor, so a test of one minute takes ten.
    #[test]
    fn a_guest_on_a_loaded_machine_has_enough_time() {
        assert_eq!(watch(|second| second % 600 == 0, 10), None);
    }

    #[test]
    fn a_guest_that_works_without_output_for_ever_is_an_error() {
        let (after, why) = watch(|second| second < 10, 100).expect("an error");
        assert!((540..560).contains(&after), "after {after} s");
        assert_eq!(why, "has used 541 s of processor time without a word");
    }

    #[test]
    fn the_name_of_a_process_does_not_disturb_the_times() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 3 40 5 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat), Some(60));
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
