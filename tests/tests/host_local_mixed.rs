//! One lease directory that both implementations or several machines use, with crashes and reboots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;

use e2e::mounts;
use e2e::scenario::{address, call, leases};
use e2e::{Binaries, Lab, Outcome, Plugin, with};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Ours and the reference's.
fn both(lab: &Lab) -> [Plugin<'_>; 2] {
    let theirs = Binaries::Reference.directory(&lab.path(""));
    [lab.host_local(), Plugin::new(&lab.host, theirs.join("host-local")).search(theirs)]
}

fn records(lab: &Lab) -> BTreeSet<String> {
    let entries = fs::read_dir(lab.data_dir().join("lan")).expect("read the directory");
    let links = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_symlink());
    links.map(|entry| entry.file_name().into_string().expect("a name")).collect()
}

/// Runs `work` in its own mount namespace. It gets a file with the boot ID: a new ID in it is a reboot.
fn with_reboots(lab: &Lab, work: impl FnOnce(&Path) + Send) {
    lab.host.run(|| {
        mounts::own();
        let file = lab.path("boot_id");
        fs::write(&file, "first\n").expect("write a boot id");
        mounts::bind(&file, Path::new(BOOT_ID));
        work(&file);
    });
}

#[test]
fn two_hundred_adds_at_once_half_ours_half_theirs_get_two_hundred_addresses() {
    let lab = Lab::new(Binaries::HardLinks);
    let plugins = both(&lab);
    let conf = lab.conf_of_ten(200);
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
    // Each implementation frees the leases of the other.
    for outcome in run("DEL", 1) {
        outcome.done();
    }
    assert_eq!(lab.leases(), [""; 0]);
    call(&plugins[0], "DEL", "nobody", &conf).run().done();
    assert_eq!(records(&lab), BTreeSet::new());
}

#[test]
fn after_a_change_to_the_reference_and_back_no_lease_is_lost() {
    let lab = Lab::new(Binaries::HardLinks);
    let [ours, theirs] = both(&lab);
    let conf = lab.conf_of_ten(4);
    let first = address(&call(&ours, "ADD", "c1", &conf).run());
    let second = address(&call(&theirs, "ADD", "c2", &conf).run());
    // The reference sees our lease and our last address, and frees our lease.
    assert_eq!((first.as_str(), second.as_str()), ("10.0.0.10", "10.0.0.11"));
    call(&theirs, "DEL", "c1", &conf).run().done();
    assert_eq!(address(&call(&theirs, "ADD", "c3", &conf).run()), "10.0.0.12");
    // Back to ours.
    assert_eq!(address(&call(&ours, "ADD", "c4", &conf).run()), "10.0.0.13");
    assert_eq!(address(&call(&ours, "ADD", "c2", &conf).run()), "10.0.0.11");
    assert_eq!(address(&call(&ours, "ADD", "c5", &conf).run()), "10.0.0.10");
    call(&ours, "ADD", "c6", &conf).run().fails(101, &["10.0.0.10-10.0.0.13", "4 addresses, 4 leases, 0 reclaimed"]);
    call(&theirs, "ADD", "c6", &conf).run().error();
    let expected = ["c2:eth0", "c3:eth0", "c4:eth0", "c5:eth0"].map(str::to_owned);
    call(&ours, "DEL", "c6", &conf).run().done();
    assert_eq!(records(&lab), BTreeSet::from(expected));
}

