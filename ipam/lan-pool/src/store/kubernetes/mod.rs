//! The API server of a Kubernetes cluster as the store of the leases. A lease is a cluster-scoped object of a custom resource,
//! whose name is made of the LAN and the address.
//!
//! - [`Access`] says which kubeconfig is read.
//! - [`Client`] is the [`Store`] of one LAN, for one node.
//!
//! TLS and HTTP are done on std's sockets, because the protocol has to know of each request if it can have been carried out.
//! An answer counts only if it is complete and names the lease that was asked for.

mod answer;
mod api;
mod credentials;
mod error;
mod http;
mod kubeconfig;
mod object;
mod response;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use crate::Error;
use crate::lease::{Held, Holder, Lease, Node, Uid, name};
use crate::store::{Answer, Request, Store};

use answer::{
    Unread, deleted, encoded, escaped, is, is_lease, is_missing_node, is_other_uid, json, lease_of, page, read,
};
use api::{Api, Call, Unanswered};
use object::{DeleteOptions, GROUP, NewObject, NodeObject, RESOURCE, Status};
use response::Response;

pub use api::Access;

/// Objects of one page of a list.
const PAGE: usize = 500;
/// Bytes of one object.
const LARGEST_OBJECT: usize = 1 << 20;
/// Bytes of a page of a list.
const LARGEST_PAGE: usize = 16 << 20;
/// The node of the lease of a dry run. A node cannot have this name, because its last label would be a reserved domain.
const FOREIGN_NODE: &str = "another-node.invalid";
/// The address of that lease, one of documentation. (RFC 5737)
const DRY_RUN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The path of the resource.
const LEASES: &str = "/apis/underlay.internal/v1/lanaddresses";

/// The API server as the store of one LAN, for one node.
pub struct Client {
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

/// The state of a node in the cluster, as evidence that its containers are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The cluster has no node of this name.
    Missing,
    /// The node is not ready and has the taint `node.kubernetes.io/out-of-service`: an admin says that it is off.
    OutOfService,
    /// The node is in the cluster.
    Alive {
        /// The condition `Ready` of the node is true. A node that is not ready can still run containers.
        ready: bool,
    },
}

