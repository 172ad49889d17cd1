//! Network namespaces: opening one, telling two apart, working inside one.

use std::cell::Cell;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::{self, ThreadId};

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::{Error, Result, errno};

/// The namespace of the calling thread. `/proc/self` would be the main thread's.
const CURRENT: &str = "/proc/thread-self/ns/net";

thread_local! {
    /// Whether this thread is on a visit to a namespace, so that its way back does not lead home.
    static IS_VISITING: Cell<bool> = const { Cell::new(false) };
}

/// A network namespace held open: it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    id: NetnsId,
    /// Where that thread is at home: its way back from a visit.
    home: Option<(ThreadId, File)>,
}

/// What makes a namespace itself: two paths with equal ids lead to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    dev: u64,
    inode: u64,
}

impl NetnsId {
    /// What lies at `path`, where it is on nsfs: [`Netns::open`] makes sure of that, this does not.
    ///
    /// # Errors
    ///
    /// `Io` when there is nothing to be seen.
    pub fn at(path: &Path) -> Result<Self> {
        let stat = fs::metadata(path).map_err(|source| open_error(path, source))?;
        Ok(Self { dev: stat.dev(), inode: stat.ino() })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// `Io` without a /proc.
    pub fn current() -> Result<Self> {
        Self::at(Path::new(CURRENT))
    }

    /// The device of the namespace's file on nsfs.
    pub const fn dev(self) -> u64 {
        self.dev
    }

    /// The inode of the namespace's file on nsfs. The kernel gives it to another
    /// namespace once this one is gone.
    pub const fn inode(self) -> u64 {
        self.inode
    }
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.dev, self.inode)
    }
}

impl Netns {
    /// Opens the namespace at `path`.
    ///
    /// # Errors
    ///
    /// `NetnsMissing` when there is no such file, `NotNetns` when it is anything but a
    /// network namespace, `Io` when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        // O_NONBLOCK: a FIFO at this path must be an error, not a wait for a writer.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        let file = match opened {
            Ok(file) => file,
            // No path leads to anything: as gone as a missing file.
            Err(source) if is_errno(&source, &[Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP, Errno::ENAMETOOLONG]) => {
                return Err(Error::NetnsMissing { path: path.to_owned() });
            }
            // A socket, or a device that nothing stands behind.
            Err(source) if is_errno(&source, &[Errno::ENXIO, Errno::ENODEV]) => {
                return Err(Error::NotNetns { path: path.to_owned() });
            }
            Err(source) => return Err(open_error(path, source)),
        };
        let mount = fstatfs(&file).map_err(|errno| open_error(path, errno.into()))?;
        if mount.filesystem_type() != NSFS_MAGIC || !is_network(&file, path)? {
            return Err(Error::NotNetns { path: path.to_owned() });
        }
        let stat = file.metadata().map_err(|source| open_error(path, source))?;
        let id = NetnsId { dev: stat.dev(), inode: stat.ino() };
        Ok(Self { file, path: path.to_owned(), id, home: None })
    }

    /// The same, for a thread that is in `home` whenever it is on no visit to another namespace: then the kernel need not
    /// be asked for the way back.
    ///
    /// # Errors
    ///
    /// `Io` when there is no descriptor to be had.
    pub fn from_home(self, home: &Self) -> Result<Self> {
        let file = home.file.try_clone().map_err(|source| open_error(&home.path, source))?;
        Ok(Self { home: Some((thread::current().id(), file)), ..self })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// As [`Netns::open`].
    pub fn current() -> Result<Self> {
        Self::open(Path::new(CURRENT))
    }

    /// Which namespace this is.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` with the calling thread inside this namespace, and comes back to where it
    /// was, also when `work` panics. A socket opened inside stays there.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered; `work` has not run then.
    ///
    /// # Aborts
    ///
    /// When the thread cannot come back: whatever it did next would happen to the wrong
    /// network.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let opened;
        let is_visiting = IS_VISITING.get();
        let back = match &self.home {
            Some((thread, home)) if !is_visiting && *thread == thread::current().id() => home,
            _ => {
                opened = File::open(CURRENT).map_err(|source| open_error(Path::new(CURRENT), source))?;
                &opened
            }
        };
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::kernel(format_args!("enter network namespace {}", self.path.display()), errno))?;
        IS_VISITING.set(true);
        let _way_back = WayBack { to: back, is_visiting };
        Ok(work())
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Leads the thread back when it is dropped, on a return as on a panic.
struct WayBack<'a> {
    to: &'a File,
    /// Whether that is a visit too.
    is_visiting: bool,
}

impl Drop for WayBack<'_> {
    fn drop(&mut self) {
        IS_VISITING.set(self.is_visiting);
        if let Err(errno) = setns(self.to, CloneFlags::CLONE_NEWNET) {
            // Last words: nobody else is left to say them.
            let words = format!("return to the network namespace: {}\n", errno.desc());
            let _ = io::stderr().write_all(words.as_bytes());
            std::process::abort();
        }
    }
}

fn is_errno(error: &io::Error, numbers: &[Errno]) -> bool {
    errno(error).is_some_and(|errno| numbers.contains(&errno))
}

fn open_error(path: &Path, source: io::Error) -> Error {
    Error::Io { operation: format!("open network namespace {}", path.display()), source }
}

mod ioctl {
    // NS_GET_NSTYPE, include/uapi/linux/nsfs.h.
    nix::ioctl_none_bad!(get_nstype, nix::request_code_none!(0xb7, 0x3));
}

/// Whether a file on nsfs is a network namespace, and not, say, a mount namespace.
fn is_network(file: &File, path: &Path) -> Result<bool> {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours; the
    // descriptor is open, and borrowed from `file`, for the time of the call.
    match unsafe { ioctl::get_nstype(file.as_raw_fd()) } {
        Ok(kind) => Ok(kind == libc::CLONE_NEWNET),
        // Linux before 4.11 cannot say; setns refuses the wrong kind there.
        Err(Errno::ENOTTY) => Ok(true),
        Err(errno) => Err(open_error(path, errno.into())),
    }
}
