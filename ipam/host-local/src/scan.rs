//! The walk over a whole lease directory. Under the lock it makes the index anew and puts the records right: every
//! lease gets one, and none is left without a lease. Without the lock it only looks.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::error::Error;
use crate::index::Index;
use crate::lease::{self, Content, Owner};
use crate::record::{self, Record};
use crate::store::{Directory, Lease, Note, Store, insert};

/// An address that has an entry.
pub(crate) struct Seen<'a> {
    pub(crate) ip: IpAddr,
    /// None of what is no lease file, and of one that could not be read.
    pub(crate) content: Option<&'a Content>,
    /// What is known about the lease, and borne out by its file.
    pub(crate) record: Option<&'a Record>,
    pub(crate) modified: Option<SystemTime>,
}

enum Entry {
    /// An address, with its lease.
    Address(IpAddr, Option<Lease>),
    /// What is named like a record.
    Record,
}

impl Directory {
    /// Visits every address that has an entry. Returned are the errors of files that could not be read: the others are
    /// visited all the same. A missing directory has none.
    pub(crate) fn look(&self, visit: &mut dyn FnMut(&Seen<'_>)) -> Result<Vec<Error>, Error> {
        self.walk(&mut |entry| {
            let Entry::Address(ip, lease) = entry else { return };
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

    fn walk(&self, visit: &mut dyn FnMut(Entry)) -> Result<Vec<Error>, Error> {
        let mut unreadable = Vec::new();
        let entries = match fs::read_dir(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(unreadable),
            entries => entries.map_err(Error::io("read", self.path()))?,
        };
        let mut buffer = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("read", self.path()))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let kind = entry.file_type().ok();
            match lease::address(name) {
                // Links and folders are somebody's own; following one could lead anywhere.
                Some(ip) if kind.is_some_and(|kind| kind.is_file()) => match self.read_file(ip, &mut buffer) {
                    Ok(Some(lease)) => visit(Entry::Address(ip, Some(lease))),
                    Ok(None) => {}
                    Err(error) => {
                        visit(Entry::Address(ip, None));
                        unreadable.push(error);
                    }
                },
                Some(ip) => visit(Entry::Address(ip, None)),
                None if record::owner(name).is_some() && kind.is_some_and(|kind| kind.is_symlink()) => {
                    visit(Entry::Record);
                }
                None => {}
            }
        }
        Ok(unreadable)
    }
}

impl<'a> Seen<'a> {
    fn new(ip: IpAddr, lease: Option<&'a Lease>, record: Option<&'a Record>) -> Self {
        let modified = lease.and_then(|lease| lease.modified);
        Self { ip, content: lease.map(|lease| &lease.content), record, modified }
    }
}

impl Store<'_> {
    /// As [`Directory::look`], and puts right what is beside the leases.
    pub(crate) fn scan(&self, visit: &mut dyn FnMut(&Seen<'_>)) -> Result<Vec<Error>, Error> {
        self.start_over();
        let mut index = Index::empty();
        // How many records there are, and how many there should be.
        let (mut found, mut expected) = (0u64, 0u64);
        let unreadable = self.walk(&mut |entry| match entry {
            Entry::Record => found += 1,
            Entry::Address(ip, lease) => {
                index.mark(ip);
                let record = lease.as_ref().and_then(|lease| match &lease.content {
                    Content::Owned { container_id, ifname } => {
                        let record = self.record_of(ip, lease, &Owner { container_id, ifname });
                        expected += u64::from(record.leases.first().is_some_and(|(first, _)| *first == ip));
                        Some(record)
                    }
                    // They name their container, and no record does that.
                    Content::Legacy { .. } | Content::Torn { container_id: Some(_) } => {
                        self.state().index.unrecorded = true;
                        None
                    }
                    Content::Torn { container_id: None } | Content::Garbage => None,
                });
                visit(&Seen::new(ip, lease.as_ref(), record.as_ref()));
            }
        })?;
        index.unrecorded = self.state().index.unrecorded || !unreadable.is_empty();
        self.state().index = index;
        // Those made on the way may have been met as well, and hide a few that are too many: the next walk's.
        if found > expected {
            self.sweep()?;
        }
        self.trust();
        Ok(unreadable)
    }

    /// The record of a lease, made where there is none that knows this very file.
    fn record_of(&self, ip: IpAddr, lease: &Lease, owner: &Owner<'_>) -> Record {
        let mut leases = match self.note(owner) {
            Note::Record(record) if record.holds(ip, lease.identity) => return record,
            Note::Record(mut record) => {
                record.leases.retain(|(other, _)| *other != ip);
                self.bear_out(&mut record, owner);
                record.leases
            }
            _ => Vec::new(),
        };
        insert(&mut leases, (ip, lease.identity));
        // Of this boot, whatever was known before: one of them may be.
        let record = Record { boot: self.boot.clone(), netns: None, leases };
        if self.forget(owner).is_ok() {
            self.write_note(owner, &record);
        }
        record
    }

    /// What an owner's record says, as far as the lease files bear it out.
    pub(crate) fn borne_out(&self, owner: &Owner<'_>) -> Option<Record> {
        let Note::Record(mut record) = self.note(owner) else { return None };
        self.bear_out(&mut record, owner);
        Some(record)
    }

    /// Takes out of a record what the lease files do not bear out.
    fn bear_out(&self, record: &mut Record, owner: &Owner<'_>) {
        record.leases.retain(|(ip, identity)| {
            let lease = self.read(*ip).ok().flatten();
            lease.is_some_and(|lease| lease.content.is_of(owner) && lease.identity == *identity)
        });
    }

    /// Removes what records say beyond the leases that there are.
    fn sweep(&self) -> Result<(), Error> {
        // One walk to find them, and then the changes: a walk may miss or repeat what changes under it.
        let mut wrong = Vec::new();
        self.walk_names(&mut |name| {
            let Some(owner) = record::owner(name) else { return };
            match self.note(&owner) {
                Note::Record(mut record) => {
                    let before = record.leases.len();
                    self.bear_out(&mut record, &owner);
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

    fn walk_names(&self, visit: &mut dyn FnMut(&str)) -> Result<(), Error> {
        for entry in fs::read_dir(self.path()).map_err(Error::io("read", self.path()))? {
            let entry = entry.map_err(Error::io("read", self.path()))?;
            if let Some(name) = entry.file_name().to_str() {
                visit(name);
            }
        }
        Ok(())
    }
}
