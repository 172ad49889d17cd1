//! One network's lease directory, in the layout that the reference uses: a file per leased address, the last address
//! given by each set, and the lock. Beside them lie an owner's record and, in the lock file, the index; both may vanish
//! or be wrong without harm. Everything that changes these files is here and in `scan`; reading them is in
//! `directory`, and who gets which address is in neither.
//!
//! A lease file is the only truth about its address. It appears whole or not at all: written under a temporary name,
//! then linked. There is one temporary name, used under the lock, so a killed writer leaves at most one such file
//! behind, which no implementation takes for an address.
//!
//! The order of things makes every interruption harmless: the first change of an entry moves the directory's
//! modification time away from the index's stamp, and only the last step of a call that went well puts it back. Whoever
//! comes in between finds no index, walks over the directory and puts right what was left undone.

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
use crate::index::{Head, Index};
use crate::lease::{self, Owner};
use crate::lock::{LOCK_WITHIN, Lock};
use crate::range::{Set, Span};
use crate::record::{self, Identity, Record};
use crate::turn::Turn;

/// The reference reads every file here and goes by the content alone: to it this is a lease of nothing.
pub(crate) const TEMPORARY: &str = ".lease.tmp";
/// How far back the directory's modification time is put, in seconds: no step of the clock that anybody makes by habit.
const LAG: u64 = 4_663;

/// What the index is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It can be believed.
    Right,
    /// Nothing is known of it. A walk over the directory makes it right.
    Unknown,
    /// Something has failed that the next call has to find and put right. No walk of this call makes it right again.
    Doubted,
}

/// What a call knows of the directory while it has the lock.
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) trust: Trust,
    /// Whether the index in the file would still be believed.
    stamped: bool,
    /// Whether something was changed.
    touched: bool,
    /// What was freed.
    released: Vec<IpAddr>,
}

/// The directory under its lock, which ends with this value.
pub(crate) struct Store<'a> {
    pub(crate) directory: &'a Directory,
    lock: Lock,
    /// The directory itself.
    folder: File,
    pub(crate) boots: Boots,
    /// Whether the index is not of the running boot, so that this may be the first call since the machine was booted.
    pub(crate) is_first: bool,
    /// Of the file, as it was.
    head: Head,
    state: RefCell<State>,
}

impl<'a> Store<'a> {
    /// Makes the directory where it is missing, and locks it.
    pub(crate) fn create(directory: &'a Directory) -> Result<Self, Error> {
        match Self::open(directory, false) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        let made = DirBuilder::new().recursive(true).mode(0o755).create(directory.path());
        made.map_err(Error::io("create", directory.path()))?;
        Self::open(directory, false)
    }

    /// Locks the directory to free leases; `None` where there is none, and so no lease.
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