/// The number of records was the number of leases, so GC did not look for a record without a lease. It was found only
/// if the directory listed its entries in a certain order.
#[test]
fn gc_removes_a_record_without_a_lease_if_another_lease_has_no_record() {
    let lab = Lab::new(Binaries::HardLinks);
    let [ours, theirs] = both(&lab);
    let mut conf = lab.conf_of_ten(4);
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

/// The reference leases a broadcast address that is `rangeEnd`. After it, host-local started at the first range again,
/// and leased an address that had just been freed.
#[test]
fn after_a_broadcast_address_of_the_reference_the_next_range_follows() {
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
fn after_a_reboot_a_full_range_is_freed_and_each_lease_is_named() {
    let lab = Lab::new(Binaries::HardLinks);
    let [ours, theirs] = both(&lab);
    let conf = lab.conf_of_ten(3);
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
        // A late DEL must not free the address, which belongs to another container now.
        call(&ours, "DEL", "c1", &conf).run_here().done();
        assert_eq!(leases(&lab), BTreeMap::from([("10.0.0.10".to_owned(), "c4\r\neth0".to_owned())]));
    });
}

/// Makes this mount namespace that of another machine, with its own /var/lib and boot ID.
fn become_machine(lab: &Lab, boot_id: &Path, name: &str, boot: &str) {
    let own = lab.path(name);
    fs::create_dir_all(&own).expect("make the machine's own disk");
    mounts::bind(&own, Path::new("/var/lib"));
    fs::write(boot_id, format!("{boot}\n")).expect("boot");
}

/// This machine's list of its boots.
const BOOTS: &str = "/var/lib/underlay/boots";

/// The boots in the list. Its first line is the identity of the machine.
fn boots() -> String {
    let text = fs::read_to_string(BOOTS).expect("read the list");
    text.lines().filter(|line| !line.starts_with("machine ")).map(|line| format!("{line}\n")).collect()
}

/// Mounts a file system that several machines may share. ramfs stands for NFS.
fn share_data_dir(lab: &Lab) {
    fs::create_dir_all(lab.data_dir()).expect("make the directory");
    mounts::file_system("ramfs", &lab.data_dir(), "");
}

/// A machine took all leases with another boot ID for leases from before its own reboot. So it freed the leases of
/// another machine that shares the directory.
#[test]
fn the_leases_of_another_machine_that_shares_the_directory_are_never_freed() {
    let lab = Lab::new(Binaries::HardLinks);
    let [ours, theirs] = both(&lab);
    let conf = lab.conf_of_ten(5);
    with_reboots(&lab, |boot_id| {
        share_data_dir(&lab);
        let is = |name: &str, boot: &str| become_machine(&lab, boot_id, name, boot);
        let add = |plugin: &Plugin<'_>, id: &str| address(&call(plugin, "ADD", id, &conf).run_here());
        is("a", "a-1");
        assert_eq!([add(&ours, "a1"), add(&ours, "a2")], ["10.0.0.10", "10.0.0.11"]);
        is("b", "b-1");
        assert_eq!([add(&ours, "b1"), add(&theirs, "b2"), add(&theirs, "b3")], ["10.0.0.12", "10.0.0.13", "10.0.0.14"]);
        call(&ours, "ADD", "b4", &conf).run_here().fails(101, &["5 leases, 0 reclaimed"]);
        let before = leases(&lab);
        let mut list = with(conf.clone(), "cniVersion", json!("1.1.0"));
        list["cni.dev/valid-attachments"] = json!([{"containerID": "b1", "ifname": "eth0"}]);
        call(&ours, "GC", "", &list).without("CNI_CONTAINERID").run_here().done();
        assert_eq!(leases(&lab), before);
        // After a reboot of B, the lease that B made can be freed.
        is("b", "b-2");
        assert_eq!(add(&ours, "b5"), "10.0.0.12");
        call(&ours, "ADD", "b6", &conf).run_here().fails(101, &["5 leases, 0 reclaimed"]);
        // After a reboot of A, the two leases of A can be freed.
        is("a", "a-2");
        assert_eq!([add(&ours, "a3"), add(&ours, "a4")], ["10.0.0.10", "10.0.0.11"]);
        call(&ours, "ADD", "a5", &conf).run_here().fails(101, &["5 leases, 0 reclaimed"]);
        assert_eq!(boots(), "a-1\na-2\n");
    });
}

