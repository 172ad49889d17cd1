//! Leases without a DEL within one boot. If the range is full and the network namespace of the owner is gone, the lease
//! is freed. In doubt, it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use e2e::mounts;
use e2e::patience::{PATIENCE, await_success, await_within};
use e2e::plugin::write_script;
use e2e::scenario::{PATH, address, call, leases};
use e2e::trace::{Deed, Fault};
use e2e::{Binaries, Container, Lab, Outcome, Plugin, with};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

/// The remark of a call that could not search everywhere.
const DOUBT: &str = "host-local: no lease of this boot was reclaimed: ";

fn conf(lab: &Lab, addresses: usize) -> Value {
    let mut conf = with(lab.conf_of_ten(addresses), "cniVersion", json!("1.1.0"));
    conf["ipam"]["statusWhenFull"] = json!("unavailable");
    conf
}

/// Containers whose namespaces have numbers that the kernel does not use again soon. The kernel gives a new namespace
/// of any kind the lowest free number, and host-local would take a namespace with the number of the old one for it.
fn containers<const N: usize>(lab: &Lab) -> [Container; N] {
    let lower = thread::scope(|scope| {
        let made = scope.spawn(|| {
            let one = |_| {
                unshare(CloneFlags::CLONE_NEWUTS).expect("a namespace of our own");
                File::open("/proc/thread-self/ns/uts").expect("open a namespace")
            };
            (0..200).map(one).collect::<Vec<_>>()
        });
        made.join().expect("namespaces")
    });
    let containers = std::array::from_fn(|_| lab.container());
    drop(lower);
    containers
}

/// A range of one address, and the container that has it.
fn full(lab: &Lab) -> (Value, Container) {
    let (conf, [container]) = (conf(lab, 1), containers(lab));
    assert_eq!(address(&lab.host_local().add(&container, "eth0", &conf).run()), "10.0.0.10");
    (conf, container)
}

/// Repeats the ADD of another container until it has the address of the one that is gone.
#[track_caller]
fn reclaims(lab: &Lab, conf: &Value) {
    let outcome = await_success(|| call(&lab.host_local(), "ADD", "next", conf).run(), |_| {});
    assert_eq!(address(&outcome), "10.0.0.10");
    assert_eq!(outcome.stderr, reclaimed("10.0.0.10"));
}

/// The line about a lease of container-1 that was reclaimed.
fn reclaimed(ip: &str) -> String {
    format!("host-local: reclaimed {ip} of container-1 eth0: its network namespace is gone, and no DEL came\n")
}

/// Repeats the ADD of another container until its outcome has this stderr. Each time it must find the range full and
/// change nothing.
#[track_caller]
fn keeps_with(lab: &Lab, add: impl Fn() -> Outcome, is_it: impl Fn(&str) -> bool) {
    let before = leases(lab);
    await_within(PATIENCE, "an ADD with the expected stderr", || {
        let outcome = add();
        outcome.fails(101, &["0 reclaimed, the oldest 10.0.0.10 of container-1 eth0"]);
        assert_eq!(leases(lab), before);
        if is_it(&outcome.stderr) {
            return Ok(());
        }
        assert!(outcome.stderr.is_empty() || outcome.stderr.starts_with(DOUBT), "{}", outcome.text());
        Err(outcome.text())
    });
}

/// An ADD that searches everywhere, finds the range full, and changes nothing.
#[track_caller]
fn keeps(lab: &Lab, conf: &Value) {
    keeps_with(lab, || call(&lab.host_local(), "ADD", "next", conf).run(), str::is_empty);
}

/// An ADD that cannot search everywhere for this cause, and changes nothing. For a moment, a namespace of another test
/// may have the number of the one that is gone, or processes of other tests end during the search. Then ADD is
/// repeated.
#[track_caller]
fn doubts(lab: &Lab, plugin: &Plugin<'_>, conf: &Value, cause: &str) {
    let is_it = |said: &str| said.lines().any(|line| line.starts_with(DOUBT) && line.contains(cause));
    keeps_with(lab, || call(plugin, "ADD", "next", conf).run(), is_it);
}

