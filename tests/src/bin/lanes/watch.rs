//! Judges from outside whether a guest still moves: by its words, and by the processor time that it uses.
//!
//! A total for the whole run would fail a run in which all is well, on a machine that has much else to do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Names how many seconds a guest may stand still.
pub(crate) const PATIENCE_VARIABLE: &str = "UNDERLAY_GUEST_PATIENCE";
/// No test is silent for so long and uses no processor.
const SILENT_FOR: Duration = Duration::from_secs(180);
/// A guest that uses less than this part of a processor stands still. Its idle kernel uses some.
const IDLE_PART: u32 = 20;
/// The processor time that a guest may use without a word, in units of the patience.
const SILENT_WORK: u32 = 3;
/// The unit of times in /proc, on every machine that Rust's tier 1 and 2 have. (proc(5), USER_HZ)
const TICK: Duration = Duration::from_millis(10);

/// A guest that is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    patience: Duration,
    moved: Instant,
    /// The processor time when it moved last.
    seen: Duration,
    at_word: Option<Duration>,
}

impl Watch {
    /// Of a guest that starts now.
    pub(crate) fn new(patience: Duration, now: Instant) -> Self {
        Self { patience, moved: now, seen: Duration::ZERO, at_word: None }
    }

    /// It has said something.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.moved = now;
        self.at_word = None;
    }

    /// An error if it is to be given up, in view of the processor time that it has used so far.
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

/// The patience that the environment asks for.
pub(crate) fn patience() -> Result<Duration, String> {
    let Some(text) = std::env::var_os(PATIENCE_VARIABLE) else { return Ok(SILENT_FOR) };
    let seconds = text.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{PATIENCE_VARIABLE}: a number of seconds"))
}

/// The processor time that all processes have used that are in the PID namespace which this process has for its children.
pub(crate) fn processor_time(parent: u32) -> Duration {
    let inode = |path: &Path| fs::metadata(path).ok().map(|namespace| namespace.ino());
    let Some(wanted) = inode(Path::new(&format!("/proc/{parent}/ns/pid_for_children"))) else { return Duration::ZERO };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = processes.filter(|process| inode(&process.path().join("ns/pid")) == Some(wanted));
    let ticks = inside.filter_map(|process| ticks(&fs::read_to_string(process.path().join("stat")).ok()?));
    TICK * ticks.sum::<u32>()
}

/// User and system time, of the process and of those of its children that it has waited for. (proc(5), /proc/pid/stat)
fn ticks(stat: &str) -> Option<u32> {
    // The name before it may have spaces and brackets.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|field| field.parse::<u32>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second. Returns after how many seconds it is given up, and why.
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
    fn a_guest_that_stands_still_is_given_up_though_its_kernel_ticks() {
        for percent in [0, 1, 4] {
            let (after, why) = watch(|second| second < 10, percent).expect("it is given up");
            assert!((180..=200).contains(&after), "after {after} s");
            assert_eq!(why, "has said nothing and used no processor for 180 s");
        }
    }

    #[test]
    fn a_guest_that_speaks_now_and_then_is_never_given_up() {
        assert_eq!(watch(|second| second % 170 == 0, 0), None);
        assert_eq!(watch(|second| second % 170 == 0, 100), None);
    }

    /// It gets a tenth of a processor, and a test that takes a minute by itself takes ten.
    #[test]
    fn a_guest_on_a_loaded_machine_is_given_time() {
        assert_eq!(watch(|second| second % 600 == 0, 10), None);
    }

    #[test]
    fn a_guest_that_works_for_ever_without_a_word_is_given_up() {
        let (after, why) = watch(|second| second < 10, 100).expect("it is given up");
        assert!((540..560).contains(&after), "after {after} s");
        assert_eq!(why, "has used 541 s of processor time without a word");
    }

    #[test]
    fn times_are_read_behind_a_name_of_any_kind() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 3 40 5 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat), Some(60));
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
