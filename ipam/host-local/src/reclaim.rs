//! Leases that nobody needs any more, and how that is known: torn ones, of a writer that did not get to its end, and
//! those from before the last reboot, which no container survives. Never on mere doubt.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::directory::Directory;
use crate::error::Error;
use crate::lease::{Content, Owner};
use crate::range::Set;
use crate::record::Record;
use crate::scan::Seen;
use crate::store::Store;

/// How many are reclaimed at once: enough for a while, in little memory.
const AT_ONCE: usize = 4096;

/// How full a set is, and with what.
#[derive(Default)]
pub(crate) struct Census {
    /// Addresses that cannot be leased.
    pub(crate) taken: u128,
    /// Those of them that nobody needs.
    pub(crate) lost: Vec<IpAddr>,
    oldest: Option<(SystemTime, IpAddr, String)>,
}

impl Census {
    /// Of a set, as anyone may see it.
    pub(crate) fn of(directory: &Directory, set: &Set) -> Result<Self, Error> {
        let boot = directory.machine.boot();
        let mut census = Self::default();
        // A file that cannot be read may be anybody's lease: taken, and nothing to reclaim.
        let _unreadable = directory.look(&mut |seen| census.count(seen, set, boot.as_deref()))?;
        Ok(census)
    }

    /// Of a set, and puts right on the way what is beside the leases.
    pub(crate) fn of_store(store: &Store<'_>, set: &Set) -> Result<Self, Error> {
        let mut census = Self::default();
        let _unreadable = store.scan(&mut |seen| census.count(seen, set, store.boot.as_deref()))?;
        Ok(census)
    }

    fn count(&mut self, seen: &Seen<'_>, set: &Set, boot: Option<&str>) {
        if !set.admits(seen.ip) {
            return;
        }
        self.taken += 1;
        let Some(content) = seen.content else { return };
        let past = seen.record.is_some_and(|record| record.is_past(boot));
        if (content.is_torn() || past) && self.lost.len() < AT_ONCE {
            self.lost.push(seen.ip);
        }
        let older =
            |time: &SystemTime| self.oldest.as_ref().is_none_or(|(then, ip, _)| (*time, seen.ip) < (*then, *ip));
        if let Some(time) = seen.modified.filter(older) {
            self.oldest = Some((time, seen.ip, format!("{} of {content}", seen.ip)));
        }
    }

    /// The error that says how full the set is.
    pub(crate) fn exhausted(self, set: &Set, reclaimed: usize) -> Error {
        Error::Exhausted {
            set: set.to_string(),
            capacity: set.capacity(),
            leases: self.taken,
            reclaimed,
            oldest: self.oldest.map(|(_, _, oldest)| oldest),
        }
    }
}

/// Frees what a census found lost; says how many addresses. `warn` is told of each.
pub(crate) fn reclaim(store: &Store<'_>, census: &Census, warn: &dyn Fn(fmt::Arguments<'_>)) -> Result<usize, Error> {
    let mut reclaimed = 0;
    for ip in &census.lost {
        // One of an owner who had several may be gone by now.
        if let Some(lease) = store.read(*ip)? {
            reclaimed += reclaim_lease(store, *ip, &lease.content, warn)?;
        }
    }
    Ok(reclaimed)
}

/// Frees a lease if nobody needs it any more; says how many addresses came of that.
pub(crate) fn reclaim_lease(
    store: &Store<'_>,
    ip: IpAddr,
    content: &Content,
    warn: &dyn Fn(fmt::Arguments<'_>),
) -> Result<usize, Error> {
    match content {
        Content::Owned { container_id, ifname } => past(store, &Owner { container_id, ifname }, warn),
        Content::Torn { .. } => {
            store.release(ip)?;
            warn(format_args!("reclaimed {ip}: its lease file was torn, by a writer that did not get to its end"));
            Ok(1)
        }
        Content::Legacy { .. } | Content::Garbage => Ok(0),
    }
}

/// Frees all leases of an owner from before the last reboot, those in other sets too: it is gone.
fn past(store: &Store<'_>, owner: &Owner<'_>, warn: &dyn Fn(fmt::Arguments<'_>)) -> Result<usize, Error> {
    let Some(Record { leases, .. }) = store.borne_out(owner).filter(|record| record.is_past(store.boot.as_deref()))
    else {
        return Ok(0);
    };
    for (ip, _) in &leases {
        store.release(*ip)?;
        warn(format_args!("reclaimed {ip} of {owner}: leased before the last reboot"));
    }
    store.forget(owner)?;
    Ok(leases.len())
}
