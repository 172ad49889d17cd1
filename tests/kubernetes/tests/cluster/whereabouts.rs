//! macvlan with the IPAM plugin whereabouts, which keeps its addresses in the API server.

use std::collections::BTreeMap;
use std::fs;

use e2e::binaries::peers;
use e2e::traffic::assert_reaches;
use kubernetes::Cluster;
use serde_json::{Value, json};

/// The API group of whereabouts, and the kinds of its objects, each with its plural.
const GROUP: &str = "whereabouts.cni.cncf.io";
const KINDS: [(&str, &str); 3] = [
    ("IPPool", "ippools"),
    ("OverlappingRangeIPReservation", "overlappingrangeipreservations"),
    ("NodeSlicePool", "nodeslicepools"),
];

/// whereabouts needs only that the API server returns all fields as they were sent.
fn definition(kind: &str, plural: &str) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": open, "status": open}}},
            }],
        },
    })
}

/// The objects of a kind, in all namespaces.
fn objects(cluster: &Cluster, plural: &str) -> Vec<Value> {
    cluster.api.list(&format!("/apis/{GROUP}/v1alpha1/{plural}")).expect("list objects of whereabouts")
}

/// The allocations of the only pool: the last part of each address, with its container.
fn allocations(cluster: &Cluster) -> BTreeMap<String, String> {
    let pools = objects(cluster, "ippools");
    assert_eq!(pools.len(), 1, "{pools:?}");
    let allocations = pools[0]["spec"]["allocations"].as_object().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    allocations.iter().map(|(offset, owner)| (offset.clone(), text(&owner["id"]))).collect()
}

#[test]
fn macvlan_attaches_with_an_address_of_whereabouts_and_releases_it() {
    let cluster = Cluster::shared();
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for (kind, plural) in KINDS {
        cluster.api.create(definitions, &definition(kind, plural));
        cluster.await_path(&format!("/apis/{GROUP}/v1alpha1/{plural}"));
    }
    // The host of the Lab is on the LAN too, and so it reaches the API server.
    let lab = &cluster.lab;
    let kubeconfig = cluster.nodes[0].root().join("etc/kubernetes/admin.conf");
    // whereabouts needs a file of its own in addition to the configuration of the network.
    let file = lab.path("whereabouts.conf");
    fs::write(&file, json!({"kubernetes": {"kubeconfig": kubeconfig}}).to_string()).expect("write a file");
    let conf = lab.conf_with(json!({
        "type": "whereabouts",
        "configuration_path": file,
        "range": "192.168.50.0/24",
        "range_start": "192.168.50.220",
        "range_end": "192.168.50.229",
        "gateway": "192.168.50.1",
        "routes": [{"dst": "0.0.0.0/0"}],
    }));
    let search = format!("{}:{}", lab.bin().display(), peers("whereabouts").display());
    let plugin = lab.macvlan().search(search);
    let container = lab.container();
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0";

    let result = plugin.add(&container, "eth0", &conf).args(args).run().result();
    assert_eq!(result["ips"][0]["address"], "192.168.50.220/24");
    assert_eq!(container.address_texts("eth0"), ["192.168.50.220/24"]);
    assert_reaches(&container, cluster.gateway.v4);
    assert_reaches(&cluster.nodes[1].machine, "192.168.50.220".parse().expect("an address"));
    assert_eq!(allocations(&cluster), [("220".to_owned(), container.id.clone())].into());
    assert_eq!(objects(&cluster, "overlappingrangeipreservations").len(), 1);

    // whereabouts does not implement CHECK, and macvlan returns its error.
    let mut checked = conf.clone();
    checked["prevResult"] = result;
    let error = plugin.check(&container, "eth0", &checked).args(args).run().error();
    assert!(format!("{error:?}").contains("CNI CHECK method is not implemented"), "{error:?}");

    for _ in 0..2 {
        plugin.del(&container, "eth0", &conf).args(args).run().done();
        assert_eq!(container.link_names(), ["lo"]);
        assert_eq!(allocations(&cluster), BTreeMap::new());
        assert_eq!(objects(&cluster, "overlappingrangeipreservations"), Vec::<Value>::new());
    }
    for (_, plural) in KINDS {
        cluster.api.delete(&format!("{definitions}/{plural}.{GROUP}"));
    }
}
