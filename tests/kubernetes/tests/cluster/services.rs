//! Services. kube-proxy of a node replaces the address of a Service by that of a pod. The pod must answer to the node,
//! because the client does not know an answer from the pod's own address. A client on the LAN would get exactly that.
//! So the node must also replace the address of the client.

use kubernetes::Cluster;
use kubernetes::cluster::{API, Turn};
use kubernetes::kube_proxy::Sources::{Keeps, KeepsIn, ReplacesAll};
use kubernetes::kube_proxy::{KubeProxy, Mode};

use crate::web::{Web, assert_answers, assert_unanswered};

/// A `clusterCIDR` without pods, as it is left over from an overlay, and one that contains all pods.
const ELSEWHERE: &str = "10.244.0.0/16";
const LAN: &str = "192.168.50.0/24";

/// Asks on all ways, and asserts that each request is answered.
fn assert_all_answered(cluster: &Turn, web: &Web, pods: &[e2e::Namespace; 2]) {
    for (from, node) in cluster.nodes.iter().enumerate() {
        for service in &web.services {
            let name = &service.name;
            assert_answers(&format!("{} to {name}", node.name), &node.machine, service.ip, 80);
            // From one of the nodes, this is the way of the pod to itself.
            assert_answers(&format!("the pod on {} to {name}", node.name), &pods[from], service.ip, 80);
            let what = format!("the LAN to {name} on {}", node.name);
            assert_answers(&what, &cluster.gateway, node.machine.v4, service.node_port);
        }
        assert_eq!(ask_api(cluster, &pods[from]), Ok("ok".to_owned()), "the pod on {}", node.name);
        let service = &web.services[1 - from];
        assert_eq!(web.resolve(cluster, from, service), [service.ip]);
    }
}

/// Asks the API server by its Service. Its endpoint is in the network of the first node.
fn ask_api(cluster: &Turn, pod: &e2e::Namespace) -> Result<String, String> {
    let server = format!("--server=https://{API}");
    cluster.kubectl_in(pod, &[&server, "--request-timeout=2s", "get", "--raw", "/readyz"], "")
}

fn services_are_reached(mode: Mode) {
    let cluster = Cluster::shared();
    let web = Web::start(&cluster);
    let pods = [0, 1].map(|index| web.pod_on(&cluster, index));
    for sources in [ReplacesAll, KeepsIn(ELSEWHERE)] {
        cluster.set_kube_proxy(KubeProxy { mode, sources });
        assert_all_answered(&cluster, &web, &pods);
    }
    for sources in [Keeps, KeepsIn(LAN)] {
        cluster.set_kube_proxy(KubeProxy { mode, sources });
        for index in [0, 1] {
            let (own, other) = (&web.services[index], &web.services[1 - index]);
            assert_answers("a pod to itself", &pods[index], own.ip, 80);
            assert_unanswered("a pod to another pod", &pods[index], other.ip, 80);
            assert_answers("a node to its pod", &cluster.nodes[index].machine, own.ip, 80);
            assert_answers("a node to a pod on another node", &cluster.nodes[index].machine, other.ip, 80);
        }
        assert_eq!(ask_api(&cluster, &pods[0]), Ok("ok".to_owned()), "a pod to its own node");
        ask_api(&cluster, &pods[1]).expect_err("a pod to another node");
    }
    drop(pods);
    cluster.set_kube_proxy(KubeProxy::USUAL);
    web.end(&cluster);
}

#[test]
fn with_nftables_services_are_reached_if_kube_proxy_replaces_the_addresses_of_pods() {
    services_are_reached(Mode::Nftables);
}

#[test]
fn with_iptables_services_are_reached_if_kube_proxy_replaces_the_addresses_of_pods() {
    services_are_reached(Mode::Iptables);
}
