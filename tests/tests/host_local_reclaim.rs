//! Leases without a DEL within one boot. If the range is full, a lease is freed if the network namespace of its owner
//! is gone. Otherwise, or in doubt, it stays.

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

use e2e::patience::PATIENCE;
use e2e::plugin::write_script;
use e2e::scenario::{address, call, leases};
use e2e::trace::{Deed, Fault};
use e2e::{Binaries, Container, Lab, Outcome, Plugin};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

/// The remark of a call that could not look everywhere.
const DOUBT: &str = "host-local: no lease of this boot was reclaimed: ";
const GONE: &str = "its network namespace is gone, and no DEL came";

/// So many addresses, from 10.0.0.10 on.
fn conf(lab: &Lab, addresses: usize) -> Value {
    let mut conf = lab.conf_with(json!({
        "type": "host-local", "dataDir": lab.data_dir(), "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10",
        "rangeEnd": format!("10.0.0.{}", 9 + addresses), "statusWhenFull": "unavailable",
    }));
    conf["cniVersion"] = json!("1.1.0");
    conf
}

/// Containers whose namespaces get numbers that the kernel does not give away again at once. It gives a new namespace,
/// of any kind, the lowest number that is free, and a namespace with the number of another that is gone is taken for it.
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

/// An ADD of another container, again and again until it has the address of the one that is gone.
#[track_caller]
fn reclaims(lab: &Lab, conf: &Value) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = call(&lab.host_local(), "ADD", "next", conf).run();
        if outcome.status.success() {
            assert_eq!(address(&outcome), "10.0.0.10");
            assert_eq!(outcome.stderr, format!("host-local: reclaimed 10.0.0.10 of container-1 eth0: {GONE}\n"));
            return outcome;
        }
        assert!(Instant::now() < deadline, "not reclaimed: {}", outcome.text());
    }
}

/// An ADD that looks everywhere, finds that the range is full, and changes nothing.
#[track_caller]
fn keeps(lab: &Lab, conf: &Value) {
    let before = leases(lab);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = call(&lab.host_local(), "ADD", "next", conf).run();
        outcome
            .fails(101, &["no free address in ipam.subnet", "0 reclaimed, the oldest 10.0.0.10 of container-1 eth0"]);
        assert_eq!(leases(lab), before);
        if outcome.stderr.is_empty() {
            return;
        }
        assert!(outcome.stderr.starts_with(DOUBT), "{}", outcome.text());
        assert!(Instant::now() < deadline, "it never looks everywhere: {}", outcome.text());
    }
}

/// An ADD of this program that cannot look everywhere, and changes nothing. It is repeated where it had no need to look
/// everywhere: for a moment, a namespace of another test had the number of the one that is gone. It is also repeated where
/// it has another cause, such as processes of other tests that ended in every look.
#[track_caller]
fn doubts(lab: &Lab, plugin: &Plugin<'_>, conf: &Value, cause: &str) {
    let before = leases(lab);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = call(plugin, "ADD", "next", conf).run();
        outcome.fails(101, &["1 addresses, 1 leases, 0 reclaimed, the oldest 10.0.0.10 of container-1 eth0"]);
        assert_eq!(leases(lab), before);
        if outcome.stderr.lines().any(|line| line.starts_with(DOUBT) && line.contains(cause)) {
            return;
        }
        let is_other = outcome.stderr.is_empty() || outcome.stderr.starts_with(DOUBT);
        assert!(is_other && Instant::now() < deadline, "it never doubts for that cause: {}", outcome.text());
    }
}

/// Ours, started by these words of a shell.
fn by<'a>(lab: &'a Lab, words: &str) -> Plugin<'a> {
    let script = lab.path("started");
    write_script(&script, &format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin; {words}"));
    Plugin::new(&lab.host, script)
}

fn program(lab: &Lab) -> String {
    lab.bin().join("host-local").display().to_string()
}

/// A process that holds something, and ends with this value.
struct Holder(Child);

