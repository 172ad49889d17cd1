//! `externalTrafficPolicy: Local`. kube-proxy then keeps the address of the client, so the pod answers the client itself.

use std::net::SocketAddr;

use e2e::traffic::sources;
use kubernetes::Cluster;
use serde_json::json;

use crate::web::{SERVICES, Web, assert_answers, assert_unanswered, await_unanswered};

#[test]
fn with_external_traffic_policy_local_clients_reach_a_pod_only_by_its_own_address() {
    let cluster = Cluster::shared();
    let web = Web::start(&cluster);
    let (node, service) = (&cluster.nodes[0], &web.services[0]);
    let (port, pod) = (service.node_port, &web.pods[0]);
    let path = format!("{SERVICES}/{}", service.name);
    let set = |policy: &str| _ = cluster.api.patch(&path, &json!({"spec": {"externalTrafficPolicy": policy}}));
    let clients = [("the LAN", &*cluster.gateway), ("another subnet", &cluster.elsewhere)];

    set("Local");
    for address in [node.machine.v4, node.machine.v6] {
        await_unanswered(&cluster, &cluster.gateway, address, port);
    }
    for (name, client) in clients {
        let heard = sources(client, || assert_unanswered(name, client, node.machine.v4, port));
        assert_eq!(heard, [SocketAddr::new(pod.ip, 80)].into(), "the pod answers {name} itself");
    }
    // The way round: the pod is on the LAN.
    for (name, client) in clients {
        assert_answers(name, client, pod.ip, 80);
    }
    assert_eq!(pod.ips.len(), 2);
    assert_answers("the LAN", &cluster.gateway, pod.ips[1], 80);

    set("Cluster");
    web.await_services(&cluster);
    for (name, client) in clients {
        let heard = sources(client, || assert_answers(name, client, node.machine.v4, port));
        assert_eq!(heard, [SocketAddr::new(node.machine.v4, port)].into(), "the node answers {name}");
    }
    web.end(&cluster);
}
