//! Routes: creation, listing, and the default route.

use ipnet::IpNet;
use linux::{Errno, Route, RouteKind, Rtnl};

use crate::sandbox::{ifindex, ip, sandboxed, with_nic};

fn net(text: &str) -> IpNet {
    text.parse().expect("address")
}

/// As [`with_nic`], with the addresses 10.0.0.5/24 and fd00::5/64 on the NIC.
fn with_numbered_nic(test: impl FnOnce(&mut Rtnl, u32) + Send + 'static) {
    with_nic(|rtnl, nic0| {
        ip("addr add 10.0.0.5/24 dev nic0");
        ip("addr add fd00::5/64 dev nic0 nodad");
        test(rtnl, nic0);
    });
}

fn only(rtnl: &mut Rtnl, dst: &str) -> Route {
    let mut found: Vec<_> = rtnl.routes().expect("routes");
    found.retain(|route| route.dst == net(dst));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn every_attribute_of_a_route_is_set_and_read_back() {
    with_numbered_nic(|rtnl, nic0| {
        let oif = Some(nic0);
        for (dst, gateway) in [("192.168.7.0/24", "10.0.0.1"), ("fd07::/48", "fd00::1")] {
            let route = Route {
                gateway: Some(gateway.parse().unwrap()),
                oif,
                priority: Some(77),
                table: Some(1234),
                mtu: Some(1280),
                advmss: Some(1200),
                ..Route::to(net(dst))
            };
            rtnl.new_route(&route).unwrap();
            let expected = Route { scope: Some(0), protocol: Some(3), ..route };
            assert_eq!(only(rtnl, dst), expected);
        }
        let shown = ip("route show table 1234");
        assert_eq!(shown.trim(), "192.168.7.0/24 via 10.0.0.1 dev nic0 metric 77 mtu 1280 advmss 1200");
        let shown = ip("-6 route show table 1234");
        assert!(shown.contains("fd07::/48 via fd00::1 dev nic0 metric 77 mtu 1280 advmss 1200"), "{shown}");
    });
}

#[test]
fn a_route_has_the_same_defaults_as_one_of_ip_route_add() {
    with_numbered_nic(|rtnl, nic0| {
        let oif = Some(nic0);
        let on_link = Route { oif, ..Route::to(net("192.168.8.0/24")) };
        rtnl.new_route(&on_link).unwrap();
        ip("route add 192.168.9.0/24 dev nic0");
        assert_eq!(only(rtnl, "192.168.8.0/24"), Route { dst: net("192.168.8.0/24"), ..only(rtnl, "192.168.9.0/24") });
        let on_link = Route { oif, ..Route::to(net("fd08::/64")) };
        rtnl.new_route(&on_link).unwrap();
        ip("route add fd09::/64 dev nic0");
        assert_eq!(only(rtnl, "fd08::/64"), Route { dst: net("fd08::/64"), ..only(rtnl, "fd09::/64") });
        assert_eq!(only(rtnl, "fd08::/64").priority, Some(1024));
    });
}

#[test]
fn host_bits_of_a_destination_are_ignored() {
    with_numbered_nic(|rtnl, nic0| {
        let oif = Some(nic0);
        rtnl.new_route(&Route { oif, ..Route::to(net("192.168.7.9/24")) }).unwrap();
        assert_eq!(only(rtnl, "192.168.7.0/24").oif, oif);
    });
}

#[test]
fn the_error_has_the_text_of_the_kernel_about_a_gateway() {
    with_numbered_nic(|rtnl, _| {
        let error =
            rtnl.new_route(&Route { gateway: Some("172.16.0.1".parse().unwrap()), ..Route::default() }).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENETUNREACH));
        assert_eq!(
            error.to_string(),
            "add route 0.0.0.0/0 via 172.16.0.1: network is unreachable: Nexthop has invalid gateway"
        );
    });
}

#[test]
fn a_second_add_of_a_route_is_eexist() {
    with_numbered_nic(|rtnl, nic0| {
        let oif = Some(nic0);
        for dst in ["192.168.7.0/24", "fd07::/64"] {
            let route = Route { oif, ..Route::to(net(dst)) };
            rtnl.new_route(&route).unwrap();
            let error = rtnl.new_route(&route).unwrap_err();
            assert_eq!(error.to_string(), format!("add route {dst}: file exists"));
        }
    });
}

#[test]
fn an_ipv4_route_can_have_an_ipv6_gateway() {
    with_numbered_nic(|rtnl, nic0| {
        let oif = Some(nic0);
        rtnl.new_route(&Route { gateway: Some("fd00::1".parse().unwrap()), oif, ..Route::to(net("192.168.7.0/24")) })
            .unwrap();
        let route = only(rtnl, "192.168.7.0/24");
        assert_eq!(route.gateway, Some("fd00::1".parse().unwrap()));
        let shown = ip("route show 192.168.7.0/24");
        assert!(shown.contains("via inet6 fd00::1 dev nic0"), "{shown}");
    });
}