impl Holder {
    /// The words of a shell that take hold of something; a process that sleeps follows.
    fn new(words: &str) -> Self {
        let body = format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin; {words}; echo ready; exec sleep 600");
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

/// A thread that takes hold of something for as long as `work` takes.
fn while_a_thread<T>(holds: impl FnOnce() -> T + Send, work: impl FnOnce()) {
    let (ready, wait) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    thread::scope(|scope| {
        let (ready_sender, wait_receiver) = (ready.0, wait.1);
        scope.spawn(move || {
            let held = holds();
            ready_sender.send(()).expect("say that it is held");
            // It ends when the other side is dropped.
            let _ = wait_receiver.recv();
            drop(held);
        });
        ready.1.recv().expect("hold something");
        work();
        drop(wait.0);
    });
}

fn mount_namespace_of_our_own() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of our own");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("keep our mounts to ourselves");
}

fn pin(netns: &Path, at: &Path) {
    fs::write(at, "").expect("make a file");
    mount(Some(netns), at, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("mount a network namespace");
}

#[test]
fn a_container_that_went_without_a_del_gives_its_address_to_the_next_add_that_finds_the_range_full() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab, 3));
    let [lost, living] = containers(&lab);
    for container in [&lost, &living] {
        ours.add(container, "eth0", &conf).run().result();
    }
    drop(lost);
    // As long as another address is free, nothing is reclaimed.
    let outcome = call(&ours, "ADD", "unknown", &conf).run();
    assert_eq!((address(&outcome), outcome.stderr.as_str()), ("10.0.0.12".into(), ""));
    reclaims(&lab, &conf);
    let lease = |id: &str| format!("{id}\r\neth0");
    let expected = [("10.0.0.10", "next"), ("10.0.0.11", "container-2"), ("10.0.0.12", "unknown")];
    let expected: BTreeMap<_, _> = expected.map(|(ip, id)| (ip.to_owned(), lease(id))).into();
    assert_eq!(leases(&lab), expected);

    // One container lives, and of two no namespace is known: those leases stay.
    let full = call(&ours, "ADD", "more", &conf).run();
    full.fails(
        101,
        &["(10.0.0.10-10.0.0.12): 3 addresses, 3 leases, 0 reclaimed, the oldest 10.0.0.11 of container-2"],
    );
    // The DEL that comes late is of a container that has no lease any more.
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
    let deadline = Instant::now() + PATIENCE;
    let outcome = loop {
        let outcome = call(&lab.host_local(), "ADD", "next", &conf).run();
        if outcome.status.success() {
            break outcome;
        }
        assert!(Instant::now() < deadline, "not reclaimed: {}", outcome.text());
    };
    for ip in ["10.0.0.10", "fd00::10"] {
        let line = format!("host-local: reclaimed {ip} of container-1 eth0: {GONE}\n");
        assert!(outcome.stderr.contains(&line), "{}", outcome.text());
    }
    assert_eq!(lab.leases(), ["10.0.0.10", "fd00::11"]);
}

/// A range of so many addresses, and a container whose namespace has the number that the namespace of container-1 had,
/// which has the first address and is gone. The kernel decides when it gives a number away again, so the number is
/// written into the record of container-1 afterwards.
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

/// The kernel gives the lowest free number to the next namespace. On a node with one lost lease, that was the namespace of
/// the very container whose ADD found the range full: the lease seemed to be of a container that lives.
#[test]
fn a_lease_is_reclaimed_by_the_container_that_has_got_the_number_of_its_namespace() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = with_the_number_of_a_container_that_is_gone(&lab, 1);
    let deadline = Instant::now() + PATIENCE;
    let outcome = loop {
        let outcome = lab.host_local().add(&container, "eth0", &conf).run();
        if outcome.status.success() {
            break outcome;
        }
        assert!(outcome.stderr.starts_with(DOUBT) && Instant::now() < deadline, "{}", outcome.text());
    };
    assert_eq!(outcome.stderr, format!("host-local: reclaimed 10.0.0.10 of container-1 eth0: {GONE}\n"));
}

