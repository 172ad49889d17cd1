//! A configuration of `conf-examples/`, and the LAN for it in the Lab.

use std::net::IpAddr;

use e2e::lab::NIC;
use e2e::traffic::assert_reaches;
use e2e::{Container, Lab};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::Libcni;

/// The neighbour's link on the VLAN of an example.
const VLAN: &str = "vlan";

/// `RT_TABLE_MAIN`. (include/uapi/linux/rtnetlink.h)
const MAIN: u32 = 254;

/// Gives the list what only the Lab can: a directory for the leases, and the parents that it names. Everything else is
/// as in the file.
pub fn settle(lab: &Lab, mut list: Value) -> Value {
    let plugins = list["plugins"].as_array_mut().expect("a list of plugins");
    for plugin in plugins {
        if plugin["ipam"]["type"] == "host-local" {
            plugin["ipam"]["dataDir"] = json!(lab.data_dir());
        }
        if let Some(master) = plugin["master"].as_str() {
            make_parent(lab, master);
        }
        if plugin["mode"] == "l3" {
            route_through_host(lab, plugin);
        }
    }
    list
}

/// The NIC that is there, another one, or a VLAN of the first.
fn make_parent(lab: &Lab, master: &str) {
    if lab.host.has_link(master) {
        return;
    }
    match master.strip_prefix(NIC).and_then(|rest| rest.strip_prefix('.')) {
        Some(id) => {
            let id = id.parse().expect("the number of a VLAN");
            lab.host.create_vlan(master, NIC, id);
            lab.neighbour.create_vlan(VLAN, lab.neighbour.nic, id);
            for (netns, name) in [(&*lab.host, master), (&*lab.neighbour, VLAN)] {
                netns.set_up(name);
            }
        }
        None => lab.plug(&lab.host, master),
    }
}

/// In mode l3 the LAN's router knows the containers' subnet by a route.
fn route_through_host(lab: &Lab, plugin: &Value) {
    let subnet = plugin["ipam"]["ranges"][0][0]["subnet"].as_str().expect("a subnet");
    lab.neighbour.ip(&format!("route add {subnet} via {}", lab.host.v4));
}

/// Two lives of one container: libcni keeps the result of the first ADD to its DEL, and loses that of the second.
/// `judge` looks at the container and the result while it lives.
pub fn live(lab: &Lab, list: &Value, runtime: &Libcni<'_>, judge: impl Fn(&Container, &Value)) {
    let network = list["name"].as_str().expect("a name");
    let container = lab.container();
    // Two addresses: the neighbour remembers for a while at which MAC one was.
    for (is_kept, own) in [(true, "192.168.10.77/24"), (false, "192.168.10.78/24")] {
        let result = runtime.add(&container);
        assert_on_the_lan(lab, &container, list, &result, own.parse().expect("a prefix"));
        judge(&container, &result);
        runtime.check(&container);
        if !is_kept {
            runtime.forget();
        }
        for _ in 0..2 {
            runtime.del(&container);
            assert_eq!(container.link_names(), ["lo"]);
            assert_eq!(lab.leases_in(network), [""; 0]);
        }
    }
}

/// Asserts that the container is on the LAN with all addresses of the result: the neighbour is that LAN's router. A
/// container that was given none takes `own`, as it would look for itself.
fn assert_on_the_lan(lab: &Lab, container: &Container, list: &Value, result: &Value, own: IpNet) {
    let mut addresses: Vec<(IpNet, IpAddr)> = Vec::new();
    for ip in result["ips"].as_array().map_or(&[][..], Vec::as_slice) {
        let text = |key: &str| ip[key].as_str();
        let address = text("address").and_then(|text| text.parse().ok()).expect("an address");
        let router = match text("gateway") {
            Some(gateway) => gateway.parse().expect("an address"),
            // The route of mode l3 leads to a router that the container knows nothing of.
            None => lab.neighbour.v4,
        };
        addresses.push((address, router));
    }
    if addresses.is_empty() {
        assert_eq!(list["plugins"][0]["ipam"], json!({}), "no addresses: {result}");
        container.add_address("eth0", own);
        addresses.push((own, "192.168.10.1".parse().expect("an address")));
    }
    for (address, router) in addresses {
        if !lab.neighbour.has_address(router) {
            let nic = if lab.neighbour.has_link(VLAN) { VLAN } else { lab.neighbour.nic };
            lab.neighbour.add_address(nic, IpNet::new(router, address.prefix_len()).expect("a prefix length"));
        }
        // sbr keeps the routes for what already has the container's address for its source: answers, here.
        if container.routes_of("eth0").iter().any(|route| route.table == MAIN) {
            assert_reaches(container, router);
        }
        assert_reaches(&lab.neighbour, address.addr());
    }
}
