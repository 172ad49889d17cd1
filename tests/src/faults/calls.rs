//! Which system call can fail with what: the errors that its manual page names and that can befall a plugin which asks
//! for nothing wrong. A file that is suddenly not there, or a kernel that says "gone" of what it still has, would be a
//! lie, and no fault.

use nix::errno::Errno;
use nix::libc;

use crate::trace::{Deed, Fault, Step};

/// A call: its number, its name, and its errors.
type Row = (i64, &'static str, &'static [Errno]);

/// Nothing can go wrong with them, or nothing that a program can be told.
const SURE: &[Errno] = &[];
const OPENING: &[Errno] = &[
    Errno::EIO,
    Errno::ENOSPC,
    Errno::EROFS,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOMEM,
    Errno::EINTR,
    Errno::EACCES,
];
const READING: &[Errno] = &[Errno::EIO, Errno::EINTR, Errno::ENOMEM];
const WRITING: &[Errno] = &[Errno::EIO, Errno::ENOSPC, Errno::EDQUOT, Errno::EINTR, Errno::EPIPE];
const NAMING: &[Errno] = &[Errno::EIO, Errno::ENOSPC, Errno::EDQUOT, Errno::EROFS, Errno::ENOMEM, Errno::EACCES];
const REMOVING: &[Errno] = &[Errno::EIO, Errno::EROFS, Errno::EBUSY, Errno::ENOMEM, Errno::EACCES];
const LOOKING: &[Errno] = &[Errno::EIO, Errno::ENOMEM, Errno::EACCES];
const SENDING: &[Errno] = &[Errno::ENOBUFS, Errno::ENOMEM, Errno::EINTR, Errno::EAGAIN];
const DESCRIPTORS: &[Errno] = &[Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM];
const STARTING: &[Errno] = &[Errno::EAGAIN, Errno::ENOMEM];
const MEMORY: &[Errno] = &[Errno::ENOMEM];
const WAITING: &[Errno] = &[Errno::EINTR];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    (libc::SYS_openat, "openat", OPENING),
    (libc::SYS_read, "read", READING),
    (libc::SYS_pread64, "pread64", READING),
    (libc::SYS_readv, "readv", READING),
    (libc::SYS_write, "write", WRITING),
    (libc::SYS_pwrite64, "pwrite64", WRITING),
    (libc::SYS_writev, "writev", WRITING),
    (libc::SYS_close, "close", &[Errno::EIO, Errno::EINTR]),
    (libc::SYS_fsync, "fsync", &[Errno::EIO, Errno::ENOSPC]),
    (libc::SYS_fdatasync, "fdatasync", &[Errno::EIO, Errno::ENOSPC]),
    (libc::SYS_ftruncate, "ftruncate", &[Errno::EIO, Errno::ENOSPC, Errno::EINTR]),
    (libc::SYS_lseek, "lseek", SURE),
    (libc::SYS_linkat, "linkat", NAMING),
    (libc::SYS_symlinkat, "symlinkat", NAMING),
    (libc::SYS_mkdirat, "mkdirat", NAMING),
    (libc::SYS_renameat, "renameat", NAMING),
    (libc::SYS_renameat2, "renameat2", NAMING),
    (libc::SYS_unlinkat, "unlinkat", REMOVING),
    (libc::SYS_utimensat, "utimensat", &[Errno::EIO, Errno::EROFS, Errno::EACCES]),
    (libc::SYS_newfstatat, "newfstatat", LOOKING),
    (libc::SYS_statx, "statx", LOOKING),
    (libc::SYS_fstat, "fstat", &[Errno::EIO, Errno::ENOMEM]),
    (libc::SYS_fstatfs, "fstatfs", &[Errno::EIO, Errno::ENOMEM, Errno::EINTR]),
    (libc::SYS_faccessat, "faccessat", LOOKING),
    (libc::SYS_readlinkat, "readlinkat", LOOKING),
    (libc::SYS_getdents64, "getdents64", &[Errno::EIO, Errno::ENOMEM]),
    (libc::SYS_flock, "flock", &[Errno::EINTR, Errno::ENOLCK, Errno::EIO]),
    (libc::SYS_fcntl, "fcntl", &[Errno::EMFILE]),
    (libc::SYS_ioctl, "ioctl", &[Errno::EIO, Errno::ENOMEM]),
    (libc::SYS_socket, "socket", &[Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM]),
    (libc::SYS_socketpair, "socketpair", DESCRIPTORS),
    (libc::SYS_bind, "bind", &[Errno::ENOMEM, Errno::EADDRINUSE]),
    (libc::SYS_getsockname, "getsockname", &[Errno::ENOBUFS, Errno::ENOMEM]),
    (libc::SYS_setsockopt, "setsockopt", &[Errno::ENOMEM, Errno::ENOBUFS, Errno::ENOPROTOOPT]),
    (libc::SYS_getsockopt, "getsockopt", &[Errno::ENOMEM, Errno::ENOBUFS]),
    (libc::SYS_sendto, "sendto", SENDING),
    (libc::SYS_sendmsg, "sendmsg", SENDING),
    (libc::SYS_recvfrom, "recvfrom", SENDING),
    (libc::SYS_recvmsg, "recvmsg", SENDING),
    (libc::SYS_ppoll, "ppoll", &[Errno::EINTR, Errno::ENOMEM]),
    (libc::SYS_setns, "setns", &[Errno::ENOMEM, Errno::EPERM]),
    (libc::SYS_unshare, "unshare", &[Errno::ENOMEM, Errno::EPERM]),
    (libc::SYS_clone, "clone", STARTING),
    (libc::SYS_clone3, "clone3", STARTING),
    (libc::SYS_execve, "execve", &[Errno::EIO, Errno::ENOMEM, Errno::ETXTBSY, Errno::EACCES]),
    (libc::SYS_wait4, "wait4", WAITING),
    (libc::SYS_waitid, "waitid", WAITING),
    (libc::SYS_pidfd_open, "pidfd_open", DESCRIPTORS),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal", SURE),
    (libc::SYS_pipe2, "pipe2", &[Errno::EMFILE, Errno::ENFILE]),
    (libc::SYS_dup, "dup", &[Errno::EMFILE]),
    (libc::SYS_dup3, "dup3", &[Errno::EINTR, Errno::EBUSY]),
    (libc::SYS_mmap, "mmap", MEMORY),
    (libc::SYS_mremap, "mremap", MEMORY),
    (libc::SYS_mprotect, "mprotect", MEMORY),
    (libc::SYS_munmap, "munmap", MEMORY),
    (libc::SYS_madvise, "madvise", MEMORY),
    (libc::SYS_brk, "brk", MEMORY),
    // To wake somebody cannot fail, and who wakes too early looks again.
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

