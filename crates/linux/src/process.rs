//! The beginning of a process: what the standard library does before its `main`, as far as a plugin needs it.

use std::fs::OpenOptions;
use std::os::fd::{BorrowedFd, IntoRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// For a program whose `main` is C's. Writing to a pipe that nobody reads is an error from here on and not the end; and
/// stdin, stdout and stderr are there: /dev/null where the caller has closed one, lest the next file that is opened
/// take its number and be written to by mistake.
///
/// To be called first, by the only thread that there is.
pub fn begin() {
    // SAFETY: it runs no code of ours on a signal, and no other thread sets one.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    stand_in_for_closed_streams();
}

fn stand_in_for_closed_streams() {
    // SAFETY: they are open, or the kernel says that they are not; poll(2) does nothing else with them.
    let streams = [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    let mut watched = streams.map(|stream| PollFd::new(stream, PollFlags::empty()));
    loop {
        match poll(&mut watched, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            // No answer is no reason to end.
            Err(_) => return,
            Ok(_) => break,
        }
    }
    for stream in &watched {
        if stream.revents().is_some_and(|events| events.contains(PollFlags::POLLNVAL))
            && let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null")
        {
            // The lowest free number: that of the stream. It stays open for good.
            let _ = null.into_raw_fd();
        }
    }
}
