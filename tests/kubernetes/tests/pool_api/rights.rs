//! The roles: nodes, administrators of the pool, pods of a DaemonSet, and all others.

use e2e::patience::{PATIENCE, await_within};
use kubernetes::api_server::pool::{LEASES, lease};
use kubernetes::{Api, ApiServer};
use serde_json::{Value, json};

use crate::{Shared, bind, make, path, refused};

/// The message with which the roles refuse a request.
fn forbidden(user: &str, verb: &str, name: &str) -> String {
    let name = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
    format!(
        "lanaddresses.underlay.internal{name} is forbidden: User \"{user}\" cannot {verb} resource \"lanaddresses\" in API \
         group \"underlay.internal\" at the cluster scope"
    )
}

#[test]
fn a_node_can_only_get_list_create_and_delete() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    let made = make(&api, &lease("verbs", "10.77.0.200", "node1"));
    let name = "verbs.10.77.0.200";
    let refuse = |request: (&str, &str), verb: &str, name: &str| {
        let body = json!({"metadata": {"labels": {"a": "b"}}});
        let body = if request.0 == "PUT" { &made } else { &body };
        let body = ["PUT", "PATCH"].contains(&request.0).then_some(body);
        refused(&api, request, body, (403, &forbidden("system:node:node1", verb, name)));
    };
    refuse(("PUT", &path(&made)), "update", name);
    refuse(("PATCH", &path(&made)), "patch", name);
    refuse(("DELETE", LEASES), "deletecollection", "");
    refuse(("GET", &format!("{LEASES}?watch=true")), "watch", "");
    assert_eq!(api.get(&path(&made)), made);
    api.delete(&path(&made));
}

#[test]
fn an_ordinary_user_may_do_nothing() {
    let shared = Shared::get();
    let user = shared.server.user_api("alice");
    let made = make(&shared.server.node_api("node1"), &lease("alice", "10.77.0.200", "node1"));
    let name = "alice.10.77.0.200";
    refused(&user, ("GET", &path(&made)), None, (403, &forbidden("alice", "get", name)));
    refused(&user, ("GET", LEASES), None, (403, &forbidden("alice", "list", "")));
    refused(&user, ("DELETE", &path(&made)), None, (403, &forbidden("alice", "delete", name)));
    refused(&user, ("POST", LEASES), Some(&made), (403, &forbidden("alice", "create", "")));
    refused(&shared.server.token_api("wrong"), ("GET", LEASES), None, (401, "Unauthorized"));
}

#[test]
fn a_node_cannot_impersonate_another_node() {
    let shared = Shared::get();
    let made = make(&shared.server.node_api("node2"), &lease("impersonated", "10.77.0.200", "node2"));
    let api = shared.server.node_api("node1").with_header("Impersonate-User", "system:node:node2");
    let name = "impersonated.10.77.0.200";
    for (method, verb) in [("GET", "get"), ("DELETE", "delete")] {
        let verb = format!("impersonate-on:arbitrary-node:{verb}");
        refused(&api, (method, &path(&made)), None, (403, &forbidden("system:node:node1", &verb, name)));
    }
}

#[test]
fn an_administrator_of_kubeadm_deletes_all_leases() {
    let shared = Shared::get();
    let leases = [("10.77.0.200", "node1"), ("10.77.0.201", "node2"), ("fd77::200", "node2")];
    let leases = leases.map(|(address, node)| make(&shared.server.node_api(node), &lease("admin", address, node)));
    let admin = shared.server.admin_api();
    assert_eq!(admin.request("DELETE", &path(&leases[0]), None).unwrap().status, 200);
    let collection = format!("{LEASES}?fieldSelector=spec.lan=admin");
    assert_eq!(admin.request("DELETE", &collection, None).unwrap().status, 200);
    assert_eq!(admin.list(&collection).unwrap(), [Value::Null; 0]);
}

