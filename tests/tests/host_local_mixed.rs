//! One lease directory used by both implementations and by several machines, with crashes and reboots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;

use e2e::scenario::{address, call, leases};
use e2e::{Binaries, Lab, Outcome, Plugin};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Ours and the reference's.
fn both(lab: &Lab) -> [Plugin<'_>; 2] {
    let theirs = Binaries::Reference.directory(&lab.path(""));
    [lab.host_local(), Plugin::new(&lab.host, theirs.join("host-local")).search(theirs)]
}

fn conf(lab: &Lab, last: &str) -> Value {
    lab.conf_with(json!({
        "type": "host-local", "dataDir": lab.data_dir(), "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": last,
    }))
}

fn records(lab: &Lab) -> BTreeSet<String> {
    let entries = fs::read_dir(lab.data_dir().join("lan")).expect("read the directory");
    let links = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_symlink());
    links.map(|entry| entry.file_name().into_string().expect("a name")).collect()
}

/// In a mount namespace of its own, in which `work` reboots the machine by writing another id into the file it is given.
fn with_reboots(lab: &Lab, work: impl FnOnce(&Path) + Send) {
    lab.host.run(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of our own");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("keep our mounts to ourselves");
        let file = lab.path("boot_id");
        fs::write(&file, "first\n").expect("write a boot id");
        mount(Some(&file), BOOT_ID, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("replace the boot id");
        work(&file);
    });
}

#[test]
fn two_hundred_adds_at_once_half_ours_half_theirs_get_two_hundred_addresses() {
    let lab = Lab::new(Binaries::HardLinks);
    let plugins = both(&lab);
    let conf = conf(&lab, "10.0.0.209");
    let run = |command: &'static str, turn: usize| -> Vec<Outcome> {
        let one = |number: usize| call(&plugins[(number + turn) % 2], command, &format!("c{number}"), &conf).run();
        thread::scope(|scope| {
            let calls: Vec<_> = (0..200).map(|number| scope.spawn(move || one(number))).collect();
            calls.into_iter().map(|call| call.join().expect("a call")).collect()
        })
    };
    let outcomes = run("ADD", 0);
    let addresses: BTreeSet<_> = outcomes.iter().map(address).collect();
    assert_eq!(addresses.len(), 200);
    let files = leases(&lab);
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(files[&address(outcome)], format!("c{number}\r\neth0"));
    }
    // Each cleans up after the other.
    for outcome in run("DEL", 1) {
        outcome.done();
    }
    assert_eq!(lab.leases(), [""; 0]);
    call(&plugins[0], "DEL", "nobody", &conf).run().done();
    assert_eq!(records(&lab), BTreeSet::new());
}

#[test]
fn after_a_rollback_and_a_return_nothing_is_lost() {
    let lab = Lab::new(Binaries::HardLinks);
    let [ours, theirs] = both(&lab);
    let conf = conf(&lab, "10.0.0.13");
    let first = address(&call(&ours, "ADD", "c1", &conf).run());
    let second = address(&call(&theirs, "ADD", "c2", &conf).run());
    // The rollback: it sees ours, round robin included, and frees it.
    assert_eq!((first.as_str(), second.as_str()), ("10.0.0.10", "10.0.0.11"));
    call(&theirs, "DEL", "c1", &conf).run().done();
    assert_eq!(address(&call(&theirs, "ADD", "c3", &conf).run()), "10.0.0.12");
    // The return.
    assert_eq!(address(&call(&ours, "ADD", "c4", &conf).run()), "10.0.0.13");
    assert_eq!(address(&call(&ours, "ADD", "c2", &conf).run()), "10.0.0.11");
    assert_eq!(address(&call(&ours, "ADD", "c5", &conf).run()), "10.0.0.10");
    call(&ours, "ADD", "c6", &conf).run().fails(101, &["10.0.0.10-10.0.0.13", "4 addresses, 4 leases, 0 reclaimed"]);
    call(&theirs, "ADD", "c6", &conf).run().error();
    let expected = ["c2:eth0", "c3:eth0", "c4:eth0", "c5:eth0"].map(str::to_owned);
    call(&ours, "DEL", "c6", &conf).run().done();
    assert_eq!(records(&lab), BTreeSet::from(expected));
}

