//! Finds the network namespaces of this machine. The kernel has no list of them, so their holders are searched: mounts,
//! processes, threads, descriptors and sockets.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::descriptor::{Task, is_table_shared, netns_of_socket};
use crate::mounts::{MountNamespace, mounts};
use crate::{Error, Netns, Result, errno, file};

/// The number of the init process.
const INIT: u32 = 1;

/// A place where holders of network namespaces are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The bind mounts of this mount namespace, such as those in /run/netns.
    Mounts,
    /// The main threads of processes.
    Processes,
    /// Other threads, and open descriptors. The search reads an entry for each of them on the machine.
    ThreadsAndDescriptors,
    /// As `ThreadsAndDescriptors`, and also the bind mounts of all mount namespaces, and all sockets. A socket holds
    /// the namespace in which it was opened. Each socket is duplicated for a moment.
    Everywhere,
}

impl Holder {
    /// The places with the namespaces of running containers. The cheapest place comes first.
    pub const ALL: [Self; 3] = [Self::Mounts, Self::Processes, Self::ThreadsAndDescriptors];
    /// All places. The cheapest one comes first.
    pub const EVERY: [Self; 3] = [Self::Mounts, Self::Processes, Self::Everywhere];
}

/// A search that visits each namespace only once.
#[derive(Debug, Default)]
pub struct NetnsSearch {
    seen: HashSet<u64>,
    incomplete: bool,
    /// The first error: something could not be searched.
    pub(crate) missed: Option<Error>,
    /// Processes that /proc had listed and that had ended when they were searched. Zombies are among them.
    pub(crate) vanished: HashSet<u32>,
    /// The inodes of mount namespaces with a mount or a descriptor as holder.
    mount_namespaces: HashSet<u64>,
}

