//! A breadth-first search. States are remembered by a hash of 128 bits.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use crate::world::World;

/// The result of a search.
pub(crate) struct Found {
    pub(crate) states: usize,
    /// A broken rule, and the events that lead to it.
    pub(crate) broken: Option<(String, Vec<String>)>,
}

/// The search must end by itself. A model that needs more states than this is too large for `make test`.
const MOST: usize = 3_000_000;

pub(crate) fn search(first: &World) -> Found {
    let mut seen: HashSet<u128> = HashSet::new();
    // For each state in the order of its discovery: the state before it, and the number of the event.
    let mut paths: Vec<(usize, usize)> = vec![(0, 0)];
    let mut queue = VecDeque::from([(0, first.clone())]);
    seen.insert(hash(first));
    while let Some((at, world)) = queue.pop_front() {
        let broken = |rule: String, paths: &[(usize, usize)], last: Option<usize>| Found {
            states: paths.len(),
            broken: Some((rule, events(first, paths, at, last))),
        };
        for (number, (_, next)) in world.events().into_iter().enumerate() {
            if let Some(rule) = next.broken() {
                return broken(rule, &paths, Some(number));
            }
            if seen.insert(hash(&next)) {
                assert!(paths.len() < MOST, "more than {MOST} states");
                paths.push((at, number));
                queue.push_back((paths.len() - 1, next));
            }
        }
    }
    Found { states: paths.len(), broken: None }
}

/// The labels of the events from the first state to this one, and of one more event.
fn events(first: &World, paths: &[(usize, usize)], mut at: usize, last: Option<usize>) -> Vec<String> {
    let mut numbers: Vec<usize> = last.into_iter().collect();
    while at > 0 {
        let (before, number) = paths[at];
        numbers.push(number);
        at = before;
    }
    let mut world = first.clone();
    let mut labels = Vec::new();
    for number in numbers.into_iter().rev() {
        let (label, next) = world.events().swap_remove(number);
        labels.push(label);
        world = next;
    }
    labels
}

fn hash(world: &World) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        world.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}
