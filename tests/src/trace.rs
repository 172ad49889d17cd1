//! Traces a call with ptrace: its processes, their peak memory, its system calls. It can kill the call at one of them,
//! or make one fail.
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

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The peak resident set (`VmHWM`) of each process that ended, in KiB.
    pub peaks_kib: Vec<u64>,
    /// Threads that were started.
    pub threads: usize,
    /// The system calls, where they were watched.
    pub steps: Vec<Step>,
    /// Whether the fault happened: its step may not come in every run.
    pub struck: bool,
    /// Whether the process had to be killed because it did not end.
    pub hung: bool,
}

impl Trace {
    /// How many processes there were.
    pub fn processes(&self) -> usize {
        self.peaks_kib.len()
    }
}

/// One system call of a traced process, known again in the next run by its task, its number and how many of that number
/// the task had made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `0` is the plugin, `0.1` the first thread or process that it starts, and so on.
    pub task: String,
    /// `SYS_*` of this architecture.
    pub number: i64,
    /// From 1. Of the plugin's own those count that it makes from the first read of its input on.
    pub nth: usize,
    /// The types of the netlink requests that it sends. (`RTM_*`)
    pub requests: Vec<u16>,
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The process is killed as it enters the call.
    Kill,
    /// It is held as it enters the call, while something else happens. ([`crate::Call::run_held_at`])
    Hold,
    /// The call is not made, and returns this.
    Fail(Errno),
    /// The call is made, and returns this all the same.
    FailAfter(Errno),
    /// The kernel refuses that request of those that the call sends: its answer carries the number.
    Refuse(usize, Errno),
}

/// Something that goes wrong in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub step: Step,
    /// What.
    pub deed: Deed,
}

/// How closely a process is watched.
pub(crate) enum Watch<'a> {
    /// What it costs.
    Cost,
    /// It is killed that manieth time that it enters or leaves a system call.
    KillAt(usize),
    /// All system calls, of all that it starts as well; one may go wrong.
    Steps(Option<Fault>),
    /// It is held at this step, while that happens.
    Hold(Step, Box<dyn FnOnce() + Send + 'a>),
}

/// A process under trace. All of it belongs to the thread that began it.
pub(crate) struct Tracer<'a> {
    first: Pid,
    trace: Trace,
    kill_at: Option<usize>,
    syscall_stops: usize,
    steps: Option<Steps>,
    meanwhile: Option<Box<dyn FnOnce() + Send + 'a>>,
    /// What panicked meanwhile. The call goes on all the same: nobody else lets go of a task that has stopped.
    panicked: Option<Box<dyn Any + Send>>,
    /// Those that live, for who ends them at the deadline.
    living: Arc<Mutex<BTreeSet<Pid>>>,
}

/// Starts to trace a child of the calling thread, and all that it will start.
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
        // Only a stopped one can be told to stop at system calls.
        ptrace::interrupt(pid).unwrap_or_else(|e| panic!("stop a plugin: {e}"));
    }
    let living = Arc::new(Mutex::new(BTreeSet::from([pid])));
    let trace = Trace::default();
    Tracer { first: pid, trace, kill_at, syscall_stops: 0, steps, meanwhile, panicked: None, living }
}

impl Tracer<'_> {
    /// Waits for the end of the first process and of all others; kills them all at the deadline.
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
                        // It has stopped for the first time before its parent has told of it.
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
        // It may have been killed between the stop and now.
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
