//! Tests the Lab itself: the traffic on its LAN, its view of the wire, and its trace of a call.

use std::time::Duration;

use e2e::cases;
use e2e::lab::{lan4, lan6};
use e2e::patience::PATIENCE;
use e2e::traffic::{arp_probe, assert_reaches, assert_silent, echo};

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
