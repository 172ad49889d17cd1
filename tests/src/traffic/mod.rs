//! Traffic on the LAN of the Lab: ICMP, TCP, HTTP, and frames. All waits have a deadline.

mod holder;
mod http;
mod icmp;
mod router;
mod tcp;
mod wire;

pub use holder::{Holder, Manner, Reaction};
pub use http::{fetch, get};
pub use icmp::{assert_reaches, assert_silent, await_silence, ping};
pub use router::advertise;
pub use tcp::{echo, sources};
pub use wire::{Frame, Seen, Wire, arp_probe};

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits until a read does not block. Returns false if the deadline has passed.
pub fn readable(socket: &impl AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // The time is rounded up, because a timeout of zero would not wait at all.
        let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(0) if Instant::now() >= deadline => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
}