impl NetnsSearch {
    /// Opens the namespaces of a place that were not visited before, until `look` returns a value. A namespace that
    /// cannot be opened is left out.
    ///
    /// A process, a thread or a descriptor can change its namespace before it is opened: a plugin enters a container
    /// for a moment. So the namespace that was really opened counts as visited. The other one may still have a holder
    /// in a later place.
    pub fn find<T>(&mut self, place: Holder, mut look: impl FnMut(&Netns) -> Option<T>) -> Option<T> {
        let (mut seen, mut found, mut failed) = (std::mem::take(&mut self.seen), None, None);
        self.walk(place, &mut |inode, path| {
            match look_into(&mut seen, inode, path, &mut look) {
                Ok(looked) => found = looked,
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.seen = seen;
        self.missed = self.missed.take().or(failed);
        found
    }

    /// Returns true if the list of mounts or processes could not be read to its end. Then a namespace may have been
    /// missed.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Returns the reason why a namespace may have been missed in the places that were searched: something could not be
    /// read or opened.
    pub fn doubt(&self) -> Option<&Error> {
        self.missed.as_ref()
    }

    /// Calls `visit` for each holder in a place, with the inode of the namespace and a path that leads to it.
    pub(crate) fn walk(&mut self, place: Holder, visit: Visit<'_>) {
        let _ended_early = match place {
            Holder::Mounts => self.own_mounts(visit),
            Holder::Processes => self.processes(&mut |search, process| {
                let path = process.folder.join("ns/net");
                search
                    .link(process, &path)
                    .and_then(|text| inode("net", &text))
                    .map_or(GO_ON, |inode| visit(inode, &path))
            }),
            Holder::ThreadsAndDescriptors => self.elsewhere(None, visit),
            Holder::Everywhere => self.elsewhere(Some(Vec::new()), visit),
        };
    }

    fn own_mounts(&mut self, visit: Visit<'_>) -> ControlFlow<()> {
        let path = Path::new("/proc/thread-self/mountinfo");
        match read(path) {
            Ok(mountinfo) => self.mounts(&mountinfo, visit),
            Err(error) => {
                self.incomplete = true;
                self.miss(path, error);
                GO_ON
            }
        }
    }

    fn mounts(&mut self, mountinfo: &str, visit: Visit<'_>) -> ControlFlow<()> {
        self.mount_namespaces.extend(mounts("mnt", mountinfo).map(|(inode, _)| inode));
        mounts("net", mountinfo).try_for_each(|(inode, path)| visit(inode, &path))
    }

    /// Calls `look` with each process.
    fn processes(&mut self, look: &mut dyn FnMut(&mut Self, &Process) -> ControlFlow<()>) -> ControlFlow<()> {
        let folder = Path::new("/proc");
        let unlistable = |search: &mut Self, error| {
            search.incomplete = true;
            search.miss(folder, error);
            GO_ON
        };
        let entries = match file::entries(folder) {
            Ok(entries) => entries,
            Err(error) => return unlistable(self, error),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                // The kernel may return this error without end.
                Err(error) => return unlistable(self, error),
            };
            if let Some(number) = entry.name.to_str().and_then(number) {
                look(self, &Process { number, folder: folder.join(entry.name) })?;
            }
        }
        GO_ON
    }

    /// Searches threads and descriptors. With a list for sockets, searches mounts too, and sockets last.
    fn elsewhere(&mut self, mut sockets: Option<Vec<Socket>>, visit: Visit<'_>) -> ControlFlow<()> {
        let mut mounts = HashSet::new();
        self.processes(&mut |search, process| {
            for thread in search.threads(process) {
                let path = thread.folder.join("ns/net");
                if let Some(inode) = search.link(process, &path).and_then(|text| inode("net", &text)) {
                    visit(inode, &path)?;
                }
                if sockets.is_some() {
                    search.mounts_of(process, &thread, &mut mounts, visit)?;
                }
                if thread.has_descriptors {
                    search.descriptors(process, &thread, &mut sockets, visit)?;
                }
            }
            GO_ON
        })?;
        let Some(sockets) = sockets else { return GO_ON };
        if let Some(namespace) = self.mount_namespaces.difference(&mounts).next() {
            let cause = format!("no process is in mount namespace {namespace}, so its mounts cannot be read");
            self.missed.get_or_insert(Error::Blind { cause });
        }
        self.sockets(sockets, visit)
    }

    /// Searches the mounts of a thread's mount namespace.
    fn mounts_of(
        &mut self,
        process: &Process,
        thread: &Thread,
        seen: &mut HashSet<u64>,
        visit: Visit<'_>,
    ) -> ControlFlow<()> {
        let path = thread.folder.join("ns/mnt");
        let Some(namespace) = self.link(process, &path).and_then(|text| inode("mnt", &text)) else { return GO_ON };
        if seen.contains(&namespace) {
            return GO_ON;
        }
        let Some(file) = self.of(process, &path, File::open(&path)) else { return GO_ON };
        let Some(whole) = self.of(process, &path, MountNamespace::read(&file)) else { return GO_ON };
        // The thread may have changed its namespace before it was opened.
        seen.extend(file.metadata().map(|metadata| metadata.ino()));
        self.mount_namespaces.extend(whole.held("mnt").map(|(inode, _)| inode));
        whole.held("net").try_for_each(|(inode, file)| visit(inode, &file.map(of_own).unwrap_or_default()))
    }

    fn descriptors(
        &mut self,
        process: &Process,
        thread: &Thread,
        sockets: &mut Option<Vec<Socket>>,
        visit: Visit<'_>,
    ) -> ControlFlow<()> {
        for (number, path) in self.numbers(process, &thread.folder.join("fd")) {
            let Some(text) = self.link(process, &path) else { continue };
            if let Some(inode) = inode("net", &text) {
                visit(inode, &path)?;
            }
            self.mount_namespaces.extend(inode("mnt", &text));
            // An open tun device has a socket.
            if let Some(sockets) = sockets
                && (text.starts_with("socket:[") || text.ends_with("/net/tun"))
                && let Ok(number) = RawFd::try_from(number)
            {
                sockets.push(Socket { process: process.clone(), thread: thread.number, number, path, text });
            }
        }
        GO_ON
    }

    fn sockets(&mut self, sockets: Vec<Socket>, visit: Visit<'_>) -> ControlFlow<()> {
        let mut seen = HashSet::new();
        let mut opened: Option<(u32, Task)> = None;
        for Socket { process, thread, number, path, text } in sockets {
            // Processes may share a socket, whose text is its inode. The text of a tun device does not name its socket.
            if seen.contains(&text) {
                continue;
            }
            if opened.as_ref().is_none_or(|(of, _)| *of != thread) {
                let task = if thread == process.number { Task::process(thread) } else { Task::thread(thread) };
                opened = self.of(&process, &path, task).map(|task| (thread, task));
            }
            let Some((_, task)) = &opened else { continue };
            let socket = match task.duplicate(number) {
                // The socket was closed in between.
                Err(error) if errno(&error) == Some(Errno::EBADF) => continue,
                answer => self.of(&process, &path, answer),
            };
            let Some(socket) = socket else { continue };
            // The socket was closed in between, and another file has its number.
            if fs::read_link(of_own(&socket)).ok().is_none_or(|now| now != Path::new(&text)) {
                continue;
            }
            let Some(netns) = self.of(&process, &path, netns_of_socket(&socket)) else { continue };
            if text.starts_with("socket:[") {
                seen.insert(text);
            }
            if let Some(inode) = self.of(&process, &path, netns.metadata().map(|netns| netns.ino())) {
                visit(inode, &of_own(&netns))?;
            }
        }
        GO_ON
    }

    /// Lists the threads of a process, also the main one.
    fn threads(&mut self, process: &Process) -> Vec<Thread> {
        let thread = |(number, folder)| {
            let has_descriptors = number == process.number || !is_table_shared(process.number, number);
            Thread { number, folder, has_descriptors }
        };
        self.numbers(process, &process.folder.join("task")).into_iter().map(thread).collect()
    }

    /// Lists the entries of a process's folder that are numbers.
    fn numbers(&mut self, process: &Process, folder: &Path) -> Vec<(u32, PathBuf)> {
        let mut numbers = Vec::new();
        for entry in self.of(process, folder, file::entries(folder)).into_iter().flatten() {
            let Some(entry) = self.of(process, folder, entry) else { break };
            if let Some(number) = entry.name.to_str().and_then(number) {
                numbers.push((number, folder.join(entry.name)));
            }
        }
        numbers
    }

    /// Reads a magic link of /proc, such as `net:[4026531840]`.
    fn link(&mut self, process: &Process, path: &Path) -> Option<String> {
        let text = self.of(process, path, fs::read_link(path))?;
        // A text that is not UTF-8 is the path of a file, and is not needed.
        text.into_os_string().into_string().ok()
    }

    /// Handles an answer about a process. Notes an error, unless the process has ended.
    fn of<T>(&mut self, process: &Process, path: &Path, answer: io::Result<T>) -> Option<T> {
        let error = match answer {
            Ok(seen) => return Some(seen),
            Err(error) => error,
        };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ESRCH) => {
                // A thread or a descriptor may have ended while the process still runs.
                if fs::read_link(process.folder.join("ns/net")).is_err() {
                    self.vanished.insert(process.number);
                }
            }
            // Some machines protect init from all processes. It never holds the namespace of a container.
            Some(Errno::EACCES | Errno::EPERM) if process.number == INIT => {}
            // The kernel has the same error for a process that ends just now. (fs/proc/namespaces.c)
            Some(Errno::EACCES) if is_gone(&process.folder) => {
                self.vanished.insert(process.number);
            }
            _ => self.miss(path, error),
        }
        None
    }

