//! Duplicate address detection of IPv6: it is complete and fast, and the sysctls are reset afterwards.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use e2e::cases;
use e2e::lab::{Families, lan6};
use e2e::traffic::{Frame, Wire, assert_reaches};

const DELAY: &str = "router_solicitation_delay";
const LISTEN: &str = "retrans_time_ms";

cases! {
    #[reference(fails: "took")]
    fn an_ipv6_address_is_probed_and_usable_in_less_than_a_second(lab) {
        let conf = lab.conf_with(lab.ipam(Families::V6));
        let wire = Wire::open(&lab.neighbour, "eth0");
        let container = lab.container();
        let outcome = lab.macvlan().add(&container, "eth0", &conf).run();
        outcome.result();
        let IpAddr::V6(leased) = lan6(100) else { unreachable!("lan6 is IPv6") };
        let probe = wire.wait_for(Duration::from_secs(5), |frame| {
            matches!(frame, Frame::Solicitation { source: Ipv6Addr::UNSPECIFIED, target } if *target == leased)
        });
        assert!(probe.is_some(), "no probe was sent for {leased}");
        assert_reaches(&lab.neighbour, lan6(100));
        // With the defaults of the kernel, it takes one to two seconds. On a busy machine a call may be slow, so the
        // fastest of three counts.
        let again = || lab.macvlan().add(&lab.container(), "eth0", &conf).run().wall;
        let least = outcome.wall.min(again()).min(again());
        assert!(least < Duration::from_secs(1), "took {least:?}");
    }

    #[reference(passes)]
    fn when_add_returns_the_sysctls_are_reset(lab) {
        let container = lab.container();
        container.set_sysctl("net/ipv6/conf/default/router_solicitation_delay", "2");
        lab.macvlan().add(&container, "eth0", &lab.conf_with(lab.ipam(Families::V6))).run().result();
        assert_eq!(container.sysctl(&format!("net/ipv6/conf/eth0/{DELAY}")), "2");
        assert_eq!(container.sysctl(&format!("net/ipv6/neigh/eth0/{LISTEN}")), "1000");
    }

    #[reference(passes)]
    fn without_a_carrier_the_sysctls_are_reset_too(lab) {
        lab.unplug();
        let container = lab.container();
        lab.macvlan().add(&container, "eth0", &lab.conf_with(lab.ipam(Families::V6))).run();
        assert_eq!(container.sysctl(&format!("net/ipv6/conf/eth0/{DELAY}")), "1");
        assert_eq!(container.sysctl(&format!("net/ipv6/neigh/eth0/{LISTEN}")), "1000");
    }
}
