//! The host's side: what a call changes on the host, under one lock. The host's link of a parent is in
//! [`crate::host_link`], and the link of a VLAN in [`crate::vlan_link`].
//!
//! A [`Record`] names what an attachment has there. Everything that is released is found by a record, and the record is
//! removed last.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::time::Duration;

use cni::config::ValidAttachment;
use fnv::FnvHasher;
use linux::{Link, Patience, Rtnl, file};

use crate::Attachment;
use crate::error::{Error, Result};
use crate::host_link::is_host_link;
use crate::record::{self, Content, Home, Presence, Record};

/// The longest wait for other calls on this host. Each holds the lock for milliseconds, but there can be many.
const LOCKED_WITHIN: Duration = Duration::from_secs(60);

/// The longest wait until the kernel has deleted the links of a namespace that has ended.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// An ADD and a DEL look at so many records of other attachments of the parent. So they cost the same with any number
/// of attachments.
const LOOKED_AT: usize = 4;

/// An ADD and a DEL read at most so many records of others to find those of the parent.
const READ: usize = 12;

/// The beginning of all names that only Underlay gives to links of the host.
pub(crate) const NAME: &str = "underlay";

/// At most so many names are tried for a new link.
pub(crate) const NAMES: u8 = 4;

/// Returns a name for a new link of the host. It is computed from these parts.
pub(crate) fn name_of(parts: &[&[u8]]) -> String {
    let mut hasher = FnvHasher::default();
    parts.iter().for_each(|part| hasher.write(part));
    format!("{NAME}{:06x}", hasher.finish() & 0xff_ffff)
}

/// The host's side of all parents, for one call. It holds the lock of all calls on this host.
pub(crate) struct HostSide<'a> {
    lock: file::Lock,
    pub(crate) home: Home,
    /// A socket in the home namespace.
    pub(crate) rtnl: &'a mut Rtnl,
    pub(crate) remark: &'a dyn Fn(std::fmt::Arguments<'_>),
    /// The host's link that this call is about to use. It is not removed, although it may have no user yet.
    pub(crate) in_use: Option<u32>,
    /// The longest wait, in the whole call, until the kernel has deleted the links of containers that have ended.
    pub(crate) ends_by: Option<Patience>,
}

/// Takes the lock of the host's side.
pub(crate) fn lock() -> Result<file::Lock> {
    Ok(crate::lock("host-side", LOCKED_WITHIN)?)
}

impl<'a> HostSide<'a> {
    pub(crate) fn lock(rtnl: &'a mut Rtnl, remark: &'a dyn Fn(std::fmt::Arguments<'_>)) -> Result<Self> {
        let lock = lock()?;
        Ok(Self::locked(lock, Home::here(rtnl)?, rtnl, remark))
    }

    /// As [`HostSide::lock`], with a lock that was taken before. `home` is the namespace of `rtnl`.
    pub(crate) fn locked(
        lock: file::Lock,
        home: Home,
        rtnl: &'a mut Rtnl,
        remark: &'a dyn Fn(std::fmt::Arguments<'_>),
    ) -> Self {
        let ends_by = Some(Patience::new(ENDS_WITHIN));
        Self { lock, home, rtnl, remark, in_use: None, ends_by }
    }

    /// Keeps the lock for longer than this value.
    pub(crate) fn into_lock(self) -> file::Lock {
        self.lock
    }

    /// Removes the effects of one attachment, and then its record.
    pub(crate) fn release(&mut self, record: &Record) -> Result<()> {
        self.release_access(record)?;
        if let Some(vlan) = record.vlan {
            self.release_vlan(vlan, record)?;
        }
        record.remove()
    }

    /// Removes the effects of an attachment, if it has a record of this host. Returns that record.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecord`] if another release has written the record.
    pub(crate) fn release_of(&mut self, attachment: &Attachment<'_>) -> Result<Option<Box<Record>>> {
        let record = self.record_of(attachment)?;
        record.as_ref().map_or(Ok(()), |record| self.release(record))?;
        Ok(record)
    }

    /// Removes the host's routes to an attachment. Returns true if it still has a record, because of a VLAN.
    ///
    /// # Errors
    ///
    /// As [`HostSide::release_of`].
    pub(crate) fn release_access_of(&mut self, attachment: &Attachment<'_>) -> Result<bool> {
        match self.record_of(attachment)? {
            Some(record) if record.vlan.is_none() => self.release(&record).map(|()| false),
            Some(record) => self.release_access(&record).map(|()| true),
            None => Ok(false),
        }
    }

    /// Reads the record of an attachment, if it is of this host. Removes a record of which the content is lost.
    fn record_of(&mut self, attachment: &Attachment<'_>) -> Result<Option<Box<Record>>> {
        match record::of(attachment)? {
            Some(Content::Whole(record)) if record.home == self.home => return Ok(Some(record)),
            Some(Content::Incomplete) => record::remove_of(attachment)?,
            Some(Content::OtherSchema) => return Err(Error::OtherRecord(record::path_of(attachment))),
            _ => {}
        }
        Ok(None)
    }