/// Our program, started by these words of a shell.
fn by<'a>(lab: &'a Lab, words: &str) -> Plugin<'a> {
    let script = lab.path("started");
    write_script(&script, &format!("PATH={PATH}; {words}"));
    Plugin::new(&lab.host, script)
}

fn program(lab: &Lab) -> String {
    lab.bin().join("host-local").display().to_string()
}

/// A process that holds something open. It ends when the value is dropped.
struct Holder(Child);

impl Holder {
    /// `words` of a shell open something. Then the process sleeps.
    fn new(words: &str) -> Self {
        let body = format!("PATH={PATH}; {words}; echo ready; exec sleep 600");
        let mut command = Command::new("/bin/sh");
        let mut child = command.args(["-ec", &body]).stdout(Stdio::piped()).spawn().expect("start a shell");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("read from a shell");
        assert_eq!(line, "ready\n", "{words}");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does `work` while another thread holds something.
fn while_a_thread<T>(holds: impl FnOnce() -> T + Send, work: impl FnOnce()) {
    let (ready, wait) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    thread::scope(|scope| {
        let (ready_sender, wait_receiver) = (ready.0, wait.1);
        scope.spawn(move || {
            let held = holds();
            ready_sender.send(()).expect("say that it is held");
            // Returns when the sender is dropped.
            let _ = wait_receiver.recv();
            drop(held);
        });
        ready.1.recv().expect("hold something");
        work();
        drop(wait.0);
    });
}

fn pin(netns: &Path, at: &Path) {
    fs::write(at, "").expect("make a file");
    mounts::bind(netns, at);
}

#[test]
fn a_container_that_went_without_a_del_loses_its_lease_when_the_range_is_full() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab, 3));
    let [lost, living] = containers(&lab);
    for container in [&lost, &living] {
        ours.add(container, "eth0", &conf).run().result();
    }
    drop(lost);
    // An address is still free, so nothing is reclaimed.
    let outcome = call(&ours, "ADD", "unknown", &conf).run();
    assert_eq!((address(&outcome), outcome.stderr.as_str()), ("10.0.0.12".into(), ""));
    reclaims(&lab, &conf);
    let lease = |id: &str| format!("{id}\r\neth0");
    let expected = [("10.0.0.10", "next"), ("10.0.0.11", "container-2"), ("10.0.0.12", "unknown")];
    let expected: BTreeMap<_, _> = expected.map(|(ip, id)| (ip.to_owned(), lease(id))).into();
    assert_eq!(leases(&lab), expected);

    // One container lives, and the other two leases have no known namespace: they stay.
    let full = call(&ours, "ADD", "more", &conf).run();
    full.fails(
        101,
        &["(10.0.0.10-10.0.0.12): 3 addresses, 3 leases, 0 reclaimed, the oldest 10.0.0.11 of container-2"],
    );
    // A late DEL of the container that is gone frees nothing.
    call(&ours, "DEL", "container-1", &conf).run().done();
    assert_eq!(leases(&lab), expected);
}

#[test]
fn both_addresses_of_a_container_that_is_gone_are_reclaimed() {
    let lab = Lab::new(Binaries::HardLinks);
    let mut conf = conf(&lab, 1);
    conf["ipam"]["ranges"] = json!([[{"subnet": "fd00::/64", "rangeStart": "fd00::10", "rangeEnd": "fd00::19"}]]);
    let [container] = containers(&lab);
    lab.host_local().add(&container, "eth0", &conf).run().result();
    drop(container);
    let outcome = await_success(|| call(&lab.host_local(), "ADD", "next", &conf).run(), |_| {});
    for ip in ["10.0.0.10", "fd00::10"] {
        assert!(outcome.stderr.contains(&reclaimed(ip)), "{}", outcome.text());
    }
    assert_eq!(lab.leases(), ["10.0.0.10", "fd00::11"]);
}

