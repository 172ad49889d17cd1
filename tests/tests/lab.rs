//! Tests the Lab itself: the traffic on its LAN, its view of the wire, and its trace of a call.

use std::time::Duration;

use e2e::cases;
use e2e::lab::{MACHINE_NIC, NIC, lan4, lan6};
use e2e::patience::{PATIENCE, await_that};
use e2e::traffic::{Manner, Reaction, Wire, arp_probe, assert_reaches, assert_silent, echo};

cases! {
    #[reference(passes)]
    fn host_and_neighbour_reach_each_other(lab) {
        assert_reaches(&lab.neighbour, lab.host.v4);
        assert_reaches(&lab.neighbour, lab.host.v6);
        assert_reaches(&lab.host, lab.neighbour.v4);
        assert_reaches(&lab.host, lab.neighbour.v6);
        assert_silent(&lab.neighbour, lan4(99));
        assert_silent(&lab.neighbour, lan6(99));
    }

    #[reference(passes)]
    fn tcp_crosses_the_switch(lab) {
        echo(&lab.neighbour, &lab.host, lab.host.v4, 1_000_000);
        echo(&lab.neighbour, &lab.host, lab.host.v6, 1_000_000);
    }

    #[reference(passes)]
    fn an_arp_probe_finds_only_the_host(lab) {
        let probe = |ip, patience| {
            arp_probe(&lab.neighbour, lab.neighbour.nic, lab.neighbour.v4, ip, patience)
        };
        assert_eq!(probe(lab.host.v4, PATIENCE), Some(lab.host.link(lab.host.nic).mac));
        assert_eq!(probe(lan4(99), Duration::from_millis(300)), None);
    }

    #[reference(passes)]
    fn a_container_on_macvlan_is_reached_from_the_neighbour(lab) {
        let conf = lab.conf();
        let (container, result) = lab.macvlan().attached(lab, &conf);
        assert_eq!(result["ips"][0]["address"], "192.168.50.100/24");
        let link = container.link("eth0");
        assert_eq!(link.kind.as_deref(), Some("macvlan"));
        assert_eq!(link.macvlan.map(|macvlan| macvlan.mode).as_deref(), Some("bridge"));
        assert_eq!(container.address_texts("eth0"), ["192.168.50.100/24"]);
        assert_reaches(&lab.neighbour, lan4(100));
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert!(!container.has_link("eth0"));
        assert_eq!(lab.leases(), [""; 0]);
        assert_silent(&lab.neighbour, lan4(100));
    }

    #[reference(passes)]
    fn a_traced_call_is_the_same_call(lab) {
        let container = lab.container();
        let (outcome, trace) = lab.macvlan().add(&container, "eth0", &lab.conf()).run_traced();
        assert_eq!(outcome.result()["ips"][0]["address"], "192.168.50.100/24");
        let expected = match lab.binaries() {
            e2e::Binaries::HardLinks => 1,
            e2e::Binaries::PlainCopies => 2,
            // Go starts a process first, to test if pidfds work.
            e2e::Binaries::Reference => 3,
        };
        assert_eq!(trace.processes(), expected, "{trace:?}");
        assert!(trace.peaks_kib.iter().all(|&peak| peak > 100), "{trace:?}");
    }
}

/// The kernel of another machine accepts the answers of a programmed one.
#[test]
fn a_holder_answers_for_its_addresses_after_its_delay_until_it_is_dropped() {
    let lab = e2e::Lab::new(e2e::Binaries::HardLinks);
    let held = [lan4(100), lan6(100)];
    let holder = Manner::of(&held).after(Duration::from_millis(20)).with_many_macs().start(&lab.neighbour, MACHINE_NIC);
    let zero = "0.0.0.0".parse().expect("an address");
    for sender in [zero, lab.host.v4] {
        assert_eq!(arp_probe(&lab.host, NIC, sender, lan4(100), PATIENCE), Some(holder.mac_of(lan4(100))));
    }
    assert_eq!(arp_probe(&lab.host, NIC, zero, lan4(101), Duration::from_millis(100)), None);
    assert_eq!(holder.asked(), 2);
    let mac = holder.mac_of(lan6(100));
    lab.host.set_sysctl(&format!("net/ipv6/conf/{NIC}/accept_dad"), "1");
    lab.host.ip(&format!("address add fd50::100/64 dev {NIC}"));
    let address = || lab.host.addresses(NIC).into_iter().find(|address| address.net.addr() == lan6(100));
    await_that("the kernel finds a duplicate", || address().is_some_and(|address| address.duplicate()));
    drop(holder);
    assert_eq!(arp_probe(&lab.host, NIC, zero, lan4(100), Duration::from_millis(100)), None);
    assert_ne!(mac, lab.host.link(NIC).mac);
}

#[test]
fn a_holder_reacts_in_other_ways() {
    let lab = e2e::Lab::new(e2e::Binaries::HardLinks);
    let zero = "0.0.0.0".parse().expect("an address");
    let mac = |netns: &e2e::Namespace, nic: &str| netns.link(nic).mac;
    let (own, other) = (mac(&lab.host, NIC), mac(&lab.neighbour, MACHINE_NIC));
    for (reaction, source, is_broadcast) in [
        (Reaction::Announce, &other, true),
        (Reaction::ProbeAll, &other, true),
        (Reaction::ProbeSender, &other, false),
        (Reaction::Reflect, &own, true),
    ] {
        let wire = Wire::open(&lab.host, NIC);
        let _holder = Manner::of_everything().reaction(reaction).start(&lab.neighbour, MACHINE_NIC);
        wire.ask(zero, lan4(100));
        let seen = wire.seen_until(|frame| frame.probes(lan4(100)) || frame.announces(lan4(100)));
        let seen = seen.last().expect("a reaction");
        assert_eq!((&seen.source, seen.is_broadcast()), (source, is_broadcast), "{reaction:?}: {seen:?}");
        assert_eq!(seen.frame.announces(lan4(100)), reaction == Reaction::Announce);
    }
}

/// Programs find the file, and the rest of /etc is still there.
#[test]
fn a_host_can_have_a_file_in_etc_that_this_machine_has_not() {
    let lab = e2e::Lab::new(e2e::Binaries::HardLinks);
    for text in ["first", "second"] {
        lab.host.write_etc("underlay.conf", text);
        assert_eq!(lab.host.run(|| std::fs::read_to_string("/etc/underlay.conf")).expect("read a file"), text);
    }
    let passwd = || std::fs::read("/etc/passwd").expect("read a file");
    assert_eq!(lab.host.run(passwd), passwd());
    assert!(!std::path::Path::new("/etc/underlay.conf").exists());
}