/// A pod took the lease of another dead container, and lived on in a namespace with the number of the first one. So the lease
/// of the first one stayed taken, and the third pod of a node found no address.
#[test]
fn a_lease_whose_number_the_asker_has_is_reclaimed_before_others_that_are_gone() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = with_the_number_of_a_container_that_is_gone(&lab, 2);
    let [other] = containers(&lab);
    assert_eq!(address(&lab.host_local().add(&other, "eth0", &conf).run()), "10.0.0.11");
    let id = other.id.clone();
    drop(other);
    let outcome = lab.host_local().add(&container, "eth0", &conf).run();
    assert_eq!(address(&outcome), "10.0.0.10");
    assert_eq!(outcome.stderr, format!("host-local: reclaimed 10.0.0.10 of container-1 eth0: {GONE}\n"));
    let deadline = Instant::now() + PATIENCE;
    while !call(&lab.host_local(), "ADD", "next", &conf).run().status.success() {
        assert!(Instant::now() < deadline, "the lease of {id} is not reclaimed");
    }
}

/// A container that lives had its lease taken away: another container, which was dead, had had a namespace with the same
/// number, and the living one had the address of the dead one from another network, and its own address not yet.
#[test]
fn an_address_of_a_dead_container_in_a_namespace_is_no_evidence_against_the_living_one() {
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
fn an_address_that_is_still_in_a_namespace_is_kept_whoever_asks_from_there() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    container.add_address("lo", "10.0.0.10/32".parse().expect("an address"));
    let again = || {
        let call = lab.host_local().add(&container, "eth0", &conf).env("CNI_CONTAINERID", "other");
        let outcome = call.run();
        outcome.fails(101, &["0 reclaimed, the oldest 10.0.0.10 of container-1 eth0"]);
        outcome
    };
    let deadline = Instant::now() + PATIENCE;
    while !again().stderr.is_empty() {
        assert!(Instant::now() < deadline, "it never looks everywhere");
    }
    assert_eq!(leases(&lab)["10.0.0.10"], "container-1\r\neth0");
}

#[test]
fn an_address_that_is_asked_for_is_reclaimed_from_a_container_that_is_gone() {
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
    let deadline = Instant::now() + PATIENCE;
    while !ask("10.0.0.10").status.success() {
        assert!(Instant::now() < deadline, "not reclaimed");
    }
    assert_eq!(lab.leases(), ["10.0.0.10", "10.0.0.11"]);
}

#[test]
fn a_range_does_not_count_as_full_for_status_while_a_lease_could_be_reclaimed() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let status = || lab.host_local().call("STATUS", &conf).run();
    status().fails(50, &["no free address in ipam.subnet (10.0.0.10-10.0.0.10)"]);
    let before = leases(&lab);
    drop(container);
    let deadline = Instant::now() + PATIENCE;
    while !status().status.success() {
        assert!(Instant::now() < deadline, "it still counts as full");
    }
    assert_eq!(leases(&lab), before, "STATUS changes nothing");
    assert_eq!(status().stderr, "");
}

/// A process of the node may hold a namespace without being in it: the link in there still answers for the address.
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

/// A process of a mount namespace that pins a namespace and then changes its root to `root`, where the mount is not seen.
/// With `beside`, another process of that mount namespace, which has a higher number, sees the mount.
fn a_mount_outside_of_a_root_keeps_its_lease(root: &str, beside: &str) {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, container) = full(&lab);
    let (at, new_root) = (lab.path("pinned"), lab.path("root"));
    fs::write(&at, "").expect("make a file");
    fs::create_dir(&new_root).expect("make a directory");
    fs::create_dir(new_root.join("bin")).expect("make a directory");
    fs::copy("/bin/busybox", new_root.join("bin/busybox")).expect("copy busybox");
    let words = format!(
        "mount --bind {netns} {at}; {root} {new_root}; {beside} echo ready; exec chroot {new_root} /bin/busybox sleep 600",
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
    a_mount_outside_of_a_root_keeps_its_lease("test -d", SLEEPER);
}

/// The root of both processes has the same device and inode. The mount was passed over, and a living container's address
/// was given away.
#[test]
fn a_mount_that_the_first_process_in_a_bind_mount_of_the_root_does_not_see_keeps_its_lease() {
    a_mount_outside_of_a_root_keeps_its_lease("mount --bind /", SLEEPER);
}

#[test]
fn a_mount_that_no_process_sees_since_all_are_in_a_chroot_keeps_its_lease() {
    a_mount_outside_of_a_root_keeps_its_lease("test -d", "");
    a_mount_outside_of_a_root_keeps_its_lease("mount --bind /", "");
}

