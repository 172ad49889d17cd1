//! Prepares this process, and runs another program that ends with it.

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
use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::Mode;

use crate::Patience;
use crate::patience::ready;

/// A pipe holds at least so many bytes, one page, until the other side reads. (pipe(7), "Pipe capacity")
const PIPE_HOLDS: usize = 4096;
/// Bytes of the child's stack. It makes a few system calls on it before it starts its program.
const CHILD_STACK: usize = 64 << 10;

/// Does what the standard library does before its `main`, for a program that has C's `main`. Call it first, while there
/// is one thread.
///
/// It ignores SIGPIPE, so that writing to a closed pipe is an error. It opens /dev/null in place of each closed
/// standard stream, so that the next opened file does not get descriptor 0, 1 or 2. In place of stdout, /dev/null is
/// opened only for reading, so that a closed stdout is recognised. Started programs inherit these streams. If /dev/null
/// cannot be opened, the process aborts, because its answer has nowhere to go.
pub fn begin() {
    // SAFETY: none of our code runs on the signal, and there is no other thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    stand_in_for_closed_streams();
}

fn stand_in_for_closed_streams() {
    for (number, access) in [(0, OFlag::O_RDONLY), (1, OFlag::O_RDONLY), (2, OFlag::O_RDWR)] {
        // SAFETY: fcntl(2) with F_GETFD takes only numbers. It fails if the descriptor is closed.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } != -1 {
            continue;
        }
        match open("/dev/null", access, Mode::empty()) {
            // The kernel gives the lowest free number, which is that of the stream. It stays open.
            Ok(null) => _ = null.into_raw_fd(),
            Err(_) => process::abort(),
        }
    }
}

/// Runs a program to its end and returns its status and its stdout. The program gets `input` on stdin, our stderr, and
/// our environment with one variable changed.
///
/// The kernel kills the program if the calling thread ends or this process is killed. (prctl(2), `PR_SET_PDEATHSIG`)
/// Processes that the program has started are not killed.
///
/// # Errors
///
/// The error of the system call that failed. `TimedOut` if the program does not close its stdout within
/// `answer_within`, or does not end within `exit_within` after that. `FileTooLarge` if it writes more than `most`
/// bytes. After each error, the program is killed.
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

    // A program may close its stdin without reading it. So errors of writing are ignored.
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
    if !child.ends_within(exit_within).map_err(during("wait for its end"))? {
        let cause = format!("closed its stdout and did not end within {exit_within:?}");
        return Err(io::Error::new(ErrorKind::TimedOut, cause));
    }
    let status = child.reap().map_err(during("wait for its end"))?;
    Ok(Output { status, stdout: answer, stderr: Vec::new() })
}

fn during(operation: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{operation}: {error}"))
}

/// As [`ready`], with an error of the standard library.
fn wait(descriptors: &mut [PollFd<'_>], deadline: Instant) -> io::Result<bool> {
    Ok(ready(descriptors, deadline)?)
}

/// A started process. Unless it was reaped, it is killed when this value is dropped.
struct Child {
    pid: libc::pid_t,
    /// `None` if the kernel gives none. (before Linux 5.2)
    pidfd: Option<OwnedFd>,
    reaped: bool,
}

impl Child {
    /// Waits until the process ends, and leaves it to be reaped. Returns false if it does not end in time.
    fn ends_within(&self, within: Duration) -> io::Result<bool> {
        if let Some(pidfd) = &self.pidfd {
            return wait(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], Instant::now() + within);
        }
        let mut patience = Patience::new(within);
        let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        loop {
            // SAFETY: `info` is a local variable, which the kernel fills. A process number of 0 means: not ended.
            let (answer, ended) = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                let answer = libc::waitid(libc::P_PID, self.pid.unsigned_abs(), &raw mut info, how);
                (answer, info.si_pid() != 0)
            };
            match Errno::result(answer) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) if ended => return Ok(true),
                Ok(_) if !patience.pause() => return Ok(false),
                Ok(_) => {}
            }
        }
    }

    /// Waits until the process ends.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        let mut status = 0;
        // SAFETY: `status` is a local variable. The number is that of our child, for which no other code waits.
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
            // SAFETY: the child was not reaped, so the number is still its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            let _ = self.reap();
        }
    }
}

