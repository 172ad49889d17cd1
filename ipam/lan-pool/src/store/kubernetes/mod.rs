//! The API server of a Kubernetes cluster as the store of the leases. A lease is a cluster-scoped object of a custom resource,
//! whose name is made of the LAN and the address.
//!
//! - [`Api`] is the access to an API server, as a kubeconfig describes it.
//! - [`Kubernetes`] is the [`Store`] of one LAN and one node in it.
//!
//! TLS and HTTP are done on std's sockets, because the protocol has to know of each request if it can have been carried out.
//! An answer counts only if it is complete and names the lease that was asked for.

mod api;
mod credentials;
mod error;
mod http;
mod kubeconfig;
mod object;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lease::{Block, Held, Holder, Lease, Node, Uid, name};
use crate::store::{Answer, Request, Store};

use api::{Call, Unanswered};
use http::Response;
use object::{DeleteOptions, GROUP, NewObject, NodeObject, Page, RESOURCE, ReadObject, Status};

pub use api::Api;
pub use error::AccessError;
pub use object::Taint;

/// Objects of one page of a list.
const PAGE: usize = 500;
/// Bytes of one object.
const LARGEST_OBJECT: usize = 1 << 20;
/// Bytes of a page of a list.
const LARGEST_PAGE: usize = 16 << 20;
/// Objects of a list. A LAN has fewer.
const LARGEST_LIST: usize = 1 << 18;
/// The node of the lease of a dry run. A node cannot have this name, because its last label would be a reserved domain.
const FOREIGN_NODE: &str = "another-node.invalid";
/// The path of the resource.
const LEASES: &str = "/apis/underlay.internal/v1/lanaddresses";

/// The leases of one LAN, for one node.
pub struct Kubernetes {
    api: Api,
    lan: String,
    node: String,
}

/// The result of a dry run: can a node touch the leases of another one?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// No: the policy refuses it.
    InForce,
    /// Yes: the policy is missing, or not in force.
    Absent,
    /// The dry run has no result. The text is the cause.
    Unknown(String),
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its taints.
    pub taints: Vec<Taint>,
}

impl Kubernetes {
    /// The store of a LAN, for a node of this name.
    pub fn new(api: Api, lan: &str, node: &str) -> Self {
        Self { api, lan: lan.to_owned(), node: node.to_owned() }
    }

    /// Returns [`Api::node_name`].
    pub fn node_name(&self) -> Option<String> {
        self.api.node_name()
    }

    /// Tries whether the node could make a lease in the name of another node. Nothing is made.
    pub fn dry_run_foreign(&mut self, deadline: Instant) -> Policy {
        let lease = Lease {
            lan: self.lan.clone(),
            // An address of documentation. (RFC 5737)
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            node: Node { name: FOREIGN_NODE.to_owned(), boot: "dry-run".to_owned(), machine: "dry-run".to_owned() },
            holder: Holder::Machine { mac: None },
        };
        let operation = "dry run of a lease of another node";
        let path = format!("{LEASES}?dryRun=All&fieldValidation=Strict");
        let response =
            match self.api.call(Call::new(operation, "POST", &path).body(json(&NewObject::new(&lease))), deadline) {
                Ok(response) => response,
                Err(Unanswered::Refused(cause) | Unanswered::Lost(cause)) => return Policy::Unknown(cause),
            };
        let status = Status::of(response.status, &response.body);
        let reason = status.as_ref().and_then(|status| status.reason.as_deref()).unwrap_or_default();
        let message = status.as_ref().and_then(|status| status.message.as_deref()).unwrap_or_default();
        match (response.status, reason) {
            (403, "Forbidden") if message.contains("ValidatingAdmissionPolicy") => Policy::InForce,
            // An object is only compared with existing ones after the policy has let it pass.
            (409, "AlreadyExists") => Policy::Absent,
            (201, _) if is_lease(&response, &lease.name()) => Policy::Absent,
            _ => Policy::Unknown(self.refusal(operation, &response)),
        }
    }

