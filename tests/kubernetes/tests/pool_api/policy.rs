//! The policy: a node changes only its own leases, whatever rights it has.

use e2e::patience::{PATIENCE, await_within};
use e2e::{Binaries, Lab};
use kubernetes::api_server::pool::{LEASES, lease, manifest};
use kubernetes::{Api, ApiServer};
use serde_json::{Value, json};

use crate::{Shared, bind, make, only, path, refused};

/// The beginning of the message with which the policy refuses a request.
fn denied(name: &str, text: &str) -> String {
    format!(
        "lanaddresses.underlay.internal \"{name}\" is forbidden: ValidatingAdmissionPolicy 'lan-pool-own-node' with binding \
         'lan-pool-own-node' denied request: {text}"
    )
}

/// A node that the roles allow everything but the verb `release`.
fn node_with_all_rights(server: &ApiServer, node: &str) -> Api {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "test-all-but-release"},
        "rules": [{
            "apiGroups": ["underlay.internal"],
            "resources": ["lanaddresses"],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"],
        }],
    });
    server.apply(&role.to_string());
    bind(server, "test-all-but-release", &format!("system:node:{node}"));
    server.node_api(node)
}

#[test]
fn a_node_cannot_make_a_lease_for_another_node() {
    let shared = Shared::get();
    let text = denied("foreign.10.77.0.200", "this is a lease of node node2, and the request is from node node1");
    for path in [LEASES, &format!("{LEASES}?dryRun=All")] {
        let body = lease("foreign", "10.77.0.200", "node2");
        refused(&shared.server.node_api("node1"), ("POST", path), Some(&body), (403, &text));
    }
}

#[test]
fn a_node_deletes_its_own_leases_only() {
    let shared = Shared::get();
    let (own, other) = (shared.server.node_api("node1"), shared.server.node_api("node2"));
    let made = make(&own, &lease("delete", "10.77.0.200", "node1"));
    let text = denied("delete.10.77.0.200", "this is a lease of node node1, and the request is from node node2");
    for body in [None, Some(&only(&made))] {
        refused(&other, ("DELETE", &path(&made)), body, (403, &text));
    }
    refused(&other, ("DELETE", &format!("{}?dryRun=All", path(&made))), None, (403, &text));
    assert_eq!(own.get(&path(&made)), made);
    let answer = own.request("DELETE", &path(&made), Some(&only(&made))).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let gone = "lanaddresses.underlay.internal \"delete.10.77.0.200\" not found";
    refused(&own, ("GET", &path(&made)), None, (404, gone));
    for api in [&own, &other] {
        refused(api, ("DELETE", &path(&made)), Some(&only(&made)), (404, gone));
    }
}

#[test]
fn a_delete_with_the_uid_of_an_earlier_lease_is_refused() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    let lease = lease("late", "10.77.0.200", "node1");
    let first = make(&api, &lease);
    assert_eq!(api.request("DELETE", &path(&lease), Some(&only(&first))).unwrap().status, 200);
    let second = make(&api, &lease);
    let uid = |lease: &Value| lease["metadata"]["uid"].as_str().expect("a uid").to_owned();
    assert_ne!(uid(&first), uid(&second));
    let text = format!(
        "Operation cannot be fulfilled on LanAddress.underlay.internal \"late.10.77.0.200\": the UID in the precondition \
         ({}) does not match the UID in record ({}). The object might have been deleted and then recreated",
        uid(&first),
        uid(&second)
    );
    refused(&api, ("DELETE", &path(&lease)), Some(&only(&first)), (409, &text));
    assert_eq!(api.get(&path(&lease)), second);
}

#[test]
fn a_node_changes_no_lease_even_with_the_right_to_update() {
    let shared = Shared::get();
    let api = node_with_all_rights(&shared.server, "updater");
    let made = make(&api, &lease("update", "10.77.0.200", "updater"));
    let text = denied("update.10.77.0.200", "a lease cannot be changed");
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "updater", "uid": made["metadata"]["uid"]}]);
    for metadata in [
        json!({"labels": {"a": "b"}}),
        json!({"annotations": {"a": "b"}}),
        json!({"finalizers": ["example.com/keep"]}),
        json!({"ownerReferences": owner}),
    ] {
        refused(&api, ("PATCH", &path(&made)), Some(&json!({"metadata": metadata})), (403, &text));
        let mut whole = made.clone();
        whole["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        refused(&api, ("PUT", &path(&made)), Some(&whole), (403, &text));
    }
    assert_eq!(api.get(&path(&made)), made);
}

#[test]
fn a_node_deletes_no_collection_with_a_foreign_lease_even_with_the_right_to() {
    let shared = Shared::get();
    let api = node_with_all_rights(&shared.server, "collector");
    let foreign = make(&shared.server.node_api("node1"), &lease("collection", "10.77.0.200", "node1"));
    // For a collection, the message does not name the lease.
    let text = denied("Unknown", "this is a lease of node node1, and the request is from node collector");
    let collection = |selector: &str| format!("{LEASES}?fieldSelector=spec.lan=collection{selector}");
    refused(&api, ("DELETE", &collection("")), None, (403, &text));
    assert_eq!(api.get(&path(&foreign)), foreign);

    make(&api, &lease("collection", "10.77.0.201", "collector"));
    let answer = api.request("DELETE", &collection(",spec.node=collector"), None).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(api.list(&collection("")).unwrap(), [foreign]);
}

