//! Gives an ordinary user root's rights in a user namespace, so that it can create network namespaces.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Is set in the second run of this program.
const MARK: &str = "UNDERLAY_DEMO_IN_USERNS";

/// The rights of this process.
pub(crate) enum Power {
    /// Root of the machine.
    Root,
    /// Root of a user namespace.
    UserNamespace,
}

/// Moves the calling thread into a new network namespace, so that no mistake can change the network of the machine. If
/// that is not permitted, starts this program again in a user namespace.
pub(crate) fn acquire() -> Result<Power, String> {
    let marked = env::var_os(MARK).is_some();
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) if marked => Ok(Power::UserNamespace),
        Ok(()) => Ok(Power::Root),
        Err(Errno::EPERM) if !marked => Err(start_over()),
        Err(errno) => Err(forbidden("make a network namespace", &errno.to_string())),
    }
}

/// Returns only an error.
fn start_over() -> String {
    let (uid, gid) = (geteuid(), getegid());
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER) {
        return forbidden("make a user namespace", &errno.to_string());
    }
    // An ordinary user can write a group map only after setgroups is denied.
    let maps = [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))];
    for (file, text) in maps {
        let path = format!("/proc/self/{file}");
        if let Err(e) = fs::write(&path, text) {
            return forbidden(&format!("write {path}"), &e.to_string());
        }
    }
    let error = Command::new("/proc/self/exe").env(MARK, "1").exec();
    format!("start over inside the user namespace: {error}")
}

fn forbidden(what: &str, why: &str) -> String {
    format!(
        "{what}: {why}\n\
         This machine does not let an ordinary user make network namespaces. Either run the demo \
         as root\n\
         (sudo make demo), or allow it until the next boot with whichever of these the machine \
         knows:\n\
         \x20   sudo sysctl user.max_user_namespaces=10000\n\
         \x20   sudo sysctl kernel.unprivileged_userns_clone=1\n\
         \x20   sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    )
}
