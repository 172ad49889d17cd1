//! Processes: the first calls of our own, and running another program that ends with us.

use std::env;
use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{self, ExitStatus, Output};
use std::ptr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

/// A pipe takes so many bytes before the other side reads: one page. (pipe(7), "Pipe capacity")
const PIPE_HOLDS: usize = 4096;
/// The stack on which the child runs until it has started its program. It makes a few system calls there.
const CHILD_STACK: usize = 64 << 10;

/// For a program whose `main` is C's. After it, writing to a pipe that nobody reads is an error and does not end the
/// process. Stdin, stdout and stderr are open: /dev/null takes the place of a stream that the caller has closed, so that
/// the next opened file does not get descriptor 0, 1 or 2. In the place of stdout it is opened only for reading, so that
/// a closed stdout is recognised. A program that is started later inherits these streams. Without /dev/null the process
/// aborts, because no one could read its answer.
///
/// Call it first, while there is one thread.
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

/// Runs a program to its end and returns its status and its stdout. It gets our environment with one variable set, `input`
/// on stdin, and our stderr.
///
/// The kernel kills the program when the calling thread ends, also when we are killed ourselves. (prctl(2),
/// `PR_SET_PDEATHSIG`) Processes that the program has started are not killed.
///
/// # Errors
///
/// The error of the system call that failed. `TimedOut` if it has not closed its stdout after `answer_within`, or has not
/// ended so long as `exit_within` after that; `FileTooLarge` if it writes more than `most` bytes. It is killed then.
pub fn run(
    program: &Path,
    variable: (&str, &str),
    input: &[u8],
    answer_within: Duration,
    exit_within: Duration,
    most: usize,
) -> io::Result<Output> {
    let ((stdin, mut to), (mut from, stdout)) = (io::pipe()?, io::pipe()?);
    let mut child = start(program, variable, stdin.as_raw_fd(), stdout.as_raw_fd())?;
    drop((stdin, stdout));

    // A program may close its stdin unread, so an error of writing is none.
    let mut rest = input;
    if rest.len() <= PIPE_HOLDS {
        let _ = to.write_all(rest);
        rest = &[];
    } else {
        fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let mut to = (!rest.is_empty()).then_some(to);
    let mut answer = Vec::new();
    let deadline = Instant::now() + answer_within;
    loop {
        let mut ready = vec![PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        ready.extend(to.as_ref().map(|to| PollFd::new(to.as_fd(), PollFlags::POLLOUT)));
        if !wait(&mut ready, deadline).map_err(during("read its stdout"))? {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("no answer within {answer_within:?}")));
        }
        let [readable, writable] = [0, 1].map(|at: usize| ready.get(at).and_then(PollFd::any).unwrap_or_default());
        if writable && let Some(pipe) = &mut to {
            match pipe.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => rest = &[],
            }
            to = to.filter(|_| !rest.is_empty());
        }
        if readable {
            let mut chunk = [0; PIPE_HOLDS];
            match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(during("read its stdout")(error)),
            }
            if answer.len() > most {
                return Err(io::Error::new(ErrorKind::FileTooLarge, format!("its answer is longer than {most} bytes")));
            }
        }
    }
    let mut ended = [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
    if !wait(&mut ended, Instant::now() + exit_within).map_err(during("wait for its end"))? {
        let cause = format!("closed its stdout and did not end within {exit_within:?}");
        return Err(io::Error::new(ErrorKind::TimedOut, cause));
    }
    let status = child.reap().map_err(during("wait for its end"))?;
    Ok(Output { status, stdout: answer, stderr: Vec::new() })
}

fn during(operation: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{operation}: {error}"))
}

/// Waits until one of these is ready. Returns false if the deadline comes first.
fn wait(ready: &mut [PollFd<'_>], deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        match poll(ready, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => {}
            Ok(0) if Instant::now() < deadline => {}
            polled => return Ok(polled? > 0),
        }
    }
}

/// A process that we have started. It is killed when this is dropped, unless it was reaped.
struct Child {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Child {
    /// Waits for the end of the process.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        let mut status = 0;
        // SAFETY: `status` is ours. The number is that of our own child, which nobody else waits for.
        while unsafe { libc::waitpid(self.pid, &raw mut status, 0) } == -1 {
            match Errno::last() {
                Errno::EINTR => {}
                error => return Err(error.into()),
            }
        }
        self.reaped = true;
        Ok(ExitStatus::from_raw(status))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            // SAFETY: it was not waited for, so the number is still that of our child.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            let _ = self.reap();
        }
    }
}

/// Everything that the child needs. It allocates nothing.
struct Start {
    program: CString,
    words: [*const c_char; 2],
    environment: Vec<*const c_char>,
    stdin: RawFd,
    stdout: RawFd,
    parent: libc::pid_t,
    /// The error that kept the child from starting the program.
    errno: c_int,
}

