//! The journal of one LAN on this node: a directory with a page for each owner.
//!
//! A page is replaced by rename, so it is always whole. It is not synced to the disk: after a loss of power the boot is
//! another one, and the leases of earlier boots are found in the store. The file `boot` has the boot in which the journal is
//! complete. Without it, the journal was lost.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fnv::FnvHasher;
use linux::file::ByteLock;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::lease::{Owner, Uid};
use crate::protocol::{Entry, State};

/// The time after which no request of a page can arrive any more. The API server ends each request after 60 s.
/// (`--request-timeout` of kube-apiserver)
const QUIET_AFTER: Duration = Duration::from_secs(90);

/// The file with the boot in which the journal is complete.
const BOOT: &str = "boot";

/// The file with the locks.
const LOCK: &str = "lock";

/// The empty file that exists as long as some page has a released address.
const UNSETTLED: &str = "unsettled";

/// The longest name of a page. The kernel allows 255 bytes, and the name of its temporary file is longer.
const MAX_NAME: usize = 240;

/// A page that cannot be read, with its owner.
pub type Damaged = (Option<Owner>, Error);

/// How complete the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// It was lost, or never made.
    Missing,
    /// It is from an earlier boot, or the leases of earlier boots were not swept yet.
    Earlier,
    /// It names all leases of this boot.
    Complete,
}

/// The journal of one LAN.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: PathBuf,
    boot: String,
}

/// The page of an owner. Fields of a later release are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
    /// The boot in which it was written.
    pub boot: String,
    /// The inode of the network namespace, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
    /// The pod, as `NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The addresses.
    pub addresses: Vec<Written>,
    /// True if a DEL came while the journal was not complete, and the store could not be asked. All leases of this owner
    /// must be released.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_gone: bool,
    /// True if nothing was written for a time so long that no request can be under way.
    #[serde(skip)]
    pub is_quiet: bool,
}

/// An [`Entry`], as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    address: std::net::IpAddr,
    state: Word,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(default, rename = "inDoubt", skip_serializing_if = "std::ops::Not::not")]
    in_doubt: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Trying,
    Held,
    Released,
}

impl From<&Entry> for Written {
    fn from(entry: &Entry) -> Self {
        let (state, uid) = match &entry.state {
            State::Trying => (Word::Trying, None),
            State::Held(uid) => (Word::Held, Some(uid)),
            State::Released(uid) => (Word::Released, uid.as_ref()),
        };
        Self { address: entry.address, state, uid: uid.map(|uid| uid.0.clone()), in_doubt: entry.in_doubt }
    }
}

impl Written {
    /// Returns `None` if a held lease has no uid.
    fn entry(&self) -> Option<Entry> {
        let uid = self.uid.clone().map(Uid);
        let state = match self.state {
            Word::Trying => State::Trying,
            Word::Held => State::Held(uid?),
            Word::Released => State::Released(uid),
        };
        Some(Entry { address: self.address, state, in_doubt: self.in_doubt })
    }
}

impl Page {
    /// A page without addresses.
    pub fn new(owner: &Owner, boot: &str) -> Self {
        Self {
            container_id: owner.container_id.clone(),
            ifname: owner.ifname.clone(),
            boot: boot.to_owned(),
            netns: None,
            pod: None,
            addresses: Vec::new(),
            is_gone: false,
            is_quiet: false,
        }
    }

    /// The owner.
    pub fn owner(&self) -> Owner {
        Owner { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }

    /// The entries of the addresses.
    pub fn entries(&self) -> Vec<Entry> {
        self.addresses.iter().filter_map(Written::entry).collect()
    }

    /// Replaces the entries.
    pub fn set_entries(&mut self, entries: &[Entry]) {
        self.addresses = entries.iter().map(Written::from).collect();
    }

    /// Returns true if something of this page must still be released.
    pub fn is_unsettled(&self) -> bool {
        self.is_gone || self.addresses.iter().any(|its| its.state == Word::Released)
    }
}

impl Journal {
    /// The journal of a LAN in `data_dir`. Touches no file.
    pub fn new(data_dir: &Path, lan: &str, boot: &str) -> Self {
        Self { folder: data_dir.join(lan), boot: boot.to_owned() }
    }

