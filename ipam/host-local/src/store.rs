//! Changes the lease directory of one network. The layout is the reference's: a file for each leased address, the
//! last leased address of each set, and the lock. In addition there are records of owners and, in the lock file, the
//! index. Both may be missing or wrong. `directory` reads the files, and `allocate` chooses addresses.
//!
//! Only the lease file decides if an address is leased. It is written under a temporary name and then linked, so it
//! is complete or not there. There is one temporary name, used under the lock: a killed call leaves at most one such
//! file, which is never taken for an address.
//!
//! A call can be interrupted at any point. The first change of an entry moves the modification time of the directory
//! away from the stamp of the index. Only the last step of a successful call sets it back. After an interruption the
//! next call finds no valid index, scans the directory and repairs it.

use std::cell::{RefCell, RefMut};
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use linux::Errno;

use crate::boots::Boots;
use crate::directory::{Directory, Held, Note};
use crate::error::Error;
use crate::index::{Front, Head, Index};
use crate::kept::{self, Kept, Slots};
use crate::lease::{self, Owner};
use crate::lock::{LOCK_WITHIN, Lock};
use crate::record::{self, Identity, Record};
use crate::turn::Turn;
use ranges::{Set, Span};

/// The reference reads every file and looks at the content only: for it, this file is not a lease.
pub(crate) const TEMPORARY: &str = ".lease.tmp";
/// The stamp is this many seconds in the past, so that a normal correction of the clock cannot produce the same time.
const LAG: u64 = 4_663;

/// How far the index can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The index is valid.
    Right,
    /// The index is not valid. A scan rebuilds it.
    Unknown,
    /// This call failed halfway. It must not mark the index as valid; the next call repairs the directory.
    Doubted,
}

/// The state of a call while it has the lock.
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) trust: Trust,
    /// True if the index in the file still counts as valid.
    stamped: bool,
    /// True if the index must be written.
    touched: bool,
    /// Addresses that were freed.
    released: Vec<IpAddr>,
}

/// The result of [`Store::probe`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Probed {
    /// For each set, true if an address is free. `None` if the index is not valid.
    pub(crate) free: Option<Vec<bool>>,
    /// The addresses that no ADD gets now.
    pub(crate) kept: Vec<Kept>,
}

/// The directory under its lock. Dropping it writes the index and releases the lock.
pub(crate) struct Store<'a> {
    pub(crate) directory: &'a Directory,
    lock: Lock,
    /// The directory itself.
    folder: File,
    pub(crate) boots: Boots,
    /// True if the index is not of the running boot, so that this can be the first call since the boot.
    pub(crate) is_first: bool,
    /// The first bytes of the index file, as they were at the start.
    front: Front,
    /// The head among them.
    head: Head,
    state: RefCell<State>,
}

impl<'a> Store<'a> {
    /// Creates the directory if it is missing, and locks it.
    pub(crate) fn create(directory: &'a Directory) -> Result<Self, Error> {
        match Self::open(directory, false) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        let made = DirBuilder::new().recursive(true).mode(0o755).create(directory.path());
        made.map_err(Error::io("create", directory.path()))?;
        Self::open(directory, false)
    }

    /// Locks the directory to free leases. `None` if there is no directory.
    pub(crate) fn lock(directory: &'a Directory) -> Result<Option<Self>, Error> {
        Self::lock_for(directory, true)
    }

