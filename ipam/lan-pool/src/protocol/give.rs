//! Releases one address of an owner that is gone.

use std::net::IpAddr;

use super::{Action, Claim, Entry, Input, Machine, State, find, remove, set, state};
use crate::lease::Uid;
use crate::store::{Answer, Request};

/// The result of a [`Give`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The lease is gone, and so is its entry.
    Free,
    /// There is no lease now, but an earlier create may still arrive. The entry stays, so that a later call looks again.
    Doubtful,
    /// The store has refused a request. The entry stays. The text is the cause.
    Refused(String),
}

/// The operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Give {
    claim: Claim,
    /// The page of the owner, as the journal has it after the last write.
    entries: Vec<Entry>,
    address: IpAddr,
    /// True if no request of the owner can be under way any more.
    is_quiet: bool,
    at: At,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum At {
    Start,
    /// The journal gets the address as [`State::Released`].
    Announcing,
    Looking,
    Deleting(Uid),
    Ending,
}

impl Give {
    /// Begins with the page of the owner, and one of its addresses. `is_quiet` says that no create of the owner can arrive
    /// any more.
    pub fn new(claim: Claim, entries: Vec<Entry>, address: IpAddr, is_quiet: bool) -> Self {
        Self { claim, entries, address, is_quiet, at: At::Start }
    }

    /// The entries of the page at the end.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn go(&mut self, at: At) -> Action<Ended> {
        self.at = at;
        self.action()
    }

    fn action(&self) -> Action<Ended> {
        match &self.at {
            At::Start | At::Announcing | At::Ending => Action::Write(self.entries.clone()),
            At::Looking => Action::Ask(Request::Get(self.address)),
            At::Deleting(uid) => Action::Ask(Request::Delete(self.address, uid.clone())),
        }
    }

    /// The lease with a known uid is gone. If there was a doubt, another create of this owner may have arrived since.
    fn gone(&mut self) -> Action<Ended> {
        match find(&self.entries, self.address) {
            Some(Entry { in_doubt: true, .. }) => {
                set(&mut self.entries, self.address, State::Released(None), true);
                self.go(At::Announcing)
            }
            _ => self.free(),
        }
    }

    fn free(&mut self) -> Action<Ended> {
        remove(&mut self.entries, self.address);
        self.go(At::Ending)
    }

    fn send(&mut self) -> Action<Ended> {
        match state(&self.entries, self.address) {
            Some(State::Released(Some(uid))) => {
                let uid = uid.clone();
                self.go(At::Deleting(uid))
            }
            _ => self.go(At::Looking),
        }
    }
}

impl Machine for Give {
    type Outcome = Ended;

    fn step(&mut self, input: Input) -> Action<Ended> {
        match (&self.at, input) {
            (At::Start, _) => match state(&self.entries, self.address).cloned() {
                None => Action::Done(Ended::Free),
                Some(State::Held(uid)) => {
                    set(&mut self.entries, self.address, State::Released(Some(uid)), false);
                    self.go(At::Announcing)
                }
                Some(State::Trying) => {
                    set(&mut self.entries, self.address, State::Released(None), true);
                    self.go(At::Announcing)
                }
                Some(State::Released(_)) => self.send(),
            },
            (At::Announcing, Input::Written) => self.send(),
            // The uid goes into the journal before the delete: if that arrives late, an ADD of this owner must not have taken
            // this lease for its own in the meantime.
            (At::Looking, Input::Answer(Answer::Found(Some(held)))) if self.claim.is_mine(&held) => {
                set(&mut self.entries, self.address, State::Released(Some(held.uid)), true);
                self.go(At::Announcing)
            }
            (At::Looking, Input::Answer(Answer::Found(_))) if self.is_quiet => self.free(),
            (At::Looking, Input::Answer(Answer::Found(_))) => Action::Done(Ended::Doubtful),
            (At::Deleting(_), Input::Answer(Answer::Gone)) => self.gone(),
            (At::Looking | At::Deleting(_), Input::Answer(Answer::Refused(cause))) => {
                Action::Done(Ended::Refused(cause))
            }
            (At::Ending, Input::Written) => Action::Done(Ended::Free),
            _ => self.action(),
        }
    }
}
