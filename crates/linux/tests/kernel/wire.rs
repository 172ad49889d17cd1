//! A wire between two network namespaces, and raw frames on it.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use linux::{Mac, Netns, Patience, Rtnl};
use nix::errno::Errno;
use nix::libc;

use crate::sandbox::{another_netns, ifindex, ip, mac, nic, sandboxed};

/// Two ends of a wire. The first end is `nic0` in the namespace of the thread.
pub(crate) struct Wire {
    /// The ifindex of `nic0`.
    pub(crate) here: u32,
    /// The namespace of the other end, `wire0`.
    pub(crate) there: Netns,
    /// The ifindex of `wire0`.
    pub(crate) other: u32,
}

/// The MAC of `nic0`.
pub(crate) fn our_mac() -> Mac {
    mac("02:00:00:00:00:10")
}

/// The MAC of `wire0`.
pub(crate) fn their_mac() -> Mac {
    mac("02:00:00:00:00:20")
}

/// Runs a test with a wire, whose ends are up and have no addresses.
pub(crate) fn wired(test: impl FnOnce(&Wire) + Send + 'static) {
    sandboxed(|| {
        let here = nic();
        let there = another_netns();
        ip("link set nic0 addrgenmode none");
        let path = format!("/proc/{}/fd/{}", std::process::id(), there.as_fd().as_raw_fd());
        ip(&format!("link set wire0 address {} addrgenmode none netns {path}", their_mac()));
        there.enter(|| ip("link set wire0 up")).expect("enter the namespace");
        let other = ifindex(&mut Rtnl::open_in(&there).expect("socket"), "wire0");
        let wire = Wire { here, there, other };
        wire.await_up();
        test(&wire);
    });
}

impl Wire {
    /// Runs `ip` at the other end.
    pub(crate) fn ip_there(&self, arguments: &str) -> String {
        self.there.enter(|| ip(arguments)).expect("enter the namespace")
    }

    /// Waits until both ends are in use. When a carrier appears, the kernel drops frames until it has seen it.
    pub(crate) fn await_up(&self) {
        let mut patience = Patience::new(Duration::from_secs(20));
        let is_up = |shown: String| shown.contains(" state UP ");
        while !is_up(ip("link show nic0")) || !is_up(self.ip_there("link show wire0")) {
            assert!(patience.pause(), "the wire does not come up");
        }
    }

    /// Sends a whole frame from the other end.
    pub(crate) fn send(&self, frame: &[u8]) {
        let socket = self.there.enter(raw_socket).expect("enter the namespace");
        // SAFETY: all bytes zero are a valid `sockaddr_ll`, which has only numbers.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = libc::AF_PACKET as libc::c_ushort;
        to.sll_ifindex = self.other.cast_signed();
        let size = mem::size_of_val(&to) as libc::socklen_t;
        // SAFETY: `frame` and `to` live during the call and have these sizes.
        let sent = unsafe {
            let to = (&raw const to).cast();
            libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, to, size)
        };
        assert_eq!(usize::try_from(sent), Ok(frame.len()), "{}", Errno::last());
    }
}

/// A packet socket that hears nothing.
fn raw_socket() -> OwnedFd {
    // SAFETY: socket(2) takes only numbers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "{}", Errno::last());
    // SAFETY: the kernel has just opened this descriptor for us, and no other value owns it.
    unsafe { OwnedFd::from_raw_fd(socket) }
}

/// Far more than a frame takes on a busy machine.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}
