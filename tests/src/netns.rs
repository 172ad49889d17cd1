//! A network namespace that lives as long as its value. A thread creates it, a descriptor keeps it, and other threads
//! enter it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{fs, thread};

use nix::sched::{CloneFlags, setns, unshare};

use crate::kernel::Netlink;

/// A network namespace of our own. The kernel frees it with the last descriptor and socket
/// in it, so it cannot outlive the process, not even one that was killed.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
    netlink: Mutex<Netlink>,
}

impl Namespace {
    /// A new namespace with nothing in it but `lo`, which is up.
    pub fn new() -> Self {
        let (file, netlink) = in_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root, or a user namespace");
            let file = File::open("/proc/thread-self/ns/net").expect("open our own netns");
            (file, Netlink::open())
        });
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        let namespace = Self { file, path, netlink: Mutex::new(netlink) };
        namespace.set_up("lo");
        namespace
    }

    /// The namespace of somebody else, by a path to it. Our value keeps it alive, links and
    /// all, as long as it lives itself.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let netlink = in_new_thread(|| {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            Ok::<_, nix::Error>(Netlink::open())
        })?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        Ok(Self { file, path, netlink: Mutex::new(netlink) })
    }

    /// A path that any process of ours can open: what `CNI_NETNS` gets.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor that holds the namespace.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs `f` in a new thread inside the namespace. Sockets opened and processes started
    /// by `f` belong to the namespace for good. A panic of `f` goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_new_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("enter a netns of the Lab");
            f()
        })
    }

    /// The namespace's netlink socket, one user at a time.
    pub(crate) fn netlink<T>(&self, f: impl FnOnce(&mut Netlink) -> T) -> T {
        // A panic while the lock was held has spoiled that test already; the socket is fine.
        let mut netlink = self.netlink.lock().unwrap_or_else(|e| e.into_inner());
        f(&mut netlink)
    }

    /// Reads `/proc/sys/<key>` as it is inside, without the newline.
    pub fn sysctl(&self, key: &str) -> String {
        self.try_sysctl(key).unwrap_or_else(|e| panic!("read /proc/sys/{key}: {e}"))
    }

    /// As [`Namespace::sysctl`], for a key that may not be there.
    pub fn try_sysctl(&self, key: &str) -> std::io::Result<String> {
        // /proc/sys/net shows the netns of the thread that opens it.
        self.run(|| fs::read_to_string(Path::new("/proc/sys").join(key))).map(|text| text.trim_end().to_owned())
    }

    /// Writes `/proc/sys/<key>` inside.
    pub fn set_sysctl(&self, key: &str, value: &str) {
        self.run(|| fs::write(Path::new("/proc/sys").join(key), value))
            .unwrap_or_else(|e| panic!("write {value} to /proc/sys/{key}: {e}"));
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

fn in_new_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(f).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
