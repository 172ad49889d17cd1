//! Parallel calls, and calls while the machine changes. Related tests: fifty parallel ADDs in `del`; a DEL during its
//! ADD in `overtaken` and `interrupted`; both implementations on one network in `host_local_mixed`.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::lab::{Families, NIC};
use e2e::{Binaries, Container, Lab, Outcome, with};
use serde_json::{Value, json};

/// How long links are created and deleted during the calls.
const CHURN: Duration = Duration::from_secs(20);
/// The seed of the random numbers. Without it, the day is the seed.
const SEED_VARIABLE: &str = "UNDERLAY_SEED";
/// More stops at system calls than an ADD or a DEL has.
const STOPS: u64 = 260;

/// Knuth's MMIX generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn seed() -> u64 {
    let today = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() / 86_400);
    std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or_else(today)
}

fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().expect("an address").to_owned()
}

#[track_caller]
fn assert_nothing(lab: &Lab, containers: &[Container]) {
    for container in containers {
        assert_eq!(container.link_names(), ["lo"], "{}", container.id);
    }
    assert_eq!(lab.leases(), [""; 0]);
    let temporary: Vec<_> = lab.lease_files().into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(temporary.is_empty(), "{temporary:?}");
}

/// Five rounds in each of twenty containers at once. About every second call is killed. No address is in two containers
/// at the same time, and at the end nothing is left.
#[test]
fn a_hundred_rounds_in_twenty_containers_with_random_kills_leave_nothing() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, seed) = (lab.conf(), seed());
    let containers: Vec<Container> = (0..20).map(|_| lab.container()).collect();
    let taken = Mutex::new(BTreeSet::new());
    let killed = AtomicU32::new(0);
    let round = |container: &Container, dice: &mut Dice| {
        let add = lab.macvlan().add(container, "eth0", &conf);
        if dice.roll(2) == 0 {
            let stop = 1 + dice.roll(STOPS) as usize;
            let outcome = add.run_killed_at(stop);
            killed.fetch_add(u32::from(!outcome.status.success()), Ordering::Relaxed);
            lab.macvlan().del(container, "eth0", &conf).run().done();
        }
        let result = add.run().result();
        let mine = address(&result);
        assert_eq!(container.address_texts("eth0"), [mine.as_str()], "seed {seed}");
        assert!(taken.lock().expect("the list").insert(mine.clone()), "{mine} is in two containers; seed {seed}");
        let conf = with(conf.clone(), "prevResult", result);
        taken.lock().expect("the list").remove(&mine);
        let del = lab.macvlan().del(container, "eth0", &conf);
        if dice.roll(2) == 0 {
            let outcome = del.run_killed_at(1 + dice.roll(STOPS) as usize);
            killed.fetch_add(u32::from(!outcome.status.success()), Ordering::Relaxed);
        }
        del.run().done();
        assert_eq!(container.link_names(), ["lo"], "seed {seed}");
    };
    thread::scope(|scope| {
        for (number, container) in containers.iter().enumerate() {
            let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
            scope.spawn(move || (0..5).for_each(|_| round(container, &mut dice)));
        }
    });
    assert_nothing(&lab, &containers);
    let killed = killed.into_inner();
    assert!(killed > 20, "only {killed} calls were killed; seed {seed}");
}

/// After both calls, link and lease are both there or both gone. The next DEL removes both.
#[test]
fn a_del_during_its_add_leaves_link_and_lease_or_neither_fifty_times() {
    let lab = Lab::new(Binaries::HardLinks);
    let (conf, containers) = (lab.conf(), [lab.container()]);
    let container = &containers[0];
    let mut dice = Dice(seed());
    let mut ends = BTreeSet::new();
    for round in 0..50 {
        let pause = Duration::from_micros(dice.roll(6_000));
        let (add, del) = thread::scope(|scope| {
            let add = scope.spawn(|| lab.macvlan().add(container, "eth0", &conf).run());
            thread::park_timeout(pause);
            let del = lab.macvlan().del(container, "eth0", &conf).run();
            (add.join().expect("an ADD"), del)
        });
        del.done();
        let there = container.has_link("eth0");
        let leased = !lab.leases().is_empty();
        assert_eq!(there, leased, "round {round}: {}\n{}", add.text(), del.text());
        if add.status.success() {
            ends.insert("success");
        } else {
            let error = add.error();
            assert!(matches!(error.code, 11 | 100), "round {round}: {}", add.text());
            assert!(!there, "round {round}: the ADD failed and left its link: {}", add.text());
            ends.insert("failure");
        }
        lab.macvlan().del(container, "eth0", &conf).run().done();
        assert_nothing(&lab, &containers);
    }
    assert!(ends.contains("success"), "ADD never succeeded");
}

