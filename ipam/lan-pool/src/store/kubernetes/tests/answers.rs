//! Each answer of the API server to each request.

use serde_json::{Value, json};

use super::super::{Evidence, Policy};
use super::*;
use crate::lease::Block;

#[test]
fn a_create_sends_all_fields_and_returns_the_uid() {
    let (server, mut client) = client(vec![made()]);
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
    let requests = server.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    let authority = server.url().replace("http://", "");
    assert_eq!(
        head,
        format!(
            "POST /apis/underlay.internal/v1/lanaddresses?fieldValidation=Strict HTTP/1.1\r\nHost: {authority}\r\n\
             User-Agent: lan-pool/{}\r\nAccept: application/json\r\nAuthorization: Bearer secret\r\n\
             Content-Type: application/json\r\nContent-Length: {}",
            env!("CARGO_PKG_VERSION"),
            body.len()
        )
    );
    let mut sent = object();
    sent["metadata"] = json!({"name": NAME});
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), sent);
}

#[test]
fn a_lease_of_another_machine_is_sent_and_read() {
    for mac in [Some("02:00:00:00:00:01".to_owned()), None] {
        let lease = Lease { holder: Holder::Machine { mac: mac.clone() }, ..lease() };
        let mut stored = object();
        let spec = stored["spec"].as_object_mut().unwrap();
        for key in ["containerID", "ifname", "netns", "pod"] {
            spec.remove(key);
        }
        spec.insert("conflict".into(), mac.as_ref().map_or(json!({}), |mac| json!({"mac": mac})));
        let (server, mut client) = client(vec![Reply::json(201, &stored), Reply::json(200, &stored)]);
        assert_eq!(client.ask(&Request::Create(lease.clone()), soon()), Answer::Made(uid()));
        let sent: Value = serde_json::from_str(server.requests()[0].split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(sent["spec"], stored["spec"]);
        assert_eq!(client.ask(&get(), soon()), Answer::Found(Some(Held { lease, ..held() })));
    }
}

#[test]
fn a_create_is_taken_only_by_the_lease_of_this_name() {
    assert_eq!(answer(&create(), exists()), Answer::Taken);
    let other = answer(&create(), failure(409, "AlreadyExists", "exists", "office.10.77.0.1"));
    assert_eq!(refused(&other), "exists");
    let conflict = answer(&create(), failure(409, "Conflict", "try again", NAME));
    assert_eq!(refused(&conflict), "try again");
    assert_eq!(refused(&answer(&create(), Reply::text(409, "", "busy"))), "status 409: busy");
}

#[test]
fn a_created_lease_has_the_name_and_a_uid() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut object = object();
        change(&mut object);
        answer(&create(), Reply::json(201, &object))
    };
    let other = with(&|object| {
        object["metadata"]["name"] = json!("office.10.77.0.1");
        object["spec"]["address"] = json!("10.77.0.1");
    });
    assert_eq!(lost(&other), "the answer is about office.10.77.0.1");
    let inconsistent = with(&|object| object["metadata"]["name"] = json!("office.10.77.0.1"));
    assert_eq!(lost(&inconsistent), "object office.10.77.0.1 has the address 10.77.0.200 on LAN office");
    assert_eq!(lost(&with(&|object| object["metadata"]["uid"] = json!(""))), format!("object {NAME} has no uid"));
    let without = with(&|object| _ = object["metadata"].as_object_mut().unwrap().remove("uid"));
    assert!(lost(&without).starts_with("the answer is wrong: missing field `uid`"), "{without:?}");
    assert_eq!(lost(&with(&|object| object["kind"] = json!("Pod"))), "the object is no LanAddress");
    let free = with(&|object| _ = object["spec"].as_object_mut().unwrap().remove("ifname"));
    assert_eq!(lost(&free), format!("object {NAME} has no holder"));
    let text = Reply::text(201, "Content-Type: text/plain\r\n", &object().to_string());
    assert_eq!(lost(&answer(&create(), text)), "the answer is not JSON");
    assert_eq!(lost(&answer(&create(), Reply::json(200, &object()))), "unexpected status 200");
    assert_eq!(lost(&answer(&create(), Reply::json(202, &object()))), "unexpected status 202");
}