/// There were as many records as leases, so none was looked for that is one too many. Whether the walk met the record
/// that it had just made itself depended on the order of the directory's entries: the property below failed once.
#[test]
fn the_record_of_a_freed_address_goes_beside_a_lease_that_has_none() {
    let lab = Lab::new(Binaries::HardLinks);
    let [ours, theirs] = both(&lab);
    let mut conf = conf(&lab, "10.0.0.13");
    call(&ours, "ADD", "c0", &conf).run().result();
    call(&theirs, "ADD", "c1", &conf).run().result();
    call(&theirs, "DEL", "c0", &conf).run().done();
    assert_eq!(records(&lab), BTreeSet::from(["c0:eth0".to_owned()]));
    conf["cniVersion"] = json!("1.1.0");
    conf["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    ours.call("GC", &conf).run().done();
    assert_eq!(records(&lab), BTreeSet::from(["c1:eth0".to_owned()]));
    assert_eq!(leases(&lab), BTreeMap::from([("10.0.0.11".to_owned(), "c1\r\neth0".to_owned())]));
}

/// The reference leases the broadcast address that rangeEnd names. After it, our turn began at the first range again:
/// an address that had been freed a moment ago was given to the next container.
#[test]
fn after_an_address_of_the_reference_at_the_edge_of_a_range_the_turn_goes_on() {
    let lab = Lab::new(Binaries::HardLinks);
    let [ours, theirs] = both(&lab);
    let conf = lab.conf_with(json!({"type": "host-local", "dataDir": lab.data_dir(), "ranges": [[
        {"subnet": "10.1.0.0/29", "rangeStart": "10.1.0.6", "rangeEnd": "10.1.0.7"},
        {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.11"},
    ]]}));
    for (id, ip) in [("c1", "10.1.0.6"), ("c2", "10.1.0.7")] {
        assert_eq!(address(&call(&theirs, "ADD", id, &conf).run()), ip);
        call(&theirs, "DEL", id, &conf).run().done();
    }
    assert_eq!(address(&call(&ours, "ADD", "c3", &conf).run()), "10.0.0.10");
}

#[test]
fn a_reboot_frees_a_full_range_line_by_line() {
    let lab = Lab::new(Binaries::HardLinks);
    let [ours, theirs] = both(&lab);
    let conf = conf(&lab, "10.0.0.12");
    with_reboots(&lab, |boot_id| {
        for (plugin, id) in [(&ours, "c1"), (&theirs, "c2"), (&ours, "c3")] {
            call(plugin, "ADD", id, &conf).run_here().result();
        }
        call(&ours, "ADD", "c4", &conf)
            .run_here()
            .fails(101, &["3 leases, 0 reclaimed, the oldest 10.0.0.10 of c1 eth0"]);
        fs::write(boot_id, "second\n").expect("reboot");
        call(&theirs, "ADD", "c4", &conf).run_here().error();
        let outcome = call(&ours, "ADD", "c4", &conf).run_here();
        assert_eq!(address(&outcome), "10.0.0.10");
        let mut lines: Vec<_> = outcome.stderr.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "host-local: reclaimed 10.0.0.10 of c1 eth0: leased before the last reboot",
                "host-local: reclaimed 10.0.0.11 of c2 eth0: leased before the last reboot",
                "host-local: reclaimed 10.0.0.12 of c3 eth0: leased before the last reboot",
            ]
        );
        // The address of the late DEL belongs to another container now.
        call(&ours, "DEL", "c1", &conf).run_here().done();
        assert_eq!(leases(&lab), BTreeMap::from([("10.0.0.10".to_owned(), "c4\r\neth0".to_owned())]));
    });
}

