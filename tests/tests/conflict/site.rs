//! A host whose containers look for their addresses on the LAN before they take them.

use std::net::IpAddr;
use std::ops::Deref;

use e2e::host_site::HostSite;
pub(crate) use e2e::host_site::addresses;
use e2e::lab::{Families, LAN4, MACHINE_NIC};
use e2e::needs::Feature;
use e2e::traffic::{Holder, Manner};
use e2e::{Binaries, Container, Outcome, with, without};
use serde_json::{Value, json};

/// All tests of macvlan run on every kernel.
pub(crate) const NEEDS: &[Feature] = &[];
pub(crate) const KEY: &str = "detectIPConflict";

pub(crate) struct Site(HostSite);

impl Deref for Site {
    type Target = HostSite;

    fn deref(&self) -> &HostSite {
        &self.0
    }
}

impl Site {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self(HostSite::new(kind))
    }

    /// Each plugin is a separate file, so IPAM is executed.
    pub(crate) fn of_copies(kind: &'static str) -> Self {
        Self(HostSite::of(kind, Binaries::PlainCopies))
    }

    /// With detection, and the ranges of [`e2e::Lab::ipam`], which begin with 100.
    pub(crate) fn conf(&self, families: Families) -> Value {
        detecting(self.conf_with(self.ipam(families)))
    }

    /// As [`Site::conf`], with a range of IPv4.
    pub(crate) fn conf_of(&self, first: IpAddr, last: IpAddr) -> Value {
        let ranges = json!([[{"subnet": LAN4, "rangeStart": first, "rangeEnd": last}]]);
        let mut conf = self.conf(Families::V4);
        conf["ipam"]["ranges"] = ranges;
        conf
    }

    /// As [`Site::conf`], with static addresses.
    pub(crate) fn static_conf(&self, addresses: &[IpAddr]) -> Value {
        detecting(self.0.static_conf(addresses))
    }

    /// A machine that reacts as told, with the neighbour's NIC.
    pub(crate) fn holder(&self, manner: Manner) -> Holder {
        manner.start(&self.neighbour, MACHINE_NIC)
    }

    /// Calls ADD for a new container.
    pub(crate) fn add(&self, conf: &Value) -> (Container, Outcome) {
        let container = self.container();
        let outcome = self.plugin().add(&container, "eth0", conf).run();
        (container, outcome)
    }

    /// Attaches a new container, and asserts that it has exactly these addresses.
    #[track_caller]
    pub(crate) fn gets(&self, conf: &Value, expected: &[IpAddr]) -> (Container, Outcome) {
        let (container, outcome) = self.add(conf);
        let result = outcome.result();
        assert_eq!(addresses(&container), expected, "{}", outcome.text());
        let named = result["ips"].as_array().expect("addresses").iter().map(|ip| ip["address"].as_str());
        let named: Vec<&str> = named.map(|address| address.expect("an address")).collect();
        assert_eq!(named, container.address_texts("eth0"), "the result names others: {}", outcome.text());
        (container, outcome)
    }

    /// Asserts that ADD fails with this code and these names, and that nothing of it is left.
    #[track_caller]
    pub(crate) fn is_refused(&self, conf: &Value, code: u64, names: &[&str]) -> Outcome {
        let (container, outcome) = self.add(conf);
        outcome.fails(code, names);
        self.assert_undone(&container);
        outcome
    }
}

pub(crate) fn detecting(conf: Value) -> Value {
    with(conf, KEY, json!(true))
}

pub(crate) fn without_detection(conf: &Value) -> Value {
    without(conf.clone(), KEY)
}