    fn lock_for(directory: &'a Directory, freeing: bool) -> Result<Option<Self>, Error> {
        match fs::metadata(directory.path()) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(Error::io("open", directory.path())(error)),
            Ok(_) => {}
        }
        Self::open(directory, freeing).map(Some)
    }

    /// Checks that a lease could be written, and leaves no trace. If the index is valid, returns for each set if an
    /// address is free. Kept addresses are not free.
    pub(crate) fn probe(directory: &Directory, sets: &[Set], conflict_delay: u32) -> Result<Probed, Error> {
        if let Some(store) = Store::lock_for(directory, false)? {
            store.probe_temporary()?;
            let kept = store.kept(conflict_delay);
            let is_known = store.state().trust == Trust::Right;
            let free = is_known.then(|| sets.iter().map(|set| store.has_free(set, &kept)).collect());
            return Ok(Probed { free, kept });
        }
        // An ADD would create the missing directories in the lowest one that exists.
        let above = directory.path().ancestors().skip(1).find(|above| fs::symlink_metadata(above).is_ok());
        let probe = above.unwrap_or(Path::new("")).join(format!("{TEMPORARY}.{}", std::process::id()));
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe);
        // A killed process with this PID may have left one.
        let remove = || drop(fs::remove_file(&probe));
        remove();
        let written = create().and_then(|mut file| file.write_all(b"probe"));
        remove();
        written.map_err(Error::io("create", directory.path()))?;
        Ok(Probed::default())
    }

    /// Takes the lock, and reads the index.
    fn open(directory: &'a Directory, freeing: bool) -> Result<Self, Error> {
        let lock = Lock::take(&directory.path().join("lock"), freeing, LOCK_WITHIN)?;
        let opened = File::open(directory.path()).and_then(|folder| Ok((folder.metadata()?, folder)));
        let (metadata, folder) = opened.map_err(Error::io("open", directory.path()))?;
        let boots = directory.boots();
        let front = lock.index().map_or_else(Front::default, Front::read);
        let head = Head::read(&front, boots.now());
        let fits = |head: &&Head| (metadata.mtime(), metadata.mtime_nsec()) == (head.stamp, 0);
        let index = head.as_ref().filter(fits).and_then(|head| Index::read(lock.index()?, head));
        let stamped = index.is_some();
        if !stamped {
            // The writer of a temporary file is dead: otherwise it would have the lock. If the file cannot be
            // removed, a later write fails and names the reason.
            let _ = fs::remove_file(directory.path().join(TEMPORARY));
        }
        let index = index.unwrap_or_else(Index::empty);
        let trust = if stamped { Trust::Right } else { Trust::Unknown };
        let state = State { index, trust, stamped, touched: false, released: Vec::new() };
        let is_first = head.is_none();
        let head = head.unwrap_or_default();
        Ok(Self { directory, lock, folder, boots, is_first, front, head, state: RefCell::new(state) })
    }

    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Begins a new index before a scan.
    pub(crate) fn start_over(&self) {
        let mut state = self.state();
        if state.stamped {
            // The scan may find changes that the modification time did not show, and it may be interrupted.
            state.stamped = self.lock.index().is_some_and(|file| Head::erase(file).is_err());
        }
        state.index = Index::empty();
        if state.trust == Trust::Right {
            state.trust = Trust::Unknown;
        }
    }

    /// The index is complete now.
    pub(crate) fn trust(&self) {
        let mut state = self.state();
        state.touched = true;
        if state.trust == Trust::Unknown {
            state.trust = Trust::Right;
        }
    }

    /// Makes the next call scan the directory.
    fn distrust(&self) {
        self.state().trust = Trust::Doubted;
    }

    /// Returns the leases of an owner.
    pub(crate) fn held_by(&self, owner: &Owner<'_>) -> Result<Held, Error> {
        if let Some(held) = self.recorded(owner) {
            return Ok(held);
        }
        let mut held = Held::default();
        held.unreadable = self.scan(&mut |seen| held.look(seen.ip, seen.content, owner))?;
        Ok(held)
    }

    /// Returns the leases of an owner by its record only. `None` if the record is not enough.
    fn recorded(&self, owner: &Owner<'_>) -> Option<Held> {
        // If some leases have no record, a record may be incomplete.
        if self.state().trust != Trust::Right || self.state().index.unrecorded {
            return None;
        }
        let leases: Vec<_> = match self.directory.note(owner) {
            Note::Record(record) => record.leases.iter().map(|(ip, _)| *ip).collect(),
            Note::Nothing => Vec::new(),
            _ => return None,
        };
        leases.iter().all(|ip| self.directory.is_held(*ip, owner)).then(|| Held { leases, ..Held::default() })
    }

    /// Leases an address. Returns false if it is leased already.
    pub(crate) fn lease(&self, ip: IpAddr, owner: &Owner<'_>) -> Result<bool, Error> {
        self.with_lease_file(owner, ip, |temporary| self.link(temporary, ip))
    }

    /// Leases the first free address of a set after `after`. `None` if the set is full. Addresses in `resting` come
    /// last, addresses in `kept` never.
    pub(crate) fn lease_next(
        &self,
        set: &Set,
        after: Option<IpAddr>,
        resting: &[IpAddr],
        kept: &[Kept],
        owner: &Owner<'_>,
    ) -> Result<Option<IpAddr>, Error> {
        let last = || resting.iter().copied().filter(|ip| set.admits(*ip) && !is_kept(*ip, kept));
        let first = set.turn(after).into_iter().find_map(|span| self.first_free(set, span, kept)).map(|(ip, _)| ip);
        let Some(first) = first.or_else(|| last().next()) else { return Ok(None) };
        self.with_lease_file(owner, first, |temporary| {
            for span in set.turn(after) {
                let mut rest = Some(span);
                while let Some((ip, span)) = rest.and_then(|span| self.first_free(set, span, kept)) {
                    if !resting.contains(&ip) && self.link(temporary, ip)? {
                        return Ok(Some(ip));
                    }
                    rest = span.behind(ip);
                }
            }
            for ip in last() {
                if self.link(temporary, ip)? {
                    return Ok(Some(ip));
                }
            }
            Ok(None)
        })
    }

    fn first_free(&self, set: &Set, mut span: Span, kept: &[Kept]) -> Option<(IpAddr, Span)> {
        loop {
            let ip = self.state().index.first_free(set, span)?;
            if !is_kept(ip, kept) {
                return Some((ip, span));
            }
            span = span.behind(ip)?;
        }
    }

    /// Returns true if an address of the set is free.
    pub(crate) fn has_free(&self, set: &Set, kept: &[Kept]) -> bool {
        set.turn(None).into_iter().any(|span| {
            let mut rest = Some(span);
            while let Some((ip, span)) = rest.and_then(|span| self.first_free(set, span, kept)) {
                if fs::symlink_metadata(self.directory.file(ip)).is_err_and(|error| error.kind() == ErrorKind::NotFound)
                {
                    return true;
                }
                rest = span.behind(ip);
            }
            false
        })
    }

    /// Returns the addresses that were released within the last `delay` seconds, the oldest first.
    pub(crate) fn resting(&self, delay: u64) -> Vec<IpAddr> {
        if delay == 0 {
            return Vec::new();
        }
        match (self.directory.machine.uptime(), self.lock.index()) {
            (Some(now), Some(file)) => self.head.resting(file, now, delay),
            _ => Vec::new(),
        }
    }

    /// Returns the addresses that are kept because another machine on the LAN has them. None if `delay`, the value of
    /// `conflictDelay`, is 0.
    pub(crate) fn kept(&self, delay: u32) -> Vec<Kept> {
        match self.slots() {
            Some(slots) if delay > 0 => slots.live(),
            _ => Vec::new(),
        }
    }

    /// As [`Store::kept`]. If the time of all of them is over, later calls need not read them.
    pub(crate) fn kept_or_cleared(&self, delay: u32) -> Vec<Kept> {
        let kept = self.kept(delay);
        if kept.is_empty()
            && let (Some(slots), Some(file)) = (self.slots(), self.lock.index())
            && slots.live().is_empty()
            && !(slots.has_foreign() && self.boots.is_shared())
        {
            // After an error, the next ADD tries again.
            let _ = kept::clear(file);
        }
        kept
    }

    /// Returns the slots. `None` if none was used, or if their time cannot be known.
    fn slots(&self) -> Option<Slots> {
        let file = self.lock.index().filter(|_| self.front.kept() > 0)?;
        Some(Slots::read(file, &self.front, self.boots.now()?, self.directory.machine.uptime()?))
    }

    /// Keeps addresses from every ADD for their seconds. Call it before their release.
    pub(crate) fn keep(&self, kept: &[Kept]) -> Result<(), Error> {
        let write = || {
            let file = self
                .lock
                .index()
                .ok_or_else(|| io::Error::other("it cannot be written, or it has another name too"))?;
            let (boot, now) = (self.boots.now(), self.directory.machine.uptime());
            let (boot, now) =
                boot.zip(now).ok_or_else(|| io::Error::other("/proc does not show the boot ID and the uptime"))?;
            Slots::read(file, &self.front, boot, now).keep(file, kept)
        };
        write().map_err(Error::io("write", &self.directory.path().join("lock")))
    }

    /// Writes a lease file under the temporary name, calls `work`, and removes the file.
    fn with_lease_file<T>(
        &self,
        owner: &Owner<'_>,
        purpose: IpAddr,
        work: impl FnOnce(&Path) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let temporary = self.write_temporary(&owner.content(), &self.directory.file(purpose))?;
        let worked = work(&temporary);
        self.remove_temporary(&temporary);
        worked
    }

    /// Links the temporary file to the name of an address. Returns false if the name exists.
    fn link(&self, temporary: &Path, ip: IpAddr) -> Result<bool, Error> {
        let path = self.directory.file(ip);
        let linked = match fs::hard_link(temporary, &path) {
            Err(error) if has_no_links(&error) => rename_new(temporary, &path),
            linked => linked,
        };
        let leased = match linked {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(Error::io("link", &path)(error)),
        };
        self.state().index.mark(ip);
        Ok(leased)
    }

    /// Frees an address, whoever the owner is.
    pub(crate) fn release(&self, ip: IpAddr) -> Result<(), Error> {
        let path = self.directory.file(ip);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                // Its record may be removed with other leases of its owner.
                self.distrust();
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
        let mut state = self.state();
        state.index.clear(ip);
        state.released.push(ip);
        state.touched = true;
        Ok(())
    }

    /// Writes the record of an owner. Only an old record that cannot be removed is an error. Returns the leases with
    /// their identities, if all are known.
    pub(crate) fn note_owner(
        &self,
        owner: &Owner<'_>,
        ips: &[IpAddr],
        netns: Option<u64>,
    ) -> Result<Option<Vec<(IpAddr, Identity)>>, Error> {
        let identity = |ip: &IpAddr| Some((*ip, Identity::of(&fs::symlink_metadata(self.directory.file(*ip)).ok()?)));
        let Some(leases) = ips.iter().map(identity).collect() else {
            self.state().index.unrecorded = true;
            self.forget(owner)?;
            return Ok(None);
        };
        let record = Record::new(self.boots.now(), self.boots.is_shared(), netns, leases);
        match self.directory.note(owner) {
            Note::Record(old) if old == record => return Ok(Some(record.leases)),
            Note::Record(_) | Note::Unreadable => self.forget(owner)?,
            Note::Nothing | Note::Foreign => {}
        }
        self.write_note(owner, &record);
        Ok(Some(record.leases))
    }

    /// Writes a record. If this fails, the index notes that records are missing.
    pub(crate) fn write_note(&self, owner: &Owner<'_>, record: &Record) -> bool {
        let written = match (record::name(owner), record.text()) {
            (Some(name), Some(text)) => symlink(text, self.directory.path().join(name)).is_ok(),
            _ => false,
        };
        let mut state = self.state();
        state.touched = true;
        state.index.unrecorded |= !written;
        written
    }

    /// Removes an owner's record. Other files of this name stay.
    pub(crate) fn forget(&self, owner: &Owner<'_>) -> Result<(), Error> {
        let (Some(name), Note::Record(_) | Note::Unreadable) = (record::name(owner), self.directory.note(owner)) else {
            return Ok(());
        };
        let path = self.directory.path().join(name);
        self.state().touched = true;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                self.distrust();
                Err(Error::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Reads the position of the rotation of set `index`.
    pub(crate) fn turn(&self, index: usize) -> Turn {
        Turn::read(self.last_reserved_file(index))
    }

    /// Writes the last leased address of a set.
    pub(crate) fn end_turn(&self, turn: Turn, ip: IpAddr) -> Result<(), Error> {
        let text = lease::file_name(ip);
        if turn.overwrite(&text) {
            return Ok(());
        }
        let path = turn.path;
        let temporary = self.write_temporary(&text, &path)?;
        fs::rename(&temporary, &path).map_err(|error| {
            self.remove_temporary(&temporary);
            Error::io("write", &path)(error)
        })
    }

    fn last_reserved_file(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("last_reserved_ip.{index}"))
    }

    /// Writes the temporary file and removes it again.
    fn probe_temporary(&self) -> Result<(), Error> {
        let temporary = self.directory.path().join(TEMPORARY);
        self.write_temporary("probe", &temporary)?;
        fs::remove_file(&temporary).map_err(|error| {
            self.distrust();
            Error::io("remove", &temporary)(error)
        })?;
        let mut state = self.state();
        if state.stamped {
            // Nothing was changed, so the index stays valid.
            let _ = self.set_modified(self.head.stamp);
        }
        state.touched = false;
        Ok(())
    }

    /// Writes the temporary file. An error names the file that it is for.
    fn write_temporary(&self, content: &str, purpose: &Path) -> Result<PathBuf, Error> {
        let path = self.directory.path().join(TEMPORARY);
        self.state().touched = true;
        // Created exclusively: a planted link could lead to a foreign file.
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let created = match create() {
            // Its writer is dead, or could not remove it: otherwise it would have the lock.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && fs::remove_file(&path).is_ok() => create(),
            created => created,
        };
        let written = created.map_err(Error::io("create", purpose)).and_then(|mut file| {
            // NFS reports a full disk only now. Without this, the lease would be an empty file.
            let kept = |file: &File| if self.boots.is_shared() { file.sync_all() } else { Ok(()) };
            file.write_all(content.as_bytes()).and_then(|()| kept(&file)).map_err(|error| {
                self.remove_temporary(&path);
                Error::io("write", purpose)(error)
            })
        });
        written.map(|()| path)
    }

    /// An error is ignored: the next call without a valid index removes the file.
    fn remove_temporary(&self, path: &Path) {
        if fs::remove_file(path).is_err_and(|error| error.kind() != ErrorKind::NotFound) {
            self.distrust();
        }
    }

    fn set_modified(&self, second: i64) -> io::Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second.max(0).unsigned_abs());
        self.folder.set_times(FileTimes::new().set_modified(time))
    }

    /// Writes the index, and then sets the stamp.
    fn finish(&mut self) -> io::Result<()> {
        let state = self.state.get_mut();
        let (Some(file), Some(boot)) = (self.lock.index(), self.boots.now()) else { return Ok(()) };
        if state.trust != Trust::Right {
            return if state.stamped { Head::erase(file) } else { Ok(()) };
        }
        if !state.touched {
            return Ok(());
        }
        // The head tells later calls of this boot that the boot is noted.
        if self.is_first && self.boots.note().is_err() {
            return Ok(());
        }
        let second = match state.released.is_empty() {
            true => None,
            false => self.directory.machine.uptime(),
        };
        let released: Vec<_> = state.released.iter().filter_map(|ip| Some((*ip, second?))).collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        // Some file systems store every second second only.
        let stamp = (now.saturating_sub(LAG) & !1).cast_signed();
        state.index.write(file, &self.head, stamp, boot, &released)?;
        self.set_modified(stamp)
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            // Without an index the next call only takes longer.
            let _ = self.finish();
        }
    }
}

/// Returns true if the file system has no hard links, or no more for this file.
fn has_no_links(error: &io::Error) -> bool {
    matches!(linux::errno(error), Some(Errno::EPERM | Errno::EMLINK | Errno::ENOSYS | Errno::EOPNOTSUPP))
}

fn is_kept(ip: IpAddr, kept: &[Kept]) -> bool {
    kept.iter().any(|its| its.ip == ip)
}

/// Replaces link(2) and unlink(2). It is safe only under the lock.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