    /// Reads a node of the cluster. `None`: the cluster has no node of this name.
    ///
    /// # Errors
    ///
    /// The text says why the answer is not known.
    pub fn node(&mut self, node: &str, deadline: Instant) -> Result<Option<ClusterNode>, String> {
        let operation = format!("read node {node}");
        let path = format!("/api/v1/nodes/{}", encoded(node));
        let response = match self.api.call(Call::new(&operation, "GET", &path), deadline) {
            Ok(response) => response,
            Err(Unanswered::Refused(cause) | Unanswered::Lost(cause)) => return Err(cause),
        };
        if response.status == 404 && is_missing(&response, "", "nodes", node) {
            return Ok(None);
        }
        match (response.status, read::<NodeObject>(&response)) {
            (200, Ok(object)) if object.kind == "Node" && object.metadata.name == node => {
                Ok(Some(ClusterNode { taints: object.spec.taints }))
            }
            (200, _) => Err(self.api.text(&operation, "the answer is not this node")),
            _ => Err(self.refusal(&operation, &response)),
        }
    }

    /// Lists all leases of a node, on all LANs.
    pub fn leases_of_node(&mut self, node: &str, deadline: Instant) -> Answer {
        self.list(&format!("list leases of node {node}"), &[("spec.node", node)], false, deadline)
    }

    /// Lists all leases of the LAN.
    pub fn leases_of_lan(&mut self, deadline: Instant) -> Answer {
        let lan = self.lan.clone();
        self.list(&format!("list leases of LAN {lan}"), &[("spec.lan", &lan)], false, deadline)
    }

    fn create(&mut self, lease: &Lease, deadline: Instant) -> Answer {
        let name = lease.name();
        let operation = format!("create lease {name}");
        let path = format!("{LEASES}?fieldValidation=Strict");
        let call = Call::new(&operation, "POST", &path).body(json(&NewObject::new(lease)));
        self.answer(call, deadline, |response| match response.status {
            201 => lease_of(response, &name).map(|held| Answer::Made(held.uid)),
            409 if is(response, "AlreadyExists", &name) => Ok(Answer::Taken),
            _ => Err(Unread::Refused),
        })
    }

    fn get(&mut self, address: IpAddr, deadline: Instant) -> Answer {
        let name = name(&self.lan, address);
        let operation = format!("read lease {name}");
        let path = format!("{LEASES}/{}", encoded(&name));
        self.answer(Call::new(&operation, "GET", &path), deadline, |response| match response.status {
            200 => lease_of(response, &name).map(|held| Answer::Found(Some(held))),
            404 if is_missing(response, GROUP, RESOURCE, &name) => Ok(Answer::Found(None)),
            _ => Err(Unread::Refused),
        })
    }

    fn delete(&mut self, address: IpAddr, uid: &Uid, deadline: Instant) -> Answer {
        let name = name(&self.lan, address);
        let operation = format!("delete lease {name}");
        let path = format!("{LEASES}/{}", encoded(&name));
        let call = Call::new(&operation, "DELETE", &path).body(json(&DeleteOptions::of(uid)));
        self.answer(call, deadline, |response| match response.status {
            200 => deleted(response, &name, uid).map(|()| Answer::Gone),
            404 if is_missing(response, GROUP, RESOURCE, &name) => Ok(Answer::Gone),
            409 if is_other_uid(response, &name) => Ok(Answer::Gone),
            _ => Err(Unread::Refused),
        })
    }

    /// Sends a call, and reads its response.
    fn answer(
        &mut self,
        call: Call<'_>,
        deadline: Instant,
        read: impl Fn(&Response) -> Result<Answer, Unread>,
    ) -> Answer {
        let operation = call.operation;
        let response = match self.api.call(call, deadline) {
            Ok(response) => response,
            Err(Unanswered::Refused(cause)) => return Answer::Refused(cause),
            Err(Unanswered::Lost(cause)) => return Answer::Lost(cause),
        };
        match read(&response) {
            Ok(answer) => answer,
            Err(Unread::Wrong(cause)) => Answer::Lost(self.api.text(operation, &cause)),
            Err(Unread::Refused) => match response.status {
                400..=499 => Answer::Refused(self.refusal(operation, &response)),
                status => Answer::Lost(self.api.text(operation, &format!("unexpected status {status}"))),
            },
        }
    }