/// A range of so many addresses. container-1 has the first address and is gone. The returned container has a namespace
/// with the number of the namespace of container-1. A test cannot make the kernel use a number again, so the number is
/// written into the record of container-1.
fn with_the_number_of_a_container_that_is_gone(lab: &Lab, addresses: usize) -> (Value, Container) {
    let conf = conf(lab, addresses);
    let [lost, container] = containers(lab);
    assert_eq!(address(&lab.host_local().add(&lost, "eth0", &conf).run()), "10.0.0.10");
    let number = |container: &Container| container.file().metadata().expect("a namespace").ino();
    let record = lab.data_dir().join("lan").join(format!("{}:eth0", lost.id));
    let text = fs::read_link(&record).expect("read a record").display().to_string();
    let (old, new) = (format!(" {:x} ", number(&lost)), format!(" {:x} ", number(&container)));
    assert!(text.contains(&old), "{text}: the number is{old}");
    fs::remove_file(&record).expect("remove a record");
    symlink(text.replace(&old, &new), &record).expect("write a record");
    (conf, container)
}

/// The kernel gives the lowest free number to the next namespace. So the container whose ADD found the range full often
/// had the number of the lost lease, and the lease seemed to belong to a container that lives.
#[test]
fn a_lease_is_reclaimed_by_a_container_whose_namespace_has_its_number() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = with_the_number_of_a_container_that_is_gone(&lab, 1);
    let outcome = await_success(
        || lab.host_local().add(&container, "eth0", &conf).run(),
        |failed| assert!(failed.stderr.starts_with(DOUBT), "{}", failed.text()),
    );
    assert_eq!(outcome.stderr, reclaimed("10.0.0.10"));
}

/// A pod reclaimed the lease of another container that was gone, and its namespace had the number of the first one. So
/// the lease of the first one was never freed, and the third pod of the node got no address.
#[test]
fn a_lease_with_the_number_of_the_new_container_is_reclaimed_first() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = with_the_number_of_a_container_that_is_gone(&lab, 2);
    let [other] = containers(&lab);
    assert_eq!(address(&lab.host_local().add(&other, "eth0", &conf).run()), "10.0.0.11");
    drop(other);
    let outcome = lab.host_local().add(&container, "eth0", &conf).run();
    assert_eq!(address(&outcome), "10.0.0.10");
    assert_eq!(outcome.stderr, reclaimed("10.0.0.10"));
    await_success(|| call(&lab.host_local(), "ADD", "next", &conf).run(), |_| {});
}

/// A running container lost its lease. The namespace of a container that was gone had had the same number. The running
/// one had the address of the other in another network, and did not have its own address yet.
#[test]
fn a_running_container_with_the_address_of_another_keeps_its_lease() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = with_the_number_of_a_container_that_is_gone(&lab, 2);
    assert_eq!(address(&lab.host_local().add(&container, "eth0", &conf).run()), "10.0.0.11");
    keeps(&lab, &conf);
    container.add_address("lo", "10.0.0.10/32".parse().expect("an address"));
    keeps(&lab, &conf);
    assert_eq!(lab.leases(), ["10.0.0.10", "10.0.0.11"]);
    assert!(leases(&lab)["10.0.0.11"].starts_with(&container.id));
}

/// Two container IDs for one namespace.
#[test]
fn an_address_that_is_still_in_a_namespace_keeps_its_lease() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    container.add_address("lo", "10.0.0.10/32".parse().expect("an address"));
    let add = || lab.host_local().add(&container, "eth0", &conf).env("CNI_CONTAINERID", "other").run();
    keeps_with(&lab, add, str::is_empty);
}

