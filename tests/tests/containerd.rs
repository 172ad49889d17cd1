//! Containers of containerd and runc on a macvlan network of the Lab: the LAN reaches them, and nothing is left
//! after they end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use e2e::kernel::Link;
use e2e::lab::{Families, lan4, lan6};
use e2e::patience::await_that;
use e2e::runtime::{Containerd, PAGE, Task, WITHOUT_CRI};
use e2e::traffic::{assert_reaches, await_silence, get};
use e2e::{Binaries, Lab, cases, with};
use serde_json::json;

cases! {
    #[reference(passes)]
    fn a_container_is_reached_from_the_lan(lab) {
        let before = lab.host.links();
        let containerd = Containerd::with_network(lab, &lab.conf());
        let task = containerd.serve("web");
        assert_eq!(task.netns().link("eth0").kind.as_deref(), Some("macvlan"));
        assert_eq!(task.netns().address_texts("eth0"), ["192.168.50.100/24"]);
        assert_eq!(lease(lab, lan4(100)), format!("{}\r\neth0", task.id()));
        assert_reaches(&lab.neighbour, lan4(100));
        assert_eq!(get(&lab.neighbour, lan4(100)), PAGE);
        assert_eq!(names(&lab.host.links()), names(&before));

        end(task);
        assert_eq!(lab.leases(), [""; 0]);
        await_links(lab, &before);
        await_silence(&lab.neighbour, lan4(100));
    }

    #[reference(passes)]
    fn a_container_with_two_families_is_reached_with_both(lab) {
        let containerd = Containerd::with_network(lab, &lab.conf_with(lab.ipam(Families::Dual)));
        let task = containerd.serve("web");
        for ip in [lan4(100), lan6(100)] {
            assert_reaches(&lab.neighbour, ip);
            assert_eq!(get(&lab.neighbour, ip), PAGE);
        }
        assert_eq!(lab.leases(), ["192.168.50.100", "fd50::100"]);

        end(task);
        assert_eq!(lab.leases(), [""; 0]);
        await_silence(&lab.neighbour, lan6(100));
    }

    #[reference(passes)]
    fn two_containers_reach_each_other_and_end_one_after_the_other(lab) {
        let containerd = Containerd::with_network(lab, &lab.conf());
        let first = containerd.serve("first");
        let second = containerd.serve("second");
        assert_eq!(lease(lab, lan4(101)), format!("{}\r\neth0", second.id()));
        assert_reaches(first.netns(), lan4(101));
        assert_eq!(get(first.netns(), lan4(101)), PAGE);
        assert_eq!(get(&lab.neighbour, lan4(101)), PAGE);

        end(first);
        assert_eq!(lab.leases(), ["192.168.50.101"]);
        await_silence(&lab.neighbour, lan4(100));
        assert_eq!(get(&lab.neighbour, lan4(101)), PAGE);
        end(second);
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn a_container_that_ends_by_itself_leaves_nothing(lab) {
        let before = lab.host.links();
        let containerd = Containerd::with_network(lab, &lab.conf());
        let printed = containerd.run("short", &["ip", "-4", "-oneline", "address", "show", "eth0"]);
        assert!(printed.done().contains("inet 192.168.50.100/24"), "{}", printed.text());
        assert_eq!(lab.leases(), [""; 0]);
        await_links(lab, &before);
        assert_eq!(containerd.ctr(&["container", "list", "--quiet"]).done(), "");
    }

    #[reference(not_run: "its message differs")]
    fn a_full_range_fails_the_container_and_leaves_nothing(lab) {
        let containerd = Containerd::with_network(lab, &lab.conf_of("192.168.50.100", "192.168.50.100"));
        let first = containerd.serve("first");
        let refused = lab.unchanged(&[], || containerd.run("second", &["true"]));
        refused.fails(&["(add)", "no free address", "192.168.50.100"]);
        // If ctr cannot attach a container, it ends its process and removes its namespace.
        assert_eq!(containerd.ctr(&["task", "list", "--quiet"]).done().trim(), "first");
        assert_eq!(get(&lab.neighbour, lan4(100)), PAGE);

        end(first);
        assert_eq!(lab.leases(), [""; 0]);
        containerd.run("third", &["true"]).done();
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn a_container_that_fails_leaves_nothing(lab) {
        let containerd = Containerd::with_network(lab, &lab.conf());
        containerd.run("short", &["sh", "-c", "exit 1"]).fails(&[]);
        assert_eq!(lab.lease_files(), ["last_reserved_ip.0", "lock"]);
    }

    #[reference(passes)]
    fn containers_that_start_at_once_have_different_addresses(lab) {
        let containerd = Containerd::with_network(lab, &lab.conf());
        let ids = ["one", "two", "three", "four", "five"];
        let tasks: Vec<_> = thread::scope(|scope| {
            let starts = ids.map(|id| scope.spawn(|| containerd.serve(id)));
            starts.into_iter().map(|start| start.join().expect("start a container")).collect()
        });
        let mut addresses: Vec<_> = tasks.iter().flat_map(|task| task.netns().address_texts("eth0")).collect();
        addresses.sort();
        assert_eq!(addresses, [100, 101, 102, 103, 104].map(|last| format!("{}/24", lan4(last))));
        for last in 100..105 {
            assert_eq!(get(&lab.neighbour, lan4(last)), PAGE);
        }
        thread::scope(|scope| tasks.into_iter().for_each(|task| drop(scope.spawn(|| end(task)))));
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn all_versions_that_containerd_knows_work(lab) {
        let containerd = Containerd::with_network(lab, &lab.conf());
        for (version, last) in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"].into_iter().zip(100..) {
            let conf = with(lab.conf(), "cniVersion", version.into());
            containerd.set_network(&[conf]);
            let printed = containerd.run(version, &["ip", "-4", "-oneline", "address", "show", "eth0"]);
            assert!(printed.done().contains(&format!("inet {}/24", lan4(last))), "{version}: {}", printed.text());
            assert_eq!(lab.leases(), [""; 0], "{version}");
        }
    }

    /// ctr 2.4.2 calls DEL for a detached container only in `ctr task kill`. README says what that means for leases.
    #[reference(passes)]
    fn ctr_calls_del_for_a_detached_container_only_if_it_kills_it(lab) {
        let containerd = Containerd::with_network(lab, &lab.conf());
        let end = |id: &str| {
            await_that("the container has ended", || {
                let tasks = containerd.ctr(&["task", "list"]);
                tasks.done().lines().any(|line| line.starts_with(id) && line.contains("STOPPED"))
            });
            containerd.ctr(&["task", "delete", id]);
            containerd.ctr(&["container", "delete", id]).done();
        };
        containerd.detach("killed", &["sleep", "86400"]).done();
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        containerd.ctr(&["task", "kill", "--signal", "SIGKILL", "killed"]).done();
        assert_eq!(lab.leases(), [""; 0]);
        end("killed");

        containerd.detach("ended", &["true"]).done();
        end("ended");
        assert_eq!(lab.leases(), ["192.168.50.101"]);
    }

    /// tuning refuses a prevResult that it cannot read, and changes the link that the result names.
    #[reference(passes)]
    fn a_foreign_plugin_works_with_our_result(lab) {
        let containerd = Containerd::with_network(lab, &lab.conf());
        containerd.add_plugin(&Binaries::Reference.directory(lab.bin()).join("tuning"));
        let tuning = json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"}});
        containerd.set_network(&[lab.conf(), tuning]);
        let task = containerd.serve("web");
        assert_eq!(task.netns().link("eth0").mtu, 1400);
        assert_eq!(task.netns().sysctl("net/ipv4/conf/eth0/log_martians"), "1");
        assert_eq!(get(&lab.neighbour, lan4(100)), PAGE);
        end(task);
        assert_eq!(lab.leases(), [""; 0]);
    }
}

/// Tests the fixture: a test that panics must not leave a container on the machine.
mod fixture {
    use super::*;

    #[test]
    fn hard_links_are_installed_as_one_file_with_many_names() {
        let lab = Lab::new(Binaries::HardLinks);
        let containerd = Containerd::start(&lab, WITHOUT_CRI);
        let inode = |name: &str| {
            let path = containerd.plugin_dir().join(name);
            fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).ino()
        };
        assert_eq!(inode("macvlan"), inode("host-local"));
        assert_ne!(inode("macvlan"), fs::metadata(lab.bin().join("macvlan")).expect("the built program").ino());
    }

    #[test]
    fn after_a_panic_no_process_mount_or_control_group_is_left() {
        let lab = Lab::new(Binaries::HardLinks);
        let name = lab.path("").file_name().expect("a Lab's directory has a name").to_owned();
        let mut pids = None;
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let containerd = Containerd::with_network(&lab, &lab.conf());
            let task = containerd.serve("web");
            let namespace = containerd.pid_namespace().try_clone().expect("hold a namespace");
            // The shell, containerd, a shim, ctr, and the process of the container.
            assert!(processes(&namespace) >= 5, "{} processes", processes(&namespace));
            assert!(!control_groups(&name).is_empty());
            pids = Some(namespace);
            panic!("on purpose, with {}", task.id());
        }));
        let message = panic.expect_err("a panic").downcast::<String>().expect("a panic with a message");
        assert_eq!(*message, "on purpose, with default-web");
        assert_eq!(processes(&pids.expect("containerd had started")), 0);
        let groups = control_groups(&name);
        assert!(groups.is_empty(), "{groups:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
        assert!(!mounts.contains(name.to_str().expect("a name that is text")), "{mounts}");
    }

    fn processes(namespace: &File) -> usize {
        let wanted = namespace.metadata().expect("a namespace's inode").ino();
        let processes = fs::read_dir("/proc").expect("read /proc").flatten();
        processes
            .filter(|process| fs::metadata(process.path().join("ns/pid")).is_ok_and(|ns| ns.ino() == wanted))
            .count()
    }

    /// The directories of that name in the tree of version 1 or 2.
    fn control_groups(name: &OsStr) -> Vec<PathBuf> {
        let tree = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_dir(tree).expect("read the control groups").flatten().map(|entry| entry.path());
        controllers.chain([tree.to_owned()]).map(|tree| tree.join(name)).filter(|group| group.exists()).collect()
    }
}

fn lease(lab: &Lab, ip: IpAddr) -> String {
    let path = lab.lease_file(&ip.to_string());
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// Ends a container as an operator does. There must be no error.
fn end(task: Task<'_>) {
    let ctr = task.kill();
    assert_eq!(ctr.stderr, "", "{}", ctr.text());
}

fn names(links: &[Link]) -> Vec<&str> {
    links.iter().map(|link| link.name.as_str()).collect()
}

/// Waits until the links of the host are as before. The NIC is promiscuous until the kernel has removed the link of the
/// container, a moment after its namespace.
fn await_links(lab: &Lab, before: &[Link]) {
    await_that("the host's links are as before", || lab.host.links() == before);
}
