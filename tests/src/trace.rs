//! Traces a call with ptrace: its processes, their peak memory, and its system calls. It can kill the call at one of
//! them, or make one fail.
//!
//! wait4 does not work for memory: `ru_maxrss` of a child includes the memory of its parent at fork time.

mod datagram;
mod registers;
mod steps;

use std::any::Any;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use steps::Steps;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The peak resident set (`VmHWM`) of each process that ended, in KiB.
    pub peaks_kib: Vec<u64>,
    pub threads: usize,
    pub steps: Vec<Step>,
    /// True if the fault happened. Its step does not come in every run.
    pub struck: bool,
    /// True if the process did not end and was killed.
    pub hung: bool,
}

impl Trace {
    pub fn processes(&self) -> usize {
        self.peaks_kib.len()
    }
}

/// One system call of a traced process. In the next run it is identified by its task, its number, and the count of
/// calls of that number in the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `0` is the plugin, `0.1` the first thread or process that it starts, and so on.
    pub task: String,
    /// `SYS_*` of this architecture.
    pub number: i64,
    /// Counts from 1. For the plugin itself, the count starts when it first reads its input.
    pub nth: usize,
    /// The types of the netlink requests that it sends. (`RTM_*`)
    pub requests: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The process is killed as it enters the call.
    Kill,
    /// The process is stopped as it enters the call. See [`crate::Call::run_held_at`].
    Hold,
    /// The call is not made and returns this error.
    Fail(Errno),
    /// The call is made, but returns this error.
    FailAfter(Errno),
    /// The kernel refuses the request of this index with this error.
    Refuse(usize, Errno),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub step: Step,
    pub deed: Deed,
}

pub(crate) enum Watch<'a> {
    /// Only processes and memory.
    Cost,
    /// The process is killed at this stop. Each system call has two stops: entry and exit.
    KillAt(usize),
    /// The system calls of the process and its children. There may be a fault.
    Steps(Option<Fault>),
    /// The process is stopped at this step, and the function runs.
    Hold(Step, Box<dyn FnOnce() + Send + 'a>),
}

/// A process under trace. Only the thread that started the trace can use it.
pub(crate) struct Tracer<'a> {
    first: Pid,
    trace: Trace,
    kill_at: Option<usize>,
    syscall_stops: usize,
    steps: Option<Steps>,
    meanwhile: Option<Box<dyn FnOnce() + Send + 'a>>,
    /// A panic of `meanwhile`. The call must continue first, because only the tracer can resume a stopped task.
    panicked: Option<Box<dyn Any + Send>>,
    /// The tasks that live. They are killed at the deadline.
    living: Arc<Mutex<BTreeSet<Pid>>>,
}

/// Starts to trace a child of the calling thread, and the processes that it will start.
pub(crate) fn trace(pid: Pid, watch: Watch<'_>) -> Tracer<'_> {
    let options = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).unwrap_or_else(|e| panic!("trace a plugin: {e}"));
    let (kill_at, steps, meanwhile) = match watch {
        Watch::Cost => (None, None, None),
        Watch::KillAt(stop) => (Some(stop), None, None),
        Watch::Steps(fault) => (None, Some(Steps::new(pid, fault)), None),
        Watch::Hold(step, deed) => {
            let fault = Fault { step, deed: Deed::Hold };
            (None, Some(Steps::new(pid, Some(fault))), Some(deed))
        }
    };
    if kill_at.is_some() || steps.is_some() {
        // Only a stopped task can be told to stop at system calls.
        ptrace::interrupt(pid).unwrap_or_else(|e| panic!("stop a plugin: {e}"));
    }
    let living = Arc::new(Mutex::new(BTreeSet::from([pid])));
    let trace = Trace::default();
    Tracer { first: pid, trace, kill_at, syscall_stops: 0, steps, meanwhile, panicked: None, living }
}

impl Tracer<'_> {
    /// Waits for the end of all processes. Kills them at the deadline.
    pub(crate) fn wait(mut self, deadline: Duration) -> (ExitStatus, Trace) {
        let (done, watched) = mpsc::channel::<()>();
        let living = Arc::clone(&self.living);
        let (end, hung) = thread::scope(|scope| {
            let watch = scope.spawn(move || {
                let late = watched.recv_timeout(deadline) == Err(mpsc::RecvTimeoutError::Timeout);
                if late {
                    for task in living.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                        let _ = kill(*task, Signal::SIGKILL);
                    }
                }
                late
            });
            let end = self.wait_for_all();
            drop(done);
            (end, watch.join().expect("watch the clock"))
        });
        if let Some(panicked) = self.panicked {
            panic::resume_unwind(panicked);
        }
        self.trace.hung = hung;
        if let Some(steps) = self.steps {
            (self.trace.steps, self.trace.struck) = steps.end();
        }
        (end, self.trace)
    }

    fn wait_for_all(&mut self) -> ExitStatus {
        let mut end = None;
        // Children of this thread only: other tests have their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    self.forget(pid);
                    end = if pid == self.first { Some(ExitStatus::from_raw(code << 8)) } else { end };
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.forget(pid);
                    end = if pid == self.first { Some(ExitStatus::from_raw(signal as i32)) } else { end };
                }
                Ok(status) => self.go_on(status),
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => break,
                Err(e) => panic!("wait for a traced plugin: {e}"),
            }
        }
        end.expect("the first process ended")
    }

    fn living(&self) -> std::sync::MutexGuard<'_, BTreeSet<Pid>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&mut self, task: Pid) {
        self.living().remove(&task);
        if let Some(steps) = &mut self.steps {
            steps.forget(task);
        }
    }

    fn go_on(&mut self, status: WaitStatus) {
        let (pid, signal) = match status {
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXIT) => {
                self.record_end(pid);
                (pid, None)
            }
            WaitStatus::PtraceSyscall(pid) => {
                self.syscall_stops += 1;
                let deed = self.steps.as_mut().and_then(|steps| steps.stop(pid));
                if let Some(meanwhile) = self.meanwhile.take_if(|_| deed == Some(Deed::Hold)) {
                    self.panicked = panic::catch_unwind(AssertUnwindSafe(meanwhile)).err();
                }
                if deed == Some(Deed::Kill) || self.kill_at == Some(self.syscall_stops) {
                    kill(pid, Signal::SIGKILL).expect("kill a plugin");
                    return;
                }
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if let Some(steps) = &mut self.steps {
                    if matches!(event, libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK) {
                        steps.start(pid);
                    }
                    if !steps.knows(pid) {
                        // Its parent has not reported it yet.
                        steps.wait_for_parent(pid);
                        self.living().insert(pid);
                        return;
                    }
                }
                self.living().insert(pid);
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => return,
        };
        self.resume(pid, signal);
        let early = self.steps.as_mut().and_then(Steps::early);
        if let Some(child) = early {
            self.resume(child, None);
        }
    }

    fn resume(&self, task: Pid, signal: Option<Signal>) {
        // The task may have been killed since it stopped.
        let _ = match (&self.steps, self.kill_at) {
            (Some(_), _) => ptrace::syscall(task, signal),
            (None, Some(_)) if task == self.first => ptrace::syscall(task, signal),
            _ => ptrace::cont(task, signal),
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
