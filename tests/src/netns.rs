//! A network namespace that exists as long as its value. A thread creates it, and other threads enter it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, mpsc};
use std::{fs, thread};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::kernel::Netlink;
use crate::mounts;

/// A network namespace. The kernel frees it with its last descriptor and socket, also after the process was killed.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
    /// True if the path is a symbolic link that goes with the namespace.
    is_named: bool,
    netlink: Mutex<Netlink>,
    /// A mount namespace with its own /run, if it was asked for.
    own_run: OnceLock<OwnRun>,
}

/// A mount namespace with a thread in it. Without one, a search of other programs for leases could not look into it.
#[derive(Debug)]
struct OwnRun {
    file: File,
    /// The thread ends when this is dropped.
    _end: mpsc::Sender<()>,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.is_named {
            // The directory of the Lab may be gone already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Namespace {
    /// A new namespace that has only `lo`, which is up.
    pub fn new() -> Self {
        let (file, netlink) = in_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root, or a user namespace");
            let file = File::open("/proc/thread-self/ns/net").expect("open our own netns");
            (file, Netlink::open())
        });
        let namespace = Self::of(file, netlink);
        namespace.set_up("lo");
        namespace
    }

    /// An existing namespace at a path. The value keeps it and its links alive.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let netlink = in_new_thread(|| {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            Ok::<_, nix::Error>(Netlink::open())
        })?;
        Ok(Self::of(file, netlink))
    }

    fn of(file: File, netlink: Netlink) -> Self {
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        Self { file, path, is_named: false, netlink: Mutex::new(netlink), own_run: OnceLock::new() }
    }

    /// Gives the namespace a path that no other one ever has, as runtimes do. Without it, the number of the descriptor and
    /// the inode of a namespace that is gone may both be those of a new one.
    pub fn name(mut self, link: PathBuf) -> Self {
        symlink(&self.path, &link).expect("make a symbolic link");
        self.path = link;
        self.is_named = true;
        self
    }

    /// A path that other processes can open, for `CNI_NETNS`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor that keeps the namespace alive.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the namespace an empty /run of its own, as every machine has. All later calls of [`Namespace::run`] see it.
    pub fn give_own_run(&self) {
        self.own_run.get_or_init(|| {
            let (opened, file) = mpsc::channel();
            let (end, ended) = mpsc::channel::<()>();
            thread::spawn(move || {
                unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of its own");
                // Later mounts and unmounts of the test are seen here, and none of these are seen in the test.
                let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
                mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("separate the mounts");
                mounts::file_system("tmpfs", Path::new("/run"), "mode=755");
                let file = File::open("/proc/thread-self/ns/mnt").expect("open the mount namespace");
                opened.send(file).expect("the test waits for the mount namespace");
                // An error means that the namespace is dropped.
                let _ = ended.recv();
            });
            OwnRun { file: file.recv().expect("a mount namespace"), _end: end }
        });
    }

    /// The names in a directory of the namespace's /run, sorted. Empty if there is no directory.
    pub fn run_entries(&self, directory: &str) -> Vec<String> {
        assert!(self.own_run.get().is_some(), "the namespace has no /run of its own");
        self.run(|| {
            let entries = fs::read_dir(Path::new("/run").join(directory)).into_iter().flatten();
            let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("read a directory").file_name();
            let mut names: Vec<_> = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
            names.sort();
            names
        })
    }

    /// Writes a file of this name into the namespace's /etc, which first gets an /etc and a /run of its own. The other
    /// entries of /etc stay as they are.
    pub fn write_etc(&self, name: &str, text: &str) {
        /// The /etc of this machine.
        const REAL: &str = "/run/etc";
        self.give_own_run();
        self.run(|| {
            if !Path::new(REAL).exists() {
                fs::create_dir(REAL).expect("make a directory");
                mounts::bind(Path::new("/etc"), Path::new(REAL));
                mounts::file_system("tmpfs", Path::new("/etc"), "mode=755");
                for entry in fs::read_dir(REAL).expect("read /etc") {
                    let entry = entry.expect("read /etc");
                    symlink(entry.path(), Path::new("/etc").join(entry.file_name())).expect("make a symbolic link");
                }
            }
            fs::write(Path::new("/etc").join(name), text).unwrap_or_else(|e| panic!("write /etc/{name}: {e}"));
        });
    }

    /// Runs `f` in a new thread in the namespace. Sockets that `f` opens and processes that it starts stay in the
    /// namespace. A panic of `f` continues in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_new_thread(|| {
            if let Some(OwnRun { file: mounts, .. }) = self.own_run.get() {
                unshare(CloneFlags::CLONE_FS).expect("leave the file system state of the process");
                setns(mounts, CloneFlags::CLONE_NEWNS).expect("enter the mount namespace");
            }
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("enter a netns of the Lab");
            f()
        })
    }

    pub(crate) fn netlink<T>(&self, f: impl FnOnce(&mut Netlink) -> T) -> T {
        // After a panic with the lock, the socket still works.
        let mut netlink = self.netlink.lock().unwrap_or_else(|e| e.into_inner());
        f(&mut netlink)
    }

    /// Reads `/proc/sys/<key>` in the namespace, without the newline.
    pub fn sysctl(&self, key: &str) -> String {
        self.try_sysctl(key).unwrap_or_else(|e| panic!("read /proc/sys/{key}: {e}"))
    }

    /// As [`Namespace::sysctl`], for a key that may not exist.
    pub fn try_sysctl(&self, key: &str) -> std::io::Result<String> {
        // /proc/sys/net shows the netns of the thread that opens it.
        self.run(|| fs::read_to_string(Path::new("/proc/sys").join(key))).map(|text| text.trim_end().to_owned())
    }

    /// Writes `/proc/sys/<key>` in the namespace.
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
