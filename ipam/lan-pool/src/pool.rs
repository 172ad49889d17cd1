//! One call on this node: runs the operations of the protocol with the store and the journal, within a deadline.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use linux::Living;
use linux::file::ByteLock;
use ranges::Set;

use crate::choose::Chooser;
use crate::error::Error;
use crate::journal::{Completeness, Journal, Page};
use crate::lease::{Held, Holder, Lease, Node, Owner};
use crate::protocol::{self, Action, Claim, Ended, Entry, Give, Input, Machine, Mode, State, Take, Taken, Verdict};
use crate::store::{Answer, Request, Store};

/// The first pause before a request is sent again whose answer was lost. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The most pages that an ADD or a DEL settles for others.
const SETTLED_AT_ONCE: usize = 8;

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

/// The results of a sweep.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Leases of containers that are gone.
    pub freed: usize,
    /// Leases that the store had lost, and that were made again.
    pub restored: usize,
    /// Leases that could not be freed or made again now.
    pub left: usize,
}

impl Pool<'_> {
    /// Makes the journal complete, if it is not. Returns true if the leases of earlier boots are swept.
    ///
    /// # Errors
    ///
    /// The journal cannot be read or written, or the store cannot be asked.
    fn complete(&self) -> Result<(), Error> {
        match self.journal.completeness()? {
            Completeness::Complete => Ok(()),
            Completeness::Earlier => self.sweep(&HashSet::new()).map(drop),
            Completeness::Missing => self.recover(),
        }
    }

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

    /// Frees the leases of containers of this node that are gone, and makes lost leases again. `valid` are owners whose
    /// leases stay in any case.
    ///
    /// # Errors
    ///
    /// The store cannot be asked, or the journal cannot be read or written.
    pub fn sweep(&self, valid: &HashSet<Owner>) -> Result<Swept, Error> {
        self.journal.create()?;
        match self.journal.completeness()? {
            // Nothing is deleted in the call that makes the journal again.
            Completeness::Missing => self.recover().map(|()| Swept::default()),
            _ => self.sweep_for(None, valid),
        }
    }

    /// As [`Pool::sweep`], for a call that has the lock of `locked`, whose page it changes itself.
    fn sweep_for(&self, locked: Option<&Owner>, valid: &HashSet<Owner>) -> Result<Swept, Error> {
        // First the store, then the journal and the namespaces: a container can begin in between.
        let leases = self.list()?;
        self.journal.unset_unsettled();
        let (pages, damaged) = self.journal.pages()?;
        for (owner, error) in &damaged {
            (self.remark)(format_args!("a page of the journal is made again: {error}"));
            if let Some(owner) = owner.as_ref().filter(|owner| locked != Some(*owner)) {
                self.mend(owner, &leases)?;
            }
        }
        let mut living = Living::default();
        let mut lives = |netns: u64| living.has(netns);
        let mut swept = Swept::default();
        let mut foreign = 0;
        let is_ours = |owner: Option<&Owner>| owner.is_some_and(|owner| valid.contains(owner) || locked == Some(owner));
        for held in &leases {
            let owner = held.lease.owner();
            let page = pages.iter().find(|page| page.boot == self.node.boot && Some(&page.owner()) == owner);
            let entries = page.map(Page::entries).unwrap_or_default();
            let entry = entries.iter().find(|entry| entry.address == held.lease.address);
            let is_current = held.lease.node == self.node;
            match protocol::judge(held, &self.node, entry, &mut lives, self.conflict_delay) {
                Verdict::Keep => {}
                Verdict::Foreign => foreign += 1,
                _ if is_current && is_ours(owner) => {}
                Verdict::Delete => match self.ask(&Request::Delete(held.lease.address, held.uid.clone())) {
                    Answer::Gone => swept.freed += 1,
                    _ => swept.left += 1,
                },
                Verdict::Release => swept.count(self.release_for(owner, entry)),
            }
        }
        if foreign > 0 {
            (self.remark)(format_args!(
                "{foreign} leases of node {} were made by another machine with that name, so they stay; \
                 if that machine is gone, free them with lan-pool release",
                self.node.name
            ));
        }
        for page in &pages {
            if locked == Some(&page.owner()) {
                continue;
            }
            if page.boot != self.node.boot {
                self.forget(page)?;
                continue;
            }
            for entry in page.entries() {
                let listed = leases.iter().any(|held| held.lease.address == entry.address);
                let is_dead = page.netns.is_some_and(|netns| !lives(netns)) && !valid.contains(&page.owner());
                match entry.state {
                    State::Held(_) if is_dead && !listed => {
                        swept.count(self.release_for(Some(&page.owner()), Some(&entry)))
                    }
                    State::Trying if is_dead => swept.count(self.release_for(Some(&page.owner()), Some(&entry))),
                    State::Released(_) if !listed => swept.count(self.release_for(Some(&page.owner()), Some(&entry))),
                    State::Held(ref uid) if !is_dead => {
                        let has_it = |held: &Held| held.lease.address == entry.address && held.uid == *uid;
                        if !leases.iter().any(has_it) {
                            swept.count_restored(self.restore(&page.owner(), &entry));
                        }
                    }
                    _ => {}
                }
            }
        }
        self.journal.set_complete(true)?;
        Ok(swept)
    }

    /// Releases an entry of another owner, if it is still the same, and if no call of that owner runs. Returns true if the
    /// lease is gone.
    fn release_for(&self, owner: Option<&Owner>, entry: Option<&Entry>) -> Result<bool, Error> {
        let (Some(owner), Some(entry)) = (owner, entry) else { return Ok(false) };
        let Some(_lock) = self.journal.lock(owner, Duration::ZERO)? else { return Ok(false) };
        let Some(mut page) = self.journal.page(owner)?.filter(|page| page.entries().contains(entry)) else {
            return Ok(false);
        };
        let claim = self.claim(&page);
        match self.give(&claim, &mut page, entry.address) {
            Ok(Ended::Free) => Ok(true),
            Ok(_) => {
                self.journal.set_unsettled();
                Ok(false)
            }
            Err(error) => {
                self.journal.set_unsettled();
                Err(error)
            }
        }
    }

    /// Makes the lease of a living container again. Returns true if the store has it now.
    fn restore(&self, owner: &Owner, entry: &Entry) -> Result<bool, Error> {
        let Some(_lock) = self.journal.lock(owner, Duration::ZERO)? else { return Ok(false) };
        let Some(mut page) = self.journal.page(owner)?.filter(|page| page.entries().contains(entry)) else {
            return Ok(false);
        };
        let claim = self.claim(&page);
        let mut take = Take::new(claim, Mode::Restore, page.entries(), Some(entry.address));
        match self.run(&mut take, &mut page, &mut |_, _| Ok(None))? {
            Taken::Held(..) => Ok(true),
            Taken::Elsewhere(other) => {
                (self.remark)(format_args!(
                    "{} is in use by container {owner} of this node, and the store has leased it to {} in the meantime: \
                     two containers may have this address; end one of them",
                    entry.address, other.lease
                ));
                Ok(false)
            }
            Taken::Full => Ok(false),
            Taken::Refused(cause) => Err(Error::Refused { cause }),
        }
    }

    /// Removes a page of an earlier boot. The list of the store has its leases.
    fn forget(&self, page: &Page) -> Result<(), Error> {
        let owner = page.owner();
        let Some(_lock) = self.journal.lock(&owner, Duration::ZERO)? else { return Ok(()) };
        match self.journal.page(&owner)? {
            Some(now) if now.boot == page.boot => self.journal.write(&Page::new(&owner, &page.boot)),
            _ => Ok(()),
        }
    }

    /// Makes the pages of living containers again, from the leases of this node. Deletes nothing.
    fn recover(&self) -> Result<(), Error> {
        self.recover_with(None)
    }

    /// As [`Pool::recover`], for a call that has the lock of this page.
    fn recover_with(&self, mut locked: Option<&mut Page>) -> Result<(), Error> {
        let leases = self.list()?;
        let mut living = Living::default();
        let mut lives = |netns: u64| living.has(netns);
        for held in &leases {
            let is_locked = |page: &&mut Page| Some(&page.owner()) == held.lease.owner();
            // The namespace of a container can be gone before its DEL.
            let is_deleted = locked.as_ref().is_some_and(is_locked);
            let mut exists = |netns: u64| is_deleted || lives(netns);
            let Some((owner, netns, entry)) = protocol::recovered(held, &self.node, &mut exists) else { continue };
            match locked.as_deref_mut().filter(|page| page.owner() == *owner) {
                Some(page) => self.recover_entry(page, netns, entry)?,
                None => {
                    let Some(_lock) = self.journal.lock(owner, Duration::from_secs(1))? else {
                        return Err(self.busy(owner, 1));
                    };
                    let mut page = self.journal.page(owner)?.unwrap_or_else(|| Page::new(owner, &self.node.boot));
                    self.recover_entry(&mut page, netns, entry)?;
                }
            }
        }
        // Leases of earlier boots are swept by the next call.
        self.journal.set_complete(false)
    }

    fn recover_entry(&self, page: &mut Page, netns: Option<u64>, mut entry: Entry) -> Result<(), Error> {
        let mut entries = page.entries();
        if entries.iter().any(|its| its.address == entry.address) {
            return Ok(());
        }
        if page.is_gone
            && let State::Held(uid) = entry.state
        {
            entry.state = State::Released(Some(uid));
            self.journal.set_unsettled();
        }
        entries.push(entry);
        page.netns = page.netns.or(netns);
        page.set_entries(&entries);
        self.journal.write(page)
    }

    /// Releases what earlier calls of other owners could not release: a few pages, if no call of those owners runs.
    fn settle(&self, own: &Owner) {
        if !self.journal.is_unsettled() {
            return;
        }
        self.journal.unset_unsettled();
        let Ok((pages, _)) = self.journal.pages() else { return self.journal.set_unsettled() };
        let unsettled = pages.iter().filter(|page| page.is_unsettled() && page.owner() != *own);
        let mut is_left = pages.iter().any(|page| page.is_unsettled() && page.owner() == *own);
        for (at, page) in unsettled.enumerate() {
            if at >= SETTLED_AT_ONCE || Instant::now() >= self.deadline.get() {
                is_left = true;
                break;
            }
            for entry in page.entries().iter().filter(|entry| !entry.state.is_open()) {
                is_left |= !self.release_for(Some(&page.owner()), Some(entry)).unwrap_or(false);
            }
        }
        if is_left {
            self.journal.set_unsettled();
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

    /// A page with the leases of an owner in this boot.
    fn page_of(&self, owner: &Owner, leases: &[Held]) -> Page {
        let mut page = Page::new(owner, &self.node.boot);
        let mut entries = Vec::new();
        for held in leases.iter().filter(|held| held.lease.owner() == Some(owner)) {
            // The container may be gone: its DEL or a sweep decides.
            if let Some((_, netns, entry)) = protocol::recovered(held, &self.node, &mut |_| true) {
                page.netns = page.netns.or(netns);
                entries.push(entry);
            }
        }
        page.set_entries(&entries);
        page
    }

    /// Makes a damaged page again, if no call of its owner runs.
    fn mend(&self, owner: &Owner, leases: &[Held]) -> Result<(), Error> {
        let Some(_lock) = self.journal.lock(owner, Duration::ZERO)? else { return Ok(()) };
        match self.journal.page(owner) {
            Err(Error::Page { .. }) => self.journal.write(&self.page_of(owner, leases)),
            _ => Ok(()),
        }
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

impl Swept {
    fn count(&mut self, freed: Result<bool, Error>) {
        match freed {
            Ok(true) => self.freed += 1,
            _ => self.left += 1,
        }
    }

    fn count_restored(&mut self, restored: Result<bool, Error>) {
        match restored {
            Ok(true) => self.restored += 1,
            _ => self.left += 1,
        }
    }
}

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
