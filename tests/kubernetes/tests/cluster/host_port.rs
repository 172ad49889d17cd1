//! `hostPort`, by the reference plugin portmap behind ours in a chain.

use std::fs;

use e2e::lab::MACHINE_NIC;
use e2e::{Binaries, Namespace};
use kubernetes::Cluster;
use kubernetes::cluster::{Turn, network};
use kubernetes::pods::{self, PODS};
use serde_json::json;

use crate::web::{assert_answers, assert_unanswered};

const PORT: u16 = 8080;

/// A machine in another subnet, behind the gateway of the LAN.
fn client_elsewhere(cluster: &Turn) -> Namespace {
    let (gateway, client) = (&cluster.gateway, Namespace::new());
    gateway.create_veth("elsewhere", &client, MACHINE_NIC);
    for (netns, link, address) in [(&**gateway, "elsewhere", "10.9.9.1/24"), (&client, MACHINE_NIC, "10.9.9.2/24")] {
        netns.add_address(link, address.parse().expect("an address"));
        netns.set_up(link);
    }
    client.ip("route add default via 10.9.9.1");
    gateway.set_sysctl("net/ipv4/ip_forward", "1");
    client
}

#[test]
fn a_host_port_is_reached_if_portmap_replaces_the_addresses_of_all_clients() {
    let cluster = Cluster::shared();
    let [other, node] = &cluster.nodes;
    let scratch = cluster.lab.path("portmap");
    fs::create_dir_all(&scratch).expect("make a directory");
    let portmap = node.plugin_dir().join("portmap");
    fs::copy(Binaries::Reference.directory(&scratch).join("portmap"), &portmap).expect("copy portmap");
    let mut spec = pods::spec_on(node);
    spec["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": PORT}]);
    let address = node.machine.v4;
    let elsewhere = client_elsewhere(&cluster);

    for masquerades in [false, true] {
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "masqAll": masquerades});
        let mut list = network(node);
        list["plugins"] = json!([list["plugins"][0], portmap]);
        node.set_network(&list);
        let pod = cluster.deploy("web", 1, spec.clone()).remove(0);
        assert_answers("the node to its own port", &node.machine, address, PORT);
        if masquerades {
            assert_answers("the LAN", &cluster.gateway, address, PORT);
            assert_answers("a client elsewhere", &elsewhere, address, PORT);
            assert_answers("another node", &other.machine, address, PORT);
            let (_, own) = node.pod_namespaces().into_iter().find(|(ip, _)| *ip == pod.ip).expect("a pod");
            assert_answers("the pod to itself", &own, address, PORT);
        } else {
            // portmap replaces addresses of the pod's own subnet anyway.
            assert_answers("the LAN", &cluster.gateway, address, PORT);
            assert_unanswered("a client elsewhere, which the pod answers itself", &elsewhere, address, PORT);
        }
        assert_eq!(cluster.api.list(PODS).expect("list pods").len(), 1);
        cluster.undeploy("web");
    }
    node.set_network(&network(node));
    fs::remove_file(&portmap).expect("remove portmap");
}
