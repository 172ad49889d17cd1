//! How many processes a call is, how much memory each takes at its peak, and what becomes of
//! one that is killed half way: by ptrace.
//!
//! Not by wait4: the kernel counts into a child's `ru_maxrss` what its parent had at the time
//! of the fork, and a test process is far larger than a plugin.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::{fs, mem};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::plugin::with_deadline;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The peak resident set (`VmHWM`) of each process that ended, in KiB.
    pub peaks_kib: Vec<u64>,
    /// Threads that were started.
    pub threads: usize,
}

impl Trace {
    /// How many processes there were.
    pub fn processes(&self) -> usize {
        self.peaks_kib.len()
    }
}

/// A process under trace. All of it belongs to the thread that began it.
#[derive(Debug)]
pub(crate) struct Tracer {
    first: Pid,
    trace: Trace,
    kill_at: Option<usize>,
    syscall_stops: usize,
}

/// Starts to trace a child of the calling thread, and all that it will start. With `kill_at` the
/// child is killed the `kill_at`th time that it enters or leaves a system call.
pub(crate) fn trace(pid: Pid, kill_at: Option<usize>) -> Tracer {
    let options = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).unwrap_or_else(|e| panic!("trace a plugin: {e}"));
    if kill_at.is_some() {
        // Only a stopped one can be told to stop at system calls.
        ptrace::interrupt(pid).unwrap_or_else(|e| panic!("stop a plugin: {e}"));
    }
    Tracer { first: pid, trace: Trace::default(), kill_at, syscall_stops: 0 }
}

impl Tracer {
    /// Waits for the end of the first process and of all others.
    pub(crate) fn wait(mut self) -> (ExitStatus, Trace) {
        let pid = self.first.as_raw().cast_unsigned();
        with_deadline(pid, || {
            let mut end = None;
            // Children of this thread only: other tests have their own.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            loop {
                match waitpid(None, Some(flags)) {
                    Ok(WaitStatus::Exited(pid, code)) if pid == self.first => {
                        end = Some(ExitStatus::from_raw(code << 8));
                    }
                    Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.first => {
                        end = Some(ExitStatus::from_raw(signal as i32));
                    }
                    Ok(status) => self.go_on(status),
                    Err(Errno::EINTR) => {}
                    Err(Errno::ECHILD) => break,
                    Err(e) => panic!("wait for a traced plugin: {e}"),
                }
            }
            let trace = mem::take(&mut self.trace);
            (end.expect("the first process ended"), trace)
        })
    }

    fn go_on(&mut self, status: WaitStatus) {
        let (pid, signal) = match status {
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXIT) => {
                self.record_end(pid);
                (pid, None)
            }
            WaitStatus::PtraceSyscall(pid) => {
                self.syscall_stops += 1;
                if self.kill_at == Some(self.syscall_stops) {
                    kill(pid, Signal::SIGKILL).expect("kill a plugin");
                    return;
                }
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, ..) => (pid, None),
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => return,
        };
        // It may have been killed between the stop and now.
        let _ = match self.kill_at {
            Some(_) if pid == self.first => ptrace::syscall(pid, signal),
            _ => ptrace::cont(pid, signal),
        };
    }

    fn record_end(&mut self, task: Pid) {
        let status = fs::read_to_string(format!("/proc/{task}/status")).unwrap_or_default();
        let number = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let group = number("Tgid:").expect("a task that ends has a status");
        if group == u64::from(task.as_raw().cast_unsigned()) {
            self.trace.peaks_kib.push(number("VmHWM:").expect("a task that ends has memory"));
        } else {
            self.trace.threads += 1;
        }
    }
}
