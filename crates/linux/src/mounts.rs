//! Finds mounts of namespaces, in the text of a mountinfo file or in a whole mount namespace.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;

use nix::fcntl::{OFlag, open, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;

use crate::search::inode;

/// The mounts of a mount namespace.
pub(crate) struct MountNamespace {
    mountinfo: String,
    /// The mount points of network namespaces, with a descriptor of each.
    files: Vec<(PathBuf, OwnedFd)>,
}

impl MountNamespace {
    /// Reads all mounts, in a thread that enters the namespace. /proc/PID/mountinfo is not enough: it lacks the mounts
    /// outside of the root directory of that process.
    pub(crate) fn read(namespace: &File) -> io::Result<Self> {
        thread::scope(|scope| {
            let entered = thread::Builder::new().spawn_scoped(scope, || Self::enter_and_read(namespace))?;
            entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads mounts has panicked")))
        })
    }

    fn enter_and_read(namespace: &File) -> io::Result<Self> {
        // The namespace may be without a /proc.
        let proc = open("/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        let file = openat(&proc, "thread-self/mountinfo", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes)?;
        let mountinfo = String::from_utf8_lossy(&bytes).into_owned();
        // The owner of the namespace may have replaced the file. O_PATH has no effect on any kind of file.
        let opened = |(_, path): (u64, PathBuf)| {
            let file = open(&path, OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty());
            file.ok().map(|file| (path, file))
        };
        let files = mounts("net", &mountinfo).filter_map(opened).collect();
        Ok(Self { mountinfo, files })
    }

    /// Lists the mounted namespaces of this kind: the inode, and for a network namespace the file, if it could be
    /// opened.
    pub(crate) fn held(&self, kind: &'static str) -> impl Iterator<Item = (u64, Option<&OwnedFd>)> {
        mounts(kind, &self.mountinfo).map(|(inode, path)| {
            let file = self.files.iter().find(|(at, _)| *at == path).map(|(_, file)| file);
            (inode, file)
        })
    }
}

/// Finds the mounts of namespaces of this kind in the text of a mountinfo file: their inodes and mount points. The
/// fourth field is the root of the mount. The fifth is its mount point, where spaces and some other characters are
/// octal. (proc_pid_mountinfo(5))
pub(crate) fn mounts<'a>(kind: &'a str, mountinfo: &'a str) -> impl Iterator<Item = (u64, PathBuf)> + 'a {
    mountinfo.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(3);
        Some((inode(kind, fields.next()?)?, PathBuf::from(unescape(fields.next()?))))
    })
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 4);
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_namespaces_are_found() {
        let mountinfo = "22 1 0:21 / /proc rw,nosuid - proc proc rw\n\
                         90 25 0:4 net:[4026532300] /run/netns/a\\040b rw shared:9 - nsfs nsfs rw\n\
                         91 25 0:4 mnt:[4026532301] /run/ns/m rw - nsfs nsfs rw\n\
                         short line\n";
        let found = |kind| mounts(kind, mountinfo).collect::<Vec<_>>();
        assert_eq!(found("net"), [(4026532300, PathBuf::from("/run/netns/a b"))]);
        assert_eq!(found("mnt"), [(4026532301, PathBuf::from("/run/ns/m"))]);
    }

    #[test]
    fn octal_escapes_are_replaced_and_other_backslashes_kept() {
        assert_eq!(unescape("a\\134b\\"), "a\\b\\");
        assert_eq!(unescape("\\xyz\\0"), "\\xyz\\0");
    }
}
