//! Addresses, and the wait for duplicate address detection.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use linux::{AddressWatch, Errno, Error, Netns, NewLink, Rtnl, sysctl};

use crate::sandbox::{another_netns, ifindex, ip, macvlan, sandboxed, with_nic};

fn net(text: &str) -> IpNet {
    text.parse().expect("address")
}

/// The addresses of a link without the link-local ones, which the kernel adds.
fn nets(rtnl: &mut Rtnl, ifindex: u32) -> Vec<IpNet> {
    let link_local = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
    let nets = rtnl.addresses(ifindex).expect("addresses").into_iter().map(|address| address.address);
    nets.filter(|net| !link_local(net)).collect()
}

/// A deadline that no wait reaches.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Makes duplicate address detection take 0.2 seconds instead of up to two.
fn hasten_dad(netns: &Netns, interface: &str) {
    let delay = format!("net/ipv6/conf/{interface}/router_solicitation_delay");
    let probe = format!("net/ipv6/neigh/{interface}/retrans_time_ms");
    for result in sysctl::write_all(netns, &[(&delay, "0"), (&probe, "200")]) {
        result.expect("sysctl");
    }
}

#[test]
fn addresses_of_both_families_are_added_listed_and_deleted() {
    with_nic(|rtnl, link| {
        let wanted = ["10.1.2.3/24", "10.9.0.1/31", "10.9.0.9/32", "fd00::5/64"].map(net);
        for address in wanted {
            rtnl.new_address(link, address).unwrap();
        }
        assert_eq!(nets(rtnl, link), wanted);
        let wire = ifindex(rtnl, "wire0");
        assert_eq!(nets(rtnl, wire), []);

        let shown = ip("-4 -o addr show nic0");
        assert!(shown.contains("inet 10.1.2.3/24 brd 10.1.2.255 scope global"));
        assert!(shown.contains("inet 10.9.0.1/31 scope global"), "{shown}");
        assert!(shown.contains("inet 10.9.0.9/32 scope global"), "{shown}");

        for address in rtnl.addresses(link).unwrap() {
            assert_eq!(address.ifindex, link);
            assert!(address.permanent(), "{address:?}");
            rtnl.del_address(&address).unwrap();
        }
        assert_eq!(rtnl.addresses(link).unwrap(), []);
    });
}

#[test]
fn a_second_add_of_an_address_is_eexist_and_a_second_delete_eaddrnotavail() {
    with_nic(|rtnl, link| {
        for text in ["10.1.2.3/24", "fd00::5/64"] {
            rtnl.new_address(link, net(text)).unwrap();
            let error = rtnl.new_address(link, net(text)).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EEXIST));
            let words = error.to_string();
            let expected = format!("add address {text} to ifindex {link}: file exists");
            assert!(words.starts_with(&expected), "{words}");

            let address =
                rtnl.addresses(link).unwrap().into_iter().find(|address| address.address == net(text)).unwrap();
            rtnl.del_address(&address).unwrap();
            let error = rtnl.del_address(&address).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EADDRNOTAVAIL));
        }
    });
}

#[test]
fn the_peer_of_a_point_to_point_address_is_read() {
    with_nic(|rtnl, link| {
        ip("addr add 10.0.0.1 peer 10.0.0.2/32 dev nic0");
        let address = rtnl.addresses(link).unwrap().remove(0);
        assert_eq!(address.address, net("10.0.0.1/32"));
        assert_eq!(address.peer, Some("10.0.0.2".parse().unwrap()));
        rtnl.del_address(&address).unwrap();
        assert_eq!(nets(rtnl, link), []);
    });
}

#[test]
fn listing_the_addresses_of_a_missing_link_is_enodev() {
    sandboxed(|| {
        let error = Rtnl::open().unwrap().addresses(4711).unwrap_err();
        assert_eq!(error.to_string(), "list addresses of ifindex 4711: no such device");
    });
}

#[test]
fn an_ipv6_address_is_usable_when_the_wait_returns() {
    with_nic(|rtnl, link| {
        let here = Netns::current().unwrap();
        hasten_dad(&here, "nic0");
        let mut watch = AddressWatch::open_in(&here).unwrap();
        let addresses: [Ipv6Addr; 2] = ["fd00::5", "fd00::6"].map(|a| a.parse().unwrap());
        for address in addresses {
            let address = IpNet::new(address.into(), 64).unwrap();
            rtnl.new_address(link, address).unwrap();
        }
        let tentative = |rtnl: &mut Rtnl| {
            let list = rtnl.addresses(link).unwrap();
            list.iter()
                .filter(|a| a.address.addr() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))
                .filter(|a| addresses.iter().any(|b| a.address.addr() == IpAddr::V6(*b)))
                .filter(|a| a.tentative())
                .count()
        };
        assert_eq!(tentative(rtnl), 2);
        watch.wait_usable(rtnl, link, &addresses, soon()).unwrap();
        assert_eq!(tentative(rtnl), 0);
    });
}

