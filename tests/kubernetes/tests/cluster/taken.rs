//! A machine of the LAN has addresses in the middle of the ranges, and the network asks the LAN before it uses one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use e2e::lab::lan4;
use e2e::patience::PATIENCE;
use e2e::traffic::{Frame, Manner, Wire, arp_probe, assert_reaches};
use kubernetes::cluster::{Turn, network};
use kubernetes::{Cluster, Node, pods};
use serde_json::{Value, json};

const PODS: usize = 40;

/// One address of the range of each node. The ranges begin 6 and 12 addresses before, and at least 10 pods are on each
/// node.
const TAKEN: [u8; 2] = [70, 136];

/// A network of its own has no leases yet, so each node begins at the start of its range.
const NETWORK: &str = "around";

const ANYONE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn careful_network(node: &Node) -> Value {
    let mut list = network(node);
    list["name"] = json!(NETWORK);
    list["plugins"][0]["detectIPConflict"] = json!(true);
    list
}

/// The MACs in all answers to a probe for an address of a node. A pod of the node answers a later question: the kernel
/// passes broadcasts to it and to the host's link in their order.
fn answers_to_probe(cluster: &Turn, wire: &Wire, target: IpAddr, last: IpAddr) -> BTreeSet<String> {
    wire.seen();
    wire.ask(ANYONE, target);
    let seen = wire.seen_before_answer(cluster.gateway.v4, last);
    let macs = seen.into_iter().filter_map(|seen| match seen.frame {
        Frame::Arp { operation: 2, sender, mac, .. } if IpAddr::V4(sender) == target => Some(mac),
        _ => None,
    });
    macs.collect()
}

#[test]
fn forty_pods_come_up_around_addresses_that_another_machine_has() {
    let cluster = Cluster::shared();
    let (gateway, nic) = (&cluster.gateway, cluster.gateway.nic);
    let taken = TAKEN.map(lan4);
    let holders = taken.map(|ip| Manner::of(&[ip]).start(gateway, nic));
    for node in &cluster.nodes {
        node.set_network(&careful_network(node));
    }
    let pods = cluster.deploy("web", PODS, pods::spec());

    let ips: BTreeSet<IpAddr> = pods.iter().map(|pod| pod.ip).collect();
    assert_eq!(ips.len(), PODS, "an address is on two pods: {ips:?}");
    for (ip, holder) in taken.iter().zip(&holders) {
        assert!(!ips.contains(ip), "{ip} is on a pod");
        assert!(holder.asked() > 0, "no pod has asked for {ip}");
    }
    let wire = Wire::open(gateway, nic);
    // The host's link of hostAccess must not answer. Otherwise each address of the host would seem to be on two machines.
    for node in &cluster.nodes {
        let pod = pods.iter().find(|pod| pod.node == node.name).expect("a pod on each node");
        let answers = answers_to_probe(&cluster, &wire, node.machine.v4, pod.ip);
        assert_eq!(answers, BTreeSet::from([node.machine.link(node.machine.nic).mac]));
    }
    let of_hosts: Vec<String> =
        cluster.nodes.iter().flat_map(|node| node.machine.links()).map(|link| link.mac).collect();
    for pod in &pods {
        let mac = arp_probe(gateway, nic, ANYONE, pod.ip, PATIENCE).expect("the pod answers");
        assert!(!of_hosts.contains(&mac), "a host answers for {}: {mac}", pod.ip);
        assert_reaches(gateway, pod.ip);
    }
    gateway.ip("neighbour flush all");

    cluster.undeploy("web");
    for node in &cluster.nodes {
        let left = node.names_in(&format!("/var/lib/cni/networks/{NETWORK}"));
        let left: Vec<_> = left.iter().filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        assert!(left.is_empty(), "{} still leases {left:?}", node.name);
        node.set_network(&network(node));
    }
}
