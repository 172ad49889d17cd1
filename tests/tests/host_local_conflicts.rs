//! host-local keeps an address that another machine on the LAN has. A DEL names such addresses in `addressConflicts`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;

use e2e::mounts;
use e2e::patience::await_that;
use e2e::scenario::{address, call, leases};
use e2e::trace::{Deed, Fault};
use e2e::{Binaries, Lab, Outcome, Plugin, with};
use nix::errno::Errno;
use nix::libc;
use serde_json::{Value, json};

const MAC: &str = "52:54:00:12:34:56";

/// Three addresses.
fn conf(lab: &Lab) -> Value {
    lab.conf_of_ten(3)
}

/// The configuration of a DEL that names this address.
fn naming(conf: &Value, ip: &str) -> Value {
    with(conf.clone(), "addressConflicts", json!([{"address": ip, "mac": MAC}]))
}

/// A network in which 10.0.0.10 is kept.
fn with_conflict(conf: &Value, plugin: &Plugin<'_>) {
    assert_eq!(address(&call(plugin, "ADD", "c1", conf).run_here()), "10.0.0.10");
    call(plugin, "DEL", "c1", &naming(conf, "10.0.0.10")).run_here().done();
}

/// A container that comes and goes. Returns its address.
fn next(plugin: &Plugin<'_>, conf: &Value) -> String {
    let ip = address(&call(plugin, "ADD", "next", conf).run_here());
    call(plugin, "DEL", "next", conf).run_here().done();
    ip
}

fn theirs(lab: &Lab) -> Plugin<'_> {
    let bin = Binaries::Reference.directory(&lab.path(""));
    Plugin::new(&lab.host, bin.join("host-local")).search(bin)
}

#[test]
fn eleven_hundred_containers_come_and_go_and_none_gets_the_address() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), with(conf(&lab), "cniVersion", json!("1.1.0")));
    let mut conf = conf;
    conf["ipam"]["reuseDelay"] = json!(30);
    with_conflict(&conf, &ours);
    assert_eq!(lab.leases(), [""; 0]);
    for _ in 0..1100 {
        assert_ne!(next(&ours, &conf), "10.0.0.10");
    }
    for id in ["c2", "c3"] {
        call(&ours, "ADD", id, &conf).run().result();
    }
    let full = ["no free address", "1 kept", &format!("10.0.0.10 ({MAC}) for ")];
    call(&ours, "ADD", "c4", &conf).run().fails(101, &full);
    let outcome = ours.call("STATUS", &conf).run();
    assert!(outcome.done().stderr.contains("1 kept"), "{}", outcome.text());
    conf["ipam"]["statusWhenFull"] = json!("unavailable");
    ours.call("STATUS", &conf).run().fails(50, &full);
    let asked = call(&ours, "ADD", "c4", &conf).args("IP=10.0.0.10").run();
    assert_eq!(address(&asked), "10.0.0.10");
}

#[test]
fn after_the_delay_the_address_is_free_again() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, mut conf) = (lab.host_local(), lab.conf_of_ten(1));
    conf["ipam"]["conflictDelay"] = json!(1);
    with_conflict(&conf, &ours);
    await_that("the only address of the range is free", || call(&ours, "ADD", "c2", &conf).run().status.success());
    assert_eq!(lab.leases(), ["10.0.0.10"]);
}

