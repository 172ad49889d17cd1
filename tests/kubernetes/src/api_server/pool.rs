//! The manifest of lan-pool in the API server, and leases as a test writes them.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use e2e::patience::{PATIENCE, await_within};
use serde_json::{Value, json};

use super::ApiServer;

/// The path of all leases.
pub const LEASES: &str = "/apis/underlay.internal/v1/lanaddresses";

/// The text of packaging/lan-pool.yaml.
pub fn manifest() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/lan-pool.yaml");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A valid lease of a container on that node.
pub fn lease(lan: &str, address: &str, node: &str) -> Value {
    let (name, block) = match address.parse().unwrap_or_else(|e| panic!("{address}: {e}")) {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            (format!("{lan}.{a}.{b}.{c}.{d}"), format!("{lan}.{a}.{b}.{c}.0"))
        }
        IpAddr::V6(ip) => {
            let groups = ip.segments().map(|group| format!("{group:04x}")).join("-");
            (format!("{lan}.{groups}"), format!("{lan}.{}00", &groups[..groups.len() - 2]))
        }
    };
    json!({
        "apiVersion": "underlay.internal/v1",
        "kind": "LanAddress",
        "metadata": {"name": name},
        "spec": {
            "address": address,
            "lan": lan,
            "block": block,
            "node": node,
            "boot": "00000000-0000-4000-8000-000000000001",
            "machine": "00000000000000000000000000000001",
            "containerID": "container-1",
            "ifname": "eth0",
            "netns": 4_026_531_841_u64,
            "pod": "default/web-0",
        },
    })
}

impl ApiServer {
    /// Applies packaging/lan-pool.yaml, and waits until the policy is in force.
    #[track_caller]
    pub fn set_up_lan_pool(&self) {
        self.apply(&manifest());
        let (api, foreign) = (self.node_api("node1"), lease("office", "192.0.2.1", "another-node"));
        await_within(PATIENCE, "the policy of lan-pool is in force", || {
            let answer = api.request("POST", &format!("{LEASES}?dryRun=All"), Some(&foreign))?;
            let is_in_force = answer.status == 403 && answer.body.to_string().contains("ValidatingAdmissionPolicy");
            if is_in_force { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }
}
