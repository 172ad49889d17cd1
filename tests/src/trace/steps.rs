//! Identifies the system calls of a traced process and its children, so that the same call is found in the next run.

use std::collections::HashMap;
use std::fs;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::datagram::{self, Refused};
use super::registers::{self, Entry};
use super::{Deed, Fault, Step};

/// `ERESTARTSYS` to `ERESTART_RESTARTBLOCK`: a signal came, and the kernel will restart the call.
/// (include/linux/errno.h)
const RESTARTS: std::ops::RangeInclusive<i64> = -516..=-512;

#[derive(Debug)]
pub(super) struct Steps {
    tasks: HashMap<Pid, Task>,
    early: Vec<Pid>,
    fault: Option<Fault>,
    struck: bool,
    refused: Option<Refused>,
    seen: Vec<Step>,
}

#[derive(Debug, Default)]
struct Task {
    name: String,
    children: usize,
    /// The call that it is in, and the action at its exit.
    inside: Option<(Entry, AtExit)>,
    counts: HashMap<i64, usize>,
    counting: bool,
    restarting: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
enum AtExit {
    Nothing,
    Return(Errno),
    Restore,
}

impl Steps {
    pub(super) fn new(first: Pid, fault: Option<Fault>) -> Self {
        let task = Task { name: "0".to_owned(), ..Task::default() };
        let tasks = HashMap::from([(first, task)]);
        Self { tasks, early: Vec::new(), fault, struck: false, refused: None, seen: Vec::new() }
    }

    /// All steps, and true if the fault happened.
    pub(super) fn end(self) -> (Vec<Step>, bool) {
        (self.seen, self.struck)
    }

    pub(super) fn knows(&self, task: Pid) -> bool {
        self.tasks.contains_key(&task)
    }

    pub(super) fn wait_for_parent(&mut self, task: Pid) {
        self.early.push(task);
    }

    /// An early task whose parent has reported it by now.
    pub(super) fn early(&mut self) -> Option<Pid> {
        let at = self.early.iter().position(|task| self.tasks.contains_key(task))?;
        Some(self.early.swap_remove(at))
    }

    /// A task has started another.
    pub(super) fn start(&mut self, parent: Pid) {
        let Ok(child) = ptrace::getevent(parent) else { return };
        let Some(its) = self.tasks.get_mut(&parent) else { return };
        its.children += 1;
        let name = format!("{}.{}", its.name, its.children);
        self.tasks.insert(Pid::from_raw(child as i32), Task { name, counting: true, ..Task::default() });
    }

    pub(super) fn forget(&mut self, task: Pid) {
        self.tasks.remove(&task);
    }

    /// A task enters or leaves a call. Returns the deed, if the call is the step of the fault.
    pub(super) fn stop(&mut self, pid: Pid) -> Option<Deed> {
        match self.tasks.get_mut(&pid)?.inside.take() {
            Some((entry, at_exit)) => {
                self.leave(pid, entry, at_exit);
                None
            }
            None => self.enter(pid),
        }
    }

    /// Registers and memory cannot be read only if the task was killed meanwhile. Then nothing is to be done.
    fn enter(&mut self, pid: Pid) -> Option<Deed> {
        let (Ok(entry), Some(task)) = (registers::entry(pid), self.tasks.get_mut(&pid)) else { return None };
        task.inside = Some((entry, AtExit::Nothing));
        let restarted = task.restarting.take() == Some(entry.number) || entry.number == libc::SYS_restart_syscall;
        task.counting = task.counting || reads_input(pid, &entry);
        if !task.counting || restarted {
            return None;
        }
        let nth = task.counts.entry(entry.number).or_default();
        *nth += 1;
        let sends = datagram::sends(entry.number);
        let requests = if sends { datagram::requests(pid, &entry) } else { Vec::new() };
        let step = Step { task: task.name.clone(), number: entry.number, nth: *nth, requests };
        let is_it = |fault: &&Fault| {
            (&fault.step.task, fault.step.number, fault.step.nth) == (&step.task, step.number, step.nth)
        };
        let deed = self.fault.as_ref().filter(is_it).map(|fault| fault.deed);
        self.seen.push(step);
        let deed = deed?;
        let at_exit = match deed {
            Deed::Kill | Deed::Hold => AtExit::Nothing,
            Deed::Fail(errno) => match registers::skip(pid) {
                Ok(()) => AtExit::Return(errno),
                Err(_) => return None,
            },
            Deed::FailAfter(errno) => AtExit::Return(errno),
            Deed::Refuse(request, errno) => match datagram::spoil(pid, &entry, request, errno) {
                Ok(refused) => {
                    self.refused = Some(refused);
                    AtExit::Restore
                }
                Err(_) => return None,
            },
        };
        self.struck = true;
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.inside = Some((entry, at_exit));
        }
        Some(deed)
    }

    fn leave(&mut self, pid: Pid, entry: Entry, at_exit: AtExit) {
        let Ok(value) = registers::returned(pid) else { return };
        let refused = self.refused.as_ref();
        // As above, an error means that the task is gone.
        let _ = match at_exit {
            AtExit::Return(errno) => registers::give_back(pid, &entry, -i64::from(errno as i32)).map_err(Into::into),
            AtExit::Restore => refused.map_or(Ok(()), |refused| refused.restore(pid)),
            AtExit::Nothing if datagram::receives(entry.number) => {
                refused.map_or(Ok(()), |refused| refused.answer(pid, &entry, value))
            }
            AtExit::Nothing => Ok(()),
        };
        if let Some(task) = self.tasks.get_mut(&pid)
            && matches!(at_exit, AtExit::Nothing)
            && RESTARTS.contains(&value)
        {
            task.restarting = Some(entry.number);
        }
    }
}

fn reads_input(task: Pid, entry: &Entry) -> bool {
    let file = |descriptor: u64| fs::read_link(format!("/proc/{task}/fd/{descriptor}")).ok();
    let reads = matches!(entry.number, libc::SYS_read | libc::SYS_readv);
    reads && file(0).is_some_and(|input| file(entry.arguments[0]) == Some(input))
}
