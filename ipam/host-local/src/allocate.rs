//! Which address an owner gets: its own again, the one asked for, or the next free one behind the last given.

use std::fmt;
use std::net::IpAddr;

use crate::error::Error;
use crate::lease::Owner;
use crate::range::Set;
use crate::request::Request;
use crate::store::{Directory, Store};

/// Leases one address from each set, or none at all. `warn` is told of everything that was done on the way and that
/// nobody asked for.
pub(crate) fn allocate(
    store: &Store<'_>,
    sets: &[Set],
    requests: &[Option<Request>],
    owner: &Owner<'_>,
    warn: &dyn Fn(fmt::Arguments<'_>),
) -> Result<Vec<IpAddr>, Error> {
    let held = store.held_by(owner)?;
    for unreadable in &held.unreadable {
        warn(format_args!("passed over: {unreadable}"));
    }
    let one = Allocation { store, owner, held: &held.leases, warn };
    let mut undo = Undo { store, leased: Vec::new() };
    let mut addresses = Vec::with_capacity(sets.len());
    for (number, (set, request)) in sets.iter().zip(requests).enumerate() {
        match one.serve(set, request.as_ref(), store.last_reserved(number)) {
            Ok(Served::Again(ip)) => addresses.push(ip),
            Ok(Served::New(ip)) => {
                undo.leased.push((number, ip));
                addresses.push(ip);
            }
            Err(error) => {
                return Err(match undo.run() {
                    left if left.is_empty() => error,
                    left => Error::NotUndone { error: Box::new(error), left },
                });
            }
        }
    }
    // Only now: a failed ADD leaves the turn where it was. And a hint is not worth failing for.
    for (number, ip) in &undo.leased {
        if let Err(error) = store.set_last_reserved(*number, *ip) {
            warn(format_args!("the next address may be one that was freed just now: {error}"));
        }
    }
    undo.leased.clear();
    Ok(addresses)
}

enum Served {
    New(IpAddr),
    /// The owner had it already.
    Again(IpAddr),
}

struct Allocation<'a> {
    store: &'a Store<'a>,
    owner: &'a Owner<'a>,
    held: &'a [IpAddr],
    warn: &'a dyn Fn(fmt::Arguments<'_>),
}

impl Allocation<'_> {
    fn serve(&self, set: &Set, request: Option<&Request>, last: Option<IpAddr>) -> Result<Served, Error> {
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

    fn requested(&self, request: &Request) -> Result<IpAddr, Error> {
        if self.store.lease(request.ip, self.owner)? {
            return Ok(request.ip);
        }
        let holder = self.store.read(request.ip)?;
        if holder.as_ref().is_some_and(|holder| holder.is_torn()) {
            self.reclaim(request.ip)?;
            if self.store.lease(request.ip, self.owner)? {
                return Ok(request.ip);
            }
        }
        let holder =
            holder.map_or_else(|| "something that is not a lease file".to_owned(), |holder| holder.to_string());
        Err(Error::Taken { place: request.to_string(), holder })
    }

    fn next_free(&self, set: &Set, last: Option<IpAddr>) -> Result<IpAddr, Error> {
        if let Some(ip) = self.store.lease_first(set.turn(last), self.owner)? {
            return Ok(ip);
        }
        let torn = torn(self.store, set)?;
        for ip in &torn {
            self.reclaim(*ip)?;
        }
        let found = match torn.is_empty() {
            true => None,
            false => self.store.lease_first(set.turn(last), self.owner)?,
        };
        found.map_or_else(|| Err(exhausted(self.store, set)?), Ok)
    }

    fn reclaim(&self, ip: IpAddr) -> Result<(), Error> {
        self.store.release(ip)?;
        (self.warn)(format_args!("reclaimed {ip}: its lease file was torn, by a writer that did not get to its end"));
        Ok(())
    }
}

/// The addresses of a set whose lease files are torn.
pub(crate) fn torn(directory: &Directory, set: &Set) -> Result<Vec<IpAddr>, Error> {
    let mut torn = Vec::new();
    // A file that cannot be read may be anybody's lease: nothing to reclaim.
    let _unreadable = directory.leases(|ip, content| {
        if content.is_torn() && set.admits(ip) {
            torn.push(ip);
        }
    })?;
    Ok(torn)
}

/// The error that says how full a set is.
pub(crate) fn exhausted(directory: &Directory, set: &Set) -> Result<Error, Error> {
    Ok(Error::Exhausted { set: set.to_string(), capacity: set.capacity(), leases: taken(directory, set)? })
}

/// How many addresses of a set cannot be leased, by the names of the files alone.
pub(crate) fn taken(directory: &Directory, set: &Set) -> Result<u128, Error> {
    let mut taken = 0;
    directory.taken(|ip| taken += u128::from(set.admits(ip)))?;
    Ok(taken)
}

/// What this call leased so far, by number of the set. Released when it is dropped: a panic must leave no lease either.
struct Undo<'a> {
    store: &'a Store<'a>,
    leased: Vec<(usize, IpAddr)>,
}

impl Undo<'_> {
    fn run(&mut self) -> Vec<Error> {
        self.leased.drain(..).filter_map(|(_, ip)| self.store.release(ip).err()).collect()
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.run();
    }
}