    fn miss(&mut self, path: &Path, source: io::Error) {
        self.missed.get_or_insert_with(|| Error::Io { operation: format!("look at {}", path.display()), source });
    }
}

/// Gets the inode of a namespace and a path to it. Decides if the search continues.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(u64, &Path) -> ControlFlow<()>;

pub(crate) const GO_ON: ControlFlow<()> = ControlFlow::Continue(());

#[derive(Clone)]
struct Process {
    number: u32,
    folder: PathBuf,
}

struct Thread {
    number: u32,
    folder: PathBuf,
    /// True if its table of descriptors is not that of the main thread, or if it is the main thread.
    has_descriptors: bool,
}

struct Socket {
    process: Process,
    /// The thread in whose table of descriptors it was found.
    thread: u32,
    number: RawFd,
    path: PathBuf,
    text: String,
}

/// Opens a namespace that was not visited before, and calls `look` with it. A namespace whose holder has ended is left
/// out.
fn look_into<T>(
    seen: &mut HashSet<u64>,
    inode: u64,
    path: &Path,
    look: &mut impl FnMut(&Netns) -> Option<T>,
) -> Result<Option<T>> {
    if seen.contains(&inode) {
        return Ok(None);
    }
    let netns = match Netns::open(path) {
        Err(Error::NetnsMissing { .. }) => return Ok(None),
        Err(_) if is_gone(path) => return Ok(None),
        netns => netns?,
    };
    Ok(if seen.insert(netns.id().inode()) { look(&netns) } else { None })
}

/// Returns true if a file of /proc is gone with its process. Needs no right to follow it.
fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Reads a file of /proc. Names of mount points may have any bytes.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn number(name: &str) -> Option<u32> {
    name.parse().ok()
}

/// Returns a path to an open file of this process.
fn of_own(file: &impl AsRawFd) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

/// Reads the inode of a namespace of this kind from the text of a magic link.
pub(crate) fn inode(kind: &str, text: &str) -> Option<u64> {
    text.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetnsId;

    #[test]
    fn the_search_visits_our_own_namespace_once() {
        let own = NetnsId::current().unwrap().inode();
        let mut search = NetnsSearch::default();
        let mut times = 0;
        for place in Holder::ALL {
            let nothing: Option<()> = search.find(place, |netns| {
                times += usize::from(netns.id().inode() == own);
                None
            });
            assert_eq!(nothing, None);
        }
        assert_eq!(times, 1);
    }

    /// If a path leads to another namespace when it is opened, the search must miss neither.
    #[test]
    fn a_path_that_changed_meanwhile_does_not_count_as_visited() {
        let own = NetnsId::current().unwrap().inode();
        let elsewhere = own + 1;
        let mut search = NetnsSearch::default();
        let mountinfo = format!("1 2 0:4 net:[{elsewhere}] /proc/thread-self/ns/net rw - nsfs nsfs rw");
        let (mut seen, mut opened) = (HashSet::new(), Vec::new());
        let _ = search.mounts(&mountinfo, &mut |inode, path| {
            opened.push(look_into(&mut seen, inode, path, &mut |netns| Some(netns.id().inode())).unwrap());
            GO_ON
        });
        assert_eq!(opened, [Some(own)]);
        assert_eq!(seen, HashSet::from([own]));
    }
}