/// The list of GC lacks containers that were attached after the runtime had made it.
#[test]
fn gc_does_not_free_the_leases_of_an_add_at_the_same_time() {
    let lab = Lab::new(Binaries::HardLinks);
    let conf = with(lab.conf(), "cniVersion", json!("1.1.0"));
    let mut empty = conf.clone();
    empty["cni.dev/valid-attachments"] = json!([]);
    let containers: Vec<Container> = (0..30).map(|_| lab.container()).collect();
    let done = AtomicBool::new(false);
    let results: Vec<Value> = thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut times = 0;
            while !done.load(Ordering::Relaxed) {
                lab.macvlan().call("GC", &empty).run().done();
                times += 1;
            }
            times
        });
        let add = |container: &Container| lab.macvlan().add(container, "eth0", &conf).run();
        let outcomes: Vec<Outcome> = containers.iter().map(add).collect();
        done.store(true, Ordering::Relaxed);
        let times = collector.join().expect("a GC");
        assert!(times > 3, "only {times} times");
        outcomes.iter().map(Outcome::result).collect()
    });
    let leases: BTreeSet<String> = lab.leases().into_iter().collect();
    let addresses: BTreeSet<String> =
        results.iter().map(|result| address(result).trim_end_matches("/24").to_owned()).collect();
    assert_eq!(addresses.len(), containers.len());
    assert_eq!(leases, addresses);
}

/// On a busy node, links are created and deleted all the time: on the same parent, and also in the container, for
/// example by a VPN. If a list changes while it is read, it must be read again.
#[test]
fn add_and_del_work_while_other_links_are_created_and_deleted() {
    let lab = Lab::new(Binaries::HardLinks);
    let (host, elsewhere) = (&lab.host, lab.container());
    let end = Instant::now() + CHURN;
    let churned = AtomicU32::new(0);
    let count = || churned.fetch_add(1, Ordering::Relaxed);
    let cycles = |conf: &Value, container: &Container| {
        let mut cycles = 0;
        while Instant::now() < end {
            let result = lab.macvlan().add(container, "eth0", conf).run().result();
            let conf = with(conf.clone(), "prevResult", result);
            lab.macvlan().check(container, "eth0", &conf).run().done();
            lab.macvlan().del(container, "eth0", &conf).run().done();
            cycles += 1;
        }
        cycles
    };
    let [v4, dual] = [Families::V4, Families::Dual].map(|families| lab.conf_with(lab.ipam(families)));
    let containers = [lab.container(), lab.container()];
    let (first, second) = thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < end {
                host.create_macvlan_in(&elsewhere, "churn0", NIC);
                elsewhere.delete_link("churn0");
                count();
            }
        });
        for container in &containers {
            scope.spawn(move || {
                while Instant::now() < end {
                    container.create_stray("churn1");
                    container.delete_link("churn1");
                    count();
                }
            });
        }
        let first = scope.spawn(|| cycles(&v4, &containers[0]));
        let second = scope.spawn(|| cycles(&dual, &containers[1]));
        (first.join().expect("cycles"), second.join().expect("cycles"))
    });
    assert!(first > 10 && second > 5, "only {first} and {second} rounds");
    assert!(churned.into_inner() > 100, "hardly any link was created");
    assert_nothing(&lab, &containers);
}

/// A NIC is removed, or its driver is loaded again. Then the kernel deletes the macvlans of the NIC.
#[test]
fn if_the_parent_is_deleted_during_add_nothing_is_left() {
    let lab = Lab::new(Binaries::HardLinks);
    let conf = with(lab.conf(), "master", json!("nic0"));
    let containers = [lab.container()];
    let container = &containers[0];
    lab.host.create_stray("nic0");
    let add = lab.macvlan().add(container, "eth0", &conf);
    let (outcome, trace) = add.run_stepwise(None);
    outcome.result();
    lab.macvlan().del(container, "eth0", &conf).run().done();
    let (mut failed, mut succeeded) = (0, 0);
    for step in &trace.steps {
        if !lab.host.has_link("nic0") {
            lab.host.create_stray("nic0");
        }
        let (outcome, trace) = add.run_held_at(step, || lab.host.delete_link("nic0"));
        assert!(trace.struck || outcome.status.success(), "this run did not make the call {step:?}");
        if outcome.status.success() {
            succeeded += 1;
        } else {
            failed += 1;
            let error = outcome.error();
            assert!(matches!(error.code, 7 | 100), "{}", outcome.text());
            assert!(error.msg.contains("nic0") || error.msg.contains("eth0"), "{}", outcome.text());
            assert_nothing(&lab, &containers);
        }
        lab.macvlan().del(container, "eth0", &conf).run().done();
        assert_nothing(&lab, &containers);
    }
    assert!(failed > 20 && succeeded > 0, "{failed} failed, {succeeded} succeeded");
}
