//! Pods of both nodes with addresses of one pool: the IPAM plugin lan-pool, with the credentials of the kubelets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use e2e::traffic::assert_reaches;
use kubernetes::api_server::pool::LEASES;
use kubernetes::cluster::{Turn, network};
use kubernetes::kube_proxy::KubeProxy;
use kubernetes::pods::{self, DEPLOYMENTS, PODS};
use kubernetes::{Cluster, Node};
use serde_json::{Value, json};

/// Applies the manifest, and waits until its policy is in force.
fn set_up(cluster: &Turn) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/lan-pool.yaml");
    let manifest = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    cluster.kubectl(&["apply", "--filename=-"], &manifest);
    cluster.await_path(LEASES);
}

/// The part `ipam` of docs/lan-pool.md.
fn ipam_of_the_page() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lan-pool.md");
    let page = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let block = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of JSON");
    let object: Value = serde_json::from_str(&format!("{{{block}}}")).unwrap_or_else(|e| panic!("{block}: {e}"));
    object["ipam"].clone()
}

/// The network of a node, with the pool of the page, or with another range in it.
fn pool_network(node: &Node, range: Option<(u8, u8)>) -> Value {
    let mut list = network(node);
    let mut ipam = ipam_of_the_page();
    if let Some((first, last)) = range {
        ipam["ranges"][0][0]["rangeStart"] = json!(format!("192.168.50.{first}"));
        ipam["ranges"][0][0]["rangeEnd"] = json!(format!("192.168.50.{last}"));
    }
    list["plugins"][0]["ipam"] = ipam;
    list
}

/// The address of each pod in the leases.
fn leases(cluster: &Turn) -> BTreeMap<String, String> {
    let leases = cluster.api.list(LEASES).expect("list leases");
    let text = |lease: &Value, field: &str| lease["spec"][field].as_str().unwrap_or_default().to_owned();
    leases.iter().map(|lease| (text(lease, "pod"), text(lease, "address"))).collect()
}

fn await_no_leases(cluster: &Turn) {
    cluster.until("no address is leased", || match leases(cluster) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

/// Waits until nothing of the pods is left, and gives both nodes their usual network back.
fn end(cluster: &Turn) {
    cluster.api.delete(&format!("{DEPLOYMENTS}/web"));
    cluster.await_no_pods();
    await_no_leases(cluster);
    for node in &cluster.nodes {
        node.set_network(&network(node));
    }
}

#[test]
fn pods_of_both_nodes_have_addresses_of_one_pool_and_give_them_back() {
    let cluster = Cluster::shared();
    set_up(&cluster);
    for node in &cluster.nodes {
        node.set_network(&pool_network(node, None));
    }
    let pods = cluster.deploy("web", 20, pods::spec());
    let ips: BTreeSet<IpAddr> = pods.iter().map(|pod| pod.ip).collect();
    assert_eq!(ips.len(), 20, "an address is on two pods: {ips:?}");
    let of_pods: BTreeMap<String, String> =
        pods.iter().map(|pod| (format!("default/{}", pod.name), pod.ip.to_string())).collect();
    assert_eq!(leases(&cluster), of_pods);
    for node in &cluster.nodes {
        assert!(pods.iter().any(|pod| pod.node == node.name), "no pod on {}", node.name);
    }
    for pod in &pods {
        assert_reaches(&cluster.gateway, pod.ip);
    }
    let table = cluster.kubectl(&["get", "lanip"], "");
    assert!(pods.iter().all(|pod| table.contains(&format!("default/{}", pod.name))), "{table}");

    // A forced deletion of a pod does not wait for the runtime.
    let gone = &pods[0];
    cluster.api.force_delete(&format!("{PODS}/{}", gone.name));
    cluster.until("the lease of the deleted pod is gone, and the new pod has one", || {
        let leases = leases(&cluster);
        let is_gone = !leases.contains_key(&format!("default/{}", gone.name));
        if is_gone && leases.len() == 20 { Ok(()) } else { Err(format!("{leases:?}")) }
    });
    end(&cluster);
}

#[test]
fn a_full_pool_keeps_nodes_ready_and_a_reboot_gives_the_addresses_back() {
    let cluster = Cluster::shared();
    set_up(&cluster);
    let node = &cluster.nodes[1];
    for node in &cluster.nodes {
        node.set_network(&pool_network(node, Some((200, 202))));
    }
    cluster.deploy("web", 3, pods::spec_on(node));
    let old = leases(&cluster);
    assert_eq!(old.len(), 3);

    cluster.api.patch(&format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 4}}));
    let refusal =
        "no free address in ipam.ranges[0] (192.168.50.200-192.168.50.202): 3 addresses, 3 leases (3 of node2)";
    cluster.until("the fourth pod is refused", || cluster.event("FailedCreatePodSandBox", refusal));
    cluster.await_readiness(node, true);
    cluster.api.patch(&format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 3}}));
    cluster.await_replicas("web", 3);

    node.reboot();
    cluster.restart_containerd(node);
    node.start_kubelet();
    node.start_kube_proxy(&KubeProxy::USUAL.keys());
    cluster.until("the pods have leases of this boot", || {
        let boot = node.run(&["cat", "/proc/sys/kernel/random/boot_id"]);
        let leases = cluster.api.list(LEASES)?;
        let of_boot = leases.iter().filter(|lease| lease["spec"]["boot"] == boot.trim()).count();
        if of_boot == 3 && leases.len() == 3 { Ok(()) } else { Err(format!("{leases:?}")) }
    });
    let pods = cluster.await_replicas("web", 3);
    for pod in pods {
        assert_reaches(&cluster.gateway, pod.ip);
    }
    end(&cluster);
}