#[test]
fn a_user_with_the_role_of_the_pool_releases_leases_of_all_nodes_but_makes_none() {
    let shared = Shared::get();
    let made = make(&shared.server.node_api("node1"), &lease("bob", "10.77.0.200", "node1"));
    let user = shared.server.user_api("bob");
    refused(&user, ("DELETE", &path(&made)), None, (403, &forbidden("bob", "delete", "bob.10.77.0.200")));
    bind(&shared.server, "lan-pool-admin", "bob");
    await_right(&user, &path(&made));
    let body = lease("bob", "10.77.0.201", "node1");
    refused(&user, ("POST", LEASES), Some(&body), (403, &forbidden("bob", "create", "")));
    assert_eq!(user.request("DELETE", &path(&made), None).unwrap().status, 200);
    // It looks whether a node still exists.
    assert_eq!(user.request("GET", "/api/v1/nodes/no-such-node", None).unwrap().status, 404);
}

/// Waits until the API server has read a new binding.
fn await_right(api: &Api, path: &str) {
    await_within(PATIENCE, "a new binding counts", || match api.request("GET", path, None)? {
        answer if answer.status == 200 => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
}

#[test]
fn a_user_who_sees_the_whole_cluster_sees_the_leases() {
    let shared = Shared::get();
    make(&shared.server.node_api("node1"), &lease("carol", "10.77.0.200", "node1"));
    bind(&shared.server, "lan-pool-view", "carol");
    let user = shared.server.user_api("carol");
    await_right(&user, LEASES);
    let role = shared.server.admin_api().get("/apis/rbac.authorization.k8s.io/v1/clusterroles/lan-pool-view");
    assert_eq!(role["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"], "true");
}

/// A token of the service account, as the kubelet gets it for a pod on that node.
fn token(server: &ApiServer, node: &str) -> String {
    let admin = server.admin_api();
    admin.create("/api/v1/nodes", &json!({"metadata": {"name": node}}));
    let pod = json!({
        "metadata": {"name": format!("lan-pool-{node}")},
        "spec": {
            "serviceAccountName": "lan-pool",
            "nodeName": node,
            "containers": [{"name": "lan-pool", "image": "lan-pool"}],
        },
    });
    let pod = admin.create("/api/v1/namespaces/kube-system/pods", &pod);
    let (name, uid) = (&pod["metadata"]["name"], &pod["metadata"]["uid"]);
    request_token(server, json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}))
}

fn request_token(server: &ApiServer, bound: Value) -> String {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["https://kubernetes.default.svc"], "boundObjectRef": bound},
    });
    let path = "/api/v1/namespaces/kube-system/serviceaccounts/lan-pool/token";
    let answer = server.admin_api().create(path, &request);
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

#[test]
fn a_pod_of_a_daemonset_is_limited_to_its_node() {
    let shared = Shared::get();
    let server = &shared.server;
    let api = server.token_api(&token(server, "daemon-node"));
    let denied = |name: &str, text: &str| {
        format!(
            "lanaddresses.underlay.internal \"{name}\" is forbidden: ValidatingAdmissionPolicy 'lan-pool-own-node' with \
             binding 'lan-pool-own-node' denied request: {text}"
        )
    };
    let own = make(&api, &lease("daemon", "10.77.0.200", "daemon-node"));
    let foreign = make(&server.node_api("node1"), &lease("daemon", "10.77.0.201", "node1"));
    let text = "this is a lease of node node1, and the request is from node daemon-node";
    let body = lease("daemon", "10.77.0.202", "node1");
    refused(&api, ("POST", LEASES), Some(&body), (403, &denied("daemon.10.77.0.202", text)));
    refused(&api, ("DELETE", &path(&foreign)), None, (403, &denied("daemon.10.77.0.201", text)));
    // A token that is bound to no pod names no node.
    let loose = server.token_api(&request_token(server, Value::Null));
    let text = "only a node can make and delete leases, or a user with the verb release";
    refused(&loose, ("DELETE", &path(&own)), None, (403, &denied("daemon.10.77.0.200", text)));
    // The kubelet of the node and the pod are the same node.
    assert_eq!(server.node_api("daemon-node").request("DELETE", &path(&own), None).unwrap().status, 200);
}
