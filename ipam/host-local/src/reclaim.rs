//! Frees stale leases: with an incomplete file, with a record from before the last reboot, or with a network
//! namespace that is gone. In doubt, a lease is kept.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::boots::Boots;
use crate::directory::{Directory, Note};
use crate::error::{Error, KeptList};
use crate::kept::Kept;
use crate::lease::{Content, Owner};
use crate::machine;
use crate::record::Record;
use crate::scan::Seen;
use crate::store::Store;
use ranges::Set;

/// The number of leases that one call frees at most.
const AT_ONCE: usize = 4096;

/// The container that an ADD is for.
pub(crate) struct Asker<'a> {
    pub(crate) container_id: &'a str,
    /// The inode of its network namespace.
    pub(crate) netns: u64,
}

/// Returns true if the lease is of another container, and none of its addresses is among these.
fn is_elsewhere(directory: &Directory, ip: IpAddr, container_id: &str, addresses: &[IpAddr]) -> bool {
    let Ok(Some(lease)) = directory.read(ip) else { return false };
    let Content::Owned { container_id: holder, ifname } = lease.content else { return false };
    let Note::Record(record) = directory.note(&Owner { container_id: &holder, ifname: &ifname }) else { return false };
    holder != container_id && !record.leases.iter().any(|(ip, _)| addresses.contains(ip))
}

/// The leases of a set.
#[derive(Default)]
pub(crate) struct Census {
    /// The number of leased addresses.
    pub(crate) taken: u128,
    /// Stale leases.
    pub(crate) lost: Vec<IpAddr>,
    /// Leases of this boot whose owner's network namespace is known, with its inode.
    rooted: Vec<(IpAddr, u64)>,
    oldest: Option<(SystemTime, IpAddr, String)>,
    /// Addresses that are not leased, but kept because other machines have them.
    kept: Vec<Kept>,
}

impl Census {
    fn new(set: &Set, kept: &[Kept]) -> Self {
        let kept = kept.iter().filter(|its| set.admits(its.ip)).cloned().collect();
        Self { kept, ..Self::default() }
    }

    /// Reads the leases of a set without the lock. `kept` may have addresses of other sets too.
    pub(crate) fn of(directory: &Directory, set: &Set, kept: &[Kept]) -> Result<Self, Error> {
        let boots = directory.boots();
        let mut census = Self::new(set, kept);
        // A file that cannot be read counts as leased.
        let _unreadable = directory.look(&mut |seen| census.count(seen, set, &boots))?;
        Ok(census)
    }

    /// Reads the leases of a set under the lock, and repairs records and index.
    pub(crate) fn of_store(store: &Store<'_>, set: &Set, kept: &[Kept]) -> Result<Self, Error> {
        let mut census = Self::new(set, kept);
        let _unreadable = store.scan(&mut |seen| census.count(seen, set, &store.boots))?;
        Ok(census)
    }

    fn count(&mut self, seen: &Seen<'_>, set: &Set, boots: &Boots) {
        if !set.admits(seen.ip) {
            return;
        }
        self.taken += 1;
        self.kept.retain(|its| its.ip != seen.ip);
        let Some(content) = seen.content else { return };
        let past = seen.record.is_some_and(|record| boots.is_past(record));
        if (content.is_torn() || past) && self.lost.len() < AT_ONCE {
            self.lost.push(seen.ip);
        }
        let netns = seen.record.and_then(|record| boots.netns(record));
        self.rooted.extend(netns.map(|netns| (seen.ip, netns)));
        let older =
            |time: &SystemTime| self.oldest.as_ref().is_none_or(|(then, ip, _)| (*time, seen.ip) < (*then, *ip));
        if let Some(time) = seen.modified.filter(older) {
            self.oldest = Some((time, seen.ip, format!("{} of {content}", seen.ip)));
        }
    }

    /// Returns true if an ADD could lease an address of the set, without a search for network namespaces.
    pub(crate) fn has_room(&self, set: &Set) -> bool {
        self.taken + (self.kept.len() as u128) < set.capacity() || !self.lost.is_empty()
    }

    /// Returns true if a lease can be freed because its network namespace is gone. In doubt, returns false.
    pub(crate) fn has_gone(&self) -> bool {
        self.gone().is_ok_and(|gone| !gone.is_empty())
    }

    /// The leases whose network namespace exists no more, with its inode.
    fn gone(&self) -> linux::Result<Vec<(IpAddr, u64)>> {
        let mut gone = self.rooted.iter().map(|(_, netns)| *netns).collect::<HashSet<u64>>();
        linux::retain_gone(&mut gone)?;
        Ok(self.rooted.iter().copied().filter(|(_, netns)| gone.contains(netns)).collect())
    }

