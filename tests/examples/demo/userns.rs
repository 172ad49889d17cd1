//! Gives an ordinary user root's rights in a user namespace, so that it can create network namespaces.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Says to the second run of this program that it is the second.
const MARK: &str = "UNDERLAY_DEMO_IN_USERNS";

/// How this process may make network namespaces.
pub(crate) enum Power {
    /// As the machine's root.
    Root,
    /// As root of a user namespace.
    UserNamespace,
}

/// Makes sure that this process can make network namespaces, if need be by starting this
/// program over inside a user namespace. The calling thread ends up in a new, empty network
/// namespace either way: whatever goes wrong later, it is not the machine's that suffers.
pub(crate) fn acquire() -> Result<Power, String> {
    let marked = env::var_os(MARK).is_some();
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) if marked => Ok(Power::UserNamespace),
        Ok(()) => Ok(Power::Root),
        Err(Errno::EPERM) if !marked => Err(start_over()),
        Err(errno) => Err(forbidden("make a network namespace", &errno.to_string())),
    }
}

/// Does not return unless it fails.
fn start_over() -> String {
    let (uid, gid) = (geteuid(), getegid());
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER) {
        return forbidden("make a user namespace", &errno.to_string());
    }
    // The kernel takes a group map from an ordinary user only once setgroups is given up.
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
