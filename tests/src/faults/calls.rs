//! The errors of each system call: those of its manual page that a correct caller can get. Impossible errors are not
//! injected, for example ENOENT for a file that exists.

use nix::errno::Errno::{self, *};
use nix::libc;

use crate::trace::{Deed, Fault, Step};

/// A call: its number, its name, and its errors.
type Row = (i64, &'static str, &'static [Errno]);

/// Calls that do not fail, or whose error no program can handle.
const SURE: &[Errno] = &[];
const OPENING: &[Errno] = &[EIO, ENOSPC, EROFS, EMFILE, ENFILE, ENOMEM, EINTR, EACCES];
const READING: &[Errno] = &[EIO, EINTR, ENOMEM];
const WRITING: &[Errno] = &[EIO, ENOSPC, EDQUOT, EINTR, EPIPE];
const NAMING: &[Errno] = &[EIO, ENOSPC, EDQUOT, EROFS, ENOMEM, EACCES];
const REMOVING: &[Errno] = &[EIO, EROFS, EBUSY, ENOMEM, EACCES];
const LOOKING: &[Errno] = &[EIO, ENOMEM, EACCES];
const SENDING: &[Errno] = &[ENOBUFS, ENOMEM, EINTR, EAGAIN];
const DESCRIPTORS: &[Errno] = &[EMFILE, ENFILE, ENOMEM];
const STARTING: &[Errno] = &[EAGAIN, ENOMEM];
const MEMORY: &[Errno] = &[ENOMEM];
const WAITING: &[Errno] = &[EINTR];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    (libc::SYS_openat, "openat", OPENING),
    (libc::SYS_read, "read", READING),
    (libc::SYS_pread64, "pread64", READING),
    (libc::SYS_readv, "readv", READING),
    (libc::SYS_write, "write", WRITING),
    (libc::SYS_pwrite64, "pwrite64", WRITING),
    (libc::SYS_writev, "writev", WRITING),
    (libc::SYS_close, "close", &[EIO, EINTR]),
    (libc::SYS_fsync, "fsync", &[EIO, ENOSPC]),
    (libc::SYS_fdatasync, "fdatasync", &[EIO, ENOSPC]),
    (libc::SYS_ftruncate, "ftruncate", &[EIO, ENOSPC, EINTR]),
    (libc::SYS_lseek, "lseek", SURE),
    (libc::SYS_linkat, "linkat", NAMING),
    (libc::SYS_symlinkat, "symlinkat", NAMING),
    (libc::SYS_mkdirat, "mkdirat", NAMING),
    (libc::SYS_renameat, "renameat", NAMING),
    (libc::SYS_renameat2, "renameat2", NAMING),
    (libc::SYS_unlinkat, "unlinkat", REMOVING),
    (libc::SYS_utimensat, "utimensat", &[EIO, EROFS, EACCES]),
    (libc::SYS_newfstatat, "newfstatat", LOOKING),
    (libc::SYS_statx, "statx", LOOKING),
    (libc::SYS_fstat, "fstat", &[EIO, ENOMEM]),
    (libc::SYS_fstatfs, "fstatfs", &[EIO, ENOMEM, EINTR]),
    (libc::SYS_statfs, "statfs", &[EIO, ENOMEM, EACCES]),
    (libc::SYS_faccessat, "faccessat", LOOKING),
    (libc::SYS_readlinkat, "readlinkat", LOOKING),
    (libc::SYS_getdents64, "getdents64", &[EIO, ENOMEM]),
    (libc::SYS_flock, "flock", &[EINTR, ENOLCK, EIO]),
    (libc::SYS_fcntl, "fcntl", &[EMFILE]),
    (libc::SYS_ioctl, "ioctl", &[EIO, ENOMEM]),
    (libc::SYS_socket, "socket", &[EMFILE, ENFILE, ENOBUFS, ENOMEM]),
    (libc::SYS_socketpair, "socketpair", DESCRIPTORS),
    (libc::SYS_bind, "bind", &[ENOMEM, EADDRINUSE]),
    (libc::SYS_connect, "connect", &[ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, ENOMEM, EINTR]),
    (libc::SYS_shutdown, "shutdown", SURE),
    (libc::SYS_getpeername, "getpeername", SURE),
    (libc::SYS_getsockname, "getsockname", &[ENOBUFS, ENOMEM]),
    (libc::SYS_setsockopt, "setsockopt", &[ENOMEM, ENOBUFS, ENOPROTOOPT]),
    (libc::SYS_getsockopt, "getsockopt", &[ENOMEM, ENOBUFS]),
    (libc::SYS_sendto, "sendto", SENDING),
    (libc::SYS_sendmsg, "sendmsg", SENDING),
    (libc::SYS_recvfrom, "recvfrom", SENDING),
    (libc::SYS_recvmsg, "recvmsg", SENDING),
    (libc::SYS_ppoll, "ppoll", &[EINTR, ENOMEM]),
    (libc::SYS_setns, "setns", &[ENOMEM, EPERM]),
    (libc::SYS_unshare, "unshare", &[ENOMEM, EPERM]),
    (libc::SYS_clone, "clone", STARTING),
    (libc::SYS_clone3, "clone3", STARTING),
    (libc::SYS_execve, "execve", &[EIO, ENOMEM, ETXTBSY, EACCES]),
    (libc::SYS_wait4, "wait4", WAITING),
    (libc::SYS_waitid, "waitid", WAITING),
    (libc::SYS_pidfd_open, "pidfd_open", DESCRIPTORS),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal", SURE),
    (libc::SYS_pipe2, "pipe2", &[EMFILE, ENFILE]),
    (libc::SYS_dup, "dup", &[EMFILE]),
    (libc::SYS_dup3, "dup3", &[EINTR, EBUSY]),
    (libc::SYS_mmap, "mmap", MEMORY),
    (libc::SYS_mremap, "mremap", MEMORY),
    (libc::SYS_mprotect, "mprotect", MEMORY),
    (libc::SYS_munmap, "munmap", MEMORY),
    (libc::SYS_madvise, "madvise", MEMORY),
    (libc::SYS_brk, "brk", MEMORY),
    // Waking cannot fail, and after an early wake-up the caller checks again.
    (libc::SYS_futex, "futex", SURE),
    (libc::SYS_nanosleep, "nanosleep", WAITING),
    (libc::SYS_clock_nanosleep, "clock_nanosleep", WAITING),
    (libc::SYS_getrandom, "getrandom", WAITING),
    (libc::SYS_sigaltstack, "sigaltstack", SURE),
    (libc::SYS_rt_sigaction, "rt_sigaction", SURE),
    (libc::SYS_rt_sigprocmask, "rt_sigprocmask", SURE),
    (libc::SYS_rt_sigreturn, "rt_sigreturn", SURE),
    (libc::SYS_set_robust_list, "set_robust_list", SURE),
    (libc::SYS_set_tid_address, "set_tid_address", SURE),
    (libc::SYS_rseq, "rseq", SURE),
    (libc::SYS_prlimit64, "prlimit64", SURE),
    (libc::SYS_prctl, "prctl", SURE),
    (libc::SYS_getpid, "getpid", SURE),
    (libc::SYS_setsid, "setsid", SURE),
    (libc::SYS_chdir, "chdir", LOOKING),
    // Linux before 5.9 does not have it.
    (libc::SYS_close_range, "close_range", &[ENOSYS, ENOMEM, EMFILE]),
    (libc::SYS_kcmp, "kcmp", &[EPERM, ENOSYS]),
    (libc::SYS_gettid, "gettid", SURE),
    (libc::SYS_getppid, "getppid", SURE),
    (libc::SYS_kill, "kill", SURE),
    (libc::SYS_tgkill, "tgkill", SURE),
    (libc::SYS_sched_getaffinity, "sched_getaffinity", SURE),
    (libc::SYS_sched_yield, "sched_yield", SURE),
    (libc::SYS_clock_gettime, "clock_gettime", SURE),
    (libc::SYS_exit, "exit", SURE),
    (libc::SYS_exit_group, "exit_group", SURE),
];

