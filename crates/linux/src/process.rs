//! The beginning of a process: what the standard library does before its `main`, as far as a plugin needs it.

use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::getppid;

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

/// Starts a process that the kernel kills when this one ends, whichever way. (`PR_SET_PDEATHSIG`) It does not kill what that
/// process starts itself. To be called by a thread that lives as long as this process.
///
/// # Errors
///
/// What the kernel says.
pub fn spawn_bound(command: &mut Command) -> io::Result<Child> {
    let parent = process::id();
    let bind = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // It may have ended before it was asked for.
        if getppid().as_raw().cast_unsigned() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec it makes two system calls, and allocates nothing: an io::Error of an errno is a number.
    unsafe { command.pre_exec(bind) };
    command.spawn()
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