    /// Its directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the directory, if it is missing.
    pub fn create(&self) -> Result<(), Error> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.folder).map_err(Error::io("create", &self.folder))
    }

    /// Reads how complete the journal is.
    pub fn completeness(&self) -> Result<Completeness, Error> {
        let path = self.folder.join(BOOT);
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == self.boot => Ok(Completeness::Complete),
            Ok(text) if !text.trim().is_empty() => Ok(Completeness::Earlier),
            Ok(_) => Ok(Completeness::Missing),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Completeness::Missing),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Notes that the journal names all leases of this boot. `is_swept` is false if the leases of earlier boots are still in
    /// the store.
    pub fn set_complete(&self, is_swept: bool) -> Result<(), Error> {
        let text = if is_swept { self.boot.clone() } else { format!("not swept since {}", self.boot) };
        self.replace(BOOT, text.as_bytes())
    }

    /// Takes the lock of an owner. `None` if another call of this owner still runs after that time.
    pub fn lock(&self, owner: &Owner, within: Duration) -> Result<Option<ByteLock>, Error> {
        Ok(ByteLock::take(&self.folder.join(LOCK), hash(&owner.to_string()), within)?)
    }

    /// Reads the page of an owner.
    pub fn page(&self, owner: &Owner) -> Result<Option<Page>, Error> {
        let page = self.read(&name(owner))?;
        match page {
            Some(page) if page.owner() != *owner => {
                Err(Error::Page { path: self.folder.join(name(owner)), cause: format!("is of {}", page.owner()) })
            }
            page => Ok(page),
        }
    }

    /// Writes the page of an owner, or removes it if it says nothing. The caller has the owner's lock.
    pub fn write(&self, page: &Page) -> Result<(), Error> {
        let name = name(&page.owner());
        if page.addresses.is_empty() && !page.is_gone {
            return self.remove(&name);
        }
        let mut json = serde_json::to_vec(page).unwrap_or_default();
        json.push(b'\n');
        self.replace(&name, &json)
    }

    /// Reads all pages. A page that cannot be read is an entry of the second list, with its owner. The owner is `None` if the
    /// name of the file does not say it.
    pub fn pages(&self) -> Result<(Vec<Page>, Vec<Damaged>), Error> {
        let (mut pages, mut errors) = (Vec::new(), Vec::new());
        let entries = match linux::file::entries(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((pages, errors)),
            entries => entries.map_err(Error::io("read", &self.folder))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::io("read", &self.folder))?.name;
            let Some(name) = name.to_str().filter(|name| is_page(name)) else { continue };
            match self.read(name) {
                // It was removed in the meantime.
                Ok(None) => {}
                Ok(Some(page)) => pages.push(page),
                Err(error) => errors.push((owner_of(name), error)),
            }
        }
        Ok((pages, errors))
    }

    /// Returns true if some page may have something to release.
    pub fn is_unsettled(&self) -> bool {
        self.folder.join(UNSETTLED).exists()
    }

    /// Notes that a page has something to release. This is a hint for later calls, so an error is not important.
    pub fn set_unsettled(&self) {
        let _ = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.folder.join(UNSETTLED));
    }

    /// Takes that note back. Call this before the pages are read.
    pub fn unset_unsettled(&self) {
        let _ = fs::remove_file(self.folder.join(UNSETTLED));
    }

    fn read(&self, name: &str) -> Result<Option<Page>, Error> {
        let path = self.folder.join(name);
        let read = || {
            let file = linux::file::open_itself(&path)?;
            let modified = file.metadata()?.modified()?;
            Ok((io::read_to_string(file)?, modified))
        };
        let (text, modified): (String, SystemTime) = match read() {
            Err(error) if ErrorKind::NotFound == io::Error::kind(&error) => return Ok(None),
            read => read.map_err(Error::io("read", &path))?,
        };
        let wrong = |cause: String| Error::Page { path: path.clone(), cause };
        let mut page: Page = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if page.entries().len() != page.addresses.len() {
            return Err(wrong("has a held address without a uid".into()));
        }
        page.is_quiet = modified.elapsed().is_ok_and(|age| age >= QUIET_AFTER);
        Ok(Some(page))
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.folder.join(name);
        // Calls of one owner have its lock, and calls that write the boot write the same text.
        let temporary = self.folder.join(format!("{name}.new"));
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let write = || {
            options.open(&temporary)?.write_all(content)?;
            match fs::rename(&temporary, &path) {
                Err(error) if error.kind() == ErrorKind::NotFound && name == BOOT && path.exists() => Ok(()),
                renamed => renamed,
            }
        };
        write().map_err(|error: io::Error| {
            let _ = fs::remove_file(&temporary);
            Error::io("write", &path)(error)
        })
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

/// The name of an owner's page. A container ID has no `@`. A name that would be too long is a hash.
fn name(owner: &Owner) -> String {
    let name = format!("{}@{}", owner.container_id, owner.ifname);
    match name.len() <= MAX_NAME {
        true => name,
        false => format!("{:016x}@", hash(&name)),
    }
}

fn owner_of(name: &str) -> Option<Owner> {
    let (container_id, ifname) = name.split_once('@')?;
    let is_hash = ifname.is_empty();
    (!is_hash).then(|| Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
}

fn is_page(name: &str) -> bool {
    name.contains('@') && !name.ends_with(".new")
}

fn hash(text: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = FnvHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}
