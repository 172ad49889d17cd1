//! One call on this node: runs the operations of the protocol with the store and the journal, within a deadline.

mod sweep;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use linux::file::ByteLock;
use ranges::Set;

use crate::choose::Chooser;
use crate::error::Error;
use crate::journal::{Completeness, Journal, Page};
use crate::lease::{Held, Holder, Lease, Node, Owner};
use crate::protocol::{Action, Claim, Ended, Entry, Give, Input, Machine, Mode, State, Take, Taken};
use crate::store::{Answer, Request, Store};

pub use sweep::Swept;

/// The first pause before a request is sent again whose answer was lost. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pool of one LAN, as one call sees it.
pub struct Pool<'a> {
    /// The name of the LAN.
    pub lan: &'a str,
    /// This node, in this boot.
    pub node: Node,
    /// The journal.
    pub journal: Journal,
    /// The store.
    pub store: RefCell<Box<dyn Store + 'a>>,
    /// The end of the time for requests.
    pub deadline: Cell<Instant>,
    /// The time in seconds for which an address of another machine is kept.
    pub conflict_delay: u64,
    /// Prints a remark.
    pub remark: &'a dyn Fn(fmt::Arguments<'_>),
}

impl Pool<'_> {
    /// Leases an address of each set for an owner. `requested` has one entry for each set: the address that the caller
    /// wants, with the key that says so.
    ///
    /// # Errors
    ///
    /// No address is free, or the store cannot be asked. Then the leases that were made now are released as far as
    /// possible. The journal has the rest for the DEL that follows.
    pub fn add(
        &self,
        claim: &Claim,
        sets: &[Set],
        requested: &[Option<ranges::Requested>],
    ) -> Result<Vec<IpAddr>, Error> {
        self.journal.create()?;
        match self.journal.completeness()? {
            Completeness::Complete => {}
            // A sweep is not needed for the safety of an ADD, so the next call tries again.
            Completeness::Earlier => {
                if let Err(error) = self.complete() {
                    (self.remark)(format_args!("leases of earlier boots are not freed yet: {error}"));
                }
            }
            Completeness::Missing => self.complete()?,
        }
        let _lock = self.lock(&claim.owner)?;
        let mut page = self.page(claim)?;
        if page.is_gone {
            self.resolve(&mut page, &self.list()?)?;
        }
        self.release_released(claim, &mut page);
        let before: Vec<IpAddr> = open(&page.entries()).collect();
        let mut given = Vec::with_capacity(sets.len());
        for (at, set) in sets.iter().enumerate() {
            let requested = requested.get(at).and_then(Option::as_ref);
            match self.serve(claim, &mut page, set, requested, &given) {
                Ok(address) => given.push(address),
                Err(error) => {
                    self.undo(claim, &mut page, &before);
                    return Err(error);
                }
            }
        }
        self.settle(&claim.owner);
        Ok(given)
    }

    fn serve(
        &self,
        claim: &Claim,
        page: &mut Page,
        set: &Set,
        requested: Option<&ranges::Requested>,
        given: &[IpAddr],
    ) -> Result<IpAddr, Error> {
        let of_set = |ip: &IpAddr| set.admits(*ip) && !given.contains(ip);
        let mine = open(&page.entries()).find(of_set);
        if let (Some(mine), Some(requested)) = (mine, requested)
            && mine != requested.ip
        {
            let place = format!("{requested}, of {set}");
            return Err(Error::Held { place, owner: claim.owner.to_string(), held: mine });
        }
        // An address whose create was not answered in an earlier ADD: a request that is still under way makes this lease.
        let is_wanted = |ip: &IpAddr| requested.is_none_or(|requested| requested.ip == *ip);
        let in_doubt = |entry: &Entry| entry.state == State::Released(None);
        let doubtful = || {
            page.entries()
                .into_iter()
                .filter(in_doubt)
                .map(|entry| entry.address)
                .find(|ip| of_set(ip) && is_wanted(ip))
        };
        let mut mine = mine.or_else(doubtful);
        let mut has_swept = false;
        loop {
            let known: Vec<IpAddr> = page.entries().iter().map(|entry| entry.address).collect();
            let mut chooser = Chooser::new(set, requested.map(|requested| requested.ip), known.into_iter());
            let mut take = Take::new(claim.clone(), Mode::Add, page.entries(), mine);
            let taken = self.run(&mut take, page, &mut |store, deadline| chooser.next(store, deadline))?;
            if let Some(other) = take.displaced() {
                let ip = other.lease.address;
                (self.remark)(format_args!(
                    "{ip} was leased to {}, and the store has it for {} now",
                    claim.owner, other.lease
                ));
            }
            match taken {
                Taken::Held(address, _) => return Ok(address),
                Taken::Refused(cause) => return Err(Error::Refused { cause }),
                Taken::Elsewhere(other) => {
                    return Err(Error::Taken {
                        place: other.lease.address.to_string(),
                        holder: other.lease.to_string(),
                    });
                }
                // Leases of containers that are gone may fill the pool.
                Taken::Full if !has_swept => {
                    has_swept = true;
                    mine = None;
                    let swept = self.sweep_for(Some(&claim.owner), &HashSet::new())?;
                    if swept.freed > 0 {
                        continue;
                    }
                    return Err(self.full(set, requested, &chooser));
                }
                Taken::Full => return Err(self.full(set, requested, &chooser)),
            }
        }
    }

    fn full(&self, set: &Set, requested: Option<&ranges::Requested>, chooser: &Chooser<'_>) -> Error {
        if let Some(requested) = requested {
            let holder = match self.ask(&Request::Get(requested.ip)) {
                Answer::Found(Some(held)) => held.lease.to_string(),
                _ => "another owner".to_owned(),
            };
            return Error::Taken { place: requested.to_string(), holder };
        }
        let advice = "end pods, add a range, or free the leases of a dead node with lan-pool release";
        Error::Exhausted { set: set.to_string(), capacity: set.capacity(), nodes: chooser.nodes(), advice }
    }

    /// Releases the addresses of an ADD that has failed, but those that the owner had before.
    fn undo(&self, claim: &Claim, page: &mut Page, before: &[IpAddr]) {
        let new: Vec<IpAddr> = open(&page.entries()).filter(|ip| !before.contains(ip)).collect();
        for address in new {
            // An address whose create was not answered stays open: the same ADD tries it again, or the DEL releases it.
            let is_held =
                page.entries().iter().any(|its| its.address == address && matches!(its.state, State::Held(_)));
            if is_held && let Err(error) = self.give(claim, page, address) {
                (self.remark)(format_args!("{address} is not released yet: {error}"));
                self.journal.set_unsettled();
            }
        }
    }

    /// Releases all addresses of an owner. `conflicts` are those that another machine on the LAN has.
    ///
    /// # Errors
    ///
    /// The journal cannot be read or written. If the store cannot be asked, the journal has the rest for later calls, and
    /// this succeeds.
    pub fn del(&self, claim: &Claim, conflicts: &[cni::Conflict]) -> Result<(), Error> {
        self.journal.create()?;
        let _lock = self.lock(&claim.owner)?;
        let mut page = self.page(claim)?;
        if self.journal.completeness()? == Completeness::Missing
            && let Err(error) = self.recover_with(Some(&mut page))
        {
            page.is_gone = true;
            self.journal.write(&page)?;
            self.journal.set_unsettled();
            (self.remark)(format_args!(
                "the journal was lost, so a later call on this node releases the leases of {}: {error}",
                claim.owner
            ));
            return Ok(());
        }
        let entries = page.entries();
        let mut left = Vec::new();
        for entry in &entries {
            match self.give(claim, &mut page, entry.address) {
                Ok(Ended::Free) => self.keep_conflict(entry.address, conflicts),
                Ok(Ended::Doubtful) => {
                    self.keep_conflict(entry.address, conflicts);
                    self.journal.set_unsettled();
                }
                Ok(Ended::Refused(cause)) => left.push((entry.address, cause)),
                Err(Error::Away { cause }) => left.push((entry.address, cause)),
                Err(error) => return Err(error),
            }
        }
        if !left.is_empty() {
            // The journal may have some entries as open, because the time was over before their turn.
            self.release_in_journal(&mut page)?;
            self.journal.set_unsettled();
            let ips: Vec<_> = left.iter().map(|(ip, _)| ip.to_string()).collect();
            let cause = left.first().map(|(_, cause)| cause.as_str()).unwrap_or_default();
            (self.remark)(format_args!("a later call on this node releases {}: {cause}", ips.join(", ")));
            return Ok(());
        }
        self.settle(&claim.owner);
        Ok(())
    }

    /// Marks all addresses of a page as released.
    fn release_in_journal(&self, page: &mut Page) -> Result<(), Error> {
        let mut entries = page.entries();
        for entry in &mut entries {
            match std::mem::replace(&mut entry.state, State::Trying) {
                State::Held(uid) => entry.state = State::Released(Some(uid)),
                State::Trying => {
                    entry.state = State::Released(None);
                    entry.in_doubt = true;
                }
                released @ State::Released(_) => entry.state = released,
            }
        }
        page.set_entries(&entries);
        self.journal.write(page)
    }

    /// Keeps an address that another machine has from containers, by a lease of that machine. If this fails, a later ADD
    /// finds out again.
    fn keep_conflict(&self, address: IpAddr, conflicts: &[cni::Conflict]) {
        let Some(conflict) = conflicts.iter().find(|conflict| conflict.address == address) else { return };
        if self.conflict_delay == 0 {
            return;
        }
        let holder = Holder::Machine { mac: conflict.mac.clone() };
        let lease = Lease { lan: self.lan.to_owned(), address, node: self.node.clone(), holder };
        match self.ask(&Request::Create(lease)) {
            Answer::Made(_) | Answer::Taken => {}
            answer => (self.remark)(format_args!(
                "{address} not kept, so the next ADD may get it, although another machine on the LAN has it: {}",
                cause_of(&answer)
            )),
        }
    }

    /// Leases an address that a container already has, because another IPAM plugin has given it.
    ///
    /// # Errors
    ///
    /// Another owner has the lease, or the store cannot be asked.
    pub fn take_over(&self, owner: &Owner, netns: u64, address: IpAddr) -> Result<(), Error> {
        self.journal.create()?;
        self.complete()?;
        let _lock = self.lock(owner)?;
        let claim = Claim {
            lan: self.lan.to_owned(),
            node: self.node.clone(),
            owner: owner.clone(),
            netns: Some(netns),
            pod: None,
        };
        let mut page = self.page(&claim)?;
        let known = open(&page.entries()).find(|ip| *ip == address);
        let mut candidate = Some(address);
        let mut take = Take::new(claim, Mode::Add, page.entries(), known);
        match self.run(&mut take, &mut page, &mut |_, _| Ok(candidate.take()))? {
            Taken::Held(..) => Ok(()),
            Taken::Refused(cause) => Err(Error::Refused { cause }),
            Taken::Full | Taken::Elsewhere(_) => {
                let holder = match self.ask(&Request::Get(address)) {
                    Answer::Found(Some(held)) => held.lease.to_string(),
                    _ => "another owner".to_owned(),
                };
                Err(Error::Taken { place: address.to_string(), holder })
            }
        }
    }

    /// Compares the lease of an address with an owner.
    ///
    /// # Errors
    ///
    /// The lease is of another owner or does not exist, or the store cannot be asked.
    pub fn check(&self, claim: &Claim, address: IpAddr) -> Result<(), Error> {
        let no_lease = |other: String| Err(Error::NoLease { address, owner: claim.owner.to_string(), other });
        match self.ask_until_answered(&Request::Get(address))? {
            Answer::Found(Some(held)) if claim.is_mine(&held) => Ok(()),
            Answer::Found(Some(held)) => no_lease(format!("; it is leased to {}", held.lease)),
            Answer::Found(None) => no_lease(String::new()),
            Answer::Refused(cause) => Err(Error::Refused { cause }),
            answer => Err(Error::Away { cause: cause_of(&answer).to_owned() }),
        }
    }

    /// Releases the addresses of the owner's own page that an earlier DEL has left.
    fn release_released(&self, claim: &Claim, page: &mut Page) {
        let released: Vec<_> = page.entries().into_iter().filter(|entry| !entry.state.is_open()).collect();
        for entry in released {
            match self.give(claim, page, entry.address) {
                Ok(Ended::Free) => {}
                _ => self.journal.set_unsettled(),
            }
        }
    }

    fn give(&self, claim: &Claim, page: &mut Page, address: IpAddr) -> Result<Ended, Error> {
        let mut give = Give::new(claim.clone(), page.entries(), address, page.is_quiet);
        self.run(&mut give, page, &mut |_, _| Ok(None))
    }

    /// Runs an operation to its end. Writes the owner's page before anything is sent that the page must name.
    fn run<M: Machine>(&self, machine: &mut M, page: &mut Page, choose: Choose<'_>) -> Result<M::Outcome, Error> {
        let mut input = Input::Begin;
        let mut pause = FIRST_PAUSE;
        loop {
            input = match machine.step(input) {
                Action::Done(outcome) => return Ok(outcome),
                Action::Write(entries) => {
                    page.set_entries(&entries);
                    self.journal.write(page)?;
                    Input::Written
                }
                Action::Choose => Input::Candidate(choose(&mut **self.store.borrow_mut(), self.deadline.get())?),
                Action::Ask(request) => {
                    let answer = self.ask(&request);
                    if let Answer::Lost(cause) = &answer {
                        if Instant::now() + pause >= self.deadline.get() {
                            return Err(Error::Away { cause: cause.clone() });
                        }
                        // Not all nodes at the same time.
                        thread::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0));
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    Input::Answer(answer)
                }
            };
        }
    }

    fn ask(&self, request: &Request) -> Answer {
        self.store.borrow_mut().ask(request, self.deadline.get())
    }

    /// Sends a request that changes nothing, until it is answered or the time is over.
    fn ask_until_answered(&self, request: &Request) -> Result<Answer, Error> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.ask(request) {
                Answer::Lost(cause) if Instant::now() + pause >= self.deadline.get() => {
                    return Err(Error::Away { cause });
                }
                Answer::Lost(_) => thread::sleep(pause),
                answer => return Ok(answer),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// All leases of this node on this LAN.
    fn list(&self) -> Result<Vec<Held>, Error> {
        match self.ask_until_answered(&Request::OfNode)? {
            Answer::Leases(leases) => Ok(leases),
            Answer::Refused(cause) => Err(Error::Refused { cause }),
            answer => Err(Error::Away { cause: cause_of(&answer).to_owned() }),
        }
    }

    fn lock(&self, owner: &Owner) -> Result<ByteLock, Error> {
        let within = self.deadline.get().saturating_duration_since(Instant::now());
        self.journal.lock(owner, within)?.ok_or_else(|| self.busy(owner, within.as_secs()))
    }

    fn busy(&self, owner: &Owner, seconds: u64) -> Error {
        Error::Busy { path: self.journal.folder().to_owned(), owner: owner.to_string(), seconds }
    }

    /// The page of the owner. One of an earlier boot says nothing: its containers are gone, and the list has its leases. A
    /// damaged one is made again of the leases in the store.
    fn page(&self, claim: &Claim) -> Result<Page, Error> {
        let page = match self.journal.page(&claim.owner) {
            Err(error @ Error::Page { .. }) => {
                (self.remark)(format_args!("a page of the journal is made again: {error}"));
                Some(self.page_of(&claim.owner, &self.list()?))
            }
            page => page?.filter(|page| page.boot == self.node.boot),
        };
        let mut page = page.unwrap_or_else(|| Page::new(&claim.owner, &self.node.boot));
        page.netns = claim.netns.or(page.netns);
        page.pod = claim.pod.clone().or(page.pod);
        Ok(page)
    }

    fn claim(&self, page: &Page) -> Claim {
        Claim {
            lan: self.lan.to_owned(),
            node: self.node.clone(),
            owner: page.owner(),
            netns: page.netns,
            pod: page.pod.clone(),
        }
    }
}

type Choose<'a> = &'a mut dyn FnMut(&mut dyn Store, Instant) -> Result<Option<IpAddr>, Error>;

fn open(entries: &[Entry]) -> impl Iterator<Item = IpAddr> {
    entries.iter().filter(|entry| entry.state.is_open()).map(|entry| entry.address)
}

/// The cause in an answer that is none, or that does not belong to the request.
fn cause_of(answer: &Answer) -> &str {
    match answer {
        Answer::Refused(cause) | Answer::Lost(cause) => cause,
        _ => "an answer to another request",
    }
}