/// A runtime that removes the containers from before a reboot begins with their DELs. The boot was noted only if the
/// first call of the boot was an ADD, so leases of this boot were kept after the next reboot.
#[test]
fn a_boot_that_begins_with_a_del_or_gc_is_noted_too() {
    let lab = Lab::new(Binaries::HardLinks);
    let ours = lab.host_local();
    let conf = lab.conf_of_ten(2);
    with_reboots(&lab, |boot_id| {
        share_data_dir(&lab);
        become_machine(&lab, boot_id, "a", "first");
        let add = |id: &str| address(&call(&ours, "ADD", id, &conf).run_here());
        assert_eq!([add("c1"), add("c2")], ["10.0.0.10", "10.0.0.11"]);
        fs::write(boot_id, "second\n").expect("boot");
        call(&ours, "DEL", "c1", &conf).run_here().done();
        assert_eq!(add("c3"), "10.0.0.10");
        assert_eq!(boots(), "first\nsecond\n");
        fs::write(boot_id, "third\n").expect("boot");
        let mut list = with(conf.clone(), "cniVersion", json!("1.1.0"));
        list["cni.dev/valid-attachments"] = json!([{"containerID": "c2", "ifname": "eth0"}]);
        call(&ours, "GC", "", &list).without("CNI_CONTAINERID").run_here().done();
        assert_eq!(add("c4"), "10.0.0.10");
        assert_eq!(boots(), "first\nsecond\nthird\n");
    });
}

/// A server with the directory on its own disk took the leases of its clients for leases from before its own reboot.
#[test]
fn a_machine_that_exports_its_own_disk_never_frees_the_leases_of_the_others() {
    let lab = Lab::new(Binaries::HardLinks);
    let ours = lab.host_local();
    let conf = lab.conf_of_ten(2);
    let record = |id: &str| {
        let path = lab.lease_file(&format!("{id}:eth0"));
        let text = fs::read_link(&path).expect("read a record").display().to_string();
        (path, text)
    };
    with_reboots(&lab, |boot_id| {
        let is = |name: &str, boot: &str| become_machine(&lab, boot_id, name, boot);
        let add = |id: &str| call(&ours, "ADD", id, &conf).run_here();
        is("client", "client-1");
        add("c1").result();
        let (path, text) = record("c1");
        // The client sees NFS, and the server its own disk. One machine cannot be both, so the mark is set by hand.
        fs::remove_file(&path).expect("remove a record");
        symlink(text.replace("u:1 ", "u:2 "), &path).expect("write a record");
        is("server", "server-1");
        add("s1").result();
        is("server", "server-2");
        assert_eq!(address(&add("s2")), "10.0.0.11");
        add("s3").fails(101, &["2 leases, 0 reclaimed"]);
        // This is the mark.
        share_data_dir(&lab);
        add("c2").result();
        assert!(record("c2").1.starts_with("u:2 server-2 "), "{}", record("c2").1);
    });
}

/// NFS reports a full disk when a file is synced or closed. The lease was an empty file then, which any ADD may free.
#[test]
fn a_shared_disk_that_is_full_only_at_the_end_of_a_write_gives_no_lease() {
    let lab = Lab::new(Binaries::HardLinks);
    let conf = lab.conf_of_ten(3);
    let full = lab.under("strace -f -qq -o /dev/null -e inject=fsync:error=EDQUOT", "host-local");
    with_reboots(&lab, |boot_id| {
        share_data_dir(&lab);
        become_machine(&lab, boot_id, "a", "first");
        call(&lab.host_local(), "ADD", "c1", &conf).run_here().result();
        call(&full, "ADD", "c2", &conf).run_here().fails(5, &["leases/lan/10.0.0.11: Disk quota exceeded"]);
        assert_eq!(leases(&lab).len(), 1);
    });
}