    /// Looks at a few records of a parent, and removes the effects of attachments that are gone. A stale route would
    /// hide an address that another machine has now. An error is a remark: it is no reason to fail for another
    /// attachment.
    pub(crate) fn look_at_some(&mut self, parent: u32, own: &Attachment<'_>) {
        let mut paths = match record::paths() {
            Ok(paths) => paths,
            Err(error) => return (self.remark)(format_args!("{error}")),
        };
        let own = record::path_of(own);
        paths.retain(|path| *path != own);
        // A link that is still in use is left to GC.
        self.ends_by = None;
        let random = RandomState::new();
        let mut of_parent = 0;
        for _ in 0..READ.min(paths.len()) {
            let at = usize::try_from(random.hash_one(paths.len()) & 0xffff_ffff).unwrap_or(0) % paths.len();
            match self.look_at(&paths.swap_remove(at), |_| false) {
                Ok(its) => of_parent += usize::from(its.is_some_and(|record| record.is_of(parent))),
                Err(error) => {
                    (self.remark)(format_args!("{error}"));
                    of_parent += 1;
                }
            }
            if of_parent == LOOKED_AT {
                break;
            }
        }
    }

    /// Looks at all records. Also removes the effects of attachments that the runtime does not know, if it cannot be
    /// seen that they exist. Returns the first error, after all were looked at.
    fn look_at_all(&mut self, network: &str, valid: &[ValidAttachment]) -> Result<()> {
        let mut outcome = Ok(());
        for path in record::paths()? {
            let looked = self.look_at(&path, |record| {
                let is_it =
                    |its: &ValidAttachment| its.container_id == record.container_id && its.ifname == record.ifname;
                record.network == network && !valid.iter().any(is_it)
            });
            outcome = outcome.and(looked.map(drop));
        }
        outcome
    }

    /// Removes the effects of the attachment of a record, if it is gone. Returns the record, if it is of this host.
    fn look_at(&mut self, path: &Path, is_unknown: impl Fn(&Record) -> bool) -> Result<Option<Box<Record>>> {
        let record = match record::read(path)? {
            None | Some(Content::OtherSchema) => return Ok(None),
            Some(Content::Incomplete) => return record::remove(path).map(|()| None),
            Some(Content::Whole(record)) => record,
        };
        if record.home != self.home {
            return Ok(None);
        }
        let goes = match record.presence() {
            Presence::There => false,
            Presence::Gone => true,
            Presence::Unknown => is_unknown(&record),
        };
        if goes {
            self.release(&record)?;
            let (container, ifname) = (&record.container_id, &record.ifname);
            if record.access.is_some() {
                (self.remark)(format_args!("container {container} is gone: removed the host's routes to its {ifname}"));
            }
        }
        Ok(Some(record))
    }
}

/// Removes the effects of attachments that are gone.
pub(crate) fn gc(
    network: &str,
    valid: &dyn Fn() -> std::result::Result<Vec<ValidAttachment>, cni::Error>,
    remark: &dyn Fn(std::fmt::Arguments<'_>),
) -> Result<()> {
    if !record::is_in_use() {
        return Ok(());
    }
    let valid = if record::paths()?.is_empty() { Vec::new() } else { valid()? };
    let mut host = Rtnl::open()?;
    let mut side = HostSide::lock(&mut host, remark)?;
    let looked = side.look_at_all(network, &valid);
    looked.and(side.remove_unused_vlans())
}

/// Removes the host's links of a parent if all of its containers are gone. Such a link would keep links of another kind
/// or mode from the parent. Returns true if there was one, and there is none any more.
///
/// `lock` has the lock of the host's side, if the caller holds it already.
pub(crate) fn remove_stale(
    lock: &mut Option<file::Lock>,
    host: &mut Rtnl,
    parent: u32,
    remark: &dyn Fn(std::fmt::Arguments<'_>),
) -> Result<bool> {
    let of_parent = |host: &mut Rtnl| -> Result<Vec<Link>> {
        let mut links = host.links()?;
        links.retain(|link| link.parent == Some(parent) && is_host_link(link));
        Ok(links)
    };
    if of_parent(host)?.is_empty() {
        return Ok(false);
    }
    let is_locked = lock.is_some();
    let held = lock.take().map_or_else(self::lock, Ok)?;
    let mut side = HostSide::locked(held, Home::here(host)?, host, remark);
    for path in record::paths()? {
        side.look_at(&path, |_| false)?;
    }
    for link in of_parent(side.rtnl)? {
        side.remove_if_unused(&link)?;
    }
    let is_removed = of_parent(side.rtnl)?.is_empty();
    *lock = Some(side.into_lock()).filter(|_| is_locked);
    Ok(is_removed)
}
