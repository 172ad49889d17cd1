//! A host whose containers are on VLANs of its NIC, and the questions that all tests ask.

use std::net::IpAddr;
use std::ops::Deref;
use std::process::{Child, Command};

use e2e::host_site::HostSite;
pub(crate) use e2e::host_site::{RECORDS, addresses};
use e2e::kernel::Link;
use e2e::lab::{MACHINE_NIC, NIC};
use e2e::needs::Feature;
use e2e::traffic::assert_reaches;
use e2e::{Namespace, with};
use serde_json::{Value, json};

pub(crate) const NEEDS: &[Feature] = &[Feature::Vlan];
/// The VLAN of most tests, and the link that the plugin makes for it.
pub(crate) const ID: u16 = 100;
pub(crate) const VLAN: &str = "ens3.100";

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

    /// A network on a VLAN of the NIC, with addresses of both families of its own.
    pub(crate) fn conf(&self, id: u16) -> Value {
        let ranges = json!([
            [{"subnet": subnet4(id), "rangeStart": address4(id, 100)}],
            [{"subnet": subnet6(id), "rangeStart": address6(id, 100)}],
        ]);
        let conf = self.conf_over(ranges);
        with(with(with(conf, "type", json!(self.kind)), "name", json!(format!("lan{id}"))), "vlan", json!(id))
    }

    /// Attaches a container that then is gone without a DEL, and the kernel has deleted its link.
    #[track_caller]
    pub(crate) fn attach_and_lose(&self, conf: &Value) {
        let (container, _) = self.attach(conf);
        container.delete_link("eth0");
    }

    /// Gives the neighbour an interface on a VLAN, with both addresses that end with 2.
    pub(crate) fn give_neighbour(&self, id: u16) {
        let name = format!("{MACHINE_NIC}.{id}");
        self.neighbour.create_vlan(&name, MACHINE_NIC, id);
        self.neighbour.ip(&format!("address add {}/24 dev {name}", address4(id, 2)));
        self.neighbour.ip(&format!("address add {}/64 dev {name} nodad", address6(id, 2)));
    }

    /// The VLAN link of most tests.
    #[track_caller]
    pub(crate) fn vlan_link(&self) -> Link {
        self.host.link(VLAN)
    }

    /// Asserts that the host has only its NIC, and no record.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.host.link_names(), ["lo", NIC]);
        assert_eq!(self.records(), [""; 0]);
    }
}

pub(crate) fn subnet4(id: u16) -> String {
    format!("10.0.{}.0/24", id % 256)
}

pub(crate) fn subnet6(id: u16) -> String {
    format!("fd00:{id}::/64")
}

pub(crate) fn address4(id: u16, last: u8) -> IpAddr {
    format!("10.0.{}.{last}", id % 256).parse().expect("an address")
}

pub(crate) fn address6(id: u16, last: u8) -> IpAddr {
    format!("fd00:{id}::{last}").parse().expect("an address")
}

/// Asserts that the container and the neighbour reach each other on this VLAN, by both families.
#[track_caller]
pub(crate) fn assert_on_vlan(site: &Site, container: &Namespace, id: u16) {
    assert_reaches(container, address4(id, 2));
    assert_reaches(container, address6(id, 2));
    for address in addresses(container) {
        assert_reaches(&site.neighbour, address);
    }
}

/// A link as `ip -details` shows it.
pub(crate) fn describe(netns: &Namespace, link: &str) -> Value {
    let output = netns.run(|| Command::new("ip").args(["-details", "-json", "link", "show", link]).output());
    let output = output.expect("run ip");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut links: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    links.remove(0)
}

/// A process in a namespace, until it is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn sleep(netns: &Namespace) -> Self {
        Self(netns.run(|| Command::new("sleep").arg("infinity").spawn()).expect("start sleep"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
