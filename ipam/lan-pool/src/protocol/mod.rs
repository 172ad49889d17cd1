//! The protocol: which requests are sent and which journal entries are written, in which order. It does no I/O and knows no
//! time, so the model in tests/model runs the same code as the plugin.
//!
//! Each operation is a [`Machine`]: it gets an [`Input`], and returns the next [`Action`]. Whoever runs it can stop after
//! any action: the journal is right at every moment. These rules hold:
//!
//! - The journal names a lease before the first request for it is sent.
//! - If the answer to a create is lost, the same create is sent again. No other address is tried before it is answered.
//! - A lease is deleted by its uid, and only after the journal says that it is released.
//! - A sweep lists the store first, and reads the journal after that. Otherwise it would free a lease that was made in
//!   between.

mod give;
mod sweep;
mod take;

use std::net::IpAddr;

use crate::lease::{Held, Holder, Lease, Node, Owner, Uid};
use crate::store::{Answer, Request};

pub use give::{Ended, Give};
pub use sweep::{Verdict, judge, recovered};
pub use take::{Mode, Take, Taken};

/// What the journal says of one address of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// How far its lease is.
    pub state: State,
    /// True if the answer to a create was lost. Such a create may arrive later, also after another one has succeeded.
    pub in_doubt: bool,
}

/// How far a lease is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// A create is about to be sent, or was sent, and its answer is not known.
    Trying,
    /// The owner has the lease.
    Held(Uid),
    /// The owner is gone. The lease must be deleted, if it exists. `None`: its uid is not known, because the answer to the
    /// create was lost. Such a create may arrive later.
    Released(Option<Uid>),
}

impl State {
    /// Returns true if the owner has the address, or may get it.
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Released(_))
    }
}

/// The owner in whose name an operation runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The LAN.
    pub lan: String,
    /// This node, in this boot.
    pub node: Node,
    /// The container with its interface.
    pub owner: Owner,
    /// The inode of its network namespace.
    pub netns: Option<u64>,
    /// The pod, as `NAMESPACE/NAME`.
    pub pod: Option<String>,
}

impl Claim {
    /// The lease of an address for this owner.
    pub fn lease(&self, address: IpAddr) -> Lease {
        let holder = Holder::Container { owner: self.owner.clone(), netns: self.netns, pod: self.pod.clone() };
        Lease { lan: self.lan.clone(), address, node: self.node.clone(), holder }
    }

    /// Returns true if a lease was made for this owner, in this boot of this machine.
    pub fn is_mine(&self, held: &Held) -> bool {
        held.lease.node == self.node && held.lease.owner() == Some(&self.owner)
    }
}

/// The next thing to do for a [`Machine`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action<T> {
    /// Replace the owner's page of the journal by one with these entries, and then step with [`Input::Written`].
    Write(Vec<Entry>),
    /// Send this request, and then step with the answer.
    Ask(Request),
    /// Choose an address that was not tried yet, and then step with [`Input::Candidate`].
    Choose,
    /// The operation has ended.
    Done(T),
}

/// The result of an [`Action`].
#[allow(clippy::large_enum_variant, reason = "only one exists at a time")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// The first step.
    Begin,
    /// The page is written.
    Written,
    /// The answer to the request.
    Answer(Answer),
    /// The chosen address. `None`: there is no other one.
    Candidate(Option<IpAddr>),
}

/// An operation of the protocol.
pub trait Machine {
    /// The result of the operation.
    type Outcome;

    /// Returns the next action. An input that does not belong to the last action repeats that action.
    fn step(&mut self, input: Input) -> Action<Self::Outcome>;
}

/// Sets the state of an address in a page.
fn set(entries: &mut Vec<Entry>, address: IpAddr, state: State, in_doubt: bool) {
    match entries.iter_mut().find(|entry| entry.address == address) {
        Some(entry) => {
            entry.state = state;
            entry.in_doubt |= in_doubt;
        }
        None => entries.push(Entry { address, state, in_doubt }),
    }
}

fn remove(entries: &mut Vec<Entry>, address: IpAddr) {
    entries.retain(|entry| entry.address != address);
}

fn find(entries: &[Entry], address: IpAddr) -> Option<&Entry> {
    entries.iter().find(|entry| entry.address == address)
}

fn state(entries: &[Entry], address: IpAddr) -> Option<&State> {
    find(entries, address).map(|entry| &entry.state)
}
