//! Takes one address for an owner: the one that it has, the one that an earlier call has tried, or a new one.

use std::net::IpAddr;

use super::{Action, Claim, Entry, Input, Machine, State, find, remove, set, state};
use crate::lease::{Held, Uid};
use crate::store::{Answer, Request};

/// The reason for a [`Take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// An ADD: if the address belongs to another owner by now, take another one.
    Add,
    /// The container has the address, and the store has lost the lease. Only this address will do.
    Restore,
}

/// The result of a [`Take`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Taken {
    /// The owner has this lease.
    Held(IpAddr, Uid),
    /// There is no other address to try.
    Full,
    /// Another owner has the address. Only in [`Mode::Restore`].
    Elsewhere(Box<Held>),
    /// The store has refused a request. The text is the cause.
    Refused(String),
}

/// The operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Take {
    claim: Claim,
    mode: Mode,
    /// The page of the owner, as the journal has it after the last write.
    entries: Vec<Entry>,
    /// The address that is tried or held.
    address: Option<IpAddr>,
    /// True if the answer to a create of this address was lost, now or in an earlier call.
    is_lost: bool,
    /// The lease of another owner, which has the address that this owner had before.
    displaced: Option<Box<Held>>,
    at: At,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum At {
    Start,
    Choosing,
    /// The journal gets the address as [`State::Trying`].
    Announcing,
    Creating,
    Looking,
    /// The last write.
    Ending(Taken),
}

impl Take {
    /// Begins with the page of the owner. `address` is the entry to continue with, if there is one. Of the released entries,
    /// only one without a uid can be continued: a create that is still under way makes the same lease.
    pub fn new(claim: Claim, mode: Mode, entries: Vec<Entry>, address: Option<IpAddr>) -> Self {
        Self { claim, mode, entries, address, is_lost: false, displaced: None, at: At::Start }
    }

    /// The entries of the page at the end.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The lease of another owner that has the earlier address of this owner.
    pub fn displaced(&self) -> Option<&Held> {
        self.displaced.as_deref()
    }

    fn go(&mut self, at: At) -> Action<Taken> {
        self.at = at;
        self.action()
    }

    /// The action of the present state.
    fn action(&self) -> Action<Taken> {
        let Some(address) = self.address else {
            return match &self.at {
                At::Ending(_) => Action::Write(self.entries.clone()),
                _ => Action::Choose,
            };
        };
        match &self.at {
            At::Start | At::Choosing => Action::Choose,
            At::Announcing | At::Ending(_) => Action::Write(self.entries.clone()),
            At::Creating => Action::Ask(Request::Create(self.claim.lease(address))),
            At::Looking => Action::Ask(Request::Get(address)),
        }
    }

    /// Another owner has the address, so go on with the next one. If an earlier create may still arrive, its lease must be
    /// deleted then.
    fn next(&mut self, address: IpAddr) -> Action<Taken> {
        match self.is_lost {
            true => set(&mut self.entries, address, State::Released(None), true),
            false => remove(&mut self.entries, address),
        }
        self.is_lost = false;
        self.address = None;
        self.go(At::Choosing)
    }

    fn hold(&mut self, address: IpAddr, uid: Uid) -> Action<Taken> {
        let new = State::Held(uid.clone());
        if state(&self.entries, address) == Some(&new) {
            return Action::Done(Taken::Held(address, uid));
        }
        set(&mut self.entries, address, new, self.is_lost);
        self.go(At::Ending(Taken::Held(address, uid)))
    }
}

impl Machine for Take {
    type Outcome = Taken;

    fn step(&mut self, input: Input) -> Action<Taken> {
        if let (At::Choosing, Input::Candidate(None)) = (&self.at, &input) {
            return self.go(At::Ending(Taken::Full));
        }
        if let (At::Choosing, Input::Candidate(Some(address))) = (&self.at, &input) {
            self.address = Some(*address);
            set(&mut self.entries, *address, State::Trying, false);
            return self.go(At::Announcing);
        }
        if let (At::Ending(taken), Input::Written) = (&self.at, &input) {
            return Action::Done(taken.clone());
        }
        let Some(address) = self.address else { return self.go(At::Choosing) };
        match (&self.at, input) {
            (At::Start, _) => match state(&self.entries, address) {
                Some(State::Held(_)) => {
                    self.is_lost = find(&self.entries, address).is_some_and(|entry| entry.in_doubt);
                    self.go(At::Looking)
                }
                Some(State::Trying) => {
                    self.is_lost = true;
                    self.go(At::Creating)
                }
                Some(State::Released(None)) => {
                    self.is_lost = true;
                    set(&mut self.entries, address, State::Trying, true);
                    self.go(At::Announcing)
                }
                _ => {
                    self.address = None;
                    self.go(At::Choosing)
                }
            },
            (At::Announcing, Input::Written) => self.go(At::Creating),
            (At::Creating, Input::Answer(Answer::Made(uid))) => self.hold(address, uid),
            (At::Creating, Input::Answer(Answer::Taken)) if self.is_lost || self.mode == Mode::Restore => {
                self.go(At::Looking)
            }
            (At::Creating, Input::Answer(Answer::Taken)) => self.next(address),
            (At::Creating, Input::Answer(Answer::Lost(_))) => {
                self.is_lost = true;
                self.action()
            }
            (At::Creating, Input::Answer(Answer::Refused(cause))) => {
                if self.is_lost || self.mode == Mode::Restore {
                    return Action::Done(Taken::Refused(cause));
                }
                remove(&mut self.entries, address);
                self.go(At::Ending(Taken::Refused(cause)))
            }
            (At::Looking, Input::Answer(Answer::Found(Some(held)))) if self.claim.is_mine(&held) => {
                self.hold(address, held.uid)
            }
            (At::Looking, Input::Answer(Answer::Found(Some(held)))) => match self.mode {
                Mode::Restore => Action::Done(Taken::Elsewhere(Box::new(held))),
                Mode::Add => {
                    if matches!(state(&self.entries, address), Some(State::Held(_))) {
                        self.displaced = Some(Box::new(held));
                    }
                    self.next(address)
                }
            },
            (At::Looking, Input::Answer(Answer::Found(None))) => match state(&self.entries, address) {
                // The store has lost the lease. The same address again, under a new uid. The entry stays as held, because the
                // container uses the address.
                Some(held @ State::Held(_)) => {
                    let held = held.clone();
                    self.is_lost = true;
                    set(&mut self.entries, address, held, true);
                    self.go(At::Announcing)
                }
                _ => self.go(At::Creating),
            },
            (At::Looking, Input::Answer(Answer::Refused(cause))) => Action::Done(Taken::Refused(cause)),
            _ => self.action(),
        }
    }
}