#[test]
fn a_wait_for_no_addresses_returns_at_once() {
    with_nic(|rtnl, link| {
        let here = Netns::current().unwrap();
        let mut watch = AddressWatch::open_in(&here).unwrap();
        watch.wait_usable(rtnl, link, &[], Instant::now()).unwrap();
    });
}

#[test]
fn the_error_names_an_address_that_another_machine_has() {
    with_nic(|rtnl, parent| {
        let address: Ipv6Addr = "fd00::5".parse().unwrap();
        let attach = |rtnl: &mut Rtnl| {
            let there = another_netns();
            rtnl.new_link(&NewLink { netns: Some(&there), ..macvlan("eth0", parent) }).unwrap();
            let mut inside = Rtnl::open_in(&there).unwrap();
            hasten_dad(&there, "eth0");
            let mut watch = AddressWatch::open_in(&there).unwrap();
            let link = ifindex(&mut inside, "eth0");
            inside.new_address(link, IpNet::new(address.into(), 64).unwrap()).unwrap();
            inside.set_up(link).unwrap();
            let outcome = watch.wait_usable(&mut inside, link, &[address], soon());
            (there, outcome)
        };
        let (_first, outcome) = attach(rtnl);
        outcome.unwrap();
        let (_second, outcome) = attach(rtnl);
        match outcome.unwrap_err() {
            Error::DadFailed { address: which, removed } => assert_eq!((which, removed), (address, false)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn the_error_names_an_address_that_is_deleted_during_the_wait() {
    sandboxed(|| {
        let here = Netns::current().unwrap();
        // Without carrier, duplicate address detection does not begin.
        ip("link add nic0 type veth peer name wire0");
        ip("link set nic0 up");
        let mut rtnl = Rtnl::open().unwrap();
        let link = ifindex(&mut rtnl, "nic0");
        rtnl.new_address(link, net("fd00::5/64")).unwrap();
        let address = rtnl.addresses(link).unwrap().remove(0);
        let mut watch = AddressWatch::open_in(&here).unwrap();
        let deleter = std::thread::spawn(move || here.enter(|| Rtnl::open().unwrap().del_address(&address).unwrap()));
        let wanted: Ipv6Addr = "fd00::5".parse().unwrap();
        let error = watch.wait_usable(&mut rtnl, link, &[wanted], soon()).unwrap_err();
        deleter.join().unwrap().unwrap();
        assert_eq!(error.to_string(), "use address fd00::5: the kernel removed it during duplicate address detection");
    });
}

#[test]
fn a_wait_without_carrier_ends_at_the_deadline() {
    sandboxed(|| {
        let here = Netns::current().unwrap();
        ip("link add nic0 type veth peer name wire0");
        ip("link set nic0 up");
        let mut rtnl = Rtnl::open().unwrap();
        let link = ifindex(&mut rtnl, "nic0");
        let mut watch = AddressWatch::open_in(&here).unwrap();
        rtnl.new_address(link, net("fd00::5/64")).unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = watch.wait_usable(&mut rtnl, link, &["fd00::5".parse().unwrap()], deadline).unwrap_err();
        assert!(Instant::now() >= deadline);
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert_eq!(error.to_string(), "wait for duplicate address detection of fd00::5: timed out");
    });
}

#[test]
fn the_wait_succeeds_after_more_events_than_the_socket_holds() {
    with_nic(|rtnl, link| {
        let here = Netns::current().unwrap();
        hasten_dad(&here, "nic0");
        let mut watch = AddressWatch::open_in(&here).unwrap();
        rtnl.new_address(link, net("fd00::5/64")).unwrap();
        let lo = ifindex(rtnl, "lo");
        rtnl.set_up(lo).unwrap();
        for n in 1..1500 {
            rtnl.new_address(lo, net(&format!("fd01::{n:x}/128"))).unwrap();
        }
        watch.wait_usable(rtnl, link, &["fd00::5".parse().unwrap()], soon()).unwrap();
    });
}
