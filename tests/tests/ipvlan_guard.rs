//! The guard of ipvlan's mode. All slaves of a parent share mode and flag, so ADD is refused if it would change them
//! for running containers.

use std::fs::File;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use e2e::kernel::Ipvlan;
use e2e::lab::{NIC, lan4};
use e2e::mounts;
use e2e::patience::PATIENCE;
use e2e::traffic::{assert_reaches, ping};
use e2e::{Container, Lab, Namespace, Outcome, cases, with};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

fn with_flag(lab: &Lab, flag: &str) -> Value {
    with(lab.ipvlan_conf("l2"), "flag", json!(flag))
}

fn l2(flag: &str) -> Ipvlan {
    Ipvlan { mode: "l2".into(), flag: flag.into(), noarp: false }
}

/// An ADD to a new container that must change nothing.
fn add_that_changes_nothing(lab: &Lab, conf: &Value, others: &[&Container]) -> Outcome {
    let container = lab.container();
    let all: Vec<&Container> = others.iter().copied().chain([&container]).collect();
    lab.unchanged(&all, || lab.ipvlan().add(&container, "eth0", conf).run())
}

/// Makes something in a new namespace. Afterwards only the value of `hold` holds the namespace.
fn foreign_netns<T: Send + 'static>(make: impl FnOnce(&Namespace), hold: impl FnOnce(File) -> T + Send + 'static) -> T {
    let netns = Namespace::new();
    make(&netns);
    let file = netns.file().try_clone().expect("another descriptor");
    let held = thread::spawn(move || hold(file)).join().expect("a holder of a namespace");
    drop(netns);
    held
}

/// A process in the namespace.
struct Sleeper(Child);

impl Sleeper {
    fn start(netns: File) -> Self {
        setns(&netns, CloneFlags::CLONE_NEWNET).expect("enter a namespace");
        // It ends when its input is closed, so at the latest with the test.
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("start cat");
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A thread in the namespace.
struct Sitter {
    go: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sitter {
    fn start(netns: File) -> Self {
        let (go, wait) = mpsc::channel::<()>();
        let (entered, there) = mpsc::channel();
        let thread = thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).expect("enter a namespace");
            drop(netns);
            entered.send(()).expect("say that the thread is there");
            let _ = wait.recv();
        });
        there.recv().expect("the thread is there");
        Self { go: Some(go), thread: Some(thread) }
    }
}