/// The reference does not know the address as kept. So it may give it to a container, but host-local keeps it.
#[test]
fn calls_of_the_reference_in_between_lose_no_address() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, theirs, conf) = (lab.host_local(), theirs(&lab), conf(&lab));
    with_conflict(&conf, &ours);
    let mut given = BTreeSet::new();
    for _ in 0..4 {
        given.insert(next(&theirs, &conf));
        assert_ne!(next(&ours, &conf), "10.0.0.10");
        call(&theirs, "ADD", "other", &conf).run().result();
        call(&ours, "DEL", "other", &conf).run().done();
        assert_ne!(next(&ours, &conf), "10.0.0.10");
    }
    // The reference ignores the key in a DEL.
    call(&theirs, "ADD", "other", &conf).run().result();
    call(&theirs, "DEL", "other", &naming(&conf, "10.0.0.11")).run().done();
    assert_eq!(lab.leases(), [""; 0]);
    // The lease of the reference is released and kept by ours.
    let second = address(&call(&theirs, "ADD", "other", &conf).run());
    call(&ours, "DEL", "other", &naming(&conf, &second)).run().done();
    for _ in 0..4 {
        assert!(!["10.0.0.10", &second].contains(&next(&ours, &conf).as_str()));
    }
}

#[test]
fn parallel_calls_keep_each_address_that_is_named() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), lab.conf_of_ten(90));
    let run = |name: &'static str, command: &'static str, conf: &(dyn Fn(usize) -> Value + Sync)| -> Vec<Outcome> {
        thread::scope(|scope| {
            let one = |number| call(&ours, command, &format!("{name}{number}"), &conf(number)).run();
            let calls: Vec<_> = (0..40).map(|number| scope.spawn(move || one(number))).collect();
            calls.into_iter().map(|call| call.join().expect("a call")).collect()
        })
    };
    let first: Vec<_> = run("a", "ADD", &|_| conf.clone()).iter().map(address).collect();
    thread::scope(|scope| {
        scope.spawn(|| run("a", "DEL", &|number| naming(&conf, &first[number])).iter().for_each(|one| _ = one.done()));
        run("b", "ADD", &|_| conf.clone()).iter().for_each(|one| drop(one.result()));
    });
    for number in 0..10 {
        call(&ours, "ADD", &format!("c{number}"), &conf).run().result();
    }
    call(&ours, "ADD", "d", &conf).run().fails(101, &["90 addresses, 50 leases", "40 kept", "and 35 more"]);
    let given = leases(&lab);
    assert!(first.iter().all(|ip| !given.contains_key(ip)), "{given:?}");
}

#[test]
fn a_del_that_is_killed_at_any_call_leaves_the_lease_or_keeps_the_address() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    let mut kills = 0;
    loop {
        let _ = fs::remove_dir_all(lab.data_dir());
        assert_eq!(address(&call(&ours, "ADD", "c1", &conf).run()), "10.0.0.10");
        let outcome = call(&ours, "DEL", "c1", &naming(&conf, "10.0.0.10")).run_killed_at(kills + 1);
        let is_leased = lab.leases() == ["10.0.0.10"];
        for _ in 0..3 {
            assert_ne!(next(&ours, &conf), "10.0.0.10", "killed at {kills}");
        }
        if outcome.status.success() {
            assert!(!is_leased);
            break;
        }
        // The runtime repeats the DEL.
        call(&ours, "DEL", "c1", &naming(&conf, "10.0.0.10")).run().done();
        assert_eq!(lab.leases(), [""; 0]);
        for _ in 0..3 {
            assert_ne!(next(&ours, &conf), "10.0.0.10", "killed at {kills}");
        }
        kills += 1;
    }
    assert!(kills > 30, "{kills} stops");
}

/// A DEL must release the lease, also if the address cannot be kept. Then a remark says so.
#[test]
fn a_del_that_cannot_keep_the_address_frees_the_lease_and_says_so() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    let attached = || {
        let _ = fs::remove_dir_all(lab.data_dir());
        assert_eq!(address(&call(&ours, "ADD", "c1", &conf).run()), "10.0.0.10");
        call(&ours, "DEL", "c1", &naming(&conf, "10.0.0.10"))
    };
    let said = "10.0.0.10 not kept, so the next ADD may get it, although another machine on the LAN has it: write ";
    let (_, trace) = attached().run_stepwise(None);
    let writes: Vec<_> = trace.steps.into_iter().filter(|step| step.number == libc::SYS_pwrite64).collect();
    let mut remarks = 0;
    for step in writes {
        let (outcome, trace) = attached().run_stepwise(Some(&Fault { step, deed: Deed::Fail(Errno::ENOSPC) }));
        assert!(trace.struck);
        assert_eq!(outcome.done().stderr.contains(said), !keeps(&lab, &ours, &conf), "{}", outcome.text());
        remarks += usize::from(outcome.stderr.contains(said));
    }
    // The slot and the count.
    assert_eq!(remarks, 2);

    let del = attached();
    fs::hard_link(lab.data_dir().join("lan/lock"), lab.path("another-name")).expect("make a link");
    let outcome = del.run();
    assert!(outcome.done().stderr.contains(said), "{}", outcome.text());
    assert_eq!(lab.leases(), [""; 0]);
}

