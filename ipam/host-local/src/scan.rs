//! Scans a whole lease directory. Under the lock, the scan rebuilds the index and repairs the records: every lease
//! gets one, and a record without leases is removed. Without the lock it changes nothing.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use linux::file;

use crate::directory::{Directory, Lease, Note, insert};
use crate::error::Error;
use crate::index::Index;
use crate::lease::{self, Content, Owner};
use crate::record::{self, Identity, Record};
use crate::store::Store;

/// The time in which one scan creates missing records: a container waits for it. The next call continues. A record
/// that was begun is completed.
const NOTING_WITHIN: Duration = Duration::from_secs(5);

/// One address of the directory.
pub(crate) struct Seen<'a> {
    pub(crate) ip: IpAddr,
    /// `None` if the entry is not a lease file or cannot be read.
    pub(crate) content: Option<&'a Content>,
    /// The record, if it agrees with the lease file.
    pub(crate) record: Option<&'a Record>,
    pub(crate) modified: Option<SystemTime>,
}

impl Directory {
    /// Calls `visit` for every address in the directory. Returns the errors of files that could not be read. A
    /// missing directory has no addresses.
    pub(crate) fn look(&self, visit: &mut dyn FnMut(&Seen<'_>)) -> Result<Vec<Error>, Error> {
        self.walk(&mut |ip, lease| {
            let record = lease.as_ref().and_then(|lease| {
                let Content::Owned { container_id, ifname } = &lease.content else { return None };
                match self.note(&Owner { container_id, ifname }) {
                    Note::Record(record) => record.holds(ip, lease.identity).then_some(record),
                    _ => None,
                }
            });
            visit(&Seen::new(ip, lease.as_ref(), record.as_ref()));
        })
    }

    fn walk(&self, visit: &mut dyn FnMut(IpAddr, Option<Lease>)) -> Result<Vec<Error>, Error> {
        let mut unreadable = Vec::new();
        let mut buffer = Vec::new();
        self.entries(&mut |name, entry| {
            let Some(ip) = lease::address(name) else { return };
            // Symbolic links and directories are not followed.
            if !entry.is_file(self.path()) {
                return visit(ip, None);
            }
            match self.read_file(ip, &mut buffer) {
                Ok(Some(lease)) => visit(ip, Some(lease)),
                Ok(None) => {}
                Err(error) => {
                    visit(ip, None);
                    unreadable.push(error);
                }
            }
        })?;
        Ok(unreadable)
    }

    fn entries(&self, visit: &mut dyn FnMut(&str, &file::Entry)) -> Result<(), Error> {
        let entries = match file::entries(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Error::io("read", self.path()))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("read", self.path()))?;
            if let Some(name) = entry.name.to_str() {
                visit(name, &entry);
            }
        }
        Ok(())
    }
}

impl<'a> Seen<'a> {
    fn new(ip: IpAddr, lease: Option<&'a Lease>, record: Option<&'a Record>) -> Self {
        let modified = lease.and_then(|lease| lease.modified);
        Self { ip, content: lease.map(|lease| &lease.content), record, modified }
    }
}

