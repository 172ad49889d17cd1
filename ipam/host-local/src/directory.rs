//! Reads the lease directory of one network, with or without its lock. `store` changes it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use linux::Errno;

use crate::boots::Boots;
use crate::error::Error;
use crate::lease::{self, Content, Owner};
use crate::machine::Machine;
use crate::record::{self, Identity, Record};

/// The part of a lease file that is read. No lease is larger.
const MAX_LEASE_BYTES: usize = 1 << 16;

/// The lease directory of one network.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    pub(crate) machine: Machine,
}

/// The leases of one owner.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Leases with container ID and interface name, sorted.
    pub(crate) leases: Vec<IpAddr>,
    /// Leases with the container ID only. They can be of any of its interfaces.
    pub(crate) of_container: Vec<IpAddr>,
    /// Files that could not be read.
    pub(crate) unreadable: Vec<Error>,
}

/// The file with the name of an owner's record.
pub(crate) enum Note {
    Nothing,
    Record(Record),
    /// A record that cannot be read: of another release, or incomplete.
    Unreadable,
    /// Another file.
    Foreign,
}

/// A lease file.
pub(crate) struct Lease {
    pub(crate) content: Content,
    pub(crate) identity: Identity,
    /// For messages.
    pub(crate) modified: Option<SystemTime>,
}

impl Directory {
    pub(crate) fn new(data_dir: &Path, network: &str, machine: Machine) -> Self {
        Self { path: data_dir.join(network), machine }
    }

    /// The boots that its leases can be from.
    pub(crate) fn boots(&self) -> Boots {
        Boots::new(self.machine.boot(), &self.path, &self.machine.boots)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, ip: IpAddr) -> PathBuf {
        self.path.join(lease::file_name(ip))
    }

    /// Returns those addresses that another network of the same dataDir has leased, each with the name of the
    /// network. Directories that cannot be read are left out.
    pub(crate) fn leased_elsewhere(&self, addresses: &[IpAddr]) -> Vec<(IpAddr, String)> {
        let (Some(above), Some(own)) = (self.path.parent(), self.path.file_name()) else { return Vec::new() };
        let Ok(entries) = linux::file::entries(above) else { return Vec::new() };
        let mut found = Vec::new();
        // The iterator may repeat an error for ever.
        for entry in entries.map_while(Result::ok).filter(|entry| entry.name != own) {
            let folder = above.join(&entry.name);
            let is_leased = |ip: &&IpAddr| {
                fs::symlink_metadata(folder.join(lease::file_name(**ip))).is_ok_and(|file| file.is_file())
            };
            found.extend(addresses.iter().filter(is_leased).map(|ip| (*ip, entry.name.to_string_lossy().into_owned())));
        }
        found
    }

    /// Reads the lease of an address. `None` if there is no such file, or if it is not a regular file.
    pub(crate) fn read(&self, ip: IpAddr) -> Result<Option<Lease>, Error> {
        match fs::symlink_metadata(self.file(ip)) {
            Ok(entry) if !entry.is_file() => Ok(None),
            _ => self.read_file(ip, &mut Vec::new()),
        }
    }

    /// As [`Directory::read`], for a name that is known to be a regular file.
    pub(crate) fn read_file(&self, ip: IpAddr, buffer: &mut Vec<u8>) -> Result<Option<Lease>, Error> {
        let path = self.file(ip);
        let mut length = 0;
        // The regular file may have been replaced by a link or a FIFO since.
        let read = linux::file::open_itself(&path).and_then(|mut file| {
            loop {
                if length == buffer.len() {
                    // Large enough for nearly all files: one read gets the content, the next one the end.
                    buffer.resize((2 * length).max(1 << 10), 0);
                }
                match file.read(&mut buffer[length..])? {
                    more if more > 0 && length < MAX_LEASE_BYTES => length += more,
                    _ => return file.metadata(),
                }
            }
        });
        match read {
            Ok(metadata) if !metadata.is_file() => Ok(None),
            Ok(metadata) => Ok(Some(Lease {
                content: Content::parse(&buffer[..length]),
                identity: Identity::of(&metadata),
                modified: metadata.modified().ok(),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // A symbolic link.
            Err(error) if linux::errno(&error) == Some(Errno::ELOOP) => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Returns true if the owner has a lease of this address.
    pub(crate) fn is_held(&self, ip: IpAddr, owner: &Owner<'_>) -> bool {
        self.read(ip).is_ok_and(|lease| lease.is_some_and(|lease| lease.content.is_of(owner)))
    }

    pub(crate) fn note(&self, owner: &Owner<'_>) -> Note {
        let Some(name) = record::name(owner) else { return Note::Nothing };
        match fs::read_link(self.path.join(name)) {
            Ok(text) => match text.to_str() {
                Some(text) if record::is_ours(text) => Record::parse(text).map_or(Note::Unreadable, Note::Record),
                _ => Note::Foreign,
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Note::Nothing,
            Err(_) => Note::Foreign,
        }
    }
}

impl Held {
    pub(crate) fn look(&mut self, ip: IpAddr, content: Option<&Content>, owner: &Owner<'_>) {
        let Some(content) = content else { return };
        if content.is_of(owner) {
            insert(&mut self.leases, ip);
        } else if content.names_only(owner.container_id) {
            insert(&mut self.of_container, ip);
        }
    }
}

/// Inserts into a sorted list. The lists are short, and a generic sort takes 4 KB of code for each type.
pub(crate) fn insert<T: PartialOrd>(list: &mut Vec<T>, one: T) {
    let at = list.iter().position(|other| *other > one).unwrap_or(list.len());
    list.insert(at, one);
}