#[test]
fn a_requested_address_is_reclaimed_from_a_container_that_is_gone() {
    let lab = Lab::new(Binaries::HardLinks);
    let conf = conf(&lab, 3);
    let [lost, living] = containers(&lab);
    for container in [&lost, &living] {
        lab.host_local().add(container, "eth0", &conf).run().result();
    }
    let ask = |ip: &str| call(&lab.host_local(), "ADD", "next", &conf).args(&format!("IP={ip}")).run();
    ask("10.0.0.10").fails(101, &["CNI_ARGS IP 10.0.0.10: leased to container-1 eth0"]);
    drop(lost);
    ask("10.0.0.11").fails(101, &["CNI_ARGS IP 10.0.0.11: leased to container-2 eth0"]);
    await_success(|| ask("10.0.0.10"), |_| {});
    assert_eq!(lab.leases(), ["10.0.0.10", "10.0.0.11"]);
}

#[test]
fn for_status_a_range_is_not_full_if_a_lease_can_be_reclaimed() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let status = || lab.host_local().call("STATUS", &conf).run();
    status().fails(50, &["no free address in ipam.subnet (10.0.0.10-10.0.0.10)"]);
    let before = leases(&lab);
    drop(container);
    await_success(status, |_| {});
    assert_eq!(leases(&lab), before, "STATUS changes nothing");
    assert_eq!(status().stderr, "");
}

/// The link in the namespace still answers for the address.
#[test]
fn a_namespace_that_only_a_descriptor_of_another_process_holds_keeps_its_lease() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let holder = Holder::new(&format!("exec 7<{}", container.path().display()));
    drop(container);
    keeps(&lab, &conf);
    drop(holder);
    reclaims(&lab, &conf);
}

#[test]
fn a_namespace_that_only_a_mount_in_another_mount_namespace_holds_keeps_its_lease() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let at = lab.path("pinned");
    fs::write(&at, "").expect("make a file");
    let mount = format!("mount --bind {} {}", container.path().display(), at.display());
    let holder = Holder::new(&format!("exec unshare -m sh -ec '{mount}; echo ready; exec sleep 600'"));
    drop(container);
    keeps(&lab, &conf);
    drop(holder);
    reclaims(&lab, &conf);
}

/// A process of another mount namespace mounts the namespace, and then changes its root, from which the mount is not
/// visible. With `beside`, another process of that mount namespace, with a higher PID, sees the mount.
fn keeps_a_lease_with_a_mount_outside_of_the_root(root: &str, beside: &str) {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let (at, new_root) = (lab.path("pinned"), lab.path("root"));
    fs::write(&at, "").expect("make a file");
    fs::create_dir(&new_root).expect("make a directory");
    fs::create_dir(new_root.join("bin")).expect("make a directory");
    fs::copy("/bin/busybox", new_root.join("bin/busybox")).expect("copy busybox");
    let words = format!(
        "mount --bind {netns} {at}; {root} {new_root}; {beside} echo ready; \
         exec chroot {new_root} /bin/busybox sleep 600",
        netns = container.path().display(),
        at = at.display(),
        new_root = new_root.display(),
    );
    let holder = Holder::new(&format!("exec unshare -m sh -ec '{words}'"));
    drop(container);
    keeps(&lab, &conf);
    drop(holder);
    reclaims(&lab, &conf);
}

const SLEEPER: &str = "setpriv --pdeathsig KILL sleep 600 >&2 &";

#[test]
fn a_mount_that_the_first_process_in_a_chroot_does_not_see_keeps_its_lease() {
    keeps_a_lease_with_a_mount_outside_of_the_root("test -d", SLEEPER);
}

/// The roots of both processes have the same device and inode. The mount was not found, and a running container lost
/// its lease.
#[test]
fn a_mount_that_the_first_process_in_a_bind_mount_of_the_root_does_not_see_keeps_its_lease() {
    keeps_a_lease_with_a_mount_outside_of_the_root("mount --bind /", SLEEPER);
}

#[test]
fn a_mount_that_no_process_sees_keeps_its_lease() {
    keeps_a_lease_with_a_mount_outside_of_the_root("test -d", "");
    keeps_a_lease_with_a_mount_outside_of_the_root("mount --bind /", "");
}

