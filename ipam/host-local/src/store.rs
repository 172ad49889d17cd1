//! One network's lease directory, in the layout that the reference uses: a file per leased address, the last address
//! given by each set, and the lock. Everything that touches these files is here; who gets which address is not.
//!
//! A lease file is the only truth about its address. It appears whole or not at all: written under a temporary name,
//! then linked. There is one temporary name, used under the lock, so a killed writer leaves at most one such file
//! behind, which the next one to take the lock removes and which no implementation takes for an address.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::lease::{self, Content, Owner};

/// How long to wait for other processes. Each holds the lock for milliseconds, but a busy node has many of them.
const LOCK_WITHIN: Duration = Duration::from_secs(60);
/// The reference reads every file here and goes by the content alone: to it this is a lease of nothing.
const TEMPORARY: &str = ".lease.tmp";
/// More than any owner needs; a file that is larger is none of ours, whatever follows.
const MAX_LEASE_BYTES: u64 = 1 << 16;

/// The directory as anyone may see it, without the lock: a lease is there or it is not.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

/// What one owner holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// By name of container and interface, in order.
    pub(crate) leases: Vec<IpAddr>,
    /// By files that name the container alone: whether they are this interface's, nobody knows.
    pub(crate) of_container: Vec<IpAddr>,
    /// Files that could not be read.
    pub(crate) unreadable: Vec<Error>,
}

impl Directory {
    pub(crate) fn new(data_dir: &Path, network: &str) -> Self {
        Self { path: data_dir.join(network) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, ip: IpAddr) -> PathBuf {
        self.path.join(lease::file_name(ip))
    }

    /// Makes the directory where it is missing, and locks it.
    pub(crate) fn create(&self) -> Result<Store<'_>, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&self.path);
        made.map_err(Error::io("create", &self.path))?;
        Store::open(self)
    }

    /// Locks the directory; `None` where there is none, and so no lease.
    pub(crate) fn lock(&self) -> Result<Option<Store<'_>>, Error> {
        match fs::metadata(&self.path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(Error::io("open", &self.path)(error)),
            Ok(_) => {}
        }
        Store::open(self).map(Some)
    }

    /// Sees whether a lease could be written, and leaves no trace of that.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        if let Some(store) = self.lock()? {
            let temporary = self.path.join(TEMPORARY);
            store.write_temporary("probe", &temporary)?;
            return fs::remove_file(&temporary).map_err(Error::io("remove", &temporary));
        }
        // The folders that are missing would be made in the lowest one that is there.
        let above = self.path.ancestors().skip(1).find(|above| fs::symlink_metadata(above).is_ok());
        let probe = above.unwrap_or(Path::new("")).join(format!("{TEMPORARY}.{}", std::process::id()));
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe);
        // One left by a killed process of this number is of no use to anybody, before as after.
        let remove = || drop(fs::remove_file(&probe));
        remove();
        let written = create().and_then(|mut file| file.write_all(b"probe"));
        remove();
        written.map_err(Error::io("create", &self.path))
    }

    /// Every address that has an entry, read or not, a lease file or something in its place. A missing directory has
    /// none.
    pub(crate) fn taken(&self, mut visit: impl FnMut(IpAddr)) -> Result<(), Error> {
        self.entries(|ip, _| visit(ip))
    }

    /// Every lease. Returned are the errors of files that could not be read: the others are visited all the same.
    pub(crate) fn leases(&self, mut visit: impl FnMut(IpAddr, Content)) -> Result<Vec<Error>, Error> {
        let mut unreadable = Vec::new();
        self.entries(|ip, entry| {
            // Links and folders are somebody's own; following one could lead anywhere.
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                return;
            }
            match self.read_file(ip) {
                Ok(Some(content)) => visit(ip, content),
                Ok(None) => {}
                Err(error) => unreadable.push(error),
            }
        })?;
        Ok(unreadable)
    }

    /// The leases of one owner.
    pub(crate) fn held_by(&self, owner: &Owner<'_>) -> Result<Held, Error> {
        let mut held = Held::default();
        held.unreadable = self.leases(|ip, content| {
            if content.is_of(owner) {
                held.leases.push(ip);
            } else if content.names_only(owner.container_id) {
                held.of_container.push(ip);
            }
        })?;
        held.leases.sort();
        held.of_container.sort();
        Ok(held)
    }

    /// The content of one lease file; `None` where there is none, or something else in its place.
    pub(crate) fn read(&self, ip: IpAddr) -> Result<Option<Content>, Error> {
        match fs::symlink_metadata(self.file(ip)) {
            Ok(entry) if !entry.is_file() => Ok(None),
            _ => self.read_file(ip),
        }
    }

    fn read_file(&self, ip: IpAddr) -> Result<Option<Content>, Error> {
        let path = self.file(ip);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_LEASE_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(Content::parse(&bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    fn entries(&self, mut visit: impl FnMut(IpAddr, &fs::DirEntry)) -> Result<(), Error> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Error::io("read", &self.path))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &self.path))?;
            if let Some(ip) = entry.file_name().to_str().and_then(lease::address) {
                visit(ip, &entry);
            }
        }
        Ok(())
    }
}