#[test]
fn a_route_with_several_next_hops_is_listed_once_for_each() {
    with_numbered_nic(|rtnl, link| {
        for (dst, hops) in [("192.168.7.0/24", ["10.0.0.1", "10.0.0.2"]), ("fd07::/64", ["fd00::1", "fd00::2"])] {
            let [a, b] = hops;
            ip(&format!("route add {dst} metric 5 nexthop via {a} dev nic0 nexthop via {b} dev nic0"));
            let mut routes = rtnl.routes().unwrap();
            routes.retain(|route| route.dst == net(dst));
            let gateways: Vec<_> = routes.iter().filter_map(|route| route.gateway).collect();
            assert_eq!(gateways, hops.map(|hop| hop.parse::<std::net::IpAddr>().unwrap()));
            for route in routes {
                assert_eq!((route.oif, route.priority), (Some(link), Some(5)));
                assert_eq!(route.kind, RouteKind::Unicast);
            }
        }
    });
}

#[test]
fn routes_of_all_tables_and_kinds_are_listed() {
    with_numbered_nic(|rtnl, _| {
        ip("route add blackhole 192.168.1.0/24");
        ip("route add unreachable 192.168.2.0/24 table 300");
        ip("route add prohibit fd01::/64");
        assert_eq!(only(rtnl, "192.168.1.0/24").kind, RouteKind::Blackhole);
        let unreachable = only(rtnl, "192.168.2.0/24");
        assert_eq!(unreachable.kind, RouteKind::Unreachable);
        assert_eq!(unreachable.table, Some(300));
        assert_eq!(only(rtnl, "fd01::/64").kind, RouteKind::Prohibit);
        // Table local has a route to the address of the link.
        let own = only(rtnl, "10.0.0.5/32");
        assert_eq!((own.kind, own.table), (RouteKind::Local, Some(255)));
    });
}

/// The kernel makes the table of a family with its first route or rule. Until then it answers ENOENT.
#[test]
fn a_default_route_of_ipv6_is_found_where_ipv4_has_no_table_yet() {
    sandboxed(|| {
        ip("link add nic0 type veth peer name wire0");
        ip("link set nic0 up");
        ip("link set wire0 up");
        ip("route add default via fe80::1 dev nic0");
        let mut rtnl = Rtnl::open().unwrap();
        assert_eq!(Rtnl::default_route(Rtnl::open).unwrap(), Some(ifindex(&mut rtnl, "nic0")));
    });
}