/// Starts a program with these descriptors as stdin and stdout. No pipe tells if the program was started: the child shares
/// our memory until then, and this thread waits for it. (clone(2), `CLONE_VM` and `CLONE_VFORK`)
fn start(program: &Path, (name, value): (&str, &str), stdin: RawFd, stdout: RawFd) -> io::Result<Child> {
    let program = CString::new(program.as_os_str().as_bytes())?;
    let others = env::vars_os().filter(|(its, _)| its.as_bytes() != name.as_bytes());
    let environment = others.chain([(name.into(), value.into())]).map(|(name, value)| {
        let [name, value] = [name, value].map(OsString::into_vec);
        CString::new([name.as_slice(), b"=", value.as_slice()].concat())
    });
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    let pointers = environment.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: it only reads the number of this process.
    let parent = unsafe { libc::getpid() };
    let words = [program.as_ptr(), ptr::null()];
    let mut start = Start { program, words, environment: pointers, stdin, stdout, parent, errno: 0 };
    let mut stack = Vec::<u8>::with_capacity(CHILD_STACK);
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let pointer: *mut c_void = (&raw mut start).cast();
    // SAFETY: the stack is writable, large enough and used by nobody else, and clone(3) aligns its top. The child runs
    // `exec`, which does not return, and this thread goes on only when the child has started its program or has ended: so
    // what `start` points to lives, and is not changed beside the child. The kernel writes a number into `pidfd`.
    let pid = unsafe { libc::clone(exec, stack.as_mut_ptr().add(CHILD_STACK).cast(), flags, pointer, &raw mut pidfd) };
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has opened it for us, and nobody else has the number.
    let mut child = Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, reaped: false };
    // SAFETY: it is ours. The child has written to it, so it must be read from memory.
    match unsafe { ptr::read_volatile(&raw const start.errno) } {
        0 => Ok(child),
        errno => {
            child.reap()?;
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

/// The child, until it starts its program.
extern "C" fn exec(start: *mut c_void) -> c_int {
    let start: *mut Start = start.cast();
    // SAFETY: `start` is that of the parent, which waits. Everything called is a plain system call. Descriptors, the parent's
    // death signal and the action for SIGPIPE are the child's own.
    unsafe {
        let is_bound = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != -1;
        let has_streams = is_bound && libc::dup2((*start).stdin, 0) != -1 && libc::dup2((*start).stdout, 1) != -1;
        // The parent may have ended before the kernel was asked for the signal.
        if has_streams && libc::getppid() == (*start).parent {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::execve((*start).program.as_ptr(), (*start).words.as_ptr(), (*start).environment.as_ptr());
        }
        // Without an error the parent is gone, and does not read this.
        (*start).errno = Errno::last_raw();
        libc::_exit(127)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);
    const MOST: usize = 2 << 20;

    fn script(text: &str, input: &[u8], [answer_within, exit_within]: [Duration; 2]) -> io::Result<Output> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        loop {
            match run(&program, ("WORD", "a b"), input, answer_within, exit_within, MOST) {
                // The child of another test still has the file open for writing.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {}
                ended => return ended,
            }
        }
    }

    fn answer(text: &str, input: &[u8]) -> String {
        String::from_utf8(script(text, input, [LONG; 2]).unwrap().stdout).unwrap()
    }

    #[test]
    fn input_and_variable_arrive_and_answer_and_status_come_back() {
        assert_eq!(answer("echo $0 $WORD; cat", b"{}").split_once(' ').unwrap().1, "a b\n{}");
        let path = env::var("PATH").unwrap();
        assert_eq!(answer("echo \"$PATH\"", b""), format!("{path}\n"));
        let ended = script("exit 3", b"", [LONG; 2]).unwrap();
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(3), 0));
        assert_eq!(script("kill -TERM $$", b"", [LONG; 2]).unwrap().status.signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn a_megabyte_passes_in_both_directions() {
        let input = "0123456789abcdef".repeat(1 << 16);
        assert_eq!(answer("cat", input.as_bytes()), input);
    }

    #[test]
    fn input_that_nobody_reads_blocks_nothing() {
        assert_eq!(answer("echo done", &[b' '; 1 << 20]), "done\n");
        assert_eq!(answer("exec <&-; echo done", &[b' '; 1 << 20]), "done\n");
        assert_eq!(answer("exec <&-; echo done", b"{}"), "done\n");
    }

    /// This process ignores SIGPIPE. A child that did so too would never end.
    #[test]
    fn writing_to_a_closed_pipe_ends_the_program_as_usual() {
        assert_eq!(answer("(sh -c 'kill -PIPE $$; echo lives'); echo $?", b""), "141\n");
    }

    #[test]
    fn a_program_that_breaks_a_limit_is_killed() {
        let refused = |text: &str, limits: [Duration; 2]| {
            let error = script(text, b"", limits).unwrap_err();
            assert_eq!(error.raw_os_error(), None);
            (error.kind(), error.to_string())
        };
        assert_eq!(refused("exec sleep 600", [SHORT, LONG]), (ErrorKind::TimedOut, "no answer within 200ms".into()));
        let expected = "closed its stdout and did not end within 200ms";
        assert_eq!(refused("exec sleep 600 >&-", [LONG, SHORT]), (ErrorKind::TimedOut, expected.into()));
        let expected = "its answer is longer than 2097152 bytes";
        assert_eq!(refused("exec yes", [LONG; 2]), (ErrorKind::FileTooLarge, expected.into()));
    }

    #[test]
    fn the_reason_why_a_program_does_not_start_is_the_kernels() {
        let refused = |path: &Path| run(path, ("WORD", ""), b"", LONG, LONG, MOST).unwrap_err();
        assert_eq!(refused(Path::new("/nonexistent/ipam")).raw_os_error(), Some(libc::ENOENT));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(refused(folder.path()).raw_os_error(), Some(libc::EACCES));
        assert_eq!(refused(Path::new("a\0b")).kind(), ErrorKind::InvalidInput);
    }
}