/// Everything that the child needs, so that it does not allocate.
struct Start {
    program: CString,
    words: [*const c_char; 2],
    environment: Vec<*const c_char>,
    stdin: RawFd,
    stdout: RawFd,
    parent: libc::pid_t,
    /// The error because of which the child did not start the program. 0 is none.
    errno: c_int,
}

/// Starts a program with these descriptors as stdin and stdout. The child shares our memory, and this thread waits,
/// until the program is started. So the child's error needs no pipe. (clone(2), `CLONE_VM` and `CLONE_VFORK`)
fn start(program: &Path, (name, value): (&str, &str), stdin: RawFd, stdout: RawFd) -> io::Result<Child> {
    let program = CString::new(program.as_os_str().as_bytes())?;
    let others = env::vars_os().filter(|(its, _)| its.as_bytes() != name.as_bytes());
    let environment = others.chain([(name.into(), value.into())]).map(|(name, value)| {
        let [name, value] = [name, value].map(OsString::into_vec);
        CString::new([name.as_slice(), b"=", value.as_slice()].concat())
    });
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    let pointers = environment.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: getpid(2) always succeeds and does not access our memory.
    let parent = unsafe { libc::getpid() };
    let words = [program.as_ptr(), ptr::null()];
    let mut start = Start { program, words, environment: pointers, stdin, stdout, parent, errno: 0 };
    // A runtime may ignore this signal. (execve(2) keeps that) Then waitpid(2) would not return the status.
    // SAFETY: none of our code runs on the signal.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let mut stack = Vec::<u8>::with_capacity(CHILD_STACK);
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let pointer: *mut c_void = (&raw mut start).cast();
    // SAFETY: the stack is writable and large enough, only the child uses it, and clone(3) aligns its top. The child
    // runs `exec`, which does not return. This thread continues only after the child has started its program or has
    // ended. So all that `start` points to stays alive and unchanged. The kernel writes a number into `pidfd`.
    let pid = unsafe { libc::clone(exec, stack.as_mut_ptr().add(CHILD_STACK).cast(), flags, pointer, &raw mut pidfd) };
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us, and no other value owns it.
    let pidfd = (pidfd != -1).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    let mut child = Child { pid, pidfd, reaped: false };
    // SAFETY: `start` is a local variable. The child may have changed it, so it is read from memory.
    match unsafe { ptr::read_volatile(&raw const start.errno) } {
        0 => Ok(child),
        errno => {
            child.reap()?;
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

/// Runs in the child until it starts its program.
extern "C" fn exec(start: *mut c_void) -> c_int {
    let start: *mut Start = start.cast();
    // SAFETY: `start` belongs to the parent process, which waits. Only system calls are made. The child has its own
    // descriptors, its own death signal and its own action for SIGPIPE.
    unsafe {
        let is_bound = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != -1;
        let has_streams = is_bound && libc::dup2((*start).stdin, 0) != -1 && libc::dup2((*start).stdout, 1) != -1;
        // The parent may have ended before prctl(2). 0 is a parent in another PID namespace, which cannot be seen.
        if has_streams && matches!(libc::getppid(), parent if parent == (*start).parent || parent == 0) {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            unblock_signals();
            libc::execve((*start).program.as_ptr(), (*start).words.as_ptr(), (*start).environment.as_ptr());
        }
        // If the parent has ended, there may be no error here, and no one reads it.
        (*start).errno = Errno::last_raw();
        libc::_exit(127)
    }
}

/// Starts a process that does `work`, and does not wait for it. It is a copy of this process, with a session of its own and
/// `/` as its working directory. So it keeps no directory busy, only the file of the program. `work` must use absolute
/// paths. It closes all descriptors at once, so it keeps no pipe, lock or namespace. Its standard streams are /dev/null. No signal is blocked.
///
/// `work` must neither use nor own a value with a descriptor. The number of the descriptor would be closed already, or
/// would be that of another file. When `work` returns or panics, the process ends with _exit(2). Then it writes no
/// buffer, and drops no value of this process. If this process still runs then, the other one stays a zombie until it ends.
///
/// Call it while this process has one thread. A lock that another thread holds, such as that of a `Mutex`, is never
/// released in the copy. A thread that waits in [`file::lock_within`](crate::file::lock_within) holds none.
///
/// # Errors
///
/// `EAGAIN` or `ENOMEM` if there can be no further process.
pub fn detach(work: impl FnOnce()) -> io::Result<()> {
    // SAFETY: this process has one thread, so the copy has no lock of another one. It ends with _exit(2), which runs
    // nothing of this process.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: these calls take only numbers and a constant text. No value that owns one of the descriptors is used
            // or dropped after this, because `work` has none, and the process ends with _exit(2).
            unsafe {
                close_all();
                libc::setsid();
                libc::chdir(c"/".as_ptr());
                unblock_signals();
            }
            // The next opened files must not get the numbers of the standard streams.
            stand_in_for_closed_streams();
            std::panic::set_hook(Box::new(|_| {}));
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: _exit(2) takes only a number, and ends this process.
            unsafe { libc::_exit(0) }
        }
        _ => Ok(()),
    }
}

/// Unblocks all signals of the calling thread. A runtime may have blocked some. (execve(2) keeps the mask) Allocates
/// nothing.
fn unblock_signals() {
    // SAFETY: all bytes zero are a valid `sigset_t`, and the set is a local variable.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Closes all descriptors of this process.
///
/// # Safety
///
/// No value that owns a descriptor may be used or dropped after this.
unsafe fn close_all() {
    // SAFETY: these calls take only numbers.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) == 0 {
            return;
        }
        // Linux before 5.9.
        let most = libc::sysconf(libc::_SC_OPEN_MAX).clamp(256, 1 << 20);
        for descriptor in 0..c_int::try_from(most).unwrap_or(256) {
            libc::close(descriptor);
        }
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
                // The child of another test may still have the file open for writing.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {}
                ended => return ended,
            }
        }
    }

    fn answer(text: &str, input: &[u8]) -> String {
        String::from_utf8(script(text, input, [LONG; 2]).unwrap().stdout).unwrap()
    }

    #[test]
    fn a_program_gets_its_input_and_its_answer_and_status_are_returned() {
        assert_eq!(answer("echo $0 $WORD; cat", b"{}").split_once(' ').unwrap().1, "a b\n{}");
        let path = env::var("PATH").unwrap();
        assert_eq!(answer("echo \"$PATH\"", b""), format!("{path}\n"));
        let ended = script("exit 3", b"", [LONG; 2]).unwrap();
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(3), 0));
        assert_eq!(script("kill -TERM $$", b"", [LONG; 2]).unwrap().status.signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn input_and_answer_can_be_a_megabyte_each() {
        let input = "0123456789abcdef".repeat(1 << 16);
        assert_eq!(answer("cat", input.as_bytes()), input);
    }

    #[test]
    fn a_program_need_not_read_its_input() {
        assert_eq!(answer("echo done", &[b' '; 1 << 20]), "done\n");
        assert_eq!(answer("exec <&-; echo done", &[b' '; 1 << 20]), "done\n");
        assert_eq!(answer("exec <&-; echo done", b"{}"), "done\n");
    }

    /// This process ignores SIGPIPE. A child must not inherit that.
    #[test]
    fn sigpipe_ends_a_child_of_the_program() {
        assert_eq!(answer("(sh -c 'kill -PIPE $$; echo lives'); echo $?", b""), "141\n");
    }

    #[test]
    fn the_end_of_a_program_is_seen_without_a_pidfd() {
        let ((stdin, to), (_from, stdout)) = (io::pipe().unwrap(), io::pipe().unwrap());
        let mut cat = start(Path::new("/bin/cat"), ("WORD", ""), stdin.as_raw_fd(), stdout.as_raw_fd()).unwrap();
        cat.pidfd = None;
        assert!(!cat.ends_within(SHORT).unwrap());
        drop(to);
        assert!(cat.ends_within(LONG).unwrap() && cat.reap().unwrap().success());
    }

    #[test]
    fn a_program_that_exceeds_a_limit_is_killed() {
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
    fn the_error_of_a_program_that_does_not_start_is_that_of_the_kernel() {
        let refused = |path: &Path| run(path, ("WORD", ""), b"", LONG, LONG, MOST).unwrap_err();
        assert_eq!(refused(Path::new("/nonexistent/ipam")).raw_os_error(), Some(libc::ENOENT));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(refused(folder.path()).raw_os_error(), Some(libc::EACCES));
        assert_eq!(refused(Path::new("a\0b")).kind(), ErrorKind::InvalidInput);
    }
}
