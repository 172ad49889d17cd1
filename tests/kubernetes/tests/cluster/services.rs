//! Traffic between a node and its own pods, and Services. A macvlan link does not reach its own node, so most of this
//! does not work yet.

use std::net::IpAddr;
use std::panic::catch_unwind;
use std::time::Duration;

use e2e::Namespace;
use e2e::patience::await_within;
use e2e::runtime::PAGE;
use e2e::traffic::get;
use kubernetes::cluster::Turn;
use kubernetes::pods::{self, DEPLOYMENTS, PODS, Pod, deployment};
use kubernetes::{Cluster, expected_to_fail};
use serde_json::json;

/// The reason of all marks here.
const NOT_YET: &str = "pods and their own node do not reach each other yet";

/// The kubelet probes every second, so a probe that works succeeds within this time.
const PROBE: Duration = Duration::from_secs(15);

const SERVICES: &str = "/api/v1/namespaces/default/services";

#[test]
fn an_http_readiness_probe_succeeds() {
    let cluster = Cluster::shared();
    let mut spec = pods::spec();
    spec["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1, "timeoutSeconds": 1});
    cluster.api.create(DEPLOYMENTS, &deployment("probed", 1, spec));
    let ip: IpAddr = cluster.until("the pod runs", || {
        let pods = cluster.api.list(PODS)?;
        let status = pods.first().map(|pod| &pod["status"]).ok_or("no pod")?;
        let ip = status["podIP"].as_str().filter(|_| status["phase"] == "Running");
        ip.map(|ip| ip.parse().expect("an address")).ok_or_else(|| status.to_string())
    });
    // From the LAN, the pod answers.
    assert_eq!(get(&cluster.gateway, ip), PAGE);
    let failure = format!("Readiness probe failed: Get \"http://{ip}:80/\"");
    expected_to_fail(NOT_YET, &failure, || {
        await_within(PROBE, "the pod is ready", || {
            if cluster.api.list(PODS)?[0]["status"]["containerStatuses"][0]["ready"] == true {
                return Ok(());
            }
            Err(cluster.event("Unhealthy", &failure).unwrap_or_else(|_| "no probe has failed".to_owned()))
        });
    });
    cluster.undeploy("probed");
}

/// One pod on each node, and a Service for each pod.
struct Pair {
    pods: [Pod; 2],
    services: [IpAddr; 2],
}

impl Pair {
    fn start(cluster: &Turn) -> Self {
        let node = |index: usize| &cluster.nodes[index];
        let services = [0, 1].map(|index| {
            let name = format!("on-{}", node(index).name);
            cluster.api.create(DEPLOYMENTS, &deployment(&name, 1, pods::spec_on(node(index))));
            let service = json!({
                "metadata": {"name": name},
                "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
            });
            let service = cluster.api.create(SERVICES, &service);
            service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok()).expect("a Service has an address")
        });
        let pods = [0, 1].map(|index| cluster.await_replicas(&format!("on-{}", node(index).name), 1).remove(0));
        let pair = Self { pods, services };
        // A node reaches the Service of the pod on the other node as soon as kube-proxy has set it up.
        for (from, to) in [(0, 1), (1, 0)] {
            cluster.until("a Service with a pod on the other node is reached", || {
                let page = catch_unwind(|| get(&node(from).machine, pair.services[to]));
                page.map(|page| assert_eq!(page, PAGE)).map_err(|_| "no answer yet".to_owned())
            });
        }
        pair
    }

    fn namespace(&self, cluster: &Turn, index: usize) -> Namespace {
        let namespaces = cluster.nodes[index].pod_namespaces().into_iter();
        let mut own = namespaces.filter(|(ip, _)| *ip == self.pods[index].ip).map(|(_, netns)| netns);
        own.next().expect("the pod has a namespace")
    }

    fn end(self, cluster: &Turn) {
        for node in &cluster.nodes {
            cluster.api.delete(&format!("{SERVICES}/on-{}", node.name));
            cluster.api.delete(&format!("{DEPLOYMENTS}/on-{}", node.name));
        }
        cluster.await_no_pods();
        cluster.await_nothing_left();
    }
}

#[test]
fn nodes_and_pods_reach_a_service() {
    let cluster = Cluster::shared();
    let pair = Pair::start(&cluster);
    let unanswered = |index: usize| format!("connect to {}:80: ", pair.services[index]);
    // From the node to the Service of a pod on it.
    expected_to_fail(NOT_YET, &unanswered(0), || {
        assert_eq!(get(&cluster.nodes[0].machine, pair.services[0]), PAGE);
    });
    // From a pod to the Service of the pod on the other node, and to its own Service.
    let pod = pair.namespace(&cluster, 0);
    assert_eq!(get(&pod, pair.pods[1].ip), PAGE);
    for index in [1, 0] {
        expected_to_fail(NOT_YET, &unanswered(index), || assert_eq!(get(&pod, pair.services[index]), PAGE));
    }
    drop(pod);
    pair.end(&cluster);
}