    /// Sees whether a lease could be written, and leaves no trace of that. With the index, says of each set whether an
    /// address is free; `None` where nothing is known.
    pub(crate) fn probe(directory: &Directory, sets: &[Set]) -> Result<Option<Vec<bool>>, Error> {
        if let Some(store) = Store::lock_for(directory, false)? {
            store.probe_temporary()?;
            let known = store.state().trust == Trust::Right;
            return Ok(known.then(|| sets.iter().map(|set| store.has_free(set)).collect()));
        }
        // The folders that are missing would be made in the lowest one that is there.
        let above = directory.path().ancestors().skip(1).find(|above| fs::symlink_metadata(above).is_ok());
        let probe = above.unwrap_or(Path::new("")).join(format!("{TEMPORARY}.{}", std::process::id()));
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe);
        // One left by a killed process of this number is of no use to anybody, before as after.
        let remove = || drop(fs::remove_file(&probe));
        remove();
        let written = create().and_then(|mut file| file.write_all(b"probe"));
        remove();
        written.map_err(Error::io("create", directory.path()))?;
        Ok(None)
    }

    /// Takes the lock, and sees what the index is worth.
    fn open(directory: &'a Directory, freeing: bool) -> Result<Self, Error> {
        let lock = Lock::take(&directory.path().join("lock"), freeing, LOCK_WITHIN)?;
        let opened = File::open(directory.path()).and_then(|folder| Ok((folder.metadata()?, folder)));
        let (metadata, folder) = opened.map_err(Error::io("open", directory.path()))?;
        let boots = directory.boots();
        let head = lock.index().and_then(|file| Head::read(file, boots.now()));
        let fits = |head: &&Head| (metadata.mtime(), metadata.mtime_nsec()) == (head.stamp, 0);
        let index = head.as_ref().filter(fits).and_then(|head| Index::read(lock.index()?, head));
        let stamped = index.is_some();
        if !stamped {
            // Whoever wrote one of these is dead: it would hold the lock. Where it cannot be removed, nothing can be
            // written either, and that says why.
            let _ = fs::remove_file(directory.path().join(TEMPORARY));
        }
        let index = index.unwrap_or_else(Index::empty);
        let trust = if stamped { Trust::Right } else { Trust::Unknown };
        let state = State { index, trust, stamped, touched: false, released: Vec::new() };
        let is_first = head.is_none();
        let head = head.unwrap_or_default();
        Ok(Self { directory, lock, folder, boots, is_first, head, state: RefCell::new(state) })
    }

    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// A new index, for one that nothing is known of.
    pub(crate) fn start_over(&self) {
        let mut state = self.state();
        if state.stamped {
            // The walk may find what the modification time did not tell, and be interrupted.
            state.stamped = self.lock.index().is_some_and(|file| Head::erase(file).is_err());
        }
        state.index = Index::empty();
        if state.trust == Trust::Right {
            state.trust = Trust::Unknown;
        }
    }

    /// The index is whole now.
    pub(crate) fn trust(&self) {
        let mut state = self.state();
        state.touched = true;
        if state.trust == Trust::Unknown {
            state.trust = Trust::Right;
        }
    }

    /// The next call is to walk over the directory.
    fn distrust(&self) {
        self.state().trust = Trust::Doubted;
    }

    /// What an owner holds.
    pub(crate) fn held_by(&self, owner: &Owner<'_>) -> Result<Held, Error> {
        if let Some(held) = self.recorded(owner) {
            return Ok(held);
        }
        let mut held = Held::default();
        held.unreadable = self.scan(&mut |seen| held.look(seen.ip, seen.content, owner))?;
        Ok(held)
    }

    /// What an owner holds, by its record alone; `None` where that cannot tell.
    fn recorded(&self, owner: &Owner<'_>) -> Option<Held> {
        // Where leases have no record, one that there is may be of a part of its owner's.
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

    /// Leases an address; `false` where it is taken.
    pub(crate) fn lease(&self, ip: IpAddr, owner: &Owner<'_>) -> Result<bool, Error> {
        self.with_lease_file(owner, ip, |temporary| self.link(temporary, ip))
    }

    /// Leases the first free address of a set, in its turn; `None` where none is. Those in `resting` come last, in
    /// their order.
    pub(crate) fn lease_next(
        &self,
        set: &Set,
        after: Option<IpAddr>,
        resting: &[IpAddr],
        owner: &Owner<'_>,
    ) -> Result<Option<IpAddr>, Error> {
        let first = set.turn(after).into_iter().find_map(|span| self.first_free(set, span)).map(|(ip, _)| ip);
        let Some(first) = first.or_else(|| resting.iter().copied().find(|ip| set.admits(*ip))) else { return Ok(None) };
        self.with_lease_file(owner, first, |temporary| {
            for span in set.turn(after) {
                let mut rest = Some(span);
                while let Some((ip, span)) = rest.and_then(|span| self.first_free(set, span)) {
                    if !resting.contains(&ip) && self.link(temporary, ip)? {
                        return Ok(Some(ip));
                    }
                    rest = span.behind(ip);
                }
            }
            for ip in resting.iter().filter(|ip| set.admits(**ip)) {
                if self.link(temporary, *ip)? {
                    return Ok(Some(*ip));
                }
            }
            Ok(None)
        })
    }

    fn first_free(&self, set: &Set, span: Span) -> Option<(IpAddr, Span)> {
        Some((self.state().index.first_free(set, span)?, span))
    }

    /// Whether an address of a set could be leased.
    pub(crate) fn has_free(&self, set: &Set) -> bool {
        set.turn(None).into_iter().any(|span| {
            let mut rest = Some(span);
            while let Some((ip, span)) = rest.and_then(|span| self.first_free(set, span)) {
                if fs::symlink_metadata(self.directory.file(ip)).is_err_and(|error| error.kind() == ErrorKind::NotFound)
                {
                    return true;
                }
                rest = span.behind(ip);
            }
            false
        })
    }

    /// Addresses that were released within the last `delay` seconds, the oldest first.
    pub(crate) fn resting(&self, delay: u64) -> Vec<IpAddr> {
        if delay == 0 {
            return Vec::new();
        }
        match (self.directory.machine.uptime(), self.lock.index()) {
            (Some(now), Some(file)) => self.head.resting(file, now, delay),
            _ => Vec::new(),
        }
    }

    /// Writes a lease file under the temporary name, for as long as `work` takes.
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

    /// Gives the temporary file the name of an address; `false` where that is taken.
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

    /// Frees an address, whoever holds it.
    pub(crate) fn release(&self, ip: IpAddr) -> Result<(), Error> {
        let path = self.directory.file(ip);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                // It may lose its record to the others of its owner.
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

    /// Notes who holds these leases, and where it lives. That it cannot be noted is no failure, but an old note that
    /// would speak against the owner is. Returns the leases, where all of them can be told from others of their names.
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
        let record = Record::new(self.boots.now(), netns, leases);
        match self.directory.note(owner) {
            Note::Record(old) if old == record => return Ok(Some(record.leases)),
            Note::Record(_) | Note::Unreadable => self.forget(owner)?,
            Note::Nothing | Note::Foreign => {}
        }
        self.write_note(owner, &record);
        Ok(Some(record.leases))
    }

    /// Writes a record where there is none. Where it cannot be written, the absence of a record tells nothing any more.
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

    /// Removes an owner's record. What is no record is left alone.
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

    /// Where set `index` goes on.
    pub(crate) fn turn(&self, index: usize) -> Turn {
        Turn::read(self.last_reserved_file(index))
    }

    /// Notes the address that a set gave last.
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

    /// Writes a file and removes it again.
    fn probe_temporary(&self) -> Result<(), Error> {
        let temporary = self.directory.path().join(TEMPORARY);
        self.write_temporary("probe", &temporary)?;
        fs::remove_file(&temporary).map_err(|error| {
            self.distrust();
            Error::io("remove", &temporary)(error)
        })?;
        let mut state = self.state();
        if state.stamped {
            // Nothing was changed, so the index is as right as it was.
            let _ = self.set_modified(self.head.stamp);
        }
        state.touched = false;
        Ok(())
    }

    /// Writes a whole file under the temporary name. Errors name what it is for.
    fn write_temporary(&self, content: &str, purpose: &Path) -> Result<PathBuf, Error> {
        let path = self.directory.path().join(TEMPORARY);
        self.state().touched = true;
        // A new file always: through a link put there under this name we would write somebody else's.
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let created = match create() {
            // Whoever left it there is dead, or could not remove it: it would hold the lock.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && fs::remove_file(&path).is_ok() => create(),
            created => created,
        };
        let written = created.map_err(Error::io("create", purpose)).and_then(|mut file| {
            file.write_all(content.as_bytes()).map_err(|error| {
                self.remove_temporary(&path);
                Error::io("write", purpose)(error)
            })
        });
        written.map(|()| path)
    }

    /// That it stays is nothing to fail for: whoever finds no index removes it, so the next one must find none.
    fn remove_temporary(&self, path: &Path) {
        if fs::remove_file(path).is_err_and(|error| error.kind() != ErrorKind::NotFound) {
            self.distrust();
        }
    }

    fn set_modified(&self, second: i64) -> io::Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second.max(0).unsigned_abs());
        self.folder.set_times(FileTimes::new().set_modified(time))
    }

    /// Writes the index, and then stamps it.
    fn finish(&mut self) -> io::Result<()> {
        let state = self.state.get_mut();
        let (Some(file), Some(boot)) = (self.lock.index(), self.boots.now()) else { return Ok(()) };
        if state.trust != Trust::Right {
            return if state.stamped { Head::erase(file) } else { Ok(()) };
        }
        if !state.touched {
            return Ok(());
        }
        let second = match state.released.is_empty() {
            true => None,
            false => self.directory.machine.uptime(),
        };
        let released: Vec<_> = state.released.iter().filter_map(|ip| Some((*ip, second?))).collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        // A second that is even: the coarsest file systems count in twos.
        let stamp = (now.saturating_sub(LAG) & !1).cast_signed();
        state.index.write(file, &self.head, stamp, boot, &released)?;
        self.set_modified(stamp)
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            // Without an index the next call takes longer, and that is all.
            let _ = self.finish();
        }
    }
}

/// On a file system without hard links, or with no more of them for this file.
fn has_no_links(error: &io::Error) -> bool {
    matches!(linux::errno(error), Some(Errno::EPERM | Errno::EMLINK | Errno::ENOSYS | Errno::EOPNOTSUPP))
}

/// As link(2) and then unlink(2), as far as nobody works beside us without the lock.
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
