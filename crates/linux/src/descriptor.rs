//! Descriptors of other processes: compares their tables, and finds the network namespace of a socket.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;

/// `KCMP_FILES`, include/uapi/linux/kcmp.h.
const KCMP_FILES: libc::c_long = 2;
/// `SIOCGSKNS`, include/uapi/linux/sockios.h.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// Returns true if a thread has the same table of descriptors as its process. Returns false if the kernel does not
/// answer: kcmp(2) is a build option of the kernel and needs the right to trace the process.
pub(crate) fn is_table_shared(process: u32, thread: u32) -> bool {
    let [process, thread] = [process, thread].map(libc::c_long::from);
    // SAFETY: kcmp(2) takes only numbers and does not access our memory.
    unsafe { libc::syscall(libc::SYS_kcmp, process, thread, KCMP_FILES, 0 as libc::c_long, 0 as libc::c_long) == 0 }
}

/// A process or a thread. Its number cannot be given to another one while this value lives. (pidfd_open(2), Linux 5.3)
pub(crate) struct Task(OwnedFd);

impl Task {
    /// Opens the process with this number.
    pub(crate) fn process(number: u32) -> io::Result<Self> {
        Self::open(number, 0)
    }

    /// Opens the thread with this number. Linux before 6.9 refuses with `EINVAL`.
    pub(crate) fn thread(number: u32) -> io::Result<Self> {
        // PIDFD_THREAD, include/uapi/linux/pidfd.h.
        Self::open(number, libc::O_EXCL)
    }

    fn open(number: u32, flags: libc::c_int) -> io::Result<Self> {
        // SAFETY: pidfd_open(2) takes only numbers and does not access our memory.
        let opened =
            unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(number), libc::c_long::from(flags)) };
        own(opened).map(Self)
    }

    /// Duplicates a descriptor of the task. (pidfd_getfd(2), Linux 5.6)
    pub(crate) fn duplicate(&self, descriptor: RawFd) -> io::Result<OwnedFd> {
        let (task, descriptor) = (libc::c_long::from(self.0.as_raw_fd()), libc::c_long::from(descriptor));
        // SAFETY: pidfd_getfd(2) takes only numbers and does not access our memory.
        own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, task, descriptor, 0 as libc::c_long) })
    }
}

/// Opens the network namespace of a socket, or of the socket in a `/dev/net/tun`.
pub(crate) fn netns_of_socket(socket: &OwnedFd) -> io::Result<File> {
    // SAFETY: SIOCGSKNS takes no argument, and the descriptor is open during the call.
    let netns = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    own(netns.into()).map(File::from)
}

/// Takes the descriptor that a system call has returned, or its error.
fn own(returned: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(returned) {
        // SAFETY: the kernel has just opened this descriptor for us, and no other value owns it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::fs::MetadataExt;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::NetnsId;

    #[test]
    fn only_a_socket_has_a_namespace() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ours = Task::process(std::process::id()).unwrap();
        let of = |number| ours.duplicate(number).and_then(|duplicate| netns_of_socket(&duplicate));
        let netns = of(socket.as_raw_fd()).unwrap();
        assert_eq!(netns.metadata().unwrap().ino(), NetnsId::current().unwrap().inode());
        let file = File::open("/proc/self/stat").unwrap();
        let refused = of(file.as_raw_fd()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTTY));
        let closed = of(RawFd::MAX).unwrap_err();
        assert_eq!(closed.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn a_thread_with_its_own_descriptors_is_found_out() {
        let thread = || {
            let link = std::fs::read_link("/proc/thread-self").unwrap();
            link.file_name().unwrap().to_str().unwrap().parse().unwrap()
        };
        let process = std::process::id();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(is_table_shared(process, thread()));
                unshare(CloneFlags::CLONE_FILES).unwrap();
                assert!(!is_table_shared(process, thread()));
            });
        });
    }
}
