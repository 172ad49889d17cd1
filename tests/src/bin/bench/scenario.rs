//! The configurations that are measured.

use serde_json::{Value, json};

use crate::side::Side;

/// The families of the leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leases {
    None,
    V4,
    V6,
    Dual,
}

impl Leases {
    pub(crate) fn v4(self) -> bool {
        matches!(self, Self::V4 | Self::Dual)
    }

    pub(crate) fn v6(self) -> bool {
        matches!(self, Self::V6 | Self::Dual)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) short: &'static str,
    /// The plugins of the chain. Only the first is that of the side, the others are those of the reference.
    pub(crate) chain: &'static [&'static str],
    pub(crate) leases: Leases,
    pub(crate) sides: &'static [Side],
}

use Side::{Access, Copies, Floor, Ours, Reference};

/// The most common configuration.
pub(crate) const WHOLE: &str = "ipv4";
pub(crate) const IPV6: &str = "ipv6";

pub(crate) const SCENARIOS: [Scenario; 6] = {
    const ALL: &[Side] = &[Ours, Reference, Floor];
    const LINK: &[&str] = &["macvlan"];
    [
        scenario(
            WHOLE,
            "macvlan + host-local, IPv4",
            "IPv4",
            LINK,
            Leases::V4,
            &[Ours, Copies, Access, Reference, Floor],
        ),
        scenario("host-local", "host-local alone", "host-local alone", &["host-local"], Leases::V4, ALL),
        scenario("layer2", "macvlan, layer 2 only", "layer 2 only", LINK, Leases::None, ALL),
        scenario(
            "chain",
            "macvlan + host-local, then tuning",
            "IPv4, then tuning",
            &["macvlan", "tuning"],
            Leases::V4,
            &[Ours, Reference],
        ),
        scenario(IPV6, "macvlan + host-local, IPv6", "IPv6", LINK, Leases::V6, ALL),
        scenario("dual", "macvlan + host-local, dual stack", "dual stack", LINK, Leases::Dual, ALL),
    ]
};

const fn scenario(
    key: &'static str,
    title: &'static str,
    short: &'static str,
    chain: &'static [&'static str],
    leases: Leases,
    sides: &'static [Side],
) -> Scenario {
    Scenario { key, title, short, chain, leases, sides }
}

/// The default gateways of the subnets.
pub(crate) const GATEWAY4: &str = "10.50.0.1";
pub(crate) const GATEWAY6: &str = "fd51::1";

impl Scenario {
    pub(crate) fn of(key: &str) -> &'static Self {
        SCENARIOS.iter().find(|scenario| scenario.key == key).expect("a scenario of the table")
    }

    pub(crate) fn has_link(&self) -> bool {
        self.chain[0] == "macvlan"
    }

    pub(crate) fn conf(&self, plugin: &str, side: Side, parent: &str, data_dir: &std::path::Path) -> Value {
        if plugin == "tuning" {
            return json!({"cniVersion": "1.0.0", "name": "lan", "type": "tuning",
                "sysctl": {"net.core.somaxconn": "512"}});
        }
        let mut conf = json!({"cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": parent});
        if side == Side::Access {
            conf["hostAccess"] = json!(true);
        }
        let (mut ranges, mut routes) = (Vec::new(), Vec::new());
        if self.leases.v4() {
            ranges.push(json!([{"subnet": "10.50.0.0/16"}]));
            routes.push(json!({"dst": "0.0.0.0/0"}));
        }
        if self.leases.v6() {
            // All sides share the LAN, so each has another range. Otherwise addresses would be duplicates.
            let part = side as u8 + 1;
            let (first, last) = (format!("fd51::{part}:1"), format!("fd51::{part}:ffff"));
            ranges.push(json!([{"subnet": "fd51::/64", "rangeStart": first, "rangeEnd": last}]));
            routes.push(json!({"dst": "::/0"}));
        }
        if self.leases != Leases::None {
            conf["ipam"] = json!({"type": "host-local", "dataDir": data_dir, "ranges": ranges, "routes": routes});
        }
        conf
    }

    /// The addresses that the floor assigns to a container.
    pub(crate) fn floor_addresses(&self, number: u32) -> String {
        let mut words = Vec::new();
        if self.leases.v4() {
            // From 10.50.4.0 on.
            let [.., third, fourth] = (number + 1024).to_be_bytes();
            words.push(format!("10.50.{third}.{fourth}/16,{GATEWAY4}"));
        }
        if self.leases.v6() {
            words.push(format!("fd51::{}:{:x}/64,{GATEWAY6}", Side::Floor as u8 + 1, number + 1));
        }
        words.join(" ")
    }
}