/// Only one process at a time is in the namespace. It starts the next one and ends, so the process of the list has
/// ended when the search looks at it.
#[test]
fn a_namespace_that_is_handed_from_process_to_process_keeps_its_lease() {
    const CHAIN: &str = "import os, sys, time\n\
                         print('ready', flush=True)\n\
                         while os.path.exists(sys.argv[1]):\n\
                         \x20   if os.fork(): os._exit(0)\n\
                         \x20   time.sleep(0.003)\n";
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let flag = lab.path("goes-on");
    fs::write(&flag, "").expect("make a file");
    let mut chain = container.run(|| {
        let mut command = Command::new("python3");
        command.args(["-c", CHAIN]).arg(&flag).stdout(Stdio::piped()).spawn().expect("start python3")
    });
    let mut line = String::new();
    BufReader::new(chain.stdout.take().expect("a pipe")).read_line(&mut line).expect("read from python3");
    assert_eq!(line, "ready\n");
    drop(container);
    let before = leases(&lab);
    for _ in 0..10 {
        // Most searches are in doubt. The namespace must never count as gone.
        call(&lab.host_local(), "ADD", "next", &conf).run().fails(101, &["0 reclaimed"]);
        assert_eq!(leases(&lab), before);
    }
    fs::remove_file(&flag).expect("end the chain");
    chain.wait().expect("wait for python3");
    reclaims(&lab, &conf);
}

/// A descriptor was a socket in the list and another file when the search looked at it. That was an error, so on a busy
/// machine no lease was reclaimed.
#[test]
fn descriptors_that_change_all_the_time_do_not_keep_a_lease() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(UdpSocket::bind("127.0.0.1:0").expect("open a socket"));
                    drop(File::open("/dev/null").expect("open a file"));
                }
            });
        }
        drop(container);
        reclaims(&lab, &conf);
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_namespace_that_only_a_thread_is_in_keeps_its_lease() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let netns = File::open(container.path()).expect("open a network namespace");
    while_a_thread(
        move || setns(netns, CloneFlags::CLONE_NEWNET).expect("enter a network namespace"),
        || {
            drop(container);
            keeps(&lab, &conf);
        },
    );
    reclaims(&lab, &conf);
}

#[test]
fn a_namespace_that_only_a_thread_with_descriptors_of_its_own_holds_keeps_its_lease() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let netns = container.path().to_owned();
    while_a_thread(
        || {
            unshare(CloneFlags::CLONE_FILES).expect("descriptors of our own");
            File::open(&netns).expect("open a network namespace")
        },
        || {
            drop(container);
            keeps(&lab, &conf);
        },
    );
    reclaims(&lab, &conf);
}

/// The dhcp daemon of the reference holds namespaces in this way.
#[test]
fn a_namespace_that_only_a_socket_holds_keeps_its_lease() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let socket = container.run(|| UdpSocket::bind("127.0.0.1:0").expect("open a socket"));
    drop(container);
    keeps(&lab, &conf);
    drop(socket);
    reclaims(&lab, &conf);
}

#[test]
fn a_mount_namespace_that_no_process_is_in_is_a_doubt() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let (netns, at) = (container.path().to_owned(), lab.path("pinned"));
    let mounts = thread::scope(|scope| {
        let made = scope.spawn(|| {
            mounts::own();
            pin(&netns, &at);
            File::open("/proc/thread-self/ns/mnt").expect("open a mount namespace")
        });
        made.join().expect("a mount namespace")
    });
    drop(container);
    doubts(&lab, &lab.host_local(), &conf, "no process is in mount namespace ");
    drop(mounts);
    reclaims(&lab, &conf);
}

#[test]
fn in_a_pid_namespace_of_its_own_it_reclaims_nothing() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    drop(container);
    let cause = "this process has a PID namespace of its own, so it does not see every process";
    let words = format!("exec unshare --pid --fork --mount-proc {}", program(&lab));
    doubts(&lab, &by(&lab, &words), &conf, cause);
    // With the /proc of the host, but without its processes.
    doubts(&lab, &by(&lab, &format!("exec unshare --pid --fork {}", program(&lab))), &conf, cause);
    reclaims(&lab, &conf);
}

