//! A second interface of a pod. The plugin is called on the node as Multus calls it: it gets no prevResult in ADD, the
//! address and the MAC in runtimeConfig, and its stored result in DEL.

use std::net::IpAddr;

use e2e::Namespace;
use e2e::lab::LAN4;
use kubernetes::pods::{self, Pod};
use kubernetes::{Cluster, Node};
use serde_json::{Value, json};

use crate::web::assert_answers;

const IFNAME: &str = "net1";

/// A network of its own on the LAN of the nodes, with the gateway of the LAN as router.
const ROUTER: &str = "10.77.0.1";
const IP: &str = "10.77.0.5";
const MAC: &str = "02:00:00:00:00:77";

fn call(node: &Node, pod: &Pod, command: &str, conf: &Value) -> String {
    let netns = node.pod_namespace_path(pod.ip);
    let arguments = format!(
        "IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={}",
        pod.name, pod.container
    );
    let id = pod.container.rsplit('/').next().expect("an ID");
    let script = format!(
        "echo '{conf}' | env -i CNI_COMMAND={command} CNI_CONTAINERID={id} CNI_NETNS={netns} CNI_IFNAME={IFNAME} \
         CNI_PATH=/opt/cni/bin 'CNI_ARGS={arguments}' /opt/cni/bin/macvlan"
    );
    node.run(&["sh", "-c", &script])
}

/// The interface of the default route.
fn leads_out(pod: &Namespace) -> String {
    let routes = pod.routes();
    let first = routes.iter().find(|route| route.dst.prefix_len() == 0).and_then(|route| route.oif);
    pod.links().into_iter().find(|link| Some(link.ifindex) == first).expect("a default route").name
}

#[test]
fn a_pod_gets_a_second_interface_as_multus_attaches_it() {
    let cluster = Cluster::shared();
    let node = &cluster.nodes[0];
    cluster.gateway.ip(&format!("address add {ROUTER}/24 dev {}", cluster.gateway.nic));
    let pod = cluster.deploy("web", 1, pods::spec_on(node)).remove(0);
    let netns = node.pod_namespace(pod.ip);
    assert_eq!(leads_out(&netns), "eth0");

    let conf = json!({
        "cniVersion": "1.1.0", "name": "second", "type": "macvlan",
        // The nodes may have NICs of different names.
        "parent": {"subnet": LAN4}, "defaultRoute": "take",
        "ipam": {"type": "static", "routes": [{"dst": "0.0.0.0/0", "gw": ROUTER}]},
        "runtimeConfig": {"ips": [format!("{IP}/24")], "mac": MAC},
    });
    let result: Value = serde_json::from_str(&call(node, &pod, "ADD", &conf)).expect("a result");
    assert_eq!(result["ips"][0]["address"], format!("{IP}/24"));
    assert_eq!(netns.link(IFNAME).mac, MAC);
    assert_eq!(leads_out(&netns), IFNAME);
    let (first, second): (IpAddr, IpAddr) = (pod.ip, IP.parse().expect("an address"));
    assert_answers("the LAN, by the second interface", &cluster.gateway, second, 80);
    assert_answers("the node, by the first interface", &node.machine, first, 80);

    let mut stored = conf;
    stored["prevResult"] = result;
    call(node, &pod, "CHECK", &stored);
    call(node, &pod, "DEL", &stored);
    assert_eq!(netns.link_names(), ["lo", "eth0"]);
    assert_eq!(leads_out(&netns), "eth0");
    assert_answers("the LAN", &cluster.gateway, first, 80);
    drop(netns);
    cluster.gateway.ip(&format!("address delete {ROUTER}/24 dev {}", cluster.gateway.nic));
    cluster.undeploy("web");
}