/// Makes this mount namespace that of a machine: with its own /var/lib, and of this boot.
fn become_machine(lab: &Lab, boot_id: &Path, name: &str, boot: &str) {
    let own = lab.path(name);
    fs::create_dir_all(&own).expect("make the machine's own disk");
    mount(Some(&own), "/var/lib", None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("mount the machine's own disk");
    fs::write(boot_id, format!("{boot}\n")).expect("boot");
}

/// Mounts a file system that is not known to be of one machine, as NFS is not. (ramfs stands in for it.)
fn share_data_dir(lab: &Lab) {
    fs::create_dir_all(lab.data_dir()).expect("make the directory");
    mount(Some("shared"), &lab.data_dir(), Some("ramfs"), MsFlags::empty(), None::<&str>).expect("mount ramfs");
}

/// C1: a machine took all leases of another boot for leases from before its own reboot, and freed those of a running
/// machine with which it shares the directory.
#[test]
fn the_leases_of_another_machine_that_shares_the_directory_are_never_freed() {
    let lab = Lab::new(Binaries::HardLinks);
    let [ours, theirs] = both(&lab);
    let conf = conf(&lab, "10.0.0.14");
    with_reboots(&lab, |boot_id| {
        share_data_dir(&lab);
        let is = |name: &str, boot: &str| become_machine(&lab, boot_id, name, boot);
        let add = |plugin: &Plugin<'_>, id: &str| address(&call(plugin, "ADD", id, &conf).run_here());
        is("a", "a-1");
        assert_eq!([add(&ours, "a1"), add(&ours, "a2")], ["10.0.0.10", "10.0.0.11"]);
        is("b", "b-1");
        assert_eq!([add(&ours, "b1"), add(&theirs, "b2"), add(&theirs, "b3")], ["10.0.0.12", "10.0.0.13", "10.0.0.14"]);
        // The range is full, and nothing in it is lost.
        call(&ours, "ADD", "b4", &conf).run_here().fails(101, &["5 leases, 0 reclaimed"]);
        let before = leases(&lab);
        let mut list = conf.clone();
        list["cniVersion"] = json!("1.1.0");
        list["cni.dev/valid-attachments"] = json!([{"containerID": "b1", "ifname": "eth0"}]);
        call(&ours, "GC", "", &list).without("CNI_CONTAINERID").run_here().done();
        assert_eq!(leases(&lab), before);
        // A reboot of B frees what B is known to have had.
        is("b", "b-2");
        assert_eq!(add(&ours, "b5"), "10.0.0.12");
        call(&ours, "ADD", "b6", &conf).run_here().fails(101, &["5 leases, 0 reclaimed"]);
        // And so it is with A, whose second boot frees two.
        is("a", "a-2");
        assert_eq!([add(&ours, "a3"), add(&ours, "a4")], ["10.0.0.10", "10.0.0.11"]);
        call(&ours, "ADD", "a5", &conf).run_here().fails(101, &["5 leases, 0 reclaimed"]);
        assert_eq!(fs::read_to_string("/var/lib/underlay/boots").expect("read A's list"), "a-1\na-2\n");
    });
}

#[test]
fn a_call_that_is_killed_anywhere_leaves_the_list_of_boots_whole_or_to_the_next_call() {
    let lab = Lab::new(Binaries::HardLinks);
    let ours = lab.host_local();
    let conf = conf(&lab, "10.0.0.209");
    with_reboots(&lab, |boot_id| {
        share_data_dir(&lab);
        let list = Path::new("/var/lib/underlay/boots");
        let read = || fs::read_to_string(list).expect("read the list");
        become_machine(&lab, boot_id, "a", "first");
        call(&ours, "ADD", "c0", &conf).run_here().result();
        assert_eq!(read(), "first\n");
        let mut kills = 0;
        for stop in 1.. {
            let boot = format!("boot-{stop}");
            fs::write(boot_id, format!("{boot}\n")).expect("boot");
            fs::write(list, "first\n").expect("forget the last boot");
            let outcome = call(&ours, "ADD", "c1", &conf).run_killed_at(stop);
            let whole = format!("first\n{boot}\n");
            assert!(read() == whole || read() == "first\n", "killed at {stop}: {}", read());
            call(&ours, "ADD", "c2", &conf).run_here().result();
            assert_eq!(read(), whole, "killed at {stop}");
            if outcome.status.success() {
                break;
            }
            kills += 1;
        }
        assert!(kills > 30, "{kills} system calls");

        // Sixty-four calls at once, the first of their boot.
        fs::write(boot_id, "last\n").expect("boot");
        fs::write(list, "first\n").expect("forget the last boot");
        thread::scope(|scope| {
            let add = |number: usize| call(&ours, "ADD", &format!("p{number}"), &conf).run_here();
            let calls: Vec<_> = (0..64).map(|number| scope.spawn(move || add(number).result())).collect();
            calls.into_iter().for_each(|call| drop(call.join().expect("an ADD")));
        });
        assert_eq!(read(), "first\nlast\n");
        let left = fs::read_dir("/var/lib/underlay").expect("list the directory").count();
        assert_eq!(left, 1, "a temporary file is left");
    });
}

const OWNERS: usize = 6;

#[derive(Debug, Clone)]
enum Step {
    /// Which implementation, and who.
    Add(usize, usize),
    Del(usize, usize),
    /// Ours, killed at a system call.
    KilledAdd(usize, usize),
    KilledDel(usize, usize),
    KilledGc(usize),
    /// With a list of all who live.
    Gc,
    Reboot,
    /// Records and index are removed by hand.
    Tidy(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, owner, stop) = (|| 0..2usize, || 0..OWNERS, || 1..200usize);
    let step = prop_oneof![
        8 => (who(), owner()).prop_map(|(who, owner)| Step::Add(who, owner)),
        5 => (who(), owner()).prop_map(|(who, owner)| Step::Del(who, owner)),
        3 => (owner(), stop()).prop_map(|(owner, stop)| Step::KilledAdd(owner, stop)),
        3 => (owner(), stop()).prop_map(|(owner, stop)| Step::KilledDel(owner, stop)),
        1 => stop().prop_map(Step::KilledGc),
        1 => Just(Step::Gc),
        2 => Just(Step::Reboot),
        1 => (0..3usize).prop_map(Step::Tidy),
    ];
    prop::collection::vec(step, 1..30)
}

/// What must be true, whatever the files are.
#[derive(Default)]
struct Model {
    living: BTreeMap<usize, String>,
    /// Owners whose last call was killed: with a lease or without.
    unknown: BTreeSet<usize>,
    boots: usize,
}

fn id(owner: usize) -> String {
    format!("c{owner}")
}

fn lease(owner: usize) -> String {
    format!("{}\r\neth0", id(owner))
}

fn step(
    lab: &Lab,
    plugins: &[Plugin<'_>; 2],
    model: &mut Model,
    step: &Step,
    boot_id: &Path,
) -> Result<(), TestCaseError> {
    // Four addresses for six owners.
    let mut conf = conf(lab, "10.0.0.13");
    let directory = lab.data_dir().join("lan");
    let valid: Vec<_> = model.living.keys().map(|owner| json!({"containerID": id(*owner), "ifname": "eth0"})).collect();
    match step {
        Step::Add(who, owner) => {
            let outcome = call(&plugins[*who], "ADD", &id(*owner), &conf).run_here();
            let (left, held) = (leases(lab), model.living.get(owner));
            if outcome.status.success() {
                let ip = address(&outcome);
                prop_assert!(held.is_none_or(|held| *held == ip), "{owner} had {held:?} and got {ip}");
                let other = model.living.iter().find(|(other, its)| *other != owner && **its == ip);
                prop_assert!(other.is_none(), "{ip} given to {owner} while {other:?} lives");
                model.living.insert(*owner, ip);
                model.unknown.remove(owner);
            } else {
                // The reference gives nothing to an owner who has a lease, and never frees one by itself.
                let full = left.len() == 4;
                let theirs = *who == 1 && left.values().any(|content| *content == lease(*owner));
                prop_assert!(full || theirs, "{}\n{left:?}", outcome.text());
            }
        }
        Step::Del(who, owner) => {
            call(&plugins[*who], "DEL", &id(*owner), &conf).run_here().done();
            model.living.remove(owner);
            model.unknown.remove(owner);
            let kept = leases(lab).values().any(|content| *content == lease(*owner));
            prop_assert!(!kept, "{} was not freed", owner);
        }
        // A runtime whose ADD was killed takes the container down.
        Step::KilledAdd(owner, stop) if !model.living.contains_key(owner) => {
            call(&plugins[0], "ADD", &id(*owner), &conf).run_killed_at(*stop);
            model.unknown.insert(*owner);
        }
        Step::KilledAdd(..) => {}
        Step::KilledDel(owner, stop) => {
            call(&plugins[0], "DEL", &id(*owner), &conf).run_killed_at(*stop);
            model.living.remove(owner);
            model.unknown.insert(*owner);
        }
        Step::KilledGc(stop) => {
            conf["cniVersion"] = json!("1.1.0");
            conf["cni.dev/valid-attachments"] = json!(valid);
            plugins[0].call("GC", &conf).run_killed_at(*stop);
        }
        Step::Gc => {
            conf["cniVersion"] = json!("1.1.0");
            conf["cni.dev/valid-attachments"] = json!(valid);
            plugins[0].call("GC", &conf).run_here().done();
            model.unknown.clear();
            let expected: BTreeMap<_, _> = model.living.iter().map(|(owner, ip)| (ip.clone(), lease(*owner))).collect();
            prop_assert_eq!(leases(lab), expected, "lost or leaked after GC");
            let expected: BTreeSet<_> = model.living.keys().map(|owner| format!("{}:eth0", id(*owner))).collect();
            prop_assert_eq!(records(lab), expected);
        }
        Step::Reboot => {
            model.boots += 1;
            fs::write(boot_id, format!("boot-{}\n", model.boots)).expect("reboot");
            model.unknown.extend(std::mem::take(&mut model.living).into_keys());
        }
        Step::Tidy(what) => {
            let gone = ["lock", "last_reserved_ip.0", "c0:eth0"][*what];
            let _ = fs::remove_file(directory.join(gone));
        }
    }
    // Every living container has its lease, and every lease is complete and has an owner.
    if directory.exists() {
        let left = leases(lab);
        for (owner, ip) in &model.living {
            prop_assert_eq!(left.get(ip), Some(&lease(*owner)), "{} lost its lease", owner);
        }
        for (ip, content) in &left {
            let owner = (0..OWNERS).find(|owner| *content == lease(*owner));
            let known =
                owner.is_some_and(|owner| model.living.get(&owner) == Some(ip) || model.unknown.contains(&owner));
            prop_assert!(known, "{} holds {:?}, which is nobody's", ip, content);
        }
    }
    Ok(())
}

/// No address twice, none lost, none leaked after GC.
#[test]
fn directory_and_model_agree_whoever_calls_crashes_or_reboots() {
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            let lab = Lab::new(Binaries::HardLinks);
            let plugins = both(&lab);
            let mut outcome = Ok(());
            with_reboots(&lab, |boot_id| {
                let mut model = Model::default();
                fs::create_dir_all(lab.data_dir().join("lan")).expect("make the directory");
                let end = [Step::Gc, Step::Reboot, Step::Gc];
                outcome = steps.iter().chain(&end).try_for_each(|one| step(&lab, &plugins, &mut model, one, boot_id));
            });
            outcome
        })
        .unwrap();
}