#[test]
fn a_get_finds_a_lease_or_none() {
    assert_eq!(answer(&get(), Reply::json(200, &object())), Answer::Found(Some(held())));
    assert_eq!(answer(&get(), missing()), Answer::Found(None));
    let other = failure(404, "NotFound", "not found", "office.10.77.0.1");
    assert_eq!(refused(&answer(&get(), other)), "not found");
}

#[test]
fn a_missing_resource_is_no_missing_lease() {
    let text = "the server has no lanaddresses.underlay.internal: apply the manifest of lan-pool first";
    for request in [create(), get(), delete(), Request::OfNode, Request::InBlock(Block::of(address()))] {
        let reply = Reply::text(404, "Content-Type: text/plain; charset=utf-8\r\n", "404 page not found\n");
        assert_eq!(refused(&answer(&request, reply)), text);
        let reply = failure(404, "NotFound", "the server could not find the requested resource", "");
        assert_eq!(refused(&answer(&request, reply)), "the server could not find the requested resource");
    }
}

#[test]
fn a_delete_names_the_uid_and_is_done_if_that_lease_is_gone() {
    let (server, mut client) = client(vec![deleted()]);
    assert_eq!(client.ask(&delete(), soon()), Answer::Gone);
    let requests = server.requests();
    assert!(requests[0].starts_with(&format!("DELETE /apis/underlay.internal/v1/lanaddresses/{NAME} HTTP/1.1\r\n")));
    let body: Value = serde_json::from_str(requests[0].split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body, json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": UID}}));

    assert_eq!(answer(&delete(), missing()), Answer::Gone);
    for text in [
        "Operation cannot be fulfilled on lanaddresses.underlay.internal \"X\": Precondition failed: UID in precondition: A, \
         UID in object meta: B",
        "Operation cannot be fulfilled on LanAddress.underlay.internal \"X\": the UID in the precondition (A) does not \
         match the UID in record (B). The object might have been deleted and then recreated",
    ] {
        assert_eq!(answer(&delete(), failure(409, "Conflict", text, NAME)), Answer::Gone);
        let details = json!({"name": NAME, "group": "underlay.internal", "kind": "LanAddress"});
        let status = json!({"kind": "Status", "reason": "Conflict", "message": text, "details": details, "code": 409});
        assert_eq!(answer(&delete(), Reply::json(409, &status)), Answer::Gone);
    }
}

#[test]
fn a_delete_is_not_done_by_any_other_answer() {
    let modified = "the object has been modified; please apply your changes to the latest version";
    assert_eq!(refused(&answer(&delete(), failure(409, "Conflict", modified, NAME))), modified);
    let finalizer = answer(&delete(), Reply::json(200, &object()));
    assert_eq!(lost(&finalizer), "the lease is not deleted yet: has it finalizers?");
    let with = |key: &str, value: &str| {
        let text = String::from_utf8(deleted().content().to_vec()).unwrap();
        let mut body: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        *body.pointer_mut(key).unwrap() = json!(value);
        answer(&delete(), Reply::json(200, &body))
    };
    for (key, value) in [
        ("/status", "Failure"),
        ("/kind", "Other"),
        ("/details/uid", "another"),
        ("/details/name", "another"),
        ("/details/group", ""),
    ] {
        assert_eq!(lost(&with(key, value)), "the answer does not say that the lease is deleted", "{key}");
    }
}

#[test]
fn other_refusals_have_the_text_of_the_server() {
    for (code, reason) in [(400, "BadRequest"), (403, "Forbidden"), (405, "MethodNotAllowed"), (422, "Invalid")] {
        for request in [create(), get(), delete(), Request::OfNode] {
            let text = answer(&request, failure(code, reason, "because", NAME));
            assert_eq!(refused(&text), "because", "{code} {request:?}");
        }
    }
    let Answer::Refused(text) = answer(&create(), failure(403, "Forbidden", "because", NAME)) else { panic!() };
    assert!(text.starts_with(&format!("create lease {NAME}: http://127.0.0.1:")), "{text}");
}

#[test]
fn an_answer_without_certainty_is_lost() {
    for code in [203, 206, 300, 303, 304, 305, 408, 499, 500, 501, 502, 503, 504, 507, 599, 600, 999] {
        for request in [create(), get(), delete(), Request::OfNode] {
            let answer = answer(&request, failure(code, "InternalError", "etcdserver: request timed out", NAME));
            assert!(lost(&answer).contains(&format!("status {code}")), "{answer:?}");
        }
    }
}

#[test]
fn a_redirect_is_not_followed() {
    for code in [301, 302, 307, 308] {
        let other = Server::start(vec![]);
        let reply = Reply::text(code, &format!("Location: {}/\r\n", other.url()), "");
        let text = format!("status {code}: a redirect, which is not followed");
        assert_eq!(refused(&answer(&create(), reply)), text);
        assert_eq!(other.connections(), 0);
    }
}

#[test]
fn a_list_asks_for_its_fields_and_follows_its_pages() {
    let mut second = object();
    second["metadata"]["name"] = json!("office.10.77.0.201");
    second["metadata"]["uid"] = json!("another");
    second["spec"]["address"] = json!("10.77.0.201");
    // The items of a list of the API server have a kind. The client does not need it.
    second.as_object_mut().unwrap().remove("kind");
    let (server, mut client) = client(vec![list(&[object()], "a+b/="), list(&[second], ""), list(&[], "")]);
    let Answer::Leases(leases) = client.ask(&Request::OfNode, soon()) else { panic!() };
    assert_eq!(leases[0], held());
    assert_eq!(leases.iter().map(|held| held.lease.name()).collect::<Vec<_>>(), [NAME, "office.10.77.0.201"]);
    assert_eq!(client.ask(&Request::InBlock(Block::of(address())), soon()), Answer::Leases(vec![]));
    let requests = server.requests();
    let path = |at: usize| requests[at].split(' ').nth(1).unwrap();
    let base = "/apis/underlay.internal/v1/lanaddresses?";
    let of_node = format!("{base}limit=500&fieldSelector=spec.node%3Dnode1%2Cspec.lan%3Doffice");
    assert_eq!(path(0), of_node);
    assert_eq!(path(1), format!("{of_node}&continue=a%2Bb%2F%3D"));
    // The free addresses of a full pool must not depend on an old list.
    assert_eq!(path(2), format!("{base}fieldSelector=spec.block%3Doffice.10.77.0.0"));
}

#[test]
fn a_list_whose_state_is_gone_begins_again() {
    let expired = || failure(410, "Expired", "The provided continue parameter is too old", "");
    let (server, mut client) = client(vec![list(&[object()], "t"), expired(), list(&[object()], "")]);
    assert_eq!(client.ask(&Request::OfNode, soon()), Answer::Leases(vec![held()]));
    assert_eq!(server.requests().len(), 3);
    assert!(refused(&answer(&Request::OfNode, expired())).contains("too old"));
}

#[test]
fn a_list_has_only_what_was_asked_for() {
    let other = |key: &str, value: &str| {
        let mut other = object();
        other["spec"][key] = json!(value);
        list(&[object(), other], "")
    };
    let text = format!("the answer has {NAME}, which was not asked for");
    assert_eq!(lost(&answer(&Request::OfNode, other("node", "node2"))), text);
    let mut far = object();
    far["metadata"]["name"] = json!("office.10.78.0.200");
    far["spec"]["address"] = json!("10.78.0.200");
    let far = answer(&Request::InBlock(Block::of(address())), list(&[far], ""));
    assert_eq!(lost(&far), "the answer has office.10.78.0.200, which was not asked for");
    assert_eq!(
        lost(&answer(&Request::OfNode, Reply::json(200, &object()))).split(": ").next(),
        Some("the answer is wrong")
    );
    let pods = json!({"kind": "PodList", "metadata": {}, "items": []});
    assert_eq!(lost(&answer(&Request::OfNode, Reply::json(200, &pods))), "the answer is no LanAddressList");
}

#[test]
fn a_lease_without_dates_has_no_age() {
    let age = |reply: Reply| match answer(&get(), reply) {
        Answer::Found(Some(held)) => held.age,
        other => panic!("{other:?}"),
    };
    let mut undated = object();
    undated["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
    assert_eq!(age(Reply::json(200, &undated)), 0);
    undated["metadata"]["creationTimestamp"] = json!("2026-11-27T11:00:00Z");
    assert_eq!(age(Reply::json(200, &undated)), 0);
    undated["metadata"]["creationTimestamp"] = json!("yesterday");
    assert_eq!(age(Reply::json(200, &undated)), 0);
}

#[test]
fn a_look_tells_if_the_policy_is_in_force() {
    let denied = "lanaddresses.underlay.internal \"office.192.0.2.1\" is forbidden: ValidatingAdmissionPolicy \
                  'lan-pool-own-node' with binding 'lan-pool-own-node' denied request: this is a lease of node x";
    let dry = "office.192.0.2.1";
    let look = |reply: Reply| {
        let none = failure(404, "NotFound", "not found", dry);
        let (server, mut client) = client(vec![none, reply]);
        let found = client.look(soon());
        let requests = server.requests();
        assert!(
            requests[1].starts_with("POST /apis/underlay.internal/v1/lanaddresses?dryRun=All&fieldValidation=Strict ")
        );
        assert!(requests[1].contains("\"node\":\"another-node.invalid\""));
        found.map_err(|text| cause(&text).to_owned())
    };
    assert_eq!(look(failure(403, "Forbidden", denied, dry)), Ok(()));
    let absent =
        Err("allowed, so this node can free the leases of other nodes: apply the policy of lan-pool".to_owned());
    assert_eq!(look(failure(409, "AlreadyExists", "exists", dry)), absent);
    let mut object = object();
    object["metadata"]["name"] = json!(dry);
    object["spec"]["address"] = json!("192.0.2.1");
    assert_eq!(look(Reply::json(201, &object)), absent);
    let rights = "User \"system:node:node1\" cannot create resource \"lanaddresses\"";
    assert_eq!(look(failure(403, "Forbidden", rights, "")), Err(rights.to_owned()));
    let (_server, mut client) = client(vec![failure(422, "Invalid", "wrong", dry)]);
    assert!(matches!(client.dry_run_foreign(soon()), Policy::Unknown(text) if cause(&text) == "wrong"));
}

#[test]
fn a_node_is_missing_out_of_service_or_alive() {
    let node = |taints: Value, ready: &str| {
        Reply::json(
            200,
            &json!({
                "kind": "Node", "apiVersion": "v1", "metadata": {"name": "node2"}, "spec": {"taints": taints},
                "status": {"conditions": [{"type": "DiskPressure", "status": "True"}, {"type": "Ready", "status": ready}]},
            }),
        )
    };
    let evidence = |reply: Reply| {
        let (server, mut client) = client(vec![reply]);
        let evidence = client.node_evidence("node2", soon()).map_err(|error| error.to_string());
        assert!(server.requests()[0].starts_with("GET /api/v1/nodes/node2 HTTP/1.1\r\n"));
        evidence
    };
    assert_eq!(evidence(node(json!([]), "True")), Ok(Evidence::Alive { ready: true }));
    assert_eq!(evidence(node(json!([]), "Unknown")), Ok(Evidence::Alive { ready: false }));
    let taint = json!([{"key": "a", "effect": "NoSchedule"}, {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]);
    assert_eq!(evidence(node(taint.clone(), "Unknown")), Ok(Evidence::OutOfService));
    assert_eq!(evidence(node(taint, "True")), Ok(Evidence::Alive { ready: true }));
    let missing = |name: &str| {
        let details = json!({"name": name, "kind": "nodes"});
        let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404, "details": details});
        Reply::json(404, &status)
    };
    assert_eq!(evidence(missing("node2")), Ok(Evidence::Missing));
    assert!(evidence(missing("node3")).is_err_and(|text| text.ends_with(": no")));
    assert!(evidence(Reply::text(404, "", "404 page not found")).is_err());
    let other = json!({"kind": "Node", "metadata": {"name": "node3"}});
    assert!(evidence(Reply::json(200, &other)).is_err_and(|text| text.ends_with("the answer is about another object")));
    assert!(evidence(Reply::text(200, "", "")).is_err());
}

#[test]
fn the_leases_of_another_node_are_listed_or_an_error() {
    let mut other = object();
    other["spec"]["node"] = json!("node2");
    let (_server, mut client) =
        client(vec![list(&[other], ""), failure(403, "Forbidden", "no", ""), Reply::text(500, "", "")]);
    let node2 = Node { name: "node2".into(), ..lease().node };
    let expected = Held { lease: Lease { node: node2, ..lease() }, ..held() };
    assert_eq!(client.leases_of("node2", soon()).unwrap(), [expected]);
    assert!(matches!(client.leases_of("node2", soon()), Err(crate::Error::Refused { .. })));
    assert!(matches!(client.leases_of("node2", soon()), Err(crate::Error::Away { .. })));
}
