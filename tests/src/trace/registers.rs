//! The registers of a stopped task: its system call, and how to make it fail without running it. Only this file
//! depends on the architecture.

use nix::Result;
use nix::sys::ptrace;
use nix::unistd::Pid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `SYS_*` of this architecture.
    pub(super) number: i64,
    pub(super) arguments: [u64; 6],
}

/// The call that the task has just entered.
#[cfg(target_arch = "x86_64")]
pub(super) fn entry(task: Pid) -> Result<Entry> {
    let its = ptrace::getregs(task)?;
    let arguments = [its.rdi, its.rsi, its.rdx, its.r10, its.r8, its.r9];
    Ok(Entry { number: its.orig_rax.cast_signed(), arguments })
}

/// Replaces the call that was just entered by one that does nothing.
#[cfg(target_arch = "x86_64")]
pub(super) fn skip(task: Pid) -> Result<()> {
    let mut its = ptrace::getregs(task)?;
    its.orig_rax = u64::MAX;
    ptrace::setregs(task, its)
}

/// The return value of the call that is being left.
#[cfg(target_arch = "x86_64")]
pub(super) fn returned(task: Pid) -> Result<i64> {
    Ok(ptrace::getregs(task)?.rax.cast_signed())
}

/// Sets the return value of the call that is being left.
#[cfg(target_arch = "x86_64")]
pub(super) fn give_back(task: Pid, _entry: &Entry, value: i64) -> Result<()> {
    let mut its = ptrace::getregs(task)?;
    its.rax = value.cast_unsigned();
    ptrace::setregs(task, its)
}

#[cfg(target_arch = "aarch64")]
pub(super) fn entry(task: Pid) -> Result<Entry> {
    let its = ptrace::getregs(task)?.regs;
    Ok(Entry { number: its[8].cast_signed(), arguments: [its[0], its[1], its[2], its[3], its[4], its[5]] })
}

/// These registers do not change the number of the call, but every call fails with such arguments.
#[cfg(target_arch = "aarch64")]
pub(super) fn skip(task: Pid) -> Result<()> {
    let mut its = ptrace::getregs(task)?;
    its.regs[..6].fill(u64::MAX);
    ptrace::setregs(task, its)
}

#[cfg(target_arch = "aarch64")]
pub(super) fn returned(task: Pid) -> Result<i64> {
    Ok(ptrace::getregs(task)?.regs[0].cast_signed())
}

#[cfg(target_arch = "aarch64")]
pub(super) fn give_back(task: Pid, entry: &Entry, value: i64) -> Result<()> {
    let mut its = ptrace::getregs(task)?;
    its.regs[..6].copy_from_slice(&entry.arguments);
    its.regs[0] = value.cast_unsigned();
    ptrace::setregs(task, its)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod unknown {
    use super::{Entry, Pid, Result};

    const REFUSAL: &str = "tests/src/trace/registers.rs does not know the registers of this architecture";

    pub(in super::super) fn entry(_: Pid) -> Result<Entry> {
        panic!("{REFUSAL}")
    }

    pub(in super::super) fn skip(_: Pid) -> Result<()> {
        panic!("{REFUSAL}")
    }

    pub(in super::super) fn returned(_: Pid) -> Result<i64> {
        panic!("{REFUSAL}")
    }

    pub(in super::super) fn give_back(_: Pid, _: &Entry, _: i64) -> Result<()> {
        panic!("{REFUSAL}")
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use unknown::{entry, give_back, returned, skip};
