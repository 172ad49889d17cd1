//! Duplicate address detection of IPv6: done whole, made short, and without a trace in the sysctls.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use e2e::cases;
use e2e::lab::{Families, lan6};
use e2e::traffic::{Frame, Wire, assert_reaches};

const DELAY: &str = "router_solicitation_delay";
const LISTEN: &str = "retrans_time_ms";

cases! {
    #[reference(fails: "took")]
    fn an_ipv6_address_is_usable_on_return_in_less_than_half_a_second_and_was_probed_for(lab) {
        let wire = Wire::open(&lab.neighbour, "eth0");
        let container = lab.container();
        let outcome = lab.macvlan().add(&container, "eth0", &lab.conf_with(lab.ipam(Families::V6))).run();
        outcome.result();
        let IpAddr::V6(leased) = lan6(100) else { unreachable!("lan6 is IPv6") };
        let probe = wire.wait_for(Duration::from_secs(5), |frame| {
            matches!(frame, Frame::Solicitation { source: Ipv6Addr::UNSPECIFIED, target } if *target == leased)
        });
        assert!(probe.is_some(), "no probe was sent for {leased}");
        assert_reaches(&lab.neighbour, lan6(100));
        // On a kernel that detects at its defaults it is 1.3 to 2 s.
        assert!(outcome.wall < Duration::from_millis(500), "took {:?}", outcome.wall);
    }

    #[reference(passes)]
    fn what_was_set_to_make_it_short_is_as_it_was_when_add_returns(lab) {
        let container = lab.container();
        container.set_sysctl("net/ipv6/conf/default/router_solicitation_delay", "2");
        lab.macvlan().add(&container, "eth0", &lab.conf_with(lab.ipam(Families::V6))).run().result();
        assert_eq!(container.sysctl(&format!("net/ipv6/conf/eth0/{DELAY}")), "2");
        assert_eq!(container.sysctl(&format!("net/ipv6/neigh/eth0/{LISTEN}")), "1000");
    }

    #[reference(passes)]
    fn without_a_carrier_too(lab) {
        lab.unplug();
        let container = lab.container();
        lab.macvlan().add(&container, "eth0", &lab.conf_with(lab.ipam(Families::V6))).run();
        assert_eq!(container.sysctl(&format!("net/ipv6/conf/eth0/{DELAY}")), "1");
        assert_eq!(container.sysctl(&format!("net/ipv6/neigh/eth0/{LISTEN}")), "1000");
    }
}