/// Returns true if no container gets 10.0.0.10.
fn keeps(lab: &Lab, plugin: &Plugin<'_>, conf: &Value) -> bool {
    assert_eq!(lab.leases(), [""; 0]);
    (0..3).all(|_| next(plugin, conf) != "10.0.0.10")
}

#[test]
fn a_wrong_value_is_a_remark_of_del() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    call(&ours, "ADD", "c1", &conf).run().result();
    let wrong = with(conf.clone(), "addressConflicts", json!([{"address": "x"}]));
    let outcome = call(&ours, "DEL", "c1", &wrong).run();
    let said = "host-local: ignored: addressConflicts[0].address \"x\": is not an IP address\n";
    assert_eq!(outcome.done().stderr, said);
    assert_eq!(address(&call(&ours, "ADD", "c1", &conf).args("IP=10.0.0.10").run()), "10.0.0.10");
    let mut wrong = naming(&conf, "10.0.0.10");
    wrong["ipam"]["conflictDelay"] = json!(-1);
    let outcome = call(&ours, "DEL", "c1", &wrong).run();
    let said = "host-local: ignored: ipam.conflictDelay -1: is not a whole number from 0 to 4294967295; the default of \
                600 s is used\n";
    assert_eq!(outcome.done().stderr, said);
    assert!(keeps(&lab, &ours, &conf));
    // The key is known to ADD: no remark.
    let mut known = naming(&conf, "10.0.0.11");
    known["ipam"]["conflictDelay"] = json!(60);
    assert_eq!(call(&ours, "ADD", "c1", &known).run().stderr, "");
}

/// ramfs stands for NFS. The uptime of another machine says nothing about the time here.
#[test]
fn machines_that_share_the_directory_do_not_lose_the_addresses_of_each_other() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    lab.host.run(|| {
        mounts::own();
        let boot_id = lab.path("boot_id");
        let boot = |id: &str| {
            let own = lab.path(id);
            fs::create_dir_all(&own).expect("make the machine's own disk");
            mounts::bind(&own, Path::new("/var/lib"));
            fs::write(&boot_id, format!("{id}\n")).expect("write a boot id");
        };
        fs::write(&boot_id, "").expect("write a boot id");
        mounts::bind(&boot_id, Path::new("/proc/sys/kernel/random/boot_id"));
        fs::create_dir_all(lab.data_dir()).expect("make the directory");
        mounts::file_system("ramfs", &lab.data_dir(), "");
        boot("a");
        with_conflict(&conf, &ours);
        boot("b");
        let asked = call(&ours, "ADD", "b1", &conf).args("IP=10.0.0.11").run_here();
        assert_eq!(address(&asked), "10.0.0.11");
        call(&ours, "DEL", "b1", &naming(&conf, "10.0.0.11")).run_here().done();
        let given: BTreeSet<_> = (0..3).map(|_| next(&ours, &conf)).collect();
        assert_eq!(given, BTreeSet::from(["10.0.0.10", "10.0.0.12"].map(str::to_owned)));
        boot("a");
        let given: BTreeSet<_> = (0..3).map(|_| next(&ours, &conf)).collect();
        assert_eq!(given, BTreeSet::from(["10.0.0.11", "10.0.0.12"].map(str::to_owned)));
    });
}
