//! Selects the faults to inject: all, or a part. Each day has another part.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::trace::{Deed, Fault};

/// `all`, a part such as `2/24` (from 0), or a number for each scenario.
pub const COUNT_VARIABLE: &str = "UNDERLAY_FAULTS";
/// The number of the share. Without it, the number of the day.
pub(super) const OFFSET_VARIABLE: &str = "UNDERLAY_FAULTS_OFFSET";

/// The seed of the order. Similar faults are neighbours in the list, and must not all be in one share.
const SEED: u64 = 0x756e_6465_726c_6179;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// Only kills, at every step.
    Kills,
    /// A part of all faults.
    Part {
        part: usize,
        /// The number of parts.
        of: usize,
    },
    /// About as many faults. Each offset selects others, until all have been selected.
    Share { count: usize, offset: usize },
}

impl Selection {
    /// From the environment, with `count` and the day as the defaults.
    pub fn from_environment(count: usize) -> Self {
        let number = |name: &str| -> Option<usize> { env::var(name).ok()?.parse().ok() };
        let wish = env::var(COUNT_VARIABLE).unwrap_or_default();
        if wish == "all" {
            return Self::All;
        }
        if let Some((part, of)) = wish.split_once('/').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))) {
            return Self::Part { part, of };
        }
        let today = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() / 86_400) as usize;
        Self::Share {
            count: number(COUNT_VARIABLE).unwrap_or(count),
            offset: number(OFFSET_VARIABLE).unwrap_or_else(today),
        }
    }

    pub(super) fn choose<'a>(&self, faults: &'a [Fault]) -> Vec<&'a Fault> {
        let mut all: Vec<&Fault> = faults.iter().collect();
        if *self == Self::Kills {
            all.retain(|fault| fault.deed == Deed::Kill);
        }
        let stride = |count: usize| all.len().div_ceil(count.max(1)).max(1);
        let (offset, stride) = match *self {
            Self::All | Self::Kills => return all,
            Self::Part { part, of } => (part, of.max(1)),
            Self::Share { count, offset } => (offset, stride(count)),
        };
        shuffle(&mut all);
        all.into_iter().skip(offset % stride).step_by(stride).collect()
    }
}

/// Fisher-Yates with Knuth's MMIX generator: the order is the same in every run.
fn shuffle<T>(list: &mut [T]) {
    let mut state = SEED;
    for at in (1..list.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        list.swap(at, (state >> 33) as usize % (at + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Step;

    #[test]
    fn in_some_days_every_fault_is_selected_once() {
        let step = |nth| Step { task: "0".into(), number: 0, nth, requests: Vec::new() };
        let faults: Vec<_> = (0..103).map(|nth| Fault { step: step(nth), deed: Deed::Kill }).collect();
        let mut turns = vec![0; faults.len()];
        for offset in 7..18 {
            let chosen = Selection::Share { count: 10, offset }.choose(&faults);
            assert!((9..=10).contains(&chosen.len()), "{}", chosen.len());
            chosen.iter().for_each(|fault| turns[fault.step.nth] += 1);
        }
        assert_eq!(turns, vec![1; faults.len()]);
        assert_eq!(Selection::All.choose(&faults).len(), faults.len());
        let parts = (0..7).map(|part| Selection::Part { part, of: 7 }.choose(&faults).len());
        assert_eq!(parts.sum::<usize>(), faults.len());
    }
}