    /// Leases of other containers whose network namespace has the number of the asker's, and that have no address in there.
    /// They are of a namespace that is gone: the kernel gives a new namespace the lowest number that is free, so the container
    /// that asks often has the number of one that is gone.
    fn replaced(&self, directory: &Directory, asker: &Asker<'_>) -> Vec<(IpAddr, u64)> {
        let mut leases = self.rooted.iter().filter(|(_, netns)| *netns == asker.netns).peekable();
        if leases.peek().is_none() {
            return Vec::new();
        }
        let Some(inside) = machine::addresses_in(asker.netns) else { return Vec::new() };
        leases.filter(|(ip, _)| is_elsewhere(directory, *ip, asker.container_id, &inside)).copied().collect()
    }

    /// The error that says how full the set is.
    pub(crate) fn exhausted(self, set: &Set, reclaimed: usize) -> Error {
        Error::Exhausted {
            set: set.to_string(),
            capacity: set.capacity(),
            leases: self.taken,
            reclaimed,
            kept: KeptList(self.kept),
            oldest: self.oldest.map(|(_, _, oldest)| oldest),
        }
    }
}

/// Frees the leases of a census that no container needs. Returns the number of addresses. `warn` is told of each.
pub(crate) fn reclaim(
    store: &Store<'_>,
    census: &Census,
    asker: Option<&Asker<'_>>,
    warn: &dyn Fn(fmt::Arguments<'_>),
) -> Result<usize, Error> {
    let mut reclaimed = 0;
    for ip in &census.lost {
        // It may have been freed with another lease of its owner.
        if let Some(lease) = store.directory.read(*ip)? {
            reclaimed += reclaim_lost(store, *ip, &lease.content, warn)?;
        }
    }
    if reclaimed > 0 {
        return Ok(reclaimed);
    }
    // First the leases with the number of the asker. Later it cannot be proved that they are stale.
    let mut gone = asker.map(|asker| census.replaced(store.directory, asker)).unwrap_or_default();
    if gone.is_empty() {
        // This search comes last, because it looks at the whole machine.
        gone = match census.gone() {
            Ok(gone) => gone,
            Err(cause) => {
                warn(format_args!("no lease of this boot was reclaimed: {cause}"));
                return Ok(0);
            }
        };
    }
    for (ip, netns) in gone.into_iter().take(AT_ONCE) {
        let Some(lease) = store.directory.read(ip)? else { continue };
        let Content::Owned { container_id, ifname } = &lease.content else { continue };
        let is_gone = |record: &Record| store.boots.netns(record) == Some(netns);
        let cause = "its network namespace is gone, and no DEL came";
        reclaimed += reclaim_owner(store, &Owner { container_id, ifname }, &is_gone, cause, warn)?;
    }
    Ok(reclaimed)
}

/// Frees a lease if no container needs it any more. Returns the number of addresses that this has freed.
pub(crate) fn reclaim_lease(
    store: &Store<'_>,
    ip: IpAddr,
    content: &Content,
    asker: Option<&Asker<'_>>,
    warn: &dyn Fn(fmt::Arguments<'_>),
) -> Result<usize, Error> {
    let mut census = Census { lost: vec![ip], ..Census::default() };
    if let Content::Owned { container_id, ifname } = content {
        let record = store.borne_out(&Owner { container_id, ifname });
        census.rooted.extend(record.and_then(|record| Some((ip, store.boots.netns(&record)?))));
    }
    reclaim(store, &census, asker, warn)
}

fn reclaim_lost(
    store: &Store<'_>,
    ip: IpAddr,
    content: &Content,
    warn: &dyn Fn(fmt::Arguments<'_>),
) -> Result<usize, Error> {
    match content {
        Content::Owned { container_id, ifname } => {
            let is_past = |record: &Record| store.boots.is_past(record);
            let cause = "leased before the last reboot";
            reclaim_owner(store, &Owner { container_id, ifname }, &is_past, cause, warn)
        }
        Content::Torn { .. } => {
            store.release(ip)?;
            warn(format_args!("reclaimed {ip}: its lease file is incomplete, since a crash interrupted its writing"));
            Ok(1)
        }
        Content::Legacy { .. } | Content::Garbage => Ok(0),
    }
}

/// Frees all leases of an owner that is gone, as its record shows, those in other sets too.
fn reclaim_owner(
    store: &Store<'_>,
    owner: &Owner<'_>,
    is_gone: &dyn Fn(&Record) -> bool,
    cause: &str,
    warn: &dyn Fn(fmt::Arguments<'_>),
) -> Result<usize, Error> {
    let Some(Record { leases, .. }) = store.borne_out(owner).filter(is_gone) else { return Ok(0) };
    for (ip, _) in &leases {
        store.release(*ip)?;
        warn(format_args!("reclaimed {ip} of {owner}: {cause}"));
    }
    store.forget(owner)?;
    Ok(leases.len())
}
