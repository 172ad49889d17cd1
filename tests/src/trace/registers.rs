//! The registers of a stopped task: its system call, and how to make it fail without running it. Only this file
//! depends on the architecture.

use nix::Result;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// A system call, as it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number on this architecture. (`SYS_*`)
    pub(super) number: i64,
    /// What it was given.
    pub(super) arguments: [u64; 6],
}

/// The call that a task has just entered.
#[cfg(target_arch = "x86_64")]
pub(super) fn entry(task: Pid) -> Result<Entry> {
    let its = ptrace::getregs(task)?;
    let arguments = [its.rdi, its.rsi, its.rdx, its.r10, its.r8, its.r9];
    Ok(Entry { number: its.orig_rax.cast_signed(), arguments })
}

/// Lets the call that was just entered do nothing.
#[cfg(target_arch = "x86_64")]
pub(super) fn skip(task: Pid) -> Result<()> {
    let mut its = ptrace::getregs(task)?;
    its.orig_rax = u64::MAX;
    ptrace::setregs(task, its)
}

/// What the call that is just being left returns.
#[cfg(target_arch = "x86_64")]
pub(super) fn returned(task: Pid) -> Result<i64> {
    Ok(ptrace::getregs(task)?.rax.cast_signed())
}

/// Lets the call that is just being left return something else.
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

/// The number cannot be changed by these registers, but no call does anything with such arguments.
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

    const REFUSAL: &str = "no system call can be told from another here: tests/src/trace/registers.rs does not know the \
                           registers of this architecture";

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
