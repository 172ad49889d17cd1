//! Finding the network namespaces of this machine that nobody gave us a path to. The kernel has no list of them: they
//! are found where something holds them, a mount, a process, a thread or a descriptor.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Netns, file};

/// Where to look, the cheapest place first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bind mounts of this mount namespace, such as those in /run/netns.
    Mounts,
    /// The main threads of processes.
    Processes,
    /// Other threads, and open descriptors: one entry per thread and descriptor of the machine.
    ThreadsAndDescriptors,
}

impl Place {
    /// All of them, the cheapest first.
    pub const ALL: [Self; 3] = [Self::Mounts, Self::Processes, Self::ThreadsAndDescriptors];
}

/// A search that looks into each namespace once, however many places hold it.
#[derive(Debug, Default)]
pub struct NetnsSearch {
    seen: HashSet<u64>,
    incomplete: bool,
}

impl NetnsSearch {
    /// Opens the namespaces of a place that were not looked into before, until `look` has found something in one.
    /// What may not be opened, or is gone by then, is left out.
    pub fn find<T>(&mut self, place: Place, look: impl FnMut(&Netns) -> Option<T>) -> Option<T> {
        let cut = Cell::new(false);
        let found = match place {
            Place::Mounts => {
                let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo");
                cut.set(mountinfo.is_err());
                self.find_among(mounts(&mountinfo.unwrap_or_default()).into_iter(), look)
            }
            Place::Processes => {
                self.find_among(processes(&cut).map(|process| process.join("ns/net")).filter_map(link), look)
            }
            Place::ThreadsAndDescriptors => self.find_among(processes(&cut).flat_map(threads_and_descriptors), look),
        };
        self.incomplete |= cut.get();
        found
    }

    /// Whether the mounts or the processes could not be listed to the end, so that what was not found may be there.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// A process, a thread or a descriptor may lead somewhere else by the time it is opened, as that of a plugin does
    /// which enters a container for an instant. So what counts as seen is what was opened: the other one may be held
    /// in a place that comes later.
    fn find_among<T>(
        &mut self,
        candidates: impl Iterator<Item = (u64, PathBuf)>,
        mut look: impl FnMut(&Netns) -> Option<T>,
    ) -> Option<T> {
        for (inode, path) in candidates {
            if self.seen.contains(&inode) {
                continue;
            }
            let Ok(netns) = Netns::open(&path) else { continue };
            if self.seen.insert(netns.id().inode())
                && let Some(found) = look(&netns)
            {
                return Some(found);
            }
        }
        None
    }
}

/// `cut` becomes true where there may be more.
fn processes(cut: &Cell<bool>) -> impl Iterator<Item = PathBuf> {
    let processes = entries(Path::new("/proc"), || cut.set(true));
    processes.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// To the first error, which may stay; `cut` is told of it.
fn entries<F: Fn()>(folder: &Path, cut: F) -> impl Iterator<Item = PathBuf> + use<F> {
    let parent = folder.to_owned();
    let entries = file::entries(folder);
    if entries.is_err() {
        cut();
    }
    entries.into_iter().flatten().map_while(move |entry| match entry {
        Ok(entry) => Some(parent.join(entry.name)),
        Err(_) => {
            cut();
            None
        }
    })
}

/// Those of a process that is gone, or is not ours to see, are none.
fn threads_and_descriptors(process: PathBuf) -> impl Iterator<Item = (u64, PathBuf)> {
    let threads = entries(&process.join("task"), || ()).map(|thread| thread.join("ns/net"));
    threads.chain(entries(&process.join("fd"), || ())).filter_map(link)
}

/// A magic link of /proc that leads to a network namespace: its text is `net:[4026531840]`.
fn link(path: PathBuf) -> Option<(u64, PathBuf)> {
    let text = fs::read_link(&path).ok()?;
    Some((inode(text.to_str()?)?, path))
}

fn inode(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Mounts of network namespaces in the text of a mountinfo file. (proc_pid_mountinfo(5): the fourth field is the root
/// of the mount, the fifth its mount point, with spaces and their like in octal)
fn mounts(mountinfo: &str) -> Vec<(u64, PathBuf)> {
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(3);
        Some((inode(fields.next()?)?, PathBuf::from(unescape(fields.next()?))))
    };
    mountinfo.lines().filter_map(mount).collect()
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
    fn namespaces_among_other_mounts() {
        let mountinfo = "22 1 0:21 / /proc rw,nosuid - proc proc rw\n\
                         90 25 0:4 net:[4026532300] /run/netns/a\\040b rw shared:9 - nsfs nsfs rw\n\
                         91 25 0:4 mnt:[4026532301] /run/ns/m rw - nsfs nsfs rw\n\
                         short line\n";
        assert_eq!(mounts(mountinfo), [(4026532300, PathBuf::from("/run/netns/a b"))]);
    }

    #[test]
    fn octal_and_what_only_looks_like_it() {
        assert_eq!(unescape("a\\134b\\"), "a\\b\\");
        assert_eq!(unescape("\\xyz\\0"), "\\xyz\\0");
    }

    #[test]
    fn our_own_namespace_is_looked_into_once() {
        let own = link("/proc/thread-self/ns/net".into()).unwrap().0;
        let mut search = NetnsSearch::default();
        let mut times = 0;
        for place in Place::ALL {
            let nothing: Option<()> = search.find(place, |netns| {
                times += usize::from(netns.id().inode() == own);
                None
            });
            assert_eq!(nothing, None);
        }
        assert_eq!(times, 1);
    }

    /// A path to one namespace that leads to another by the time it is opened hides neither of them.
    #[test]
    fn what_leads_elsewhere_meanwhile_is_not_taken_for_seen() {
        let (own, path) = link("/proc/thread-self/ns/net".into()).unwrap();
        let elsewhere = own + 1;
        let mut search = NetnsSearch::default();
        let look = |netns: &Netns| (netns.id().inode() == elsewhere).then_some(());
        assert_eq!(search.find_among([(elsewhere, path)].into_iter(), look), None);
        assert_eq!(search.seen, HashSet::from([own]));
    }
}
