//! Opens, locks and lists files that an untrusted user may have created. A FIFO does not block, and a device is not
//! opened.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::statfs::statfs;

use crate::{Error, Patience, Result};

/// Opens a regular file for reading. Follows symbolic links.
///
/// # Errors
///
/// `InvalidInput` if it is not a regular file; otherwise the kernel's error.
pub fn open(path: &Path) -> io::Result<File> {
    let regular = |is_file: bool| match is_file {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    };
    regular(fs::metadata(path)?.is_file())?;
    let file = options().open(path)?;
    // Another file may have this path now.
    regular(file.metadata()?.is_file())?;
    Ok(file)
}

/// Opens a file of any type for reading, without blocking. Does not follow a symbolic link at the path. The caller must
/// check the type of the file.
///
/// # Errors
///
/// `ELOOP` for a symbolic link.
pub fn open_itself(path: &Path) -> io::Result<File> {
    options().custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW).open(path)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

/// Writes a file that only its owner can read, in place of any other content. If the process is killed meanwhile, the
/// file is empty or incomplete.
///
/// # Errors
///
/// The kernel's error. Then there is no file, if it can be removed.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        options.open(path)?.write_all(content)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(path);
        Error::Io { operation: format!("write {}", path.display()), source }
    })
}

/// Creates a directory that only its owner can use, unless it exists. Its parent must exist.
///
/// # Errors
///
/// The kernel's error.
pub fn create_private_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Io { operation: format!("create directory {}", path.display()), source })
        }
        _ => Ok(()),
    }
}

/// A lock between processes. It is released when it is dropped, and when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks a file, and waits for the lock no longer than `within`. (flock(2)) Creates the file and its directory if
    /// they are missing, for their owner only.
    ///
    /// # Errors
    ///
    /// `Timeout` if another process still holds the lock; `Io` if the file cannot be created, opened or locked.
    pub fn take(path: &Path, within: Duration) -> Result<Self> {
        let operation = || format!("lock {}", path.display());
        let failed = |source| Error::Io { operation: operation(), source };
        match lock_within(open_lock(path).map_err(failed)?, within) {
            Ok(file) => Ok(Self { _file: file }),
            Err(Unlocked::TimedOut) => Err(Error::Timeout { operation: operation() }),
            Err(Unlocked::Refused(source) | Unlocked::NoThread(source)) => Err(failed(source)),
        }
    }
}

/// The reason why a file could not be locked.
#[derive(Debug)]
pub enum Unlocked {
    /// Another process held the lock all the time.
    TimedOut,
    /// The file system has no locks, or another error of the kernel.
    Refused(io::Error),
    /// Another process holds the lock, and no thread could be started to wait for it.
    NoThread(io::Error),
}

/// Locks a file, and waits for the lock no longer than `within`. Those who wait get it one after the other. (flock(2))
///
/// # Errors
///
/// The reason why it is not locked. After `TimedOut`, this process may still get the lock, and keeps it until it ends.
pub fn lock_within(file: File, within: Duration) -> std::result::Result<File, Unlocked> {
    let deadline = Instant::now() + within;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(Unlocked::Refused(error)),
    }
    // flock(2) has no deadline, so another thread waits. (A channel for the one value would be 6 KB of code.)
    let (sent, waiting) = (Arc::new(Mutex::new(None)), thread::current());
    let received = Arc::clone(&sent);
    let waiter = thread::Builder::new().spawn(move || {
        let locked = retry_interrupted(|| file.lock()).map(|()| file);
        if let Ok(mut sent) = sent.lock() {
            *sent = Some(locked);
        }
        waiting.unpark();
    });
    waiter.map_err(Unlocked::NoThread)?;
    loop {
        let locked = received.lock().ok().and_then(|mut received| received.take());
        if let Some(locked) = locked {
            return locked.map_err(Unlocked::Refused);
        }
        match deadline.checked_duration_since(Instant::now()) {
            Some(left) => thread::park_timeout(left),
            None => return Err(Unlocked::TimedOut),
        }
    }
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A lock of one byte of a file, between processes and between threads. It is released when it is dropped, and when the
/// process ends. So one file has as many locks as wanted. (fcntl(2), "Open file description locks")
#[derive(Debug)]
pub struct ByteLock {
    _file: File,
}

impl ByteLock {
    /// Locks the byte at `offset`, which may be after the end of the file, and waits no longer than `within`. Creates the
    /// file for its owner only; its directory must exist. Returns `None` if another call still holds the lock.
    ///
    /// # Errors
    ///
    /// `Io` if the file cannot be created, opened or locked.
    pub fn take(path: &Path, offset: u64, within: Duration) -> Result<Option<Self>> {
        let failed = |source: io::Error| Error::Io { operation: format!("lock {}", path.display()), source };
        let file = open_lock(path).map_err(failed)?;
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            // The kernel has signed offsets, and the last one cannot be locked.
            l_start: (offset & (i64::MAX as u64 >> 1)) as libc::off_t,
            l_len: 1,
            l_pid: 0,
        };
        let mut patience = Patience::new(within);
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)) {
                Ok(_) => return Ok(Some(Self { _file: file })),
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) if patience.pause() => {}
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => return Ok(None),
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        options.open(path)
    };
    match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => open(),
            }
        }
        (opened, _) => opened,
    }
}