/// Each process of the chain is the only one in the namespace. It starts the next one and ends at once, so the process that
/// was listed is gone when it is looked at.
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
        // In most of them it cannot be known. It must never be called gone.
        call(&lab.host_local(), "ADD", "next", &conf).run().fails(101, &["0 reclaimed"]);
        assert_eq!(leases(&lab), before);
    }
    fs::remove_file(&flag).expect("end the chain");
    chain.wait().expect("wait for python3");
    reclaims(&lab, &conf);
}

/// A descriptor that was a socket when it was listed is another file when it is looked at. That was an error of the search,
/// and on a busy machine no lease was ever reclaimed.
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

/// The main thread's descriptors are not those of every thread.
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

/// As the reference's dhcp daemon does it.
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
            mount_namespace_of_our_own();
            pin(&netns, &at);
            File::open("/proc/thread-self/ns/mnt").expect("open a mount namespace")
        });
        made.join().expect("a mount namespace")
    });
    drop(container);
    let before = leases(&lab);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = call(&lab.host_local(), "ADD", "next", &conf).run();
        outcome.fails(101, &["0 reclaimed"]);
        assert_eq!(leases(&lab), before);
        if outcome.stderr.starts_with(&format!("{DOUBT}no process is in mount namespace ")) {
            break;
        }
        assert!(Instant::now() < deadline, "no doubt: {}", outcome.text());
    }
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
    // The host's /proc in a container without the host's processes.
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
    // It is in a user namespace above ours, which root without that right cannot look into.
    let _other =
        Holder::new("exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec 'echo ready; exec sleep 600'");
    drop(container);
    let words = format!("exec setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace {}", program(&lab));
    doubts(&lab, &by(&lab, &words), &conf, "look at /proc/");
    reclaims(&lab, &conf);
}

mod faults {
    use super::*;

    /// Every look of the search that can fail.
    #[test]
    fn a_search_that_fails_anywhere_reclaims_nothing() {
        let lab = Lab::new(Binaries::HardLinks);
        let (conf, container) = full(&lab);
        // A process that has all there is to look at: mounts, a socket and another thread's place.
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
    fn killed_at_any_change_it_leaves_whole_leases_and_the_next_add_goes_on() {
        let lab = Lab::new(Binaries::HardLinks);
        let conf = conf(&lab, 2);
        let ours = lab.host_local();
        // Calls that change something. Nothing else is killed at, since the rest changes nothing.
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
        let deadline = Instant::now() + PATIENCE;
        let steps = loop {
            fill();
            let (outcome, trace) = call(&ours, "ADD", "killed", &conf).run_stepwise(None);
            if outcome.status.success() {
                break trace.steps;
            }
            assert!(Instant::now() < deadline, "not reclaimed: {}", outcome.text());
        };
        let steps: Vec<_> = steps.into_iter().filter(|step| changes.contains(&step.number)).collect();
        assert!(steps.len() > 8, "{steps:?}");
        for step in steps {
            fill();
            let fault = Fault { step, deed: Deed::Kill };
            call(&ours, "ADD", "killed", &conf).run_stepwise(Some(&fault));
            let deadline = Instant::now() + PATIENCE;
            let outcome = loop {
                let outcome = call(&ours, "ADD", "next", &conf).run();
                if outcome.status.success() {
                    break outcome;
                }
                assert!(Instant::now() < deadline, "{fault:?}: {}", outcome.text());
            };
            let left = leases(&lab);
            assert_eq!(left[&address(&outcome)], "next\r\neth0", "{fault:?}");
            assert!(left.values().all(|content| content.ends_with("\r\neth0")), "{fault:?}: {left:?}");
            call(&ours, "DEL", "killed", &conf).run().done();
            call(&ours, "DEL", "next", &conf).run().done();
            assert!(leases(&lab).values().all(|content| content.starts_with("container-")), "{fault:?}");
        }
    }

    #[test]
    fn of_sixty_four_adds_at_once_on_a_full_range_those_succeed_for_which_a_container_is_gone() {
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
                    assert!(!living.contains(&ip), "{ip} is of a container that lives");
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