    /// Lists leases whose fields have these values. The list is one state of the store, however many pages it has.
    fn list(&mut self, operation: &str, fields: &[(&str, &str)], may_be_old: bool, deadline: Instant) -> Answer {
        let selector: Vec<_> = fields.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let mut first = format!("{LEASES}?limit={PAGE}&fieldSelector={}", encoded(&selector.join(",")));
        if may_be_old {
            first += "&resourceVersion=0";
        }
        let mut path = first.clone();
        let mut leases: Vec<Held> = Vec::new();
        loop {
            let call = Call { most: LARGEST_PAGE, ..Call::new(operation, "GET", &path) };
            let response = match self.api.call(call, deadline) {
                Ok(response) => response,
                Err(Unanswered::Refused(cause)) => return Answer::Refused(cause),
                Err(Unanswered::Lost(cause)) => return Answer::Lost(cause),
            };
            match response.status {
                200 => {}
                // The state of the first page is gone, so the next page would be of another one. Not so on the first page.
                410 if path != first => {
                    (path, leases) = (first.clone(), Vec::new());
                    continue;
                }
                400..=499 => return Answer::Refused(self.refusal(operation, &response)),
                status => return Answer::Lost(self.api.text(operation, &format!("unexpected status {status}"))),
            }
            let next = match page(&response, fields, &mut leases) {
                Ok(next) => next,
                Err(cause) => return Answer::Lost(self.api.text(operation, &cause)),
            };
            match next {
                None => return Answer::Leases(leases),
                Some(next) => path = format!("{first}&continue={}", encoded(&next)),
            }
            // A later page of an old list continues it: a version would contradict the token.
            path = path.replace("&resourceVersion=0", "");
        }
    }

    /// The text of a response that refuses a call.
    fn refusal(&self, operation: &str, response: &Response) -> String {
        let status = Status::of(response.status, &response.body);
        let message = status.as_ref().and_then(|status| status.message.as_deref());
        match (response.status, message) {
            // The resource is unknown. (Its answer is a plain text.)
            (404, None) => {
                let cause = format!("the server has no {RESOURCE}.{GROUP}: apply the manifest of lan-pool first");
                self.api.text(operation, &cause)
            }
            (_, Some(message)) => self.api.text(operation, message),
            (code, None) => {
                let body: String = String::from_utf8_lossy(&response.body).chars().take(200).collect();
                self.api.text(operation, &format!("status {code}: {}", body.trim()))
            }
        }
    }
}

impl Store for Kubernetes {
    fn ask(&mut self, request: &Request, deadline: Instant) -> Answer {
        let (lan, node) = (self.lan.clone(), self.node.clone());
        match request {
            Request::Create(lease) => self.create(lease, deadline),
            Request::Get(address) => self.get(*address, deadline),
            Request::Delete(address, uid) => self.delete(*address, uid, deadline),
            Request::OfNode => {
                let fields = [("spec.node", node.as_str()), ("spec.lan", lan.as_str())];
                self.list(&format!("list leases of node {node} on LAN {lan}"), &fields, false, deadline)
            }
            Request::InBlock(block) => {
                let block = Block::name(*block, &lan);
                self.list(&format!("list leases of block {block}"), &[("spec.block", &block)], true, deadline)
            }
        }
    }
}

/// A response that is none of the expected ones.
enum Unread {
    /// Its content is wrong.
    Wrong(String),
    /// Its status says something else.
    Refused,
}