impl Drop for Sitter {
    fn drop(&mut self) {
        drop(self.go.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

cases! {
    /// One pod was attached with another mode, and all pods of the node lost their network.
    #[needs(Ipvlan)]
    #[reference(fails: "something was changed")]
    fn u8_two_containers_keep_their_traffic_while_other_modes_are_refused(lab) {
        let attach = || lab.ipvlan().attach(lab, &lab.ipvlan_conf("l2")).0;
        let (first, second) = (attach(), attach());
        let over = AtomicBool::new(false);
        let pings = thread::scope(|scope| {
            let traffic = [(&first, lab.neighbour.v4), (&second, lan4(100))].map(|(from, to)| {
                let over = &over;
                scope.spawn(move || {
                    let mut pings = 0;
                    while !over.load(Ordering::Relaxed) {
                        assert!(ping(from, to, PATIENCE).is_some(), "{to} does not answer");
                        pings += 1;
                    }
                    pings
                })
            });
            let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for (conf, key, other) in [
                    (lab.ipvlan_conf("l3"), "mode \"l3\"", "mode l2"),
                    (lab.ipvlan_conf("l3s"), "mode \"l3s\"", "mode l2"),
                    (with_flag(lab, "private"), "flag \"private\"", "flag bridge"),
                    (with_flag(lab, "vepa"), "flag \"vepa\"", "flag bridge"),
                ] {
                    add_that_changes_nothing(lab, &conf, &[&first, &second]).fails(7, &[key, other, NIC]);
                }
            }));
            over.store(true, Ordering::Relaxed);
            let pings = traffic.map(|thread| thread.join());
            refused.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            pings.map(|pings| pings.expect("traffic"))
        });
        assert!(pings.iter().all(|&pings| pings > 0), "no traffic during the ADDs: {pings:?}");
        for container in [&first, &second] {
            assert_eq!(container.ipvlan("eth0"), l2("bridge"));
        }
        // An ADD with the same mode succeeds.
        let _third = lab.ipvlan().attach(lab, &lab.ipvlan_conf("l2")).0;
        assert_reaches(&lab.neighbour, lan4(102));
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "it has no guard")]
    fn a_slave_on_the_host_itself_counts(lab) {
        lab.host.create_ipvlan_in(&lab.host, "ipvl0", NIC, "l3", "bridge");
        add_that_changes_nothing(lab, &lab.ipvlan_conf("l2"), &[]).fails(7, &["mode \"l2\"", "mode l3", NIC]);
        lab.host.delete_link("ipvl0");
        lab.ipvlan().attach(lab, &lab.ipvlan_conf("l2"));
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "it has no guard")]
    fn a_slave_made_by_others_counts_in_a_netns_held_by_a_descriptor(lab) {
        let other = lab.container();
        lab.host.create_ipvlan_in(&other, "theirs0", NIC, "l3s", "bridge");
        add_that_changes_nothing(lab, &lab.ipvlan_conf("l2"), &[&other]).fails(7, &["mode \"l2\"", "mode l3s"]);
        let joined = lab.ipvlan().attach(lab, &lab.ipvlan_conf("l3s")).0;
        assert_eq!(joined.ipvlan("eth0"), Ipvlan { mode: "l3s".into(), flag: "bridge".into(), noarp: true });
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "it has no guard")]
    fn a_slave_counts_in_a_netns_held_by_a_process(lab) {
        let _sleeper = foreign_netns(
            |netns| lab.host.create_ipvlan_in(netns, "theirs0", NIC, "l2", "vepa"),
            Sleeper::start,
        );
        add_that_changes_nothing(lab, &lab.ipvlan_conf("l2"), &[]).fails(7, &["flag \"bridge\"", "flag vepa"]);
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "it has no guard")]
    fn a_slave_counts_in_a_netns_held_by_a_thread(lab) {
        let _sitter = foreign_netns(
            |netns| lab.host.create_ipvlan_in(netns, "theirs0", NIC, "l2", "private"),
            Sitter::start,
        );
        add_that_changes_nothing(lab, &lab.ipvlan_conf("l2"), &[]).fails(7, &["flag \"bridge\"", "flag private"]);
    }

    /// A socket keeps the namespace alive, but there is no path to it. The kernel says that the parent has a slave, but
    /// its mode is unknown, so ADD is refused.
    #[needs(Ipvlan)]
    #[reference(not_run: "it has no guard")]
    fn a_slave_counts_in_a_netns_without_a_path(lab) {
        let socket = foreign_netns(
            |netns| lab.host.create_ipvlan_in(netns, "theirs0", NIC, "l2", "bridge"),
            |netns| {
                setns(&netns, CloneFlags::CLONE_NEWNET).expect("enter a namespace");
                UdpSocket::bind(("127.0.0.1", 0)).expect("a socket")
            },
        );
        for mode in ["l2", "l3"] {
            let outcome = add_that_changes_nothing(lab, &lab.ipvlan_conf(mode), &[]);
            outcome.fails(7, &["master", NIC, "the plugin cannot enter"]);
        }
        drop(socket);
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "it has no guard")]
    fn a_slave_counts_in_a_netns_that_is_mounted(lab) {
        let other = lab.container();
        lab.host.create_ipvlan_in(&other, "theirs0", NIC, "l3", "bridge");
        let place = lab.path("netns");
        File::create(&place).expect("make a mount point");
        let container = lab.container();
        let outcome = lab.host.run(|| {
            mounts::own();
            mounts::bind(other.path(), &place);
            lab.ipvlan().add(&container, "eth0", &lab.ipvlan_conf("l2")).run_here()
        });
        outcome.fails(7, &["mode \"l2\"", "mode l3"]);
        assert_eq!(container.link_names(), ["lo"]);
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn after_the_del_of_the_last_slave_another_mode_is_allowed(lab) {
        for mode in ["l2", "l3", "l3s", "l2"] {
            let container = lab.ipvlan().attach(lab, &lab.ipvlan_conf(mode)).0;
            assert_eq!(container.ipvlan("eth0").mode, mode);
            assert_eq!(container.link_names(), ["lo", "eth0"]);
            lab.ipvlan().del(&container, "eth0", &lab.ipvlan_conf(mode)).run().done();
        }
    }

    /// The links of a container that ended without a DEL go a moment later. The search of another test may hold the
    /// namespace for a moment, so one refusal is allowed.
    #[needs(Ipvlan)]
    #[reference(passes)]
    fn a_container_that_is_just_ending_does_not_prevent_another_mode(lab) {
        for mode in ["l2", "l3", "l3s", "l2"] {
            let (container, conf) = (lab.container(), lab.ipvlan_conf(mode));
            let add = || lab.ipvlan().add(&container, "eth0", &conf).run();
            let first = add();
            if first.status.success() { first.result() } else { add().result() };
            assert_eq!(container.ipvlan("eth0").mode, mode);
        }
    }

    /// Without a lock, each ADD would find the parent free, and the last one would change the mode of the others.
    #[needs(Ipvlan)]
    #[reference(not_run: "it has no guard")]
    fn of_parallel_adds_with_different_modes_those_of_one_mode_succeed(lab) {
        let [l2, l3] = ["l2", "l3"].map(|mode| (mode, "bridge"));
        let wishes = [l2, l3, ("l2", "private"), ("l3s", "bridge"), l2, l3];
        for _ in 0..3 {
            let containers = wishes.map(|_| lab.container());
            let confs = wishes.map(|(mode, flag)| with(lab.ipvlan_conf(mode), "flag", json!(flag)));
            let outcomes = thread::scope(|scope| {
                let calls: Vec<_> = containers
                    .iter()
                    .zip(&confs)
                    .map(|(container, conf)| scope.spawn(move || lab.ipvlan().add(container, "eth0", conf).run()))
                    .collect();
                calls.into_iter().map(|call| call.join().expect("a call")).collect::<Vec<_>>()
            });
            let mut winners = Vec::new();
            for ((container, outcome), wish) in containers.iter().zip(&outcomes).zip(wishes) {
                if outcome.status.success() {
                    let there = container.ipvlan("eth0");
                    let has = (there.mode.as_str(), there.flag.as_str());
                    assert_eq!(has, wish, "the mode has changed: {}", outcome.text());
                    winners.push(wish);
                } else {
                    outcome.fails(7, &[NIC]);
                    assert_eq!(container.link_names(), ["lo"]);
                }
            }
            winners.dedup();
            assert_eq!(winners.len(), 1, "not exactly one mode: {winners:?}");
            for (container, conf) in containers.iter().zip(&confs) {
                lab.ipvlan().del(container, "eth0", conf).run().done();
            }
            assert_eq!(lab.leases(), [""; 0]);
        }
    }
}