/// Calls that only old architectures have.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD: &[Row] = &[
    (libc::SYS_open, "open", OPENING),
    (libc::SYS_link, "link", NAMING),
    (libc::SYS_symlink, "symlink", NAMING),
    (libc::SYS_mkdir, "mkdir", NAMING),
    (libc::SYS_rename, "rename", NAMING),
    (libc::SYS_unlink, "unlink", REMOVING),
    (libc::SYS_stat, "stat", LOOKING),
    (libc::SYS_lstat, "lstat", LOOKING),
    (libc::SYS_access, "access", LOOKING),
    (libc::SYS_readlink, "readlink", LOOKING),
    (libc::SYS_poll, "poll", &[EINTR, ENOMEM]),
    (libc::SYS_vfork, "vfork", STARTING),
    (libc::SYS_fork, "fork", STARTING),
    (libc::SYS_pipe, "pipe", &[EMFILE, ENFILE]),
    (libc::SYS_dup2, "dup2", &[EINTR, EBUSY]),
    (libc::SYS_arch_prctl, "arch_prctl", SURE),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Row] = &[];

/// The requests to the kernel, and the errors of its refusals. (`RTM_*`, include/uapi/linux/rtnetlink.h)
///
/// For a new link, Linux 6.1 answers EEXIST if the host has a link of that name.
const REQUESTS: &[(u16, &str, &[Errno])] = &[
    (16, "RTM_NEWLINK", &[EBUSY, ENOMEM, ENOBUFS, EEXIST, EPERM, EINVAL, EOPNOTSUPP, EADDRINUSE]),
    (17, "RTM_DELLINK", &[EBUSY, ENOMEM, EPERM]),
    (18, "RTM_GETLINK", &[ENOMEM, ENOBUFS, EBUSY]),
    (19, "RTM_SETLINK", &[EBUSY, ENOMEM, EPERM, EADDRINUSE, EEXIST]),
    (20, "RTM_NEWADDR", &[ENOMEM, ENOBUFS, EADDRINUSE, EACCES, EPERM]),
    (21, "RTM_DELADDR", &[ENOMEM, EBUSY, EPERM]),
    (22, "RTM_GETADDR", &[ENOMEM, ENOBUFS, EBUSY]),
    (24, "RTM_NEWROUTE", &[ENOMEM, ENOBUFS, ENETUNREACH, EEXIST, EPERM]),
    (25, "RTM_DELROUTE", &[ENOMEM, ENOBUFS, EPERM]),
    (26, "RTM_GETROUTE", &[ENOMEM, ENOBUFS, EBUSY]),
    (28, "RTM_NEWNEIGH", &[ENOMEM, ENOBUFS, EPERM]),
    (29, "RTM_DELNEIGH", &[ENOMEM, ENOBUFS, EPERM]),
    (90, "RTM_GETNSID", &[ENOMEM, ENOBUFS, EPERM]),
    (108, "RTM_NEWLINKPROP", &[ENOMEM, EEXIST, EPERM, EOPNOTSUPP]),
];

