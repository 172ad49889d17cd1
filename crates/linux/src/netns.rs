//! Network namespaces: opens them, compares them, and runs code inside of them.

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

/// The namespace of the calling thread. `/proc/self` is that of the main thread.
const CURRENT: &str = "/proc/thread-self/ns/net";

thread_local! {
    /// True while this thread is inside [`Netns::enter`], so that it is not in its own namespace.
    static IS_VISITING: Cell<bool> = const { Cell::new(false) };
}

/// An open network namespace. It exists at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    seen: NetnsFile,
    /// The namespace to which this thread returns after [`Netns::enter`], if it is known.
    home: Option<(ThreadId, File)>,
}

/// Identifies a namespace. If two paths have equal IDs, they lead to the same namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    dev: u64,
    inode: u64,
}

impl NetnsId {
    /// Returns the ID of the namespace at `path`. Does not check that the file is a namespace, as [`Netns::open`] does.
    ///
    /// # Errors
    ///
    /// `Io` if there is no file at the path.
    pub fn at(path: &Path) -> Result<Self> {
        Ok(NetnsFile::at(path)?.id)
    }

    /// Returns the ID of the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// `Io` if there is no /proc.
    pub fn current() -> Result<Self> {
        Self::at(Path::new(CURRENT))
    }

    /// Returns the ID of the mount namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// As [`NetnsId::current`].
    pub fn mounts() -> Result<Self> {
        Self::at(Path::new("/proc/thread-self/ns/mnt"))
    }

    /// Returns the device of the namespace's file on nsfs.
    pub const fn dev(self) -> u64 {
        self.dev
    }

    /// Returns the inode of the namespace's file on nsfs. After this namespace has ended, another one may get the same
    /// number.
    pub const fn inode(self) -> u64 {
        self.inode
    }
}

/// The file of a namespace on nsfs, as a path leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsFile {
    /// The namespace.
    pub id: NetnsId,
    /// The time at which the kernel created the file, in nanoseconds since 1970. The file stays as long as it is mounted
    /// or open. If it is neither, the kernel deletes it, and creates another file for the same namespace later. So if two
    /// times are equal, the namespace is the same. If they differ, it may be the same or another one.
    pub since: i64,
}

impl NetnsFile {
    /// Looks at the file at `path`. Does not check that it is a namespace, as [`Netns::open`] does.
    ///
    /// # Errors
    ///
    /// `Io` if there is no file at the path.
    pub fn at(path: &Path) -> Result<Self> {
        Ok(Self::of(&fs::metadata(path).map_err(|source| open_error(path, source))?))
    }

    fn of(stat: &fs::Metadata) -> Self {
        const NANOSECONDS: i64 = 1_000_000_000;
        let since = stat.ctime().saturating_mul(NANOSECONDS).saturating_add(stat.ctime_nsec());
        Self { id: NetnsId { dev: stat.dev(), inode: stat.ino() }, since }
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
    /// `NetnsMissing` if there is no such file, `NotNetns` if the file is not a network namespace, `Io` if it cannot be
    /// opened.
    pub fn open(path: &Path) -> Result<Self> {
        // Without O_NONBLOCK, opening a FIFO waits for a writer.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        let file = match opened {
            Ok(file) => file,
            // These errors say that the path leads nowhere, as if the file is missing.
            Err(source) if is_errno(&source, &[Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP, Errno::ENAMETOOLONG]) => {
                return Err(Error::NetnsMissing { path: path.to_owned() });
            }
            // The file is a socket, or a device without a driver.
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
        Ok(Self { file, path: path.to_owned(), seen: NetnsFile::of(&stat), home: None })
    }

    /// Tells that the calling thread is in `home` whenever it is not inside [`Netns::enter`]. This saves `enter` from
    /// opening the namespace of the thread.
    ///
    /// # Errors
    ///
    /// `Io` if the descriptor cannot be duplicated.
    pub fn from_home(self, home: &Self) -> Result<Self> {
        let file = home.file.try_clone().map_err(|source| open_error(&home.path, source))?;
        Ok(Self { home: Some((thread::current().id(), file)), ..self })
    }

    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// As [`Netns::open`].
    pub fn current() -> Result<Self> {
        Self::open(Path::new(CURRENT))
    }

    /// Returns the ID of the namespace.
    pub fn id(&self) -> NetnsId {
        self.seen.id
    }

    /// Returns the file of the namespace, as it was when it was opened.
    pub fn seen(&self) -> NetnsFile {
        self.seen
    }

    /// Returns the path by which the namespace was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` with the calling thread inside this namespace. Then the thread returns to its earlier namespace,
    /// also if `work` panics. A socket that `work` opens stays in this namespace.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered. Then `work` has not run.
    ///
    /// # Aborts
    ///
    /// If the thread cannot return. Otherwise it would change the wrong network.
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
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            Error::kernel(format_args!("enter network namespace \"{}\"", self.path.display()), errno)
        })?;
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

/// Returns the thread to a namespace when it is dropped, also after a panic.
struct WayBack<'a> {
    to: &'a File,
    /// True if the thread was already inside [`Netns::enter`].
    is_visiting: bool,
}

impl Drop for WayBack<'_> {
    fn drop(&mut self) {
        IS_VISITING.set(self.is_visiting);
        if let Err(errno) = setns(self.to, CloneFlags::CLONE_NEWNET) {
            // No error object can be printed after this.
            let cause = errno.desc();
            let words = format!("return to the plugin's own network namespace: {cause}; the process aborts\n");
            let _ = io::stderr().write_all(words.as_bytes());
            std::process::abort();
        }
    }
}

fn is_errno(error: &io::Error, numbers: &[Errno]) -> bool {
    errno(error).is_some_and(|errno| numbers.contains(&errno))
}

fn open_error(path: &Path, source: io::Error) -> Error {
    Error::Io { operation: format!("open network namespace \"{}\"", path.display()), source }
}

mod ioctl {
    // NS_GET_NSTYPE. (include/uapi/linux/nsfs.h)
    nix::ioctl_none_bad!(get_nstype, nix::request_code_none!(0xb7, 0x3));
}

/// Returns true if a file on nsfs is a network namespace, and not a namespace of another kind.
fn is_network(file: &File, path: &Path) -> Result<bool> {
    // SAFETY: NS_GET_NSTYPE takes no argument and does not access our memory. `file` is open during the call.
    match unsafe { ioctl::get_nstype(file.as_raw_fd()) } {
        Ok(kind) => Ok(kind == libc::CLONE_NEWNET),
        // Linux before 4.11 does not know this call. There setns(2) refuses a namespace of another kind.
        Err(Errno::ENOTTY) => Ok(true),
        Err(errno) => Err(open_error(path, errno.into())),
    }
}
