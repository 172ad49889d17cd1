//! Waits: for a change for which the kernel sends no event, and for a socket.

use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The first pause between two attempts.
const FIRST: Duration = Duration::from_millis(1);

/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_millis(50);

/// A deadline for repeated attempts. The pauses between the attempts get longer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    deadline: Instant,
    next: Duration,
}

impl Patience {
    /// Starts now and lasts for `within`.
    pub fn new(within: Duration) -> Self {
        Self { deadline: Instant::now() + within, next: FIRST }
    }

    /// Sleeps until the next attempt. Returns false at once after the deadline.
    pub fn pause(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        thread::sleep(self.next);
        self.next = (self.next * 2).min(LONGEST);
        true
    }
}

/// The most messages that are read from one socket after the deadline. It is more than a socket's queue usually holds.
const MOST_LATE: u32 = 4096;

/// Counts the messages that are read after a deadline. Otherwise reading would never end while other machines send
/// faster than we read.
#[derive(Debug, Default)]
pub(crate) struct Overtime(u32);

impl Overtime {
    /// Counts a message. Returns true if no further one may be read.
    pub(crate) fn is_over(&mut self, deadline: Instant) -> bool {
        self.0 = if Instant::now() < deadline { 0 } else { self.0 + 1 };
        self.0 > MOST_LATE
    }

    /// Starts again at 0, because reading has ended.
    pub(crate) fn end(&mut self) {
        self.0 = 0;
    }
}

/// Waits until a socket has something to read. Returns false at the deadline.
pub(crate) fn readable(socket: BorrowedFd<'_>, deadline: Instant) -> nix::Result<bool> {
    ready(&mut [PollFd::new(socket, PollFlags::POLLIN)], deadline)
}

/// Waits until a descriptor is ready. Returns false at the deadline.
pub(crate) fn ready(descriptors: &mut [PollFd<'_>], deadline: Instant) -> nix::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        match poll(descriptors, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => {}
            Ok(0) if Instant::now() < deadline => {}
            polled => return Ok(polled? > 0),
        }
    }
}
