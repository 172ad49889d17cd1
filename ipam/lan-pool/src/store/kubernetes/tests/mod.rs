//! Tests of the client against a server of its own, which answers with bytes that the test chooses.

mod answers;
mod broken;
mod connections;
mod renewal;
mod server;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Access, Client};
use crate::lease::{Held, Holder, Lease, Node, Owner, Uid};
use crate::store::{Answer, Request, Store};

use server::{Reply, Server};

const ADDRESS: &str = "10.77.0.200";
const NAME: &str = "office.10.77.0.200";
const UID: &str = "6f0f0c2e-8a3c-4f7e-9d0b-3c1f6f1b2a11";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn address() -> IpAddr {
    ADDRESS.parse().unwrap()
}

fn lease() -> Lease {
    Lease {
        lan: "office".into(),
        address: address(),
        node: Node { name: "node1".into(), boot: "boot1".into(), machine: "machine1".into() },
        holder: Holder::Container {
            owner: Owner { container_id: "c1".into(), ifname: "eth0".into() },
            netns: Some(4026532281),
            pod: Some("default/web".into()),
        },
    }
}

fn held() -> Held {
    Held { lease: lease(), uid: Uid(UID.into()), age: 90 }
}

fn uid() -> Uid {
    Uid(UID.into())
}

/// The lease as the server has it. Its date is 90 s before that of the replies.
fn object() -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "underlay.internal/v1",
        "kind": "LanAddress",
        "metadata": {
            "name": NAME, "uid": UID, "creationTimestamp": "2026-11-27T10:00:00Z", "resourceVersion": "7", "generation": 1,
            "managedFields": [{"manager": "lan-pool", "operation": "Update"}],
        },
        "spec": {
            "address": ADDRESS, "lan": "office", "node": "node1", "boot": "boot1", "machine": "machine1",
            "block": "office.10.77.0.0", "containerID": "c1", "ifname": "eth0", "netns": 4026532281_u64, "pod": "default/web",
        },
    })
}

/// A status of a failure, in the form of the API server.
fn failure(code: u16, reason: &str, message: &str, name: &str) -> Reply {
    Reply::json(
        code,
        &serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
            "details": {"name": name, "group": "underlay.internal", "kind": "lanaddresses"}, "code": code,
        }),
    )
}

fn made() -> Reply {
    Reply::json(201, &object())
}

fn exists() -> Reply {
    failure(409, "AlreadyExists", &format!("lanaddresses.underlay.internal \"{NAME}\" already exists"), NAME)
}

fn missing() -> Reply {
    failure(404, "NotFound", &format!("lanaddresses.underlay.internal \"{NAME}\" not found"), NAME)
}

fn deleted() -> Reply {
    Reply::json(
        200,
        &serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": NAME, "group": "underlay.internal", "kind": "lanaddresses", "uid": UID},
        }),
    )
}

fn list(items: &[serde_json::Value], next: &str) -> Reply {
    let metadata = serde_json::json!({"resourceVersion": "9", "continue": next});
    Reply::json(
        200,
        &serde_json::json!({
            "apiVersion": "underlay.internal/v1", "kind": "LanAddressList", "metadata": metadata, "items": items,
        }),
    )
}

/// A server with these replies, and its client.
fn client(replies: Vec<Reply>) -> (Server, Client) {
    let server = Server::start(replies);
    let client = server.client();
    (server, client)
}

/// The answer to one request, if the server replies so.
fn answer(request: &Request, reply: Reply) -> Answer {
    let (server, mut client) = client(vec![reply]);
    let answer = client.ask(request, soon());
    assert_eq!(server.requests().len(), 1);
    answer
}

fn create() -> Request {
    Request::Create(lease())
}

fn get() -> Request {
    Request::Get(address())
}

fn delete() -> Request {
    Request::Delete(address(), uid())
}

/// The text of a refusal, without the operation and the server.
#[track_caller]
fn refused(answer: &Answer) -> &str {
    match answer {
        Answer::Refused(text) => cause(text),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn lost(answer: &Answer) -> &str {
    match answer {
        Answer::Lost(text) => cause(text),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn cause(text: &str) -> &str {
    let (_, rest) = text.split_once(": http").expect("the operation and the server");
    rest.split_once(": ").expect("a cause").1
}
