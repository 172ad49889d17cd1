//! Judges the leases of this node in a list of the store. The list must be older than the look at the journal and at the
//! namespaces.

use super::{Entry, State};
use crate::lease::{Held, Holder, Node, Owner};

/// What to do with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The owner lives, or may live.
    Keep,
    /// It is of another machine with the name of this node: a clone, or the predecessor of this machine. Only an
    /// administrator frees it.
    Foreign,
    /// The owner is gone. The journal does not name the lease, so it is deleted by its uid.
    Delete,
    /// The owner is gone. The journal names the lease, so it is released through its entry.
    Release,
}

/// Judges one lease. `entry` is the journal's entry of its owner and address. `lives` returns true if the network namespace
/// with an inode exists, or may exist. `conflict_delay` is the time in seconds for which an address of another machine is
/// kept.
pub fn judge(
    held: &Held,
    node: &Node,
    entry: Option<&Entry>,
    lives: &mut dyn FnMut(u64) -> bool,
    conflict_delay: u64,
) -> Verdict {
    let lease = &held.lease;
    if lease.node.name != node.name || lease.node.machine != node.machine {
        return Verdict::Foreign;
    }
    if lease.node.boot != node.boot {
        return Verdict::Delete;
    }
    let netns = match &lease.holder {
        Holder::Machine { .. } if held.age >= conflict_delay => return Verdict::Delete,
        Holder::Machine { .. } => return Verdict::Keep,
        Holder::Container { netns, .. } => *netns,
    };
    let is_dead = |netns: Option<u64>, lives: &mut dyn FnMut(u64) -> bool| netns.is_some_and(|netns| !lives(netns));
    match entry.map(|entry| &entry.state) {
        Some(State::Released(_)) => Verdict::Release,
        Some(State::Trying | State::Held(_)) if is_dead(netns, lives) => Verdict::Release,
        None if is_dead(netns, lives) => Verdict::Delete,
        _ => Verdict::Keep,
    }
}

/// The entry for a lease that the journal does not name, after the journal was lost. `None` if the lease is not of a
/// container that lives in this boot.
pub fn recovered<'a>(
    held: &'a Held,
    node: &Node,
    lives: &mut dyn FnMut(u64) -> bool,
) -> Option<(&'a Owner, Option<u64>, Entry)> {
    let Holder::Container { owner, netns, .. } = &held.lease.holder else { return None };
    let is_here = held.lease.node == *node && netns.is_none_or(lives);
    is_here.then(|| {
        (owner, *netns, Entry { address: held.lease.address, state: State::Held(held.uid.clone()), in_doubt: true })
    })
}
