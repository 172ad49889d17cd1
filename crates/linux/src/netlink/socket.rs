//! The socket: sequence numbers out, whole datagrams from the kernel in.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, recvmsg};

use super::Request;
use crate::{Error, Result};

/// How long the kernel may take to answer. It answers in microseconds unless somebody
/// holds the rtnl lock, and nobody does that for seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for any link and any acknowledgement. Lists come in larger datagrams, for which it grows: each page that is
/// touched costs a page fault, which is dearer than most system calls.
const BUFFER: usize = 2048;

/// A `NETLINK_ROUTE` socket. It belongs to the network namespace in which it was opened,
/// is closed on exec, and is never cloned: a clone of netlink-sys' socket is closed twice.
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    /// Whether dumps are filtered by what their request says.
    strict: bool,
    buffer: Vec<u8>,
}

/// Whether a reply can be larger than the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// An acknowledgement: it echoes at most the request.
    Small,
    /// One object: hardly ever, and then it may be asked for again.
    Usual,
    /// Many: the size of each datagram is asked for before it is read.
    Unknown,
}

/// What came.
#[derive(Debug)]
pub(super) enum Received<'a> {
    /// A datagram.
    Whole(&'a [u8]),
    /// The beginning of one that did not fit, and is lost: the next one like it would.
    Cut(&'a [u8]),
}

impl Socket {
    pub(crate) fn open() -> Result<Self> {
        Self::prepare().map_err(|error| Error::kernel("open route socket", errno_of(&error)))
    }

    fn prepare() -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
        // Before Linux 4.12 the kernel explains less, and the decoder copes.
        let _ = inner.set_ext_ack(true);
        let port = inner.bind_auto()?.port_number();
        Ok(Self { inner, port, sequence: 0, strict: false, buffer: vec![0; BUFFER] })
    }

    /// Has the kernel list what a request for a list says, and no more. Before Linux 4.20 it lists all, and every
    /// decoder copes.
    pub(super) fn be_strict(&mut self) {
        if !self.strict {
            self.strict = true;
            let _ = self.inner.set_netlink_get_strict_chk(true);
        }
    }

    /// Joins a multicast group (`RTNLGRP_*`).
    pub(crate) fn subscribe(&mut self, group: u32) -> Result<()> {
        self.inner
            .add_membership(group)
            .map_err(|error| Error::kernel(format_args!("subscribe to route group {group}"), errno_of(&error)))
    }

    #[cfg(test)]
    pub(super) fn set_buffer(&mut self, length: usize) {
        self.buffer = vec![0; length];
    }

    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Sends one request. Returns the sequence number its replies will carry.
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

    /// Waits for one datagram from the kernel. It has answered by the time that a request is sent, so waiting is rare.
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
                Err(errno) => return Err(Error::unheard(operation, errno)),
            }
        }
    }

    /// Waits until `deadline` for an event of a subscribed group. `None` when there was
    /// something that cannot be read whole, so that events may have been missed.
    pub(crate) fn event(&mut self, deadline: Instant, operation: fmt::Arguments<'_>) -> Result<Option<&[u8]>> {
        loop {
            self.readable(deadline, operation)?;
            // What was readable may have come from somebody other than the kernel.
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
            // Rounded up, lest the last millisecond be spent in circles.
            let wait = left + Duration::from_micros(999);
            match poll(&mut watched, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(Error::unheard(operation, errno)),
            }
        }
    }

    /// Reads what has come; `EAGAIN` when nothing has.
    fn receive_with(&mut self, size: Size) -> nix::Result<Datagram> {
        // MSG_TRUNC: the length that it has, not the one that fitted.
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
            // Any process may send to our port; only the kernel sends from port 0.
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
    /// Of this length, and lost.
    Cut(usize),
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
