//! The lock of a lease directory: flock(2) on the file that the reference uses for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use linux::Errno;
use linux::file::{Unlocked, lock_within};

use crate::error::Error;

/// The time to wait for other processes. Each holds the lock for milliseconds, but there can be many.
pub(crate) const LOCK_WITHIN: Duration = Duration::from_secs(60);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// True if the content may be written.
    writable: bool,
}

impl Lock {
    /// The file to keep the index in.
    pub(crate) fn index(&self) -> Option<&File> {
        self.writable.then_some(&self.file)
    }

    /// Takes the lock at `path`. If the file is missing and cannot be created, a call that only frees leases locks
    /// the directory instead: the reference could not create the file either.
    pub(crate) fn take(path: &Path, freeing: bool, within: Duration) -> Result<Self, Error> {
        let deadline = Instant::now() + within;
        loop {
            let (file, writable) = match (open(path), path.parent()) {
                (Err(error), Some(folder)) if freeing && is_no_room(&error) => {
                    let folder = File::open(folder).map_err(Error::io("open", folder))?;
                    return wait(folder, path, deadline, within).map(|file| Self { file, writable: false });
                }
                (opened, _) => opened.map_err(Error::io("open", path))?,
            };
            let file = wait(file, path, deadline, within)?;
            let only = is_the_only_entry(path, &file);
            // If the file was removed while we waited, later calls use another file.
            if only || !is_replaced(path, &file) {
                return Ok(Self { file, writable: writable && only });
            }
        }
    }
}

/// Returns true if the path is this very file, and the file has no other name. Otherwise a write could change a
/// foreign file.
pub(crate) fn is_the_only_entry(path: &Path, file: &File) -> bool {
    let same = |entry: fs::Metadata, file: fs::Metadata| {
        entry.is_file() && (entry.dev(), entry.ino(), entry.nlink()) == (file.dev(), file.ino(), 1)
    };
    fs::symlink_metadata(path).is_ok_and(|entry| file.metadata().is_ok_and(|file| same(entry, file)))
}

/// Returns true if the path now leads to another file, or to none.
fn is_replaced(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(reached), Ok(file)) => (reached.dev(), reached.ino()) != (file.dev(), file.ino()),
        (Err(error), _) => error.kind() == ErrorKind::NotFound,
        (_, Err(_)) => false,
    }
}

/// Returns true if a file could not be created because the file system is full or read-only.
fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem)
}

/// Opens the file, or creates it. The second value is true if it is open for writing.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let open = || match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
        Err(_) => File::open(path).map(|file| (file, false)),
    };
    // Created exclusively, so that it is not created through a dangling link.
    let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => match create() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => open(),
            created => created.map(|file| (file, true)),
        },
        opened => opened,
    }
}

fn wait(file: File, path: &Path, deadline: Instant, within: Duration) -> Result<File, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    lock_within(file, left).map_err(|unlocked| match unlocked {
        Unlocked::TimedOut => Error::Locked { path: path.to_owned(), seconds: within.as_secs() },
        Unlocked::Refused(error) => refused(path, error),
        Unlocked::NoThread(source) => Error::NoThread { path: path.to_owned(), source },
    })
}

/// These errors mean that the file system has no locks.
fn refused(path: &Path, source: io::Error) -> Error {
    match linux::errno(&source) {
        Some(Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP) => Error::NoLocks { path: path.to_owned(), source },
        _ => Error::io("lock", path)(source),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::thread;

    use super::*;

    #[test]
    fn one_that_is_held_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::take(&path, false, LOCK_WITHIN).unwrap();
        let error = Lock::take(&path, false, Duration::from_millis(20)).unwrap_err().to_string();
        assert_eq!(error, format!("lock {}: still held by another process after 0 s", path.display()));

        thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::take(&path, false, LOCK_WITHIN).map(drop));
            drop(held);
            waiting.join().unwrap().unwrap();
        });
    }

    /// Two had the lock at once: one of the file that had been removed, one of the new one.
    #[test]
    fn one_that_was_removed_while_it_was_waited_for_is_not_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::take(&path, false, LOCK_WITHIN).unwrap();
        let inode = |lock: &Lock| lock.file.metadata().unwrap().ino();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::take(&path, false, LOCK_WITHIN).unwrap());
            // In /proc/locks a line with an arrow is of one that waits.
            let waits = format!(":{} ", inode(&held));
            let is_waiting = |line: &str| line.contains("-> FLOCK") && line.contains(&waits);
            while !fs::read_to_string("/proc/locks").unwrap().lines().any(is_waiting) {
                thread::yield_now();
            }
            fs::remove_file(&path).unwrap();
            drop(held);
            let taken = waiting.join().unwrap();
            assert_eq!(inode(&taken), fs::metadata(&path).unwrap().ino());
            let error = Lock::take(&path, false, Duration::from_millis(20)).unwrap_err();
            assert!(matches!(error, Error::Locked { .. }), "{error}");
        });
    }

    #[test]
    fn neither_made_nor_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (planted, elsewhere) = (folder.path().join("planted"), folder.path().join("elsewhere"));
        symlink(&elsewhere, &planted).unwrap();
        let error = Lock::take(&planted, true, LOCK_WITHIN).unwrap_err().to_string();
        assert_eq!(error, format!("open {}: No such file or directory (os error 2)", planted.display()));
        assert!(!elsewhere.exists());

        fs::write(&elsewhere, "precious").unwrap();
        assert!(Lock::take(&planted, false, LOCK_WITHIN).unwrap().index().is_none());
        let other = folder.path().join("other");
        fs::hard_link(&elsewhere, &other).unwrap();
        assert!(Lock::take(&other, false, LOCK_WITHIN).unwrap().index().is_none());
        fs::remove_file(&elsewhere).unwrap();
        assert!(Lock::take(&other, false, LOCK_WITHIN).unwrap().index().is_some());
    }

    #[test]
    fn a_file_system_without_locks_is_named() {
        let error = refused(Path::new("/lan/lock"), io::Error::from(Errno::EOPNOTSUPP)).to_string();
        let expected = "lock /lan/lock: Operation not supported (os error 95): without flock(2) two containers could \
                        get one address, so choose an ipam.dataDir on another file system";
        assert_eq!(error, expected);
    }
}