/// A router can have a million routes, and all of them were listed to find one. (C12)
#[test]
fn the_default_route_is_found_without_a_list_of_all_routes() {
    with_nic(|rtnl, nic0| {
        ip("address add 192.0.2.1/24 dev nic0");
        let routes: String =
            (0..20_000).map(|n| format!("route add 10.{}.{}.0/24 via 192.0.2.2\n", n / 250, n % 250)).collect();
        let batch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(batch.path(), routes).unwrap();
        ip(&format!("-batch {}", batch.path().display()));
        ip("route add default via 192.0.2.3");
        let (opened, whole) = (std::time::Instant::now(), rtnl.routes().unwrap().len());
        let whole_list = opened.elapsed();
        assert!(whole > 20_000, "{whole}");
        let begun = std::time::Instant::now();
        assert_eq!(Rtnl::default_route(Rtnl::open).unwrap(), Some(nic0));
        assert!(
            begun.elapsed() < whole_list / 4,
            "{:?}, but the list of all routes takes {whole_list:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn the_default_route_is_the_one_with_the_lowest_priority_in_table_main() {
    with_numbered_nic(|rtnl, nic0| {
        let wire0 = ifindex(rtnl, "wire0");
        ip("addr add 10.1.0.5/24 dev wire0");
        assert_eq!(Rtnl::default_route(Rtnl::open).unwrap(), None);

        // Neither is a default route to another machine in table main.
        ip("route add blackhole default metric 1");
        ip("route add default via 10.0.0.1 table 100");
        assert_eq!(Rtnl::default_route(Rtnl::open).unwrap(), None);

        // Without a default route of IPv4, that of IPv6 counts.
        ip("route add default via fd00::1 dev nic0");
        assert_eq!(Rtnl::default_route(Rtnl::open).unwrap(), Some(nic0));

        ip("route add default via 10.1.0.1 dev wire0 metric 300");
        assert_eq!(Rtnl::default_route(Rtnl::open).unwrap(), Some(wire0));
        ip("route add default via 10.0.0.1 dev nic0 metric 200");
        assert_eq!(Rtnl::default_route(Rtnl::open).unwrap(), Some(nic0));
        // A route without a metric has metric 0.
        ip("route add default via 10.1.0.1 dev wire0");
        assert_eq!(Rtnl::default_route(Rtnl::open).unwrap(), Some(wire0));
    });
}

#[test]
fn a_route_is_added_to_advertised_ones_of_the_same_link_only() {
    with_numbered_nic(|rtnl, nic0| {
        let by = |gateway: &str| Route {
            gateway: Some(gateway.parse().unwrap()),
            oif: Some(nic0),
            ..Route::to(net("::/0"))
        };
        let ours = by("fd00::1");
        assert!(!rtnl.can_stand_beside(&ours).unwrap(), "there is no other route");
        ip("route add default via fd00::9 dev nic0 proto ra metric 1024");
        assert!(rtnl.can_stand_beside(&ours).unwrap());
        assert!(rtnl.can_stand_beside(&Route { priority: Some(0), ..ours.clone() }).unwrap());
        assert!(!rtnl.can_stand_beside(&Route { priority: Some(7), ..ours.clone() }).unwrap());
        assert!(!rtnl.can_stand_beside(&Route { table: Some(100), ..ours.clone() }).unwrap());
        assert!(!rtnl.can_stand_beside(&Route { oif: Some(nic0 + 1), ..ours.clone() }).unwrap(), "on another link");
        assert_eq!(rtnl.new_route(&ours).unwrap_err().errno(), Some(Errno::EEXIST));
        rtnl.append_route(&ours).unwrap();
        assert_eq!(rtnl.append_route(&ours).unwrap_err().errno(), Some(Errno::EEXIST));
        let mut gateways: Vec<_> = rtnl.routes().unwrap().into_iter().filter(Route::is_default).collect();
        gateways.retain(|route| route.gateway.is_some());
        assert_eq!(gateways.len(), 2, "{gateways:?}");
        assert!(rtnl.can_stand_beside(&by("fd00::2")).unwrap(), "an advertised one and one of ours exist");
        let kernels = Route { priority: Some(256), oif: Some(nic0), ..Route::to(net("fd00::/64")) };
        assert!(!rtnl.can_stand_beside(&kernels).unwrap(), "the kernel made that one");
        rtnl.delete_advertised(&ours).unwrap();
        let after: Vec<_> = rtnl.routes().unwrap().into_iter().filter(Route::is_default).collect();
        assert!(gateways.iter().all(|route| after.contains(route)), "that gateway has advertised neither: {after:?}");
        rtnl.delete_advertised(&by("fd00::9")).unwrap();
        let after: Vec<_> = rtnl.routes().unwrap().into_iter().filter(Route::is_default).collect();
        assert!(after.iter().any(|route| route.gateway == ours.gateway), "{after:?}");
        assert!(after.iter().all(|route| route.gateway != by("fd00::9").gateway), "{after:?}");
    });
}

#[test]
fn only_routes_of_one_origin_on_one_link_are_listed() {
    with_numbered_nic(|rtnl, nic0| {
        const OURS: u8 = 117;
        ip("link add other type veth peer name wire1");
        ip("link set other up");
        let other = ifindex(rtnl, "other");
        let route = |dst: &str, oif, protocol| Route { oif: Some(oif), protocol, ..Route::to(net(dst)) };
        for route in [
            route("10.1.0.1/32", nic0, Some(OURS)),
            route("10.1.0.2/32", nic0, None),
            route("10.1.0.3/32", other, Some(OURS)),
            Route { source: Some("fd00::5".parse().unwrap()), ..route("fd01::1/128", nic0, Some(OURS)) },
            Route { table: Some(99), ..route("10.1.0.4/32", nic0, Some(OURS)) },
        ] {
            rtnl.new_route(&route).unwrap();
        }
        let listed = |rtnl: &mut Rtnl| {
            let routes = rtnl.routes_on(Some(OURS), nic0).unwrap();
            routes.iter().map(|route| (route.dst.to_string(), route.source)).collect::<Vec<_>>()
        };
        let source = "fd00::5".parse().ok();
        assert_eq!(listed(rtnl), [("10.1.0.1/32".to_owned(), None), ("fd01::1/128".to_owned(), source)]);
        assert!(ip("-6 route show fd01::1").contains("src fd00::5"));
        rtnl.del_route(&route("10.1.0.1/32", nic0, Some(OURS))).unwrap();
        assert_eq!(listed(rtnl).len(), 1);
        let gone = rtnl.del_route(&route("10.1.0.2/32", nic0, Some(OURS))).unwrap_err();
        assert_eq!(gone.errno(), Some(Errno::ESRCH), "a route of another origin is left");
    });
}
