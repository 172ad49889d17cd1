//! The proof that a network namespace exists nowhere on this machine: a search of every place, by a process that sees
//! every process.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use crate::search::{GO_ON, number, read};
use crate::{Error, Holder, NetnsSearch, Result};

/// The initial PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h): its processes see all others.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The most looks at all places, until no process ends during one.
const LOOKS: usize = 8;

/// Takes out of `candidates`, which are inodes, every network namespace that exists, as far as that can be known: those
/// that are left exist nowhere on this machine.
///
/// A namespace may be handed on during a search: from a place that comes later to one that was looked at already, such as
/// from a thread to a mount, or from a process that ends to its child. So all places are looked at twice at least, and again
/// if a process has ended meanwhile that had not ended in the look before.
///
/// # Errors
///
/// If this process does not see the whole machine, or something could not be looked at, or processes ended in every look.
/// Then nothing is known of the candidates that are left.
pub fn retain_gone(candidates: &mut HashSet<u64>) -> Result<()> {
    let mut before = None;
    for _ in 0..LOOKS {
        let mut search = NetnsSearch::default();
        for place in Holder::EVERY {
            search.walk(place, &mut |inode, _| {
                candidates.remove(&inode);
                if candidates.is_empty() { ControlFlow::Break(()) } else { GO_ON }
            });
            if candidates.is_empty() {
                return Ok(());
            }
            if let Some(missed) = search.missed.take() {
                return Err(missed);
            }
            // The mounts are enough on most machines as long as every container lives.
            if before.is_none() && place == Holder::Mounts {
                sees_whole_machine()?;
            }
        }
        if before.is_some_and(|before| search.vanished.is_subset(&before)) {
            return Ok(());
        }
        before = Some(search.vanished);
    }
    Err(Error::Blind { cause: format!("processes have ended while they were looked at, {LOOKS} times in a row") })
}

/// Fails unless every process of the machine has an entry in /proc.
fn sees_whole_machine() -> Result<()> {
    let failed = |path: &'static str| move |source| Error::Io { operation: format!("look at {path}"), source };
    let blind = |cause: &str| Err(Error::Blind { cause: cause.to_owned() });
    let (proc, own, mountinfo) = ("/proc", "/proc/thread-self/ns/pid", "/proc/thread-self/mountinfo");
    let kind = statfs(proc).map_err(io::Error::from).map_err(failed(proc))?.filesystem_type();
    // It has an entry for this process only if it is of this PID namespace, or of one above it.
    if kind != PROC_SUPER_MAGIC || fs::read_link(own).map_err(failed(own))? != Path::new(INITIAL_PID_NAMESPACE) {
        return blind("this process has a PID namespace of its own, so it does not see every process");
    }
    let mounts = read(mountinfo.as_ref()).map_err(failed(mountinfo))?;
    if mounts.lines().any(hides_processes) {
        return blind("/proc is mounted with hidepid, or parts of it are covered, so it does not show every process");
    }
    Ok(())
}

/// Returns true for a line of mountinfo that is a /proc with hidepid, or that covers a process in /proc.
fn hides_processes(line: &str) -> bool {
    let point = line.split(' ').nth(4).unwrap_or_default();
    let covers = point.strip_prefix("/proc/").and_then(|rest| rest.split('/').next()).and_then(number).is_some();
    // After the separator come the type of the file system, its source and its options.
    let mut rest = line.split(' ').skip_while(|field| *field != "-").skip(1);
    let (kind, options) = (rest.next(), rest.nth(1).unwrap_or_default());
    let hides = |option: &str| option.starts_with("hidepid=") && !matches!(option, "hidepid=0" | "hidepid=off");
    covers || kind == Some("proc") && options.split(',').any(hides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proc_that_does_not_show_every_process_is_known_by_its_mount() {
        let line =
            |point: &str, options: &str| format!("22 27 0:21 / {point} rw,relatime shared:5 - proc proc {options}");
        for (point, options) in [
            ("/proc", "rw,hidepid=2"),
            ("/proc", "rw,gid=7,hidepid=invisible"),
            ("/proc", "rw,hidepid=ptraceable"),
            ("/proc/4242", "rw"),
            ("/proc/4242/fd", "rw"),
        ] {
            assert!(hides_processes(&line(point, options)), "{point} {options}");
        }
        for (point, options) in [
            ("/proc", "rw"),
            ("/proc", "rw,hidepid=off"),
            ("/proc/sys/fs/binfmt_misc", "rw"),
            ("/procs", "rw,subset=pid"),
        ] {
            assert!(!hides_processes(&line(point, options)), "{point} {options}");
        }
        assert!(!hides_processes("30 27 0:9 / /mnt rw - ext4 /dev/hidepid=2 rw"));
    }
}
