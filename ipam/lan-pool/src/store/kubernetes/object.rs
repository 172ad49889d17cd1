//! The objects that are sent to the API server and read from it: leases, lists, statuses, nodes.

use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::lease::{Block, Held, Holder, Lease, Node, Owner, Uid, name};

/// The API group. It cannot be changed: the leases of a cluster are in it.
pub(super) const GROUP: &str = "underlay.internal";
/// The name of the resource.
pub(super) const RESOURCE: &str = "lanaddresses";
const API_VERSION: &str = "underlay.internal/v1";
const KIND: &str = "LanAddress";

/// A lease, as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewObject<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: NewMetadata,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct NewMetadata {
    name: String,
}

/// The fields of a lease. The CRD has the same ones.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    address: IpAddr,
    lan: &'a str,
    node: &'a str,
    boot: &'a str,
    machine: &'a str,
    block: String,
    #[serde(flatten)]
    holder: SpecHolder<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SpecHolder<'a> {
    Container {
        #[serde(rename = "containerID")]
        container_id: &'a str,
        ifname: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        netns: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pod: Option<&'a str>,
    },
    Machine {
        conflict: NewConflict<'a>,
    },
}

#[derive(Serialize)]
struct NewConflict<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
}

impl<'a> NewObject<'a> {
    pub(super) fn new(lease: &'a Lease) -> Self {
        let holder = match &lease.holder {
            Holder::Container { owner, netns, pod } => SpecHolder::Container {
                container_id: &owner.container_id,
                ifname: &owner.ifname,
                netns: *netns,
                pod: pod.as_deref(),
            },
            Holder::Machine { mac } => SpecHolder::Machine { conflict: NewConflict { mac: mac.as_deref() } },
        };
        Self {
            api_version: API_VERSION,
            kind: KIND,
            metadata: NewMetadata { name: lease.name() },
            spec: Spec {
                address: lease.address,
                lan: &lease.lan,
                node: &lease.node.name,
                boot: &lease.node.boot,
                machine: &lease.node.machine,
                block: Block::of(lease.address).name(&lease.lan),
                holder,
            },
        }
    }
}

/// A delete of one creation of an object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeleteOptions<'a> {
    api_version: &'static str,
    kind: &'static str,
    preconditions: Preconditions<'a>,
}

#[derive(Serialize)]
struct Preconditions<'a> {
    uid: &'a str,
}

impl<'a> DeleteOptions<'a> {
    pub(super) fn of(uid: &'a Uid) -> Self {
        Self { api_version: "v1", kind: "DeleteOptions", preconditions: Preconditions { uid: &uid.0 } }
    }
}

/// A lease, as it is read.
#[derive(Deserialize)]
pub(super) struct ReadObject {
    /// In a list, the items have no kind.
    #[serde(default)]
    kind: Option<String>,
    metadata: ReadMetadata,
    spec: ReadSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadMetadata {
    name: String,
    uid: String,
    #[serde(default)]
    creation_timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadSpec {
    address: IpAddr,
    lan: String,
    node: String,
    boot: String,
    machine: String,
    #[serde(default, rename = "containerID")]
    container_id: Option<String>,
    #[serde(default)]
    ifname: Option<String>,
    #[serde(default)]
    netns: Option<u64>,
    #[serde(default)]
    pod: Option<String>,
    #[serde(default)]
    conflict: Option<ReadConflict>,
}

#[derive(Deserialize)]
struct ReadConflict {
    #[serde(default)]
    mac: Option<String>,
}

impl ReadObject {
    /// The lease, with its age at `now` by the clock of the server.
    pub(super) fn held(self, now: Option<SystemTime>) -> Result<Held, String> {
        let Self { kind, metadata, spec } = self;
        if kind.as_deref().is_some_and(|kind| kind != KIND) {
            return Err(format!("the object is no {KIND}"));
        }
        if metadata.name != name(&spec.lan, spec.address) {
            return Err(format!("object {} has the address {} on LAN {}", metadata.name, spec.address, spec.lan));
        }
        if metadata.uid.is_empty() {
            return Err(format!("object {} has no uid", metadata.name));
        }
        let holder = match (spec.conflict, spec.container_id, spec.ifname) {
            (Some(conflict), None, None) => Holder::Machine { mac: conflict.mac },
            (None, Some(container_id), Some(ifname)) => {
                Holder::Container { owner: Owner { container_id, ifname }, netns: spec.netns, pod: spec.pod }
            }
            _ => return Err(format!("object {} has no holder", metadata.name)),
        };
        let created = metadata.creation_timestamp.and_then(|text| humantime::parse_rfc3339(&text).ok());
        let age = now.zip(created).and_then(|(now, created)| now.duration_since(created).ok());
        Ok(Held {
            lease: Lease {
                lan: spec.lan,
                address: spec.address,
                node: Node { name: spec.node, boot: spec.boot, machine: spec.machine },
                holder,
            },
            uid: Uid(metadata.uid),
            age: age.map_or(0, |age| age.as_secs()),
        })
    }
}

/// A page of a list of leases.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) kind: String,
    pub(super) metadata: PageMetadata,
    pub(super) items: Vec<ReadObject>,
}

#[derive(Deserialize)]
pub(super) struct PageMetadata {
    #[serde(default, rename = "continue")]
    pub(super) next: Option<String>,
}

impl Page {
    /// The kind of a list of leases.
    pub(super) const KIND: &str = "LanAddressList";
}

/// The result of a request that has no object, such as an error.
#[derive(Deserialize, Default)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) status: Option<String>,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) details: Option<Details>,
    #[serde(default)]
    pub(super) code: Option<u16>,
}

#[derive(Deserialize, Default)]
pub(super) struct Details {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) group: Option<String>,
    /// The name of the resource, in spite of the key, or the kind.
    #[serde(default)]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) uid: Option<String>,
}

impl Status {
    /// The status with this code that a body has, if it has one.
    pub(super) fn of(code: u16, body: &[u8]) -> Option<Self> {
        let status: Self = serde_json::from_slice(body).ok()?;
        (status.kind == "Status" && status.code.is_none_or(|named| named == code)).then_some(status)
    }

    /// True if the status is about the lease of this name. Most statuses name the resource, and some the kind.
    pub(super) fn is_about_lease(&self, name: &str) -> bool {
        self.is_about(GROUP, RESOURCE, name) || self.is_about(GROUP, KIND, name)
    }

    /// True if the status is about this object.
    pub(super) fn is_about(&self, group: &str, kind: &str, name: &str) -> bool {
        self.details.as_ref().is_some_and(|details| {
            details.group.as_deref().unwrap_or_default() == group
                && details.kind.as_deref() == Some(kind)
                && details.name.as_deref() == Some(name)
        })
    }
}

/// A node of the cluster.
#[derive(Deserialize)]
pub(super) struct NodeObject {
    pub(super) kind: String,
    pub(super) metadata: NodeMetadata,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize)]
pub(super) struct NodeMetadata {
    pub(super) name: String,
}

#[derive(Deserialize, Default)]
pub(super) struct NodeSpec {
    #[serde(default)]
    taints: Vec<Taint>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Deserialize, Default)]
pub(super) struct NodeStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl NodeObject {
    /// True if an admin has said that the node is off, and the node is not ready. Kubernetes ignores the taint of a node that
    /// is ready.
    /// (<https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-out-of-service>)
    pub(super) fn is_out_of_service(&self) -> bool {
        !self.is_ready() && self.spec.taints.iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service")
    }

    /// True if the kubelet has reported lately that it is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}