#[test]
fn a_call_that_is_killed_anywhere_leaves_a_complete_list_of_boots() {
    let lab = Lab::new(Binaries::HardLinks);
    let ours = lab.host_local();
    let conf = lab.conf_of_ten(200);
    with_reboots(&lab, |boot_id| {
        share_data_dir(&lab);
        become_machine(&lab, boot_id, "a", "first");
        call(&ours, "ADD", "c0", &conf).run_here().result();
        assert_eq!(boots(), "first\n");
        let mut kills = 0;
        for stop in 1.. {
            let boot = format!("boot-{stop}");
            fs::write(boot_id, format!("{boot}\n")).expect("boot");
            fs::write(BOOTS, "first\n").expect("remove the last boot");
            let outcome = call(&ours, "ADD", "c1", &conf).run_killed_at(stop);
            let whole = format!("first\n{boot}\n");
            assert!(boots() == whole || boots() == "first\n", "killed at {stop}: {}", boots());
            call(&ours, "ADD", "c2", &conf).run_here().result();
            assert_eq!(boots(), whole, "killed at {stop}");
            if outcome.status.success() {
                break;
            }
            kills += 1;
        }
        assert!(kills > 30, "{kills} system calls");

        // Sixty-four calls at once, the first of their boot.
        fs::write(boot_id, "last\n").expect("boot");
        fs::write(BOOTS, "first\n").expect("forget the last boot");
        thread::scope(|scope| {
            let add = |number: usize| call(&ours, "ADD", &format!("p{number}"), &conf).run_here();
            let calls: Vec<_> = (0..64).map(|number| scope.spawn(move || add(number).result())).collect();
            calls.into_iter().for_each(|call| drop(call.join().expect("an ADD")));
        });
        assert_eq!(boots(), "first\nlast\n");
        let left = fs::read_dir("/var/lib/underlay").expect("list the directory").count();
        assert_eq!(left, 1, "a temporary file is left");
    });
}

const OWNERS: usize = 6;

#[derive(Debug, Clone)]
enum Step {
    /// The implementation, and the owner.
    Add(usize, usize),
    Del(usize, usize),
    /// Ours, killed at a system call. The owner, and the stop.
    KilledAdd(usize, usize),
    KilledDel(usize, usize),
    KilledGc(usize),
    /// With a list of all owners that live.
    Gc,
    Reboot,
    /// An operator removes a file: the index, the last address or a record.
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

/// The expected state.
#[derive(Default)]
struct Model {
    living: BTreeMap<usize, String>,
    /// Owners whose last call was killed. They may have a lease.
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
    let conf = lab.conf_of_ten(4);
    let valid: Vec<_> = model.living.keys().map(|owner| json!({"containerID": id(*owner), "ifname": "eth0"})).collect();
    let gc = with(with(conf.clone(), "cniVersion", json!("1.1.0")), "cni.dev/valid-attachments", json!(valid));
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
                // The reference refuses an owner that has a lease, and never frees a lease by itself.
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
            plugins[0].call("GC", &gc).run_killed_at(*stop);
        }
        Step::Gc => {
            plugins[0].call("GC", &gc).run_here().done();
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
            let _ = fs::remove_file(lab.lease_file(gone));
        }
    }
    // Every living container has its lease, and every lease is complete and has an owner.
    if lab.data_dir().join("lan").exists() {
        let left = leases(lab);
        for (owner, ip) in &model.living {
            prop_assert_eq!(left.get(ip), Some(&lease(*owner)), "{} lost its lease", owner);
        }
        for (ip, content) in &left {
            let owner = (0..OWNERS).find(|owner| *content == lease(*owner));
            let known =
                owner.is_some_and(|owner| model.living.get(&owner) == Some(ip) || model.unknown.contains(&owner));
            prop_assert!(known, "{} holds {:?}, which no owner should have", ip, content);
        }
    }
    Ok(())
}

/// No address is leased twice, no lease is lost, and after GC no lease is left over.
#[test]
fn after_any_calls_crashes_and_reboots_the_directory_is_as_expected() {
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