#[test]
fn with_a_proc_that_hides_processes_it_reclaims_nothing() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    drop(container);
    let cause = "/proc is mounted with hidepid, or parts of it are covered, so it does not show every process";
    for mount in
        ["mount -t proc -o hidepid=2 proc /proc", "mount -t proc -o hidepid=1 proc /proc", "mount --bind /mnt /proc/1"]
    {
        let words = format!("exec unshare -m sh -ec '{mount}; exec {}'", program(&lab));
        doubts(&lab, &by(&lab, &words), &conf, cause);
    }
    reclaims(&lab, &conf);
}

#[test]
fn without_the_right_to_look_at_other_processes_it_reclaims_nothing() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    // A process of another user. Root without the right cannot look at it.
    let _other =
        Holder::new("exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec 'echo ready; exec sleep 600'");
    drop(container);
    let words = format!("exec setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace {}", program(&lab));
    doubts(&lab, &by(&lab, &words), &conf, "look at /proc/");
    reclaims(&lab, &conf);
}

mod faults {
    use super::*;

    #[test]
    fn a_search_that_fails_anywhere_reclaims_nothing() {
        let lab = Lab::new(Binaries::HardLinks);
        let (conf, container) = full(&lab);
        // A process in its own mount namespace, so that the search makes all of its system calls.
        let body = "echo ready; exec sleep 600 <>/dev/null";
        let holder = Holder::new(&format!("exec unshare -m sh -ec '{body}'"));
        drop(container);
        let process = format!("/proc/{}", holder.0.id());
        let task = format!("{process}/task/{}", holder.0.id());
        let own = ["mountinfo", "ns/pid"].map(|name| format!("/proc/thread-self/{name}"));
        let looks = [
            ("openat", own[0].clone()),
            ("readlink,readlinkat", own[1].clone()),
            ("?statfs,statfs64", "/proc".to_owned()),
            ("openat", "/proc".to_owned()),
            ("getdents64", "/proc".to_owned()),
            ("readlink,readlinkat", format!("{process}/ns/net")),
            ("openat", format!("{process}/task")),
            ("getdents64", format!("{process}/task")),
            ("readlink,readlinkat", format!("{task}/ns/net")),
            ("openat", format!("{task}/fd")),
            ("getdents64", format!("{task}/fd")),
            ("readlink,readlinkat", format!("{task}/fd/1")),
            ("readlink,readlinkat", format!("{task}/ns/mnt")),
            ("openat", format!("{task}/ns/mnt")),
        ];
        for (calls, path) in looks {
            for errno in ["EIO", "EACCES", "ENOMEM", "EMFILE"] {
                let calls: Vec<_> = calls.split(',').map(|call| format!("?{}", call.trim_start_matches('?'))).collect();
                let words = format!(
                    "exec strace -f -qq -o {} -P {path} -e inject={}:error={errno} {}",
                    lab.path("trace").display(),
                    calls.join(","),
                    program(&lab),
                );
                doubts(&lab, &by(&lab, &words), &conf, "look at /proc");
            }
        }
        for call in ["pidfd_open", "pidfd_getfd", "unshare", "setns"] {
            let log = lab.path("trace").display().to_string();
            let words = format!("exec strace -f -qq -o {log} -e inject={call}:error=ENOSYS:when=1 {}", program(&lab));
            doubts(&lab, &by(&lab, &words), &conf, "look at /proc/");
        }
        reclaims(&lab, &conf);
    }

