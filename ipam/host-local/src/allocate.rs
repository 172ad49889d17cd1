//! Chooses the address of an owner: the one that it has, the requested one, or the next free one.

use std::fmt;
use std::net::IpAddr;

use crate::config::Config;
use crate::directory::insert;
use crate::error::Error;
use crate::kept::Kept;
use crate::lease::Owner;
use crate::reclaim::{self, Asker, Census};
use crate::record::Identity;
use crate::store::Store;
use ranges::Requested;
use ranges::Set;

/// The leases of an ADD.
pub(crate) struct Given {
    /// One address of each set.
    pub(crate) addresses: Vec<IpAddr>,
    /// The leases among them that were made now; none where they cannot be told from others.
    pub(crate) made: Option<Vec<(IpAddr, Identity)>>,
}

/// Leases one address from each set, or none at all. `warn` gets the remarks.
pub(crate) fn allocate(
    store: &Store<'_>,
    config: &Config,
    owner: &Owner<'_>,
    netns: Option<u64>,
    warn: &dyn Fn(fmt::Arguments<'_>),
) -> Result<Given, Error> {
    let held = store.held_by(owner)?;
    for unreadable in &held.unreadable {
        warn(format_args!("ignored a file that cannot be read: {unreadable}"));
    }
    let resting = store.resting(config.reuse_delay);
    let kept = store.kept_or_cleared(config.conflict_delay);
    let asker = netns.map(|netns| Asker { container_id: owner.container_id, netns });
    let one = Allocation { store, owner, asker, held: &held.leases, resting: &resting, kept: &kept, warn };
    let mut undo = Undo { store, leased: Vec::new() };
    let mut addresses = Vec::with_capacity(config.sets.len());
    let mut turns = Vec::with_capacity(config.sets.len());
    for (number, (set, request)) in config.sets.iter().zip(&config.requests).enumerate() {
        let turn = store.turn(number);
        match one.serve(set, request.as_ref(), turn.last) {
            Ok(Served::Again(ip)) => addresses.push(ip),
            Ok(Served::New(ip)) => {
                undo.leased.push(ip);
                turns.push((turn, ip));
                addresses.push(ip);
            }
            Err(error) => return Err(undo.after(error)),
        }
    }
    let mut all = held.leases.clone();
    undo.leased.iter().for_each(|ip| insert(&mut all, *ip));
    let noted = match store.note_owner(owner, &all, netns) {
        Ok(noted) => noted,
        Err(error) => return Err(undo.after(error)),
    };
    let made = noted.map(|noted| noted.into_iter().filter(|(ip, _)| undo.leased.contains(ip)).collect());
    // Last, so that a failed ADD does not move the rotation. The position is only a hint, so an error is a remark.
    for (turn, ip) in turns {
        if let Err(error) = store.end_turn(turn, ip) {
            warn(format_args!(
                "the rotation position was not saved, so the next ADD may get an address that was freed just now: {error}"
            ));
        }
    }
    undo.leased.clear();
    Ok(Given { addresses, made })
}

enum Served {
    New(IpAddr),
    /// The owner had this address already.
    Again(IpAddr),
}

struct Allocation<'a> {
    store: &'a Store<'a>,
    owner: &'a Owner<'a>,
    asker: Option<Asker<'a>>,
    held: &'a [IpAddr],
    /// Addresses that were released within `reuseDelay`.
    resting: &'a [IpAddr],
    /// Addresses that other machines have.
    kept: &'a [Kept],
    warn: &'a dyn Fn(fmt::Arguments<'_>),
}

impl Allocation<'_> {
    fn serve(&self, set: &Set, request: Option<&Requested>, last: Option<IpAddr>) -> Result<Served, Error> {
        let mut held = self.held.iter().copied().filter(|ip| set.admits(*ip));
        let Some(request) = request else {
            return match held.next() {
                Some(ip) => Ok(Served::Again(ip)),
                None => self.next_free(set, last).map(Served::New),
            };
        };
        if self.held.contains(&request.ip) {
            return Ok(Served::Again(request.ip));
        }
        match held.next() {
            Some(held) => {
                Err(Error::Held { place: format!("{request}, of {set}"), owner: self.owner.to_string(), held })
            }
            None => self.requested(request).map(Served::New),
        }
    }

    fn requested(&self, request: &Requested) -> Result<IpAddr, Error> {
        if self.store.lease(request.ip, self.owner)? {
            return Ok(request.ip);
        }
        let lease = self.store.directory.read(request.ip)?;
        // No other address is possible, so for this call the range is full.
        if let Some(lease) = &lease
            && reclaim::reclaim_lease(self.store, request.ip, &lease.content, self.asker.as_ref(), self.warn)? > 0
            && self.store.lease(request.ip, self.owner)?
        {
            return Ok(request.ip);
        }
        let holder =
            lease.map_or_else(|| "something that is not a lease file".to_owned(), |lease| lease.content.to_string());
        Err(Error::Taken { place: request.to_string(), holder })
    }

    fn next_free(&self, set: &Set, last: Option<IpAddr>) -> Result<IpAddr, Error> {
        let next = || self.store.lease_next(set, last, self.resting, self.kept, self.owner);
        if let Some(ip) = next()? {
            return Ok(ip);
        }
        let census = Census::of_store(self.store, set, self.kept)?;
        let reclaimed = reclaim::reclaim(self.store, &census, self.asker.as_ref(), self.warn)?;
        // The census has rebuilt the index. An address that the old index wrongly listed as leased is free now.
        let found = if reclaimed == 0 && census.taken >= set.capacity() { None } else { next()? };
        found.ok_or_else(|| census.exhausted(set, reclaimed))
    }
}

/// The leases that this call has made so far. They are released when this is dropped, also after a panic.
struct Undo<'a> {
    store: &'a Store<'a>,
    leased: Vec<IpAddr>,
}

impl Undo<'_> {
    /// Releases the leases. Returns the error of the call, with the leases that could not be released.
    fn after(&mut self, error: Error) -> Error {
        match self.run() {
            left if left.is_empty() => error,
            left => Error::NotUndone { error: Box::new(error), left },
        }
    }

    fn run(&mut self) -> Vec<Error> {
        self.leased.drain(..).filter_map(|ip| self.store.release(ip).err()).collect()
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.run();
    }
}
