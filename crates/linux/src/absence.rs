//! Proves that a network namespace exists nowhere on this machine: searches every holder. Only a process that sees
//! every process can do so.

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

/// At most so many searches, until no process ends during one.
const LOOKS: usize = 8;

/// Removes every existing network namespace from `candidates`, which are inodes. Those that are left exist nowhere on
/// this machine.
///
/// During a search, a namespace can move from a place that is searched later to one that was searched before: from a
/// thread to a mount, or from a process that ends to its child. So all places are searched at least twice, and again if
/// another process has ended since the previous search.
///
/// # Errors
///
/// `Blind` if this process does not see the whole machine, or if processes ended during every search. `Io` if something
/// cannot be read. After an error, the candidates that are left may exist.
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
            // If every container lives, the mounts show them all on most machines. So this check comes after the
            // mounts.
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
    // /proc has an entry for this process only if it belongs to this PID namespace or to one above it.
    if kind != PROC_SUPER_MAGIC || fs::read_link(own).map_err(failed(own))? != Path::new(INITIAL_PID_NAMESPACE) {
        return blind("this process has a PID namespace of its own, so it does not see every process");
    }
    let mounts = read(mountinfo.as_ref()).map_err(failed(mountinfo))?;
    if mounts.lines().any(hides_processes) {
        return blind("/proc is mounted with hidepid, or parts of it are covered, so it does not show every process");
    }
    Ok(())
}

/// Returns true if a line of mountinfo is a /proc with hidepid, or a mount over a process in /proc.
fn hides_processes(line: &str) -> bool {
    let point = line.split(' ').nth(4).unwrap_or_default();
    let covers = point.strip_prefix("/proc/").and_then(|rest| rest.split('/').next()).and_then(number).is_some();
    // After the separator: the type of the file system, its source, its options.
    let mut rest = line.split(' ').skip_while(|field| *field != "-").skip(1);
    let (kind, options) = (rest.next(), rest.nth(1).unwrap_or_default());
    let hides = |option: &str| option.starts_with("hidepid=") && !matches!(option, "hidepid=0" | "hidepid=off");
    covers || kind == Some("proc") && options.split(',').any(hides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_proc_shows_whether_it_hides_processes() {
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