impl Store<'_> {
    /// As [`Directory::look`], and repairs records and index.
    pub(crate) fn scan(&self, visit: &mut dyn FnMut(&Seen<'_>)) -> Result<Vec<Error>, Error> {
        self.start_over();
        self.sweep()?;
        let until = Instant::now() + NOTING_WITHIN;
        let mut index = Index::empty();
        let unreadable = self.directory.walk(&mut |ip, lease| {
            index.mark(ip);
            let record = lease.as_ref().and_then(|lease| match &lease.content {
                Content::Owned { container_id, ifname } => {
                    Some(self.record_of(ip, lease, &Owner { container_id, ifname }, until))
                }
                // These leases have no interface name, so they cannot have a record.
                Content::Legacy { .. } | Content::Torn { container_id: Some(_) } => {
                    self.state().index.unrecorded = true;
                    None
                }
                Content::Torn { container_id: None } | Content::Garbage => None,
            });
            visit(&Seen::new(ip, lease.as_ref(), record.as_ref()));
        })?;
        index.unrecorded = self.state().index.unrecorded || !unreadable.is_empty();
        self.state().index = index;
        self.trust();
        Ok(unreadable)
    }

    /// Returns the record of a lease. Creates it if there is none that contains this file.
    fn record_of(&self, ip: IpAddr, lease: &Lease, owner: &Owner<'_>, until: Instant) -> Record {
        let mut leases = match self.directory.note(owner) {
            Note::Record(record) if record.holds(ip, lease.identity) => return record,
            Note::Record(mut record) => {
                record.leases.retain(|(other, _)| *other != ip);
                self.bear_out(&mut record);
                record.leases
            }
            _ => Vec::new(),
        };
        insert(&mut leases, (ip, lease.identity));
        // At least one of its leases may be from this boot.
        let record = Record::new(self.boots.of_unrecorded(), self.boots.is_shared(), None, leases);
        let now = Instant::now() < until || record.leases.len() > 1;
        match now && self.forget(owner).is_ok() {
            true => drop(self.write_note(owner, &record)),
            false => self.state().index.unrecorded = true,
        }
        record
    }

    /// Returns an owner's record, without entries that do not agree with the lease files.
    pub(crate) fn borne_out(&self, owner: &Owner<'_>) -> Option<Record> {
        let Note::Record(mut record) = self.directory.note(owner) else { return None };
        self.bear_out(&mut record);
        Some(record)
    }

    /// Removes entries from a record that do not agree with the lease files.
    fn bear_out(&self, record: &mut Record) {
        record.leases.retain(|(ip, identity)| {
            let file = fs::symlink_metadata(self.directory.file(*ip)).ok().filter(fs::Metadata::is_file);
            file.is_some_and(|file| Identity::of(&file) == *identity)
        });
    }

    /// Repairs records that name leases which do not exist.
    fn sweep(&self) -> Result<(), Error> {
        // First search, then change: a directory must not change while it is listed.
        let mut wrong = Vec::new();
        self.directory.entries(&mut |name, _| {
            let Some(owner) = record::owner(name) else { return };
            match self.directory.note(&owner) {
                Note::Record(mut record) => {
                    let before = record.leases.len();
                    self.bear_out(&mut record);
                    if record.leases.len() < before {
                        wrong.push((name.to_owned(), Some(record)));
                    }
                }
                Note::Unreadable => wrong.push((name.to_owned(), None)),
                Note::Nothing | Note::Foreign => {}
            }
        })?;
        for (name, record) in wrong {
            let Some(owner) = record::owner(&name) else { continue };
            let left = record.filter(|record| !record.leases.is_empty());
            if self.forget(&owner).is_ok()
                && let Some(left) = left
            {
                self.write_note(&owner, &left);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::store::Trust;

    const OWNER: Owner<'static> = Owner { container_id: "c1", ifname: "eth0" };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A DEL that believed the first half would have freed one address, and forgotten the other.
    #[test]
    fn a_record_that_was_begun_is_finished_also_when_the_time_for_making_them_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "lan", Machine::this());
        let store = Store::create(&directory).unwrap();
        let both = [ip("10.0.0.2"), ip("fd00::2")];
        let lease = |ip: IpAddr, owner: &Owner<'_>| {
            assert!(store.lease(ip, owner).unwrap());
            store.directory.read(ip).unwrap().unwrap()
        };
        let (first, second) = (lease(both[0], &OWNER), lease(both[1], &OWNER));
        let over = Instant::now();
        store.record_of(both[0], &first, &OWNER, over + NOTING_WITHIN);
        assert!(!store.state().index.unrecorded);
        store.record_of(both[1], &second, &OWNER, over);
        let Note::Record(record) = store.directory.note(&OWNER) else { panic!("no record") };
        assert_eq!(record.leases, [(both[0], first.identity), (both[1], second.identity)]);
        assert!(!store.state().index.unrecorded);

        let other = Owner { container_id: "c2", ..OWNER };
        let third = lease(ip("10.0.0.3"), &other);
        store.record_of(ip("10.0.0.3"), &third, &other, over);
        assert!(matches!(store.directory.note(&other), Note::Nothing));
        assert!(store.state().index.unrecorded);
    }

    /// A range that had run out was walked over after something had failed, and the walk made the index believed again.
    #[test]
    fn after_a_failure_the_next_call_finds_no_index_whatever_this_one_has_walked_over() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path(), "lan", Machine::this());
        let scanned = || {
            let store = Store::create(&directory).unwrap();
            let known = store.state().trust == Trust::Right;
            store.scan(&mut |_| ()).unwrap();
            (known, store)
        };
        let (known, store) = scanned();
        assert!(!known && store.state().trust == Trust::Right);
        drop(store);
        let (known, store) = scanned();
        assert!(known);
        // A directory, which cannot be removed as a file.
        fs::create_dir(directory.file(ip("10.0.0.2"))).unwrap();
        store.release(ip("10.0.0.2")).unwrap_err();
        store.scan(&mut |_| ()).unwrap();
        drop(store);
        assert!(!scanned().0);
    }
}
