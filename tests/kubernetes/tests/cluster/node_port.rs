//! `externalTrafficPolicy: Local`. kube-proxy then keeps the address of the client, so the pod answers the client itself.

use kubernetes::Cluster;
use serde_json::json;

use crate::web::{SERVICES, Web, ask, assert_answers, assert_unanswered};

#[test]
fn with_external_traffic_policy_local_clients_reach_a_pod_only_by_its_own_address() {
    let cluster = Cluster::shared();
    let web = Web::start(&cluster);
    let (node, service) = (&cluster.nodes[0], &web.services[0]);
    let path = format!("{SERVICES}/{}", service.name);
    let set = |policy: &str| _ = cluster.api.patch(&path, &json!({"spec": {"externalTrafficPolicy": policy}}));

    set("Local");
    cluster.until("the port of the node is not answered", || {
        match ask(&cluster.gateway, node.machine.v4, service.node_port) {
            Ok(()) => Err("it is still answered".to_owned()),
            Err(_) => Ok(()),
        }
    });
    for _ in 0..2 {
        assert_unanswered("the LAN to the port of the node", &cluster.gateway, node.machine.v4, service.node_port);
    }
    // The way round: the pod is on the LAN.
    assert_answers("the LAN to the pod", &cluster.gateway, web.pods[0].ip, 80);

    set("Cluster");
    web.await_services(&cluster);
    web.end(&cluster);
}