/// The directory under its lock, which ends with this value.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    directory: &'a Directory,
    _lock: File,
}

impl std::ops::Deref for Store<'_> {
    type Target = Directory;
    fn deref(&self) -> &Directory {
        self.directory
    }
}

impl<'a> Store<'a> {
    fn open(directory: &'a Directory) -> Result<Self, Error> {
        let lock = lock(&directory.path.join("lock"), LOCK_WITHIN)?;
        // Whoever wrote one of these is dead: it would hold the lock. Where it cannot be removed, nothing can be
        // written either, and that says why.
        let _ = fs::remove_file(directory.path.join(TEMPORARY));
        Ok(Self { directory, _lock: lock })
    }

    /// Leases an address; `false` where it is taken.
    pub(crate) fn lease(&self, ip: IpAddr, owner: &Owner<'_>) -> Result<bool, Error> {
        Ok(self.lease_first(std::iter::once(ip), owner)?.is_some())
    }

    /// Leases the first of these addresses that is free; `None` where none is.
    pub(crate) fn lease_first(
        &self,
        candidates: impl Iterator<Item = IpAddr>,
        owner: &Owner<'_>,
    ) -> Result<Option<IpAddr>, Error> {
        let mut candidates = candidates.peekable();
        let Some(first) = candidates.peek() else { return Ok(None) };
        let temporary = self.write_temporary(&owner.content(), &self.file(*first))?;
        let mut linked = Ok(None);
        for ip in candidates {
            match fs::hard_link(&temporary, self.file(ip)) {
                Ok(()) => linked = Ok(Some(ip)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => linked = Err(Error::io("link", &self.file(ip))(error)),
            }
            break;
        }
        // The next one to take the lock would remove it: nothing to fail for.
        let _ = fs::remove_file(&temporary);
        linked
    }

    /// Frees an address, whoever holds it.
    pub(crate) fn release(&self, ip: IpAddr) -> Result<(), Error> {
        let path = self.file(ip);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// The address that set `index` gave last, a hint where to go on; `None` where nothing sensible is written.
    pub(crate) fn last_reserved(&self, index: usize) -> Option<IpAddr> {
        let path = self.last_reserved_file(index);
        let is_file = fs::symlink_metadata(&path).is_ok_and(|entry| entry.is_file());
        is_file.then(|| fs::read_to_string(&path).ok()?.trim().parse().ok()).flatten()
    }

    pub(crate) fn set_last_reserved(&self, index: usize, ip: IpAddr) -> Result<(), Error> {
        let path = self.last_reserved_file(index);
        let temporary = self.write_temporary(&lease::file_name(ip), &path)?;
        fs::rename(&temporary, &path).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            Error::io("write", &path)(error)
        })
    }

    fn last_reserved_file(&self, index: usize) -> PathBuf {
        self.path.join(format!("last_reserved_ip.{index}"))
    }

    /// Writes a whole file under the temporary name. Errors name what it is for.
    fn write_temporary(&self, content: &str, purpose: &Path) -> Result<PathBuf, Error> {
        let path = self.path.join(TEMPORARY);
        // A new file always: through a link put there under this name we would write somebody else's.
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = created.map_err(Error::io("create", purpose)).and_then(|mut file| {
            file.write_all(content.as_bytes()).map_err(|error| {
                let _ = fs::remove_file(&path);
                Error::io("write", purpose)(error)
            })
        });
        written.map(|()| path)
    }
}

/// flock(2), as the reference does it.
fn lock(path: &Path, within: Duration) -> Result<File, Error> {
    let open = || File::open(path);
    let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let opened = match open() {
        // Not created through a dangling link: that is what the exclusive creation is for.
        Err(error) if error.kind() == ErrorKind::NotFound => match create() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => open(),
            created => created,
        },
        opened => opened,
    };
    let file = opened.map_err(Error::io("open", path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
    }
    // flock(2) knows no deadline. When ours has passed, the thread may get the lock all the same: nobody takes the file
    // from it then, and with the file the lock goes.
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let locked = retry_interrupted(|| file.lock());
        sender.send(locked.map(|()| file))
    });
    match receiver.recv_timeout(within) {
        Ok(locked) => locked.map_err(Error::io("lock", path)),
        Err(_) => Err(Error::Locked { path: path.to_owned(), seconds: within.as_secs() }),
    }
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
