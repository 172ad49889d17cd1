//! `hostPort`, by the reference plugin portmap behind ours in a chain.

use std::fs;

use e2e::Binaries;
use kubernetes::Cluster;
use kubernetes::cluster::network;
use kubernetes::pods;
use serde_json::json;

use crate::web::{assert_answers, assert_unanswered};

const PORT: u16 = 8080;

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
    let elsewhere = &cluster.elsewhere;

    for masquerades in [false, true] {
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "masqAll": masquerades});
        let mut list = network(node);
        list["plugins"] = json!([list["plugins"][0], portmap]);
        node.set_network(&list);
        let pod = cluster.deploy("web", 1, spec.clone()).remove(0);
        assert_answers("the node to its own port", &node.machine, address, PORT);
        if masquerades {
            assert_answers("the LAN", &cluster.gateway, address, PORT);
            assert_answers("a client elsewhere", elsewhere, address, PORT);
            assert_answers("another node", &other.machine, address, PORT);
            assert_answers("the pod to itself", &node.pod_namespace(pod.ip), address, PORT);
        } else {
            // portmap replaces addresses of the pod's own subnet anyway.
            assert_answers("the LAN", &cluster.gateway, address, PORT);
            assert_unanswered("a client elsewhere, which the pod answers itself", elsewhere, address, PORT);
        }
        cluster.undeploy("web");
    }
    node.set_network(&network(node));
    fs::remove_file(&portmap).expect("remove portmap");
}