/// All faults of a step. Panics if the call is in no table.
pub(super) fn faults(step: &Step) -> Vec<Fault> {
    let &(_, name, errnos) = row(step.number);
    let fault = |deed| Fault { step: step.clone(), deed };
    // If close(2) fails, the descriptor is closed nevertheless.
    let fail = |errno: &Errno| if name == "close" { Deed::FailAfter(*errno) } else { Deed::Fail(*errno) };
    let mut faults = vec![fault(Deed::Kill)];
    faults.extend(errnos.iter().map(|errno| fault(fail(errno))));
    for (at, kind) in step.requests.iter().enumerate() {
        let (_, _, errnos) = request(*kind);
        faults.extend(errnos.iter().map(|errno| fault(Deed::Refuse(at, *errno))));
    }
    faults
}

pub(super) fn describe(fault: &Fault) -> String {
    let Fault { step, deed } = fault;
    let name = name(step.number);
    let requests: Vec<_> = step.requests.iter().map(|kind| request(*kind).1).collect();
    let what = match requests.is_empty() {
        true => name.to_owned(),
        false => format!("{name} ({})", requests.join(", ")),
    };
    let at = format!("{what}, number {} of task {}", step.nth, step.task);
    match deed {
        Deed::Kill => format!("killed at {at}"),
        Deed::Hold => format!("held at {at}"),
        Deed::Fail(errno) => format!("{errno:?} from {at}"),
        Deed::FailAfter(errno) => format!("{errno:?} from {at}, after it was done"),
        Deed::Refuse(request, errno) => format!("request {request} refused with {errno:?}, in {at}"),
    }
}

pub(super) fn takes_memory(fault: &Fault) -> bool {
    row(fault.step.number).2 == MEMORY
}

pub(super) fn name(number: i64) -> &'static str {
    row(number).1
}

fn row(number: i64) -> &'static Row {
    let row = ROWS.iter().chain(OLD).find(|row| row.0 == number);
    row.unwrap_or_else(|| {
        panic!("system call {number} is in no table of tests/src/faults/calls.rs: add it with its errors")
    })
}

fn request(kind: u16) -> &'static (u16, &'static str, &'static [Errno]) {
    let row = REQUESTS.iter().find(|row| row.0 == kind);
    row.unwrap_or_else(|| panic!("request {kind} is in no table of tests/src/faults/calls.rs: add it with its errors"))
}
