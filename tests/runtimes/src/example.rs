//! Prepares the LAN of the Lab for a configuration of `conf-examples/`, and attaches containers with it.

use std::net::IpAddr;

use e2e::traffic::assert_reaches;
use e2e::{Container, Lab};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::Libcni;

/// The neighbour's link on the VLAN of an example.
const VLAN: &str = "vlan";

/// `RT_TABLE_MAIN`. (include/uapi/linux/rtnetlink.h)
const MAIN: u32 = 254;

/// Creates the parents that a list names, and gives the neighbour its VLAN. Sets its directory of leases. Returns the
/// list, whose other fields are as in the file.
pub fn settle(lab: &Lab, mut list: Value) -> Value {
    let plugins = list["plugins"].as_array_mut().expect("a list of plugins");
    for plugin in plugins {
        if plugin["ipam"]["type"] == "host-local" {
            plugin["ipam"]["dataDir"] = json!(lab.data_dir());
        }
        if let Some(master) = plugin["master"].as_str()
            && !lab.host.has_link(master)
        {
            lab.plug(&lab.host, master);
        }
        if let Some(id) = plugin["vlan"].as_u64() {
            let id = id.try_into().expect("the number of a VLAN");
            lab.neighbour.create_vlan(VLAN, lab.neighbour.nic, id);
        }
        if !(plugin["hostAccess"].is_null() && plugin["vlan"].is_null()) {
            // The records are there.
            lab.host.give_own_run();
        }
        if plugin["mode"] == "l3" {
            route_through_host(lab, plugin);
        }
    }
    list
}

/// In mode l3, the router of the LAN needs a route to the subnet of the containers.
fn route_through_host(lab: &Lab, plugin: &Value) {
    let subnet = plugin["ipam"]["ranges"][0][0]["subnet"].as_str().expect("a subnet");
    lab.neighbour.ip(&format!("route add {subnet} via {}", lab.host.v4));
}

/// Attaches and detaches one container twice. Before the second DEL, libcni loses its cached result. `judge` checks the
/// attached container and the result of ADD. No link of the host is left.
pub fn live(lab: &Lab, list: &Value, runtime: &Libcni<'_>, judge: impl Fn(&Container, &Value)) {
    let network = list["name"].as_str().expect("a name");
    let container = lab.container();
    let links = lab.host.link_names();
    // There are two addresses, because the neighbour caches the MAC of an address for some time.
    for (is_kept, own) in [(true, "192.168.50.77/24"), (false, "192.168.50.78/24")] {
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
            assert_eq!(lab.host.link_names(), links);
        }
    }
}

/// Asserts that the container reaches the LAN with all addresses of the result, and is reached. The neighbour is the
/// router of the LAN. If the result has no address, this function gives `own` to the container.
fn assert_on_the_lan(lab: &Lab, container: &Container, list: &Value, result: &Value, own: IpNet) {
    let mut addresses: Vec<(IpNet, IpAddr)> = Vec::new();
    for ip in result["ips"].as_array().map_or(&[][..], Vec::as_slice) {
        let text = |key: &str| ip[key].as_str();
        let address = text("address").and_then(|text| text.parse().ok()).expect("an address");
        let router = match text("gateway") {
            Some(gateway) => gateway.parse().expect("an address"),
            // In mode l3, the configuration names no router.
            None => lab.neighbour.v4,
        };
        addresses.push((address, router));
    }
    if addresses.is_empty() {
        assert_eq!(list["plugins"][0]["ipam"], json!({}), "no addresses: {result}");
        container.add_address("eth0", own);
        addresses.push((own, "192.168.50.1".parse().expect("an address")));
    }
    for (address, router) in addresses {
        if !lab.neighbour.has_address(router) {
            let nic = if lab.neighbour.has_link(VLAN) { VLAN } else { lab.neighbour.nic };
            lab.neighbour.add_address(nic, IpNet::new(router, address.prefix_len()).expect("a prefix length"));
        }
        // With sbr, only packets with the source address of the container have routes. Answers to a ping have it.
        if container.routes_of("eth0").iter().any(|route| route.table == MAIN) {
            assert_reaches(container, router);
        }
        assert_reaches(&lab.neighbour, address.addr());
    }
}
