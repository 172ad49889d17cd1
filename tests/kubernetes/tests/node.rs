//! Tests of the library itself: nodes do not share state, and nothing of them is left after a test.

use std::fs;
use std::path::Path;

use e2e::patience::{PATIENCE, await_within};
use e2e::{Binaries, Lab};
use kubernetes::Node;
use kubernetes::containerd::is_alive;
use nix::unistd::Pid;

/// The initial PID namespace. (PROC_PID_INIT_INO in include/linux/proc_ns.h)
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Sysctls of the whole machine that a kubelet sets.
const SYSCTLS: [&str; 2] = ["kernel/panic", "vm/overcommit_memory"];

/// All control groups of the machine whose names contain a text.
fn groups(name: &str) -> Vec<String> {
    let trees = fs::read_dir("/sys/fs/cgroup").expect("control groups are mounted").flatten();
    let trees = trees.map(|tree| tree.path()).chain([Path::new("/sys/fs/cgroup").to_owned()]);
    let entries = trees.flat_map(|tree| fs::read_dir(tree).into_iter().flatten().flatten());
    entries.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(name)).collect()
}

#[test]
fn after_a_test_no_process_mount_or_control_group_of_its_node_is_left() {
    let lab = Lab::new(Binaries::HardLinks);
    let directory = lab.path("");
    let name = directory.file_name().expect("a Lab's directory has a name").to_string_lossy().into_owned();
    let node = Node::new("node1", lab.machine(11), &lab.path("node1"));
    let orphan = "setsid sleep 86400 & echo $! >/run/orphan; exec sleep 86400";
    let daemon = node.spawn("daemon", &[], &["sh", "-c", orphan]);
    let orphan = await_within(PATIENCE, "the orphan has started", || {
        let text = fs::read_to_string(node.see("/run/orphan")).map_err(|e| e.to_string())?;
        text.trim().parse().map(Pid::from_raw).map_err(|e| format!("{text:?}: {e}"))
    });
    assert!(is_alive(daemon) && is_alive(orphan));
    assert!(!groups(&name).is_empty());
    drop(node);
    assert!(!is_alive(daemon) && !is_alive(orphan));
    assert_eq!(groups(&name), [""; 0]);
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
    assert!(!mounts.contains(&name), "{mounts}");
}

#[test]
fn a_node_has_its_own_files_and_sees_the_processes_of_the_machine() {
    let lab = Lab::new(Binaries::HardLinks);
    let sysctls = || SYSCTLS.map(|key| fs::read_to_string(Path::new("/proc/sys").join(key)).expect("read a sysctl"));
    let before = sysctls();
    let nodes = [("node1", 11), ("node2", 12)].map(|(name, last)| Node::new(name, lab.machine(last), &lab.path(name)));
    let read = |node: &Node, path: &str| node.run(&["cat", path]);
    for path in ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"] {
        assert_ne!(read(&nodes[0], path), read(&nodes[1], path), "{path}");
    }
    for node in &nodes {
        assert_eq!(node.run(&["hostname"]).trim(), node.name);
        assert_eq!(node.run(&["readlink", "/proc/self/ns/pid"]).trim(), FIRST_PID_NAMESPACE);
        assert_eq!(node.names_in("/run"), [""; 0]);
        for key in SYSCTLS {
            node.run(&["sh", "-c", &format!("echo 7 >/proc/sys/{key}")]);
        }
    }
    let boot = read(&nodes[0], "/proc/sys/kernel/random/boot_id");
    let machine = read(&nodes[0], "/etc/machine-id");
    nodes[0].run(&["touch", "/run/file", "/var/lib/file"]);
    nodes[0].reboot();
    assert_ne!(read(&nodes[0], "/proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(read(&nodes[0], "/etc/machine-id"), machine);
    assert_eq!((nodes[0].names_in("/run"), nodes[0].names_in("/var/lib")), (vec![], vec!["file".to_owned()]));
    assert_eq!(sysctls(), before);
}