/// Our own structures have texts as keys, and no values that JSON lacks.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn read<T: DeserializeOwned>(response: &Response) -> Result<T, String> {
    if !response.is_json {
        return Err("the answer is not JSON".to_owned());
    }
    serde_json::from_slice(&response.body).map_err(|error| format!("the answer is wrong: {error}"))
}

/// The lease of a response, if it has this name.
fn lease_of(response: &Response, name: &str) -> Result<Held, Unread> {
    let object: ReadObject = read(response).map_err(Unread::Wrong)?;
    let held = object.held(response.date).map_err(Unread::Wrong)?;
    if held.lease.name() != name {
        return Err(Unread::Wrong(format!("the answer is about {}", held.lease.name())));
    }
    Ok(held)
}

fn is_lease(response: &Response, name: &str) -> bool {
    lease_of(response, name).is_ok()
}

/// True for the status of this reason about this lease.
fn is(response: &Response, reason: &str, name: &str) -> bool {
    Status::of(response.status, &response.body)
        .is_some_and(|status| status.reason.as_deref() == Some(reason) && status.is_about(GROUP, RESOURCE, name))
}

/// True if the object is missing. If the whole resource is missing, the answer is a text, or names no object.
fn is_missing(response: &Response, group: &str, resource: &str, name: &str) -> bool {
    Status::of(response.status, &response.body)
        .is_some_and(|status| status.reason.as_deref() == Some("NotFound") && status.is_about(group, resource, name))
}

/// True if the delete was for another creation of the lease. Both texts of the API server have this word.
/// (k8s.io/apiserver: pkg/registry/rest/delete.go, pkg/storage/interfaces.go)
fn is_other_uid(response: &Response, name: &str) -> bool {
    let names_precondition =
        |status: Status| status.message.is_some_and(|text| text.to_lowercase().contains("precondition"));
    is(response, "Conflict", name) && Status::of(response.status, &response.body).is_some_and(names_precondition)
}

/// Fails unless the response says that this creation of the lease is deleted. The answer is the object itself if it has
/// finalizers: then it is not deleted yet.
fn deleted(response: &Response, name: &str, uid: &Uid) -> Result<(), Unread> {
    let status: Status = read(response).map_err(Unread::Wrong)?;
    if status.kind == "LanAddress" {
        return Err(Unread::Wrong("the lease is not deleted yet: has it finalizers?".to_owned()));
    }
    let is_success = status.kind == "Status" && status.status.as_deref() == Some("Success");
    let has_uid = status.details.as_ref().is_some_and(|details| details.uid.as_deref() == Some(uid.0.as_str()));
    if is_success && has_uid && status.is_about(GROUP, RESOURCE, name) {
        return Ok(());
    }
    Err(Unread::Wrong("the answer does not say that the lease is deleted".to_owned()))
}

/// Adds the leases of a page, and returns the token of the next page.
fn page(response: &Response, fields: &[(&str, &str)], leases: &mut Vec<Held>) -> Result<Option<String>, String> {
    let page: Page = read(response)?;
    if page.kind != Page::KIND {
        return Err(format!("the answer is no {}", Page::KIND));
    }
    for object in page.items {
        let held = object.held(response.date)?;
        let Lease { lan, node, address, .. } = &held.lease;
        let has = |(key, value): &(&str, &str)| match *key {
            "spec.node" => node.name == *value,
            "spec.lan" => lan == value,
            _ => Block::of(*address).name(lan) == *value,
        };
        if !fields.iter().all(has) {
            return Err(format!("the answer has {}, which was not asked for", held.lease.name()));
        }
        leases.push(held);
    }
    if leases.len() > LARGEST_LIST {
        return Err(format!("more than {LARGEST_LIST} leases"));
    }
    Ok(page.metadata.next.filter(|next| !next.is_empty()))
}

/// A value of a field selector. (k8s.io/apimachinery: pkg/fields, `EscapeValue`)
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

/// A text as one segment of a path, or as one value of a query. (RFC 3986, section 2)
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests;
