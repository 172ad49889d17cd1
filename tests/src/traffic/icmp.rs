//! Echo requests with raw sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto, socket,
};

use super::readable;
use crate::Namespace;
use crate::patience::await_that;

/// The longest time for an answer. On one machine it takes microseconds.
const REACH: Duration = Duration::from_secs(5);
/// The time to listen for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(400);
const AGAIN: Duration = Duration::from_millis(200);

/// Asserts that `to` answers an echo request from `from`. Returns the time that the answer took.
#[track_caller]
pub fn assert_reaches(from: &Namespace, to: IpAddr) -> Duration {
    match ping(from, to, REACH) {
        Some(time) => time,
        None => panic!("{to} does not answer"),
    }
}

/// Asserts that no echo request to `to` is answered.
#[track_caller]
pub fn assert_silent(from: &Namespace, to: IpAddr) {
    if let Some(time) = ping(from, to, SILENCE) {
        panic!("{to} answers, after {time:?}");
    }
}

/// Waits until `to` does not answer. The kernel deletes a namespace and its links some time after its last user has
/// ended.
#[track_caller]
pub fn await_silence(from: &Namespace, to: IpAddr) {
    await_that(&format!("{to} does not answer"), || ping(from, to, Duration::from_millis(300)).is_none());
}

/// Sends echo requests until one is answered or the time is over. Returns the time that the answer took, with address
/// resolution.
pub fn ping(from: &Namespace, to: IpAddr, patience: Duration) -> Option<Duration> {
    from.run(|| Echo::open(to).exchange(Instant::now() + patience).unwrap_or_else(|e| panic!("ping {to}: {e}")))
}

struct Echo {
    socket: OwnedFd,
    to: IpAddr,
    identifier: u16,
    sequence: u16,
}

impl Echo {
    fn open(to: IpAddr) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Self {
            socket: socket(family, SockType::Raw, flags, protocol).expect("open a raw socket"),
            to,
            identifier: NEXT.fetch_add(1, Ordering::Relaxed),
            sequence: 0,
        }
    }

    fn exchange(&mut self, deadline: Instant) -> io::Result<Option<Duration>> {
        while Instant::now() < deadline {
            let start = Instant::now();
            self.send()?;
            if self.answered(deadline.min(start + AGAIN))? {
                return Ok(Some(start.elapsed()));
            }
        }
        Ok(None)
    }

    fn send(&mut self) -> io::Result<()> {
        self.sequence += 1;
        let to = SockaddrStorage::from(SocketAddr::new(self.to, 0));
        match sendto(self.socket.as_raw_fd(), &self.request(), &to, MsgFlags::empty()) {
            // There is no route, or address resolution has failed. The next request may succeed.
            Ok(_) | Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn request(&self) -> Vec<u8> {
        let kind = if self.to.is_ipv4() { 8 } else { 128 };
        let mut packet = vec![kind, 0, 0, 0];
        packet.extend(self.identifier.to_be_bytes());
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(*b"underlay");
        if self.to.is_ipv4() {
            // For IPv6, the kernel computes the checksum.
            let sum = checksum(&packet).to_be_bytes();
            packet[2..4].copy_from_slice(&sum);
        }
        packet
    }

    fn answered(&self, deadline: Instant) -> io::Result<bool> {
        let mut buffer = [0; 2048];
        while readable(&self.socket, deadline)? {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EAGAIN | Errno::EINTR | Errno::EHOSTUNREACH) => continue,
                Err(e) => return Err(e.into()),
            };
            if self.is_reply(&buffer[..length]) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this is a reply to one of our requests. A packet of IPv4 has its IP header.
    fn is_reply(&self, packet: &[u8]) -> bool {
        let (kind, icmp) = match self.to {
            IpAddr::V4(_) => {
                let header = packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4);
                (0, packet.get(header..).unwrap_or_default())
            }
            IpAddr::V6(_) => (129, packet),
        };
        icmp.first() == Some(&kind) && icmp.get(4..6) == Some(&self.identifier.to_be_bytes())
    }
}

/// RFC 1071.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}