#[test]
fn a_node_makes_no_lease_that_a_delete_does_not_delete() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    let text = denied("kept.10.77.0.200", "a lease has no finalizers and no owner references");
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": "1"}]);
    for (key, value) in [("finalizers", json!(["example.com/keep"])), ("ownerReferences", owner)] {
        let mut lease = lease("kept", "10.77.0.200", "node1");
        lease["metadata"][key] = value;
        refused(&api, ("POST", LEASES), Some(&lease), (403, &text));
    }
}

#[test]
fn a_user_with_the_rights_of_a_node_is_not_a_node() {
    let shared = Shared::get();
    bind(&shared.server, "lan-pool-node", "nodeless");
    let user = shared.server.user_api("nodeless");
    let text = |name: &str| denied(name, "only a node can make and delete leases, or a user with the verb release");
    let body = lease("nodeless", "10.77.0.200", "node1");
    refused(&user, ("POST", LEASES), Some(&body), (403, &text("nodeless.10.77.0.200")));
    let made = make(&shared.server.node_api("node1"), &body);
    refused(&user, ("DELETE", &path(&made)), None, (403, &text("nodeless.10.77.0.200")));

    // The name of a node without its group.
    bind(&shared.server, "lan-pool-node", "system:node:node1");
    let impostor = shared.server.user_api("system:node:node1");
    refused(&impostor, ("DELETE", &path(&made)), None, (403, &text("nodeless.10.77.0.200")));
    assert_eq!(user.get(&path(&made)), made);
}

#[test]
fn the_garbage_collector_removes_the_finalizer_of_a_foreground_delete() {
    let shared = Shared::get();
    let made = make(&shared.server.node_api("node1"), &lease("foreground", "10.77.0.200", "node1"));
    let admin = shared.server.admin_api();
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"});
    assert_eq!(admin.request("DELETE", &path(&made), Some(&options)).unwrap().status, 200);
    assert_eq!(admin.get(&path(&made))["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
    let collector = admin.clone().with_header("Impersonate-User", collector);
    collector.patch(&path(&made), &json!({"metadata": {"finalizers": null}}));
    assert_eq!(admin.request("GET", &path(&made), None).unwrap().status, 404);

    let made = make(&shared.server.node_api("node1"), &lease("foreground", "10.77.0.201", "node1"));
    let text =
        denied("foreground.10.77.0.201", "only a node can make and delete leases, or a user with the verb release");
    refused(&collector, ("DELETE", &path(&made)), None, (403, &text));
}

#[test]
fn the_manifest_has_the_policy_before_the_rights_and_can_be_applied_again() {
    let shared = Shared::get();
    let server = &shared.server;
    let output = server.kubectl(&server.admin_kubeconfig(), &["apply", "-f", "-"], &manifest()).unwrap();
    let unchanged = [
        "customresourcedefinition.apiextensions.k8s.io/lanaddresses.underlay.internal",
        "validatingadmissionpolicy.admissionregistration.k8s.io/lan-pool-own-node",
        "validatingadmissionpolicybinding.admissionregistration.k8s.io/lan-pool-own-node",
        "serviceaccount/lan-pool",
        "clusterrole.rbac.authorization.k8s.io/lan-pool-node",
        "clusterrolebinding.rbac.authorization.k8s.io/lan-pool-node",
        "clusterrole.rbac.authorization.k8s.io/lan-pool-admin",
        "clusterrole.rbac.authorization.k8s.io/lan-pool-view",
    ];
    assert_eq!(output.lines().collect::<Vec<_>>(), unchanged.map(|name| format!("{name} unchanged")));
}

#[test]
fn a_dry_run_shows_whether_the_policy_is_in_force() {
    let lab = Lab::new(Binaries::HardLinks);
    let server = ApiServer::start(&lab, 1);
    let parts: Vec<String> = manifest().split("\n---\n").map(str::to_owned).collect();
    let without_binding = parts.iter().filter(|part| !part.contains("kind: ValidatingAdmissionPolicyBinding"));
    let without_binding: Vec<&str> = without_binding.map(String::as_str).collect();
    assert_eq!(without_binding.len() + 1, parts.len());
    server.apply(&without_binding.join("\n---\n"));
    let (api, foreign) = (server.node_api("node1"), lease("dry", "10.77.0.200", "node2"));
    let dry_run = || api.request("POST", &format!("{LEASES}?dryRun=All&fieldValidation=Strict"), Some(&foreign));
    // The API server needs a moment to serve the new kind, and to read the new roles.
    await_within(PATIENCE, "a dry run is accepted", || match dry_run()? {
        answer if answer.status == 201 => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    server.set_up_lan_pool();
    let text = denied("dry.10.77.0.200", "this is a lease of node node2, and the request is from node node1");
    refused(&api, ("POST", &format!("{LEASES}?dryRun=All")), Some(&foreign), (403, &text));
    assert_eq!(api.list(LEASES).unwrap(), [Value::Null; 0]);
}
