//! The beginning of a process: what the standard library does before its `main`, as far as a plugin needs it.

use std::os::fd::IntoRawFd;
use std::process;

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;

/// For a program whose `main` is C's. Writing to a pipe that nobody reads is an error from here on and not the end; and
/// stdin, stdout and stderr are there: /dev/null where the caller has closed one, lest the next file that is opened
/// take its number and be written to by mistake. That of stdout is only for reading, so that it can be told from one
/// that was opened by somebody who wants nothing of it. A program that is started later gets them as well. Without a
/// /dev/null to stand in the process ends: nobody would hear what it has done.
///
/// To be called first, by the only thread that there is.
pub fn begin() {
    // SAFETY: it runs no code of ours on a signal, and no other thread sets one.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    stand_in_for_closed_streams();
}

fn stand_in_for_closed_streams() {
    for (number, access) in [(0, OFlag::O_RDONLY), (1, OFlag::O_RDONLY), (2, OFlag::O_RDWR)] {
        // SAFETY: fcntl(2) with F_GETFD takes two numbers, and says if the first one is of no open file.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } != -1 {
            continue;
        }
        match open("/dev/null", access, Mode::empty()) {
            // The lowest free number: that of the stream. It stays open for good.
            Ok(null) => _ = null.into_raw_fd(),
            Err(_) => process::abort(),
        }
    }
}
