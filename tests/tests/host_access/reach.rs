//! The host and its containers reach each other, and the container reaches all addresses of its host.

use e2e::lab::{Families, NIC};
use e2e::patience::await_that;
use e2e::traffic::{assert_reaches, echo};
use serde_json::json;

use crate::site::{
    DUAL, address, addresses, assert_reach_each_other, change_host_address, other_lan, routes_of_ours, source,
};

e2e::on_both_kinds! {
    fn the_host_and_two_containers_reach_each_other_and_the_lan(site) {
        let conf = site.conf(DUAL);
        let (first, conf_of_first) = site.attach(&conf);
        let (second, _) = site.attach(&conf);
        for container in [&first, &second] {
            assert_reach_each_other(site, container);
            for address in addresses(container) {
                assert_reaches(&site.neighbour, address);
            }
            assert_reaches(container, site.neighbour.v4);
            assert_reaches(container, site.neighbour.v6);
        }
        for address in addresses(&second) {
            echo(&first, &second, address, 10_000);
        }
        site.checks(&first, &conf_of_first);
        let link = site.host_link();
        assert_eq!(link.kind.as_deref(), Some(site.kind));
        assert_eq!(link.parent, Some(site.host.link(NIC).ifindex));
        assert!(site.host.try_ip(&format!("link show underlay-{NIC}")).is_ok(), "there is no alternative name");
        let mut all: Vec<_> = [&first, &second].into_iter().flat_map(|its| addresses(its)).map(|its| its.to_string()).collect();
        all.sort();
        assert_eq!(site.host_routes(), all);
        for container in [&first, &second] {
            site.detach(container, &conf);
        }
        site.assert_nothing_left();
    }

    /// The host may have several NICs and change its addresses, because the source is none of them.
    fn the_source_of_what_the_host_sends_is_its_private_address(site) {
        let _other = other_lan(site, "aaa0", "10.9.9.1/24", "10.9.9.2/24");
        let (container, _) = site.attach(&site.conf(DUAL));
        let sources: Vec<_> =
            addresses(&container).iter().map(|ip| source(&site.host, &container, *ip).to_string()).collect();
        assert_eq!(sources, ["169.254.255.1", "fd00:75:6c::1"]);
        change_host_address(site, "192.168.50.11");
        assert_eq!(source(&site.host, &container, address(&container)).to_string(), "169.254.255.1");
    }

    fn with_ipv4_only_the_link_has_no_ipv6(site) {
        let (container, conf) = site.attach(&site.conf(Families::V4));
        assert_reach_each_other(site, &container);
        let link = site.host_link();
        assert_eq!(site.host.sysctl(&format!("net/ipv6/conf/{}/disable_ipv6", link.name)), "1");
        assert_eq!(site.private(), ["169.254.255.1/32"]);
        assert_eq!(routes_of_ours(&container), ["169.254.255.1", "192.168.50.10"]);
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    fn with_ipv6_only_the_link_has_no_ipv4_address(site) {
        let (container, conf) = site.attach(&site.conf(Families::V6));
        assert_reach_each_other(site, &container);
        assert_eq!(site.private(), ["fd00:75:6c::1/128"]);
        assert_eq!(routes_of_ours(&container), ["fd00:75:6c::1", "fd50::10"]);
        site.checks(&container, &conf);
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    /// IPv6 comes to the link with the first container that has it.
    fn a_container_with_ipv6_joins_one_with_ipv4(site) {
        let (first, _) = site.attach(&site.conf(Families::V4));
        let (second, _) = site.attach(&site.conf(DUAL));
        assert_reach_each_other(site, &first);
        assert_reach_each_other(site, &second);
    }

    fn the_container_reaches_the_hosts_addresses_on_the_link_of_its_default_route(site) {
        let _router = other_lan(site, "uplink0", "10.9.9.1/24", "10.9.9.2/24");
        let _third = other_lan(site, "third0", "10.8.8.1/24", "10.8.8.2/24");
        site.host.ip("address add fd09::1/64 dev uplink0 nodad");
        site.host.ip("route add default via 10.9.9.2 dev uplink0");
        let (container, _) = site.attach(&site.conf(DUAL));
        for there in ["10.9.9.1", "fd09::1"] {
            echo(&container, &site.host, there.parse().expect("an address"), 10_000);
        }
        // An address on any other link is not among them.
        let routes = routes_of_ours(&container);
        assert!(routes.contains(&"10.9.9.1".to_owned()) && !routes.contains(&"10.8.8.1".to_owned()), "{routes:?}");
    }

    fn networks_of_services_and_more_addresses_lead_to_the_host(site) {
        for there in ["10.96.0.10/32", "fd96::10/128", "169.254.20.10/32"] {
            site.host.ip(&format!("address add {there} dev lo"));
        }
        let access = json!({"services": ["10.96.0.0/16", "fd96::/112"], "addresses": ["169.254.20.10"]});
        let (container, conf) = site.attach(&site.conf_with(DUAL, access));
        for there in ["10.96.0.10", "fd96::10", "169.254.20.10"] {
            echo(&container, &site.host, there.parse().expect("an address"), 10_000);
        }
        site.checks(&container, &conf);
        container.ip("route delete 10.96.0.0/16");
        site.differs(&container, &conf, "no route to 10.96.0.0/16");
    }

    /// A pool of a load balancer may be a part of the LAN.
    fn a_network_of_services_inside_the_subnet_leads_to_the_host(site) {
        site.host.ip("address add 192.168.50.200/32 dev lo");
        let (container, _) = site.attach(&site.conf_with(Families::V4, json!({"services": ["192.168.50.192/27"]})));
        echo(&container, &site.host, "192.168.50.200".parse().expect("an address"), 10_000);
        assert_reaches(&container, site.neighbour.v4);
    }

    /// Families of a dual-stack cluster that the container does not have are no error.
    fn networks_of_a_family_that_the_container_does_not_have_are_left_out(site) {
        let access = json!({"services": ["10.96.0.0/16", "fd96::/112"], "addresses": ["fd20::10"]});
        let (container, conf) = site.attach(&site.conf_with(Families::V4, access));
        assert_eq!(routes_of_ours(&container), ["10.96.0.0", "169.254.255.1", "192.168.50.10"]);
        site.checks(&container, &conf);
    }

    /// An address of keepalived or kube-vip, which moves between hosts. The host forwards it, wherever it is.
    fn an_address_that_moves_between_hosts_is_always_reached(site) {
        let moving = "192.168.50.5";
        site.host.set_sysctl("net/ipv4/ip_forward", "1");
        site.neighbour.ip(&format!("address add {moving}/32 dev {}", site.neighbour.nic));
        let (container, _) = site.attach(&site.conf_with(Families::V4, json!({"addresses": [moving]})));
        let moving_ip = moving.parse().expect("an address");
        echo(&container, &site.neighbour, moving_ip, 10_000);
        site.neighbour.ip(&format!("address delete {moving}/32 dev {}", site.neighbour.nic));
        site.host.ip(&format!("address add {moving}/32 dev {NIC}"));
        echo(&container, &site.host, moving_ip, 10_000);
    }

    /// The kernel replaces such addresses all the time, and nobody connects to them. (RFC 8981)
    fn temporary_addresses_of_the_host_get_no_route(site) {
        site.host.set_sysctl(&format!("net/ipv6/conf/{NIC}/use_tempaddr"), "2");
        site.host.ip(&format!("address add fd51::10/64 dev {NIC} nodad mngtmpaddr"));
        let count = || site.host.all_addresses().iter().filter(|its| its.net.to_string().starts_with("fd51:")).count();
        await_that("the kernel has made a temporary address", || count() == 2);
        let (container, _) = site.attach(&site.conf(DUAL));
        let routes = routes_of_ours(&container);
        assert_eq!(routes.iter().filter(|dst| dst.starts_with("fd51:")).collect::<Vec<_>>(), ["fd51::10"]);
    }

    /// On a single machine, the host is often the router of its containers.
    fn the_host_can_be_the_gateway(site) {
        let far = other_lan(site, "uplink0", "10.9.9.1/24", "10.9.9.2/24");
        site.host.ip("address add fd09::1/64 dev uplink0 nodad");
        far.ip("address add fd09::2/64 dev eth0 nodad");
        far.ip("route add default via 10.9.9.1");
        far.ip("route add default via fd09::1");
        site.host.set_sysctl("net/ipv4/ip_forward", "1");
        site.host.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        let mut conf = site.conf(DUAL);
        for (set, gateway) in [(0, "192.168.50.10"), (1, "fd50::10")] {
            conf["ipam"]["ranges"][set][0]["gateway"] = json!(gateway);
        }
        conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let (container, conf) = site.attach(&conf);
        assert_reach_each_other(site, &container);
        for there in ["10.9.9.2", "fd09::2"] {
            echo(&container, &far, there.parse().expect("an address"), 10_000);
        }
        assert_reaches(&container, site.neighbour.v4);
        site.checks(&container, &conf);
        // Without it, the container asks for the MAC of the gateway, and nothing answers.
        container.ip("neighbour delete 192.168.50.10 dev eth0");
        site.differs(&container, &conf, "192.168.50.10 has another MAC in its neighbours");
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    /// As a pod of Multus: the host's packets to the first interface are answered by the second. With macvlan, the host
    /// drops the answers.
    fn a_remark_says_that_packets_to_the_host_leave_by_the_second_interface(site) {
        let container = site.container();
        site.host.create_veth("pod0", &container, "eth0");
        site.host.ip("address add 10.9.9.1/32 dev pod0");
        site.host.set_up("pod0");
        site.host.ip(&format!("route add 10.9.9.5 dev pod0 src {}", site.host.v4));
        container.set_up("eth0");
        container.ip("address add 10.9.9.5/32 dev eth0");
        container.ip("route add 10.9.9.1 dev eth0");
        container.ip("route add default via 10.9.9.1");
        let first = "10.9.9.5".parse().expect("an address");
        assert_reaches(&site.host, first);
        let outcome = site.plugin().add(&container, "net1", &site.conf(Families::V4)).run();
        outcome.result();
        assert!(outcome.stderr.contains("its packets to addresses of the host leave by net1 now"), "{}", outcome.text());
        assert_reaches(&site.host, container.addresses("net1")[0].net.addr());
        if site.kind == "macvlan" {
            e2e::traffic::assert_silent(&site.host, first);
        } else {
            // They arrive on the parent, whose filter is loose.
            assert_reaches(&site.host, first);
        }
    }

    fn a_strict_reverse_path_filter_on_the_host_is_no_obstacle(site) {
        for key in ["all", "default", NIC] {
            site.host.set_sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "1");
        }
        let (container, _) = site.attach(&site.conf(DUAL));
        assert_reach_each_other(site, &container);
        assert_reaches(&site.neighbour, address(&container));
    }

    /// CHECK compares the host with the state at ADD.
    fn check_names_an_address_of_the_host_that_has_changed(site) {
        let (container, conf) = site.attach(&site.conf(DUAL));
        site.host.ip(&format!("address add 192.168.50.11/24 dev {NIC}"));
        site.differs(&container, &conf, "has no route to 192.168.50.11, a new address of the host");
        change_host_address(site, "192.168.50.12");
        site.differs(&container, &conf, "has a route to 192.168.50.10, which is no address of the host any more");
    }

    fn check_names_what_was_removed(site) {
        let conf = site.conf(Families::V4);
        let (container, checked) = site.attach(&conf);
        let (ip, link) = (address(&container), site.host_link());
        site.host.ip(&format!("route delete {ip}"));
        site.differs(&container, &checked, &format!("cannot be reached by its host: no route to {ip}"));
        site.host.ip(&format!("route add {ip} dev {} protocol 117", link.name));
        site.checks(&container, &checked);
        site.host.ip(&format!("neighbour delete {ip} dev {}", link.name));
        site.differs(&container, &checked, &format!("{ip} has another MAC in the host's neighbours"));
        site.detach(&container, &conf);

        let (container, checked) = site.attach(&conf);
        container.ip("neighbour delete 169.254.255.1 dev eth0");
        site.differs(&container, &checked, "169.254.255.1 has another MAC in its neighbours");
        site.detach(&container, &conf);

        let (container, checked) = site.attach(&conf);
        site.host.delete_link(&site.host_link().name);
        site.differs(&container, &checked, "the host's link of the parent is gone or down");
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    /// A container that was attached without host access is as before.
    fn without_the_key_the_host_stays_as_it_is(site) {
        let mut conf = site.conf(DUAL);
        for off in [json!(false), json!(null)] {
            conf["hostAccess"] = off;
            let (container, checked) = site.attach(&conf);
            site.assert_nothing_left();
            site.checks(&container, &checked);
            e2e::traffic::assert_silent(&site.host, address(&container));
            site.detach(&container, &conf);
        }
    }
}
