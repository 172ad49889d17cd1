//! The netlink socket: sends requests with sequence numbers, and receives whole datagrams from the kernel.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, recvmsg};

use super::Request;
use crate::{Error, Result};

/// The longest wait for an answer. The kernel answers in microseconds, unless another process holds the rtnl lock;
/// nothing holds it for seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of the buffer at first: enough for a link or an acknowledgement. It grows for a dump. A larger buffer costs a
/// page fault for each page, and a page fault costs more than most system calls.
const BUFFER: usize = 2048;

/// A `NETLINK_ROUTE` socket. It belongs to the network namespace in which it was opened, and is closed on exec. Do not
/// clone it: a clone of the netlink-sys socket is closed twice.
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    /// True if the kernel filters a dump by the fields of its request.
    strict: bool,
    buffer: Vec<u8>,
}

/// The expected size of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// An acknowledgement. It fits, because it has at most the request and an explanation.
    Small,
    /// One object. It nearly always fits; otherwise it is asked for again.
    Usual,
    /// A dump. The size of each datagram is asked for before it is read.
    Unknown,
}

/// The result of one receive.
#[derive(Debug)]
pub(super) enum Received<'a> {
    Whole(&'a [u8]),
    /// The beginning of a datagram that did not fit; the rest is lost. The buffer has grown, so the next one fits.
    Cut(&'a [u8]),
}

impl Socket {
    pub(crate) fn open() -> Result<Self> {
        Self::prepare().map_err(|error| Error::kernel("open route socket", errno_of(&error)))
    }

    fn prepare() -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
        // This fails before Linux 4.12. Then errors have no explanation.
        let _ = inner.set_ext_ack(true);
        let port = inner.bind_auto()?.port_number();
        Ok(Self { inner, port, sequence: 0, strict: false, buffer: vec![0; BUFFER] })
    }

    /// Lets the kernel filter a dump by the fields of its request. This fails before Linux 4.20; so every decoder
    /// filters too.
    pub(super) fn be_strict(&mut self) {
        if !self.strict {
            self.strict = true;
            let _ = self.inner.set_netlink_get_strict_chk(true);
        }
    }

    /// The descriptor, for an ioctl(2) in the socket's namespace.
    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }

    /// Joins a multicast group. (`RTNLGRP_*`)
    pub(crate) fn subscribe(&mut self, group: u32) -> Result<()> {
        self.inner
            .add_membership(group)
            .map_err(|error| Error::kernel(format_args!("subscribe to route group {group}"), errno_of(&error)))
    }

    /// Returns the cookie of the socket's namespace. Returns `None` if the kernel has none.
    pub(crate) fn netns_cookie(&self) -> Result<Option<u64>> {
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `cookie`. The socket is open as long as this value.
        let answer = unsafe {
            let at = (&raw mut cookie).cast();
            libc::getsockopt(self.inner.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, at, &raw mut length)
        };
        match Errno::result(answer) {
            Ok(_) => Ok(Some(cookie)),
            Err(Errno::ENOPROTOOPT) => Ok(None),
            Err(errno) => Err(Error::kernel("find the cookie of the network namespace", errno)),
        }
    }

    #[cfg(test)]
    pub(super) fn set_buffer(&mut self, length: usize) {
        self.buffer = vec![0; length];
    }

    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Sends one request. Returns the sequence number that its replies have.
    pub(super) fn send(&mut self, request: &mut Request) -> nix::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.sealed(self.sequence, self.port);
        loop {
            match self.inner.send(bytes, 0) {
                Ok(_) => return Ok(self.sequence),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno_of(&error)),
            }
        }
    }

    /// Waits for one datagram from the kernel. The answer is usually there as soon as the request is sent.
    pub(super) fn receive(&mut self, size: Size, operation: fmt::Arguments<'_>) -> Result<Received<'_>> {
        let mut deadline = None;
        loop {
            match self.receive_with(size) {
                Ok(Datagram::Whole(length)) => return Ok(Received::Whole(&self.buffer[..length])),
                Ok(Datagram::Cut(length)) => {
                    self.buffer.resize(length.max(self.buffer.len()), 0);
                    return Ok(Received::Cut(&self.buffer));
                }
                Err(Errno::EAGAIN) => {
                    self.readable(*deadline.get_or_insert_with(|| Instant::now() + PATIENCE), operation)?;
                }
                Err(errno) => return Err(Error::no_answer(operation, errno)),
            }
        }
    }

    /// Waits until `deadline` for an event of a subscribed group. Returns `None` if a datagram was lost, so that events
    /// may have been missed.
    pub(crate) fn event(&mut self, deadline: Instant, operation: fmt::Arguments<'_>) -> Result<Option<&[u8]>> {
        loop {
            self.readable(deadline, operation)?;
            // The readable datagram may be from another process.
            match self.receive_with(Size::Unknown) {
                Ok(Datagram::Whole(length)) => return Ok(Some(&self.buffer[..length])),
                Ok(Datagram::Cut(_)) | Err(Errno::ENOBUFS) => return Ok(None),
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(Error::kernel(operation, errno)),
            }
        }
    }

    fn readable(&self, deadline: Instant, operation: fmt::Arguments<'_>) -> Result<()> {
        let mut watched = [PollFd::new(self.inner.as_fd(), PollFlags::POLLIN)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout { operation: operation.to_string() });
            }
            // Rounded up to a millisecond, so that the last one is not spent in a busy loop.
            let wait = left + Duration::from_micros(999);
            match poll(&mut watched, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(Error::no_answer(operation, errno)),
            }
        }
    }

    /// Reads a datagram from the kernel. `EAGAIN` if there is none.
    fn receive_with(&mut self, size: Size) -> nix::Result<Datagram> {
        // With MSG_TRUNC, the kernel returns the whole length of the datagram.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let socket = self.inner.as_raw_fd();
        loop {
            if size == Size::Unknown {
                let peek = flags | MsgFlags::MSG_PEEK;
                let length = match recv(socket, &mut [], peek) {
                    Err(Errno::EINTR) => continue,
                    result => result?,
                };
                if length > self.buffer.len() {
                    self.buffer.resize(length, 0);
                }
            }
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            let received = match recvmsg::<NetlinkAddr>(socket, &mut parts, None, flags) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            // Any process may send to our port. Only the kernel sends from port 0.
            if received.address.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            return Ok(if received.flags.contains(MsgFlags::MSG_TRUNC) {
                Datagram::Cut(received.bytes)
            } else {
                Datagram::Whole(received.bytes)
            });
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("port", &self.port).field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

enum Datagram {
    Whole(usize),
    /// The datagram had this length, and its end is lost.
    Cut(usize),
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