/// File systems that only one machine can mount at a time. (include/uapi/linux/magic.h; the numbers of ZFS, bcachefs
/// and JFS are in their own sources)
const LOCAL: [u32; 15] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs: its upper layer must be on a local file system
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x5265_4973, // reiserfs
    0x3153_464a, // JFS
    0x3434,      // NILFS
    0x2405_1905, // UBIFS
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
    0x9660,      // ISO 9660
];

/// Returns true if no other machine can mount the file system of this path at the same time. Returns false for an
/// unknown file system, and for FUSE.
///
/// # Errors
///
/// The error of statfs(2).
pub fn is_local(path: &Path) -> io::Result<bool> {
    let kind = statfs(path)?.filesystem_type();
    Ok(LOCAL.iter().any(|local| i64::from(*local) == kind.0 as i64 & 0xffff_ffff))
}

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in the directory.
    pub name: OsString,
    /// `None` if the file system does not tell the type.
    kind: Option<Type>,
}

impl Entry {
    /// Returns true for a regular file, and false for a link to one. `folder` is the directory of the entry.
    pub fn is_file(&self, folder: &Path) -> bool {
        match self.kind {
            Some(kind) => kind == Type::File,
            None => fs::symlink_metadata(folder.join(&self.name)).is_ok_and(|entry| entry.is_file()),
        }
    }
}

/// Lists a directory in no order. Ignores an error of close(2), for which the standard library panics.
///
/// # Errors
///
/// The kernel's error, for the directory or in place of an entry. If the kernel keeps returning an error, the iterator
/// never ends.
pub fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<Entry>> + use<>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let entries = Dir::open(folder, flags, Mode::empty())?.into_iter().map(|entry| {
        let entry = entry?;
        Ok(Entry { name: OsStr::from_bytes(entry.file_name().to_bytes()).to_owned(), kind: entry.file_type() })
    });
    Ok(entries.filter(|entry| !entry.as_ref().is_ok_and(|entry| entry.name == "." || entry.name == "..")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::errno::Errno;

    use super::*;

    #[test]
    fn only_a_regular_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, fifo] = ["file", "link", "fifo"].map(|name| folder.path().join(name));
        fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        open(&file).unwrap();
        open(&link).unwrap();
        for path in [&fifo, folder.path(), Path::new("/dev/null")] {
            assert_eq!(open(path).unwrap_err().to_string(), "not a regular file", "{}", path.display());
        }
        let gone = open(&folder.path().join("gone")).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(Errno::ENOENT as i32));
    }

    #[test]
    fn open_itself_does_not_wait_for_a_fifo_or_follow_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, fifo] = ["file", "link", "fifo"].map(|name| folder.path().join(name));
        fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_itself(&file).unwrap().metadata().unwrap().is_file());
        assert!(!open_itself(&fifo).unwrap().metadata().unwrap().is_file());
        assert_eq!(open_itself(&link).unwrap_err().raw_os_error(), Some(Errno::ELOOP as i32));
    }

    #[test]
    fn a_lock_has_one_holder_and_private_files() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, path) = (folder.path().join("ours"), folder.path().join("ours/lock"));
        let held = Lock::take(&path, Duration::ZERO).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&directory), mode(&path)), (0o700, 0o600));
        let late = Lock::take(&path, Duration::from_millis(5)).unwrap_err();
        assert_eq!(late.to_string(), format!("lock {}: timed out", path.display()));
        drop(held);
        Lock::take(&path, Duration::ZERO).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(folder.path().join("elsewhere"), &path).unwrap();
        Lock::take(&path, Duration::ZERO).unwrap_err();
        assert!(!folder.path().join("elsewhere").exists(), "the lock followed a link");
    }

    #[test]
    fn a_private_file_in_a_private_directory_is_written_and_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("ours");
        create_private_directory(&directory).unwrap();
        create_private_directory(&directory).unwrap();
        let path = directory.join("file");
        for content in ["long content", "short"] {
            write_private(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&directory), mode(&path)), (0o700, 0o600));
        symlink(&path, directory.join("link")).unwrap();
        write_private(&directory.join("link"), b"x").unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short", "a link is not followed");
        let error = create_private_directory(&folder.path().join("a/b")).unwrap_err().to_string();
        assert!(error.starts_with("create directory ") && error.ends_with("a/b: no such file or directory"), "{error}");
    }

    #[test]
    fn entries_lists_everything_and_links_are_not_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "text").unwrap();
        fs::create_dir(path("folder")).unwrap();
        symlink(path("file"), path("link")).unwrap();
        let mut found: Vec<_> = entries(folder.path()).unwrap().collect::<io::Result<_>>().unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let without_kind = |entry: &Entry| Entry { kind: None, ..entry.clone() }.is_file(folder.path());
        let files: Vec<_> =
            found.iter().map(|entry| (entry.name.to_str().unwrap(), entry.is_file(folder.path()))).collect();
        assert_eq!(files, [("file", true), ("folder", false), ("link", false)]);
        assert_eq!(found.iter().map(without_kind).collect::<Vec<_>>(), [true, false, false]);
        let gone = entries(&path("gone")).err().unwrap();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
