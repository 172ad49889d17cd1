//! Temporary network namespaces, and the program `ip` to check their content.

use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use linux::{LinkKind, Mac, MacvlanMode, Netns, NewLink, Rtnl};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a new thread in a new network namespace.
pub(crate) fn sandboxed(test: impl FnOnce() + Send + 'static) {
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root");
        test();
    };
    if let Err(panic) = thread::spawn(inside).join() {
        resume_unwind(panic);
    }
}

/// As [`sandboxed`], with a socket and the ifindex of a [`nic`].
pub(crate) fn with_nic(test: impl FnOnce(&mut Rtnl, u32) + Send + 'static) {
    sandboxed(|| {
        let nic = nic();
        test(&mut Rtnl::open().expect("socket"), nic);
    });
}

/// Another empty network namespace, which lives as long as the value.
pub(crate) fn another_netns() -> Netns {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
        Netns::current().expect("open the new namespace")
    };
    thread::spawn(make).join().expect("namespace thread")
}

/// Runs `ip` in the namespace of the calling thread. Returns its stdout.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("run ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text from ip")
}

/// Creates a veth pair `nic0` and `wire0`, both up. Returns the ifindex of `nic0`.
pub(crate) fn nic() -> u32 {
    ip("link add nic0 address 02:00:00:00:00:10 type veth peer name wire0");
    ip("link set nic0 up");
    ip("link set wire0 up");
    ifindex(&mut Rtnl::open().expect("socket"), "nic0")
}

pub(crate) fn ifindex(rtnl: &mut Rtnl, name: &str) -> u32 {
    rtnl.link(name).expect("find link").unwrap_or_else(|| panic!("no link {name}")).ifindex
}

/// A macvlan link in bridge mode with defaults for everything else.
pub(crate) fn macvlan(name: &str, parent: u32) -> NewLink<'_> {
    NewLink {
        name,
        kind: LinkKind::Macvlan { mode: MacvlanMode::Bridge, bcqueuelen: None },
        parent,
        mtu: None,
        mac: None,
        group: 0,
        arp: true,
        netns: None,
    }
}

pub(crate) fn mac(text: &str) -> Mac {
    text.parse().expect("hardware address")
}
