//! The configurations that are measured.

use serde_json::{Value, json};

use crate::side::Side;

/// The host-local ranges that a configuration has.
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

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// For a plot.
    pub(crate) short: &'static str,
    /// The plugins of the chain, the first of each side, the others always the reference's.
    pub(crate) chain: &'static [&'static str],
    pub(crate) leases: Leases,
    pub(crate) sides: &'static [Side],
}

use Side::{Copies, Floor, Ours, Reference};

/// The one that most have.
pub(crate) const WHOLE: &str = "ipv4";
pub(crate) const IPV6: &str = "ipv6";

pub(crate) const SCENARIOS: [Scenario; 6] = [
    Scenario {
        key: WHOLE,
        title: "macvlan + host-local, IPv4",
        short: "IPv4",
        chain: &["macvlan"],
        leases: Leases::V4,
        sides: &[Ours, Copies, Reference, Floor],
    },
    Scenario {
        key: "host-local",
        title: "host-local alone",
        short: "host-local alone",
        chain: &["host-local"],
        leases: Leases::V4,
        sides: &[Ours, Reference, Floor],
    },
    Scenario {
        key: "layer2",
        title: "macvlan, layer 2 only",
        short: "layer 2 only",
        chain: &["macvlan"],
        leases: Leases::None,
        sides: &[Ours, Reference, Floor],
    },
    Scenario {
        key: "chain",
        title: "macvlan + host-local, then tuning",
        short: "IPv4, then tuning",
        chain: &["macvlan", "tuning"],
        leases: Leases::V4,
        sides: &[Ours, Reference],
    },
    Scenario {
        key: IPV6,
        title: "macvlan + host-local, IPv6",
        short: "IPv6",
        chain: &["macvlan"],
        leases: Leases::V6,
        sides: &[Ours, Reference, Floor],
    },
    Scenario {
        key: "dual",
        title: "macvlan + host-local, dual stack",
        short: "dual stack",
        chain: &["macvlan"],
        leases: Leases::Dual,
        sides: &[Ours, Reference, Floor],
    },
];

/// The subnets' gateways, which host-local takes by default.
pub(crate) const GATEWAY4: &str = "10.50.0.1";
pub(crate) const GATEWAY6: &str = "fd51::1";

impl Scenario {
    pub(crate) fn of(key: &str) -> &'static Self {
        SCENARIOS.iter().find(|scenario| scenario.key == key).expect("a scenario of the table")
    }

    pub(crate) fn has_link(&self) -> bool {
        self.chain[0] == "macvlan"
    }

    /// The configuration of one plugin of the chain.
    pub(crate) fn conf(&self, plugin: &str, side: Side, parent: &str, data_dir: &std::path::Path) -> Value {
        if plugin == "tuning" {
            return json!({"cniVersion": "1.0.0", "name": "lan", "type": "tuning",
                "sysctl": {"net.core.somaxconn": "512"}});
        }
        let mut conf = json!({"cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": parent});
        let (mut ranges, mut routes) = (Vec::new(), Vec::new());
        if self.leases.v4() {
            ranges.push(json!([{"subnet": "10.50.0.0/16"}]));
            routes.push(json!({"dst": "0.0.0.0/0"}));
        }
        if self.leases.v6() {
            // Everybody sees everybody's: a range for each, else duplicate address detection finds some.
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

    /// What the floor is told to assign: the `number`th of its addresses.
    pub(crate) fn floor_addresses(&self, number: u32) -> String {
        let mut words = Vec::new();
        if self.leases.v4() {
            // From 10.50.4.0 on: none that ends a range.
            let [.., third, fourth] = (number + 1024).to_be_bytes();
            words.push(format!("10.50.{third}.{fourth}/16,{GATEWAY4}"));
        }
        if self.leases.v6() {
            words.push(format!("fd51::{}:{:x}/64,{GATEWAY6}", Side::Floor as u8 + 1, number + 1));
        }
        words.join(" ")
    }
}