/// Those that only old architectures have.
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
    (libc::SYS_poll, "poll", &[Errno::EINTR, Errno::ENOMEM]),
    (libc::SYS_vfork, "vfork", STARTING),
    (libc::SYS_fork, "fork", STARTING),
    (libc::SYS_pipe, "pipe", &[Errno::EMFILE, Errno::ENFILE]),
    (libc::SYS_dup2, "dup2", &[Errno::EINTR, Errno::EBUSY]),
    (libc::SYS_arch_prctl, "arch_prctl", SURE),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Row] = &[];

/// `RTM_*`: what is asked of the kernel, and with what it may refuse. (include/uapi/linux/rtnetlink.h)
///
/// EEXIST of a new link is how Linux 6.1 says that the host has one of that name.
const REQUESTS: &[(u16, &str, &[Errno])] = &[
    (
        16,
        "RTM_NEWLINK",
        &[
            Errno::EBUSY,
            Errno::ENOMEM,
            Errno::ENOBUFS,
            Errno::EEXIST,
            Errno::EPERM,
            Errno::EINVAL,
            Errno::EOPNOTSUPP,
            Errno::EADDRINUSE,
        ],
    ),
    (17, "RTM_DELLINK", &[Errno::EBUSY, Errno::ENOMEM, Errno::EPERM]),
    (18, "RTM_GETLINK", &[Errno::ENOMEM, Errno::ENOBUFS, Errno::EBUSY]),
    (19, "RTM_SETLINK", &[Errno::EBUSY, Errno::ENOMEM, Errno::EPERM, Errno::EADDRINUSE, Errno::EEXIST]),
    (20, "RTM_NEWADDR", &[Errno::ENOMEM, Errno::ENOBUFS, Errno::EADDRINUSE, Errno::EACCES, Errno::EPERM]),
    (21, "RTM_DELADDR", &[Errno::ENOMEM, Errno::EBUSY, Errno::EPERM]),
    (22, "RTM_GETADDR", &[Errno::ENOMEM, Errno::ENOBUFS, Errno::EBUSY]),
    (24, "RTM_NEWROUTE", &[Errno::ENOMEM, Errno::ENOBUFS, Errno::ENETUNREACH, Errno::EEXIST, Errno::EPERM]),
    (26, "RTM_GETROUTE", &[Errno::ENOMEM, Errno::ENOBUFS, Errno::EBUSY]),
    (90, "RTM_GETNSID", &[Errno::ENOMEM, Errno::ENOBUFS, Errno::EPERM]),
];

/// Everything that can go wrong at a step.
///
/// # Panics
///
/// Over a call that is in no table: somebody has to say how it can fail.
pub(super) fn faults(step: &Step) -> Vec<Fault> {
    let &(_, name, errnos) = row(step.number);
    let fault = |deed| Fault { step: step.clone(), deed };
    // A descriptor is closed also when close(2) says that something went wrong.
    let fail = |errno: &Errno| if name == "close" { Deed::FailAfter(*errno) } else { Deed::Fail(*errno) };
    let mut faults = vec![fault(Deed::Kill)];
    faults.extend(errnos.iter().map(|errno| fault(fail(errno))));
    for (at, kind) in step.requests.iter().enumerate() {
        let (_, _, errnos) = request(*kind);
        faults.extend(errnos.iter().map(|errno| fault(Deed::Refuse(at, *errno))));
    }
    faults
}

/// The fault in words.
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

/// Whether the fault takes memory from the process.
pub(super) fn takes_memory(fault: &Fault) -> bool {
    row(fault.step.number).2 == MEMORY
}

/// The name of a call.
pub(super) fn name(number: i64) -> &'static str {
    row(number).1
}

fn row(number: i64) -> &'static Row {
    let row = ROWS.iter().chain(OLD).find(|row| row.0 == number);
    row.unwrap_or_else(|| panic!("system call {number} is in no table of tests/src/faults/calls.rs: how can it fail?"))
}

fn request(kind: u16) -> &'static (u16, &'static str, &'static [Errno]) {
    let row = REQUESTS.iter().find(|row| row.0 == kind);
    row.unwrap_or_else(|| panic!("request {kind} is in no table of tests/src/faults/calls.rs: how can it be refused?"))
}