impl Client {
    /// Opens the store of a LAN. `node` is the name of this node. Without it the credentials say the name, and else it is
    /// `host_name`. No request is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Config`]: a file with credentials is missing or wrong, the program for credentials fails or does not end
    /// before `deadline`, or the name of the node is not known.
    pub fn open(
        access: &Access,
        lan: &str,
        node: Option<&str>,
        host_name: Option<String>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let api = Api::open(access, deadline)?;
        let node = node.map(str::to_owned).or_else(|| api.node_name()).or(host_name);
        let node = node.filter(|node| !node.is_empty()).ok_or_else(|| Error::Config {
            place: "ipam.node".to_owned(),
            cause: "the credentials do not name this node, and it has no host name: set ipam.node".to_owned(),
        })?;
        Ok(Self { api, lan: lan.to_owned(), node })
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The name of the node in the credentials: from the common name `system:node:NAME` of the certificate, or from the
    /// token of a service account that is bound to a node.
    pub fn node_name(&self) -> Option<String> {
        self.api.node_name()
    }

    /// Tries if the store answers, if it has leases as a resource, and if the policy is in force. Nothing is made.
    ///
    /// # Errors
    ///
    /// The text is a remark for the operator.
    pub fn look(&mut self, deadline: Instant) -> Result<(), String> {
        if let Answer::Refused(cause) | Answer::Lost(cause) = self.get(DRY_RUN, deadline) {
            return Err(cause);
        }
        match self.dry_run_foreign(deadline) {
            Policy::InForce => Ok(()),
            Policy::Absent => Err(self.api.text(
                "dry run of a lease of another node",
                "allowed, so this node can free the leases of other nodes: apply the policy of lan-pool",
            )),
            Policy::Unknown(cause) => Err(cause),
        }
    }

    /// Tries whether the node could make a lease in the name of another node. Nothing is made.
    pub fn dry_run_foreign(&mut self, deadline: Instant) -> Policy {
        let lease = Lease {
            lan: self.lan.clone(),
            address: DRY_RUN,
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

    /// Lists the leases of a node on this LAN. The list is complete.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] or [`Error::Away`]: there is no list.
    pub fn leases_of(&mut self, node: &str, deadline: Instant) -> Result<Vec<Held>, Error> {
        match self.of_node(node, deadline) {
            Answer::Leases(leases) => Ok(leases),
            Answer::Refused(cause) => Err(Error::Refused { cause }),
            Answer::Lost(cause) => Err(Error::Away { cause }),
            _ => Err(Error::Away { cause: "the answer is no list".to_owned() }),
        }
    }

    /// Reads the state of a node in the cluster.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] or [`Error::Away`]: the state is not known.
    pub fn node_evidence(&mut self, node: &str, deadline: Instant) -> Result<Evidence, Error> {
        let operation = format!("read node {node}");
        let path = format!("/api/v1/nodes/{}", encoded(node));
        let response = match self.api.call(Call::new(&operation, "GET", &path), deadline) {
            Ok(response) => response,
            Err(Unanswered::Refused(cause)) => return Err(Error::Refused { cause }),
            Err(Unanswered::Lost(cause)) => return Err(Error::Away { cause }),
        };
        match response.status {
            404 if is_missing_node(&response, node) => Ok(Evidence::Missing),
            200 => match read::<NodeObject>(&response) {
                Ok(object) if object.kind == "Node" && object.metadata.name == node => {
                    Ok(if object.is_out_of_service() {
                        Evidence::OutOfService
                    } else {
                        Evidence::Alive { ready: object.is_ready() }
                    })
                }
                Ok(_) => Err(Error::Away { cause: self.api.text(&operation, "the answer is about another object") }),
                Err(cause) => Err(Error::Away { cause: self.api.text(&operation, &cause) }),
            },
            _ => Err(Error::Refused { cause: self.refusal(&operation, &response) }),
        }
    }

    fn of_node(&mut self, node: &str, deadline: Instant) -> Answer {
        let lan = self.lan.clone();
        let operation = format!("list leases of node {node} on LAN {lan}");
        self.list(&operation, &[("spec.node", node), ("spec.lan", &lan)], true, deadline)
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
            404 if is(response, "NotFound", &name) => Ok(Answer::Found(None)),
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
            404 if is(response, "NotFound", &name) => Ok(Answer::Gone),
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

    /// Lists leases whose fields have these values. The list is one state of the store, which is not older than the request,
    /// however many pages it has. A list without a limit comes from the memory of the API server. With a limit, some
    /// releases read all leases from etcd.
    fn list(&mut self, operation: &str, fields: &[(&str, &str)], is_paged: bool, deadline: Instant) -> Answer {
        let selector: Vec<_> = fields.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let selector = encoded(&selector.join(","));
        let first = match is_paged {
            true => format!("{LEASES}?limit={PAGE}&fieldSelector={selector}"),
            false => format!("{LEASES}?fieldSelector={selector}"),
        };
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

impl Store for Client {
    fn ask(&mut self, request: &Request, deadline: Instant) -> Answer {
        match request {
            Request::Create(lease) => self.create(lease, deadline),
            Request::Get(address) => self.get(*address, deadline),
            Request::Delete(address, uid) => self.delete(*address, uid, deadline),
            Request::OfNode => self.of_node(&self.node.clone(), deadline),
            Request::InBlock(block) => {
                let block = block.name(&self.lan);
                self.list(&format!("list leases of block {block}"), &[("spec.block", &block)], false, deadline)
            }
        }
    }
}

#[cfg(test)]
mod tests;