    #[test]
    fn an_add_killed_at_any_change_leaves_complete_leases_and_the_next_add_succeeds() {
        let lab = Lab::new(Binaries::HardLinks);
        let conf = conf(&lab, 2);
        let ours = lab.host_local();
        // Only calls that change something.
        let changes = [
            libc::SYS_unlink,
            libc::SYS_unlinkat,
            libc::SYS_link,
            libc::SYS_linkat,
            libc::SYS_symlink,
            libc::SYS_symlinkat,
            libc::SYS_rename,
            libc::SYS_renameat,
            libc::SYS_pwrite64,
            libc::SYS_write,
            libc::SYS_utimensat,
            libc::SYS_ftruncate,
        ];
        let fill = || {
            let _ = fs::remove_dir_all(lab.data_dir());
            for container in containers::<2>(&lab) {
                ours.add(&container, "eth0", &conf).run().result();
            }
        };
        let steps = await_within(PATIENCE, "an ADD that reclaims", || {
            fill();
            let (outcome, trace) = call(&ours, "ADD", "killed", &conf).run_stepwise(None);
            if outcome.status.success() { Ok(trace.steps) } else { Err(outcome.text()) }
        });
        let steps: Vec<_> = steps.into_iter().filter(|step| changes.contains(&step.number)).collect();
        assert!(steps.len() > 8, "{steps:?}");
        for step in steps {
            fill();
            let fault = Fault { step, deed: Deed::Kill };
            call(&ours, "ADD", "killed", &conf).run_stepwise(Some(&fault));
            let outcome = await_success(|| call(&ours, "ADD", "next", &conf).run(), |_| {});
            let left = leases(&lab);
            assert_eq!(left[&address(&outcome)], "next\r\neth0", "{fault:?}");
            assert!(left.values().all(|content| content.ends_with("\r\neth0")), "{fault:?}: {left:?}");
            call(&ours, "DEL", "killed", &conf).run().done();
            call(&ours, "DEL", "next", &conf).run().done();
            assert!(leases(&lab).values().all(|content| content.starts_with("container-")), "{fault:?}");
        }
    }

    #[test]
    fn of_sixty_four_adds_at_once_as_many_succeed_as_containers_are_gone() {
        let lab = Lab::new(Binaries::HardLinks);
        let (ours, conf) = (lab.host_local(), conf(&lab, 64));
        let mut containers = Vec::from(containers::<64>(&lab));
        let mut living = BTreeSet::new();
        for (number, container) in containers.iter().enumerate() {
            let ip = address(&ours.add(container, "eth0", &conf).run());
            living.extend((number % 2 == 0).then_some(ip));
        }
        let mut number = 0;
        containers.retain(|_| {
            number += 1;
            number % 2 == 1
        });
        assert_eq!((containers.len(), living.len(), lab.leases().len()), (32, 32, 64));
        let deadline = Instant::now() + PATIENCE;
        let mut waiting: Vec<usize> = (0..64).collect();
        let mut given = BTreeSet::new();
        while given.len() < 32 {
            assert!(Instant::now() < deadline, "only {} succeeded", given.len());
            let one = |number: &usize| (*number, call(&ours, "ADD", &format!("n{number}"), &conf).run());
            let outcomes: Vec<_> = thread::scope(|scope| {
                let calls: Vec<_> = waiting.iter().map(|number| scope.spawn(move || one(number))).collect();
                calls.into_iter().map(|call| call.join().expect("a call")).collect()
            });
            waiting.clear();
            for (number, outcome) in outcomes {
                if outcome.status.success() {
                    let ip = address(&outcome);
                    assert!(!living.contains(&ip), "{ip} belongs to a container that lives");
                    assert!(given.insert(ip.clone()), "{ip} was given twice");
                } else {
                    outcome.fails(101, &["64 addresses, 64 leases, 0 reclaimed"]);
                    waiting.push(number);
                }
            }
        }
        assert_eq!((given.len(), waiting.len()), (32, 32));
        let files = leases(&lab);
        assert!(living.iter().all(|ip| files[ip].starts_with("container-")), "{files:?}");
        assert!(given.iter().all(|ip| files[ip].starts_with('n')), "{files:?}");
    }
}
