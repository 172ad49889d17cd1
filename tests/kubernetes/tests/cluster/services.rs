//! Services. kube-proxy of a node replaces the address of a Service by that of a pod. The pod must answer to the node,
//! because the client does not know an answer from the pod's own address. A client on the LAN would get exactly that.
//! So the node must also replace the address of the client.

use std::thread;

use e2e::Namespace;
use kubernetes::Cluster;
use kubernetes::cluster::{API, Turn};
use kubernetes::kube_proxy::Sources::{self, Keeps, KeepsIn, ReplacesAll};
use kubernetes::kube_proxy::{KubeProxy, Mode};

use crate::web::{Web, assert_answers, assert_unanswered};

/// A `clusterCIDR` without pods, as it is left over from an overlay.
const ELSEWHERE: &str = "10.244.0.0/16,fd00:10:244::/56";

/// The same of IPv4 only, and one that contains all pods.
const ELSEWHERE_V4: &str = "10.244.0.0/16";
const LAN: &str = "192.168.50.0/24,fd50::/64";

/// For each family, IPv4 first, whether requests of pods to other pods are answered.
const CASES: [(Sources, [bool; 2]); 5] = [
    (ReplacesAll, [true, true]),
    (KeepsIn(ELSEWHERE), [true, true]),
    (KeepsIn(ELSEWHERE_V4), [true, false]),
    (KeepsIn(LAN), [false, false]),
    (Keeps, [false, false]),
];

fn services_are_reached(mode: Mode) {
    let cluster = Cluster::shared();
    let web = Web::start(&cluster);
    let [first, second] = &cluster.nodes;
    let pods = [first.pod_namespace(web.pods[0].ip), second.pod_namespace(web.pods[1].ip)];
    let third = second.pod_namespace(web.dns.ip);
    for (sources, are_answered) in CASES {
        cluster.set_kube_proxy(KubeProxy { mode, sources });
        assert_always_answered(&cluster, &web, &pods);
        // Some of these requests wait for an answer that does not come.
        thread::scope(|scope| {
            for (family, is_answered) in are_answered.into_iter().enumerate() {
                let [on_first, on_second] = web.services.each_ref().map(|service| service.ips[family]);
                for (place, pod, service) in [
                    ("the second node", &pods[0], on_second),
                    ("the first node", &pods[1], on_first),
                    ("its own node", &third, on_second),
                ] {
                    let what = format!("{mode:?} {sources:?}: from a pod to another, {service} on {place}");
                    let assert = if is_answered { assert_answers } else { assert_unanswered };
                    scope.spawn(move || assert(&what, pod, service, 80));
                }
            }
        });
        // The API server is on the first node.
        assert_eq!(ask_api(&cluster, &pods[0]), Ok("ok".to_owned()), "from a pod to its own node");
        assert_eq!(ask_api(&cluster, &pods[1]).is_ok(), are_answered[0], "from a pod to another node");
        if are_answered[0] {
            for (index, service) in web.services.iter().enumerate() {
                assert_eq!(web.resolve(&cluster, index, service), [service.ips[0]]);
            }
        }
    }
    drop((pods, third));
    cluster.set_kube_proxy(KubeProxy::USUAL);
    web.end(&cluster);
}

/// Asserts what needs no certain configuration: requests of nodes, of a pod to itself, and of machines of the LAN.
fn assert_always_answered(cluster: &Turn, web: &Web, pods: &[Namespace; 2]) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        for ip in web.services[index].ips {
            assert_answers("from a pod to itself", &pods[index], ip, 80);
        }
        for service in &web.services {
            let name = &service.name;
            for ip in service.ips {
                assert_answers(&format!("from {} to {name}", node.name), &node.machine, ip, 80);
            }
            for address in [node.machine.v4, node.machine.v6] {
                let what = format!("from the LAN to {name} by {}", node.name);
                assert_answers(&what, &cluster.gateway, address, service.node_port);
            }
        }
    }
}

/// Asks the API server by its Service.
fn ask_api(cluster: &Turn, pod: &Namespace) -> Result<String, String> {
    let server = format!("--server=https://{API}");
    cluster.kubectl_in(pod, &[&server, "--request-timeout=2s", "get", "--raw", "/readyz"], "")
}

#[test]
fn with_nftables_services_are_reached_if_kube_proxy_replaces_the_addresses_of_pods() {
    services_are_reached(Mode::Nftables);
}

#[test]
fn with_iptables_services_are_reached_if_kube_proxy_replaces_the_addresses_of_pods() {
    services_are_reached(Mode::Iptables);
}
