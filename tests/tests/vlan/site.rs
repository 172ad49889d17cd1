//! A host whose containers are on VLANs of its NIC, and the questions that all tests ask.

use std::net::IpAddr;
use std::ops::Deref;
use std::process::{Child, Command};

use e2e::kernel::Link;
use e2e::lab::{MACHINE_NIC, NIC};
use e2e::needs::Feature;
use e2e::traffic::assert_reaches;
use e2e::{Binaries, Container, Lab, Namespace, Outcome, Plugin, with};
use serde_json::{Value, json};

pub(crate) const NEEDS: &[Feature] = &[Feature::Vlan];
pub(crate) const RECORDS: &str = "underlay/attachments";
/// The VLAN of most tests, and the link that the plugin makes for it.
pub(crate) const ID: u16 = 100;
pub(crate) const VLAN: &str = "ens3.100";

pub(crate) struct Site {
    lab: Lab,
    pub(crate) kind: &'static str,
}

impl Deref for Site {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Site {
    pub(crate) fn new(kind: &'static str) -> Self {
        let lab = Lab::new(Binaries::HardLinks);
        lab.host.give_own_run();
        Self { lab, kind }
    }

    pub(crate) fn plugin(&self) -> Plugin<'_> {
        self.lab.plugin(self.kind)
    }

    /// A network on a VLAN of the NIC, with addresses of both families of its own.
    pub(crate) fn conf(&self, id: u16) -> Value {
        let ranges = json!([
            [{"subnet": subnet4(id), "rangeStart": address4(id, 100)}],
            [{"subnet": subnet6(id), "rangeStart": address6(id, 100)}],
        ]);
        let conf = self.lab.conf_over(ranges);
        with(with(with(conf, "type", json!(self.kind)), "name", json!(format!("lan{id}"))), "vlan", json!(id))
    }

    /// Attaches a new container. Returns it with the configuration for CHECK.
    #[track_caller]
    pub(crate) fn attach(&self, conf: &Value) -> (Container, Value) {
        self.plugin().attach(self, conf)
    }

    /// Attaches a container that then is gone without a DEL, and the kernel has deleted its link.
    #[track_caller]
    pub(crate) fn attach_and_lose(&self, conf: &Value) {
        let (container, _) = self.attach(conf);
        container.delete_link("eth0");
    }

    #[track_caller]
    pub(crate) fn detach(&self, container: &Container, conf: &Value) -> Outcome {
        let outcome = self.plugin().del(container, "eth0", conf).run();
        outcome.done();
        assert_eq!(container.link_names(), ["lo"]);
        outcome
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

    pub(crate) fn records(&self) -> Vec<String> {
        self.host.run_entries(RECORDS)
    }

    /// Asserts that the host has only its NIC, and no record.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.host.link_names(), ["lo", NIC]);
        assert_eq!(self.records(), [""; 0]);
    }

    #[track_caller]
    pub(crate) fn checks(&self, container: &Container, conf: &Value) {
        self.plugin().check(container, "eth0", conf).run().done();
    }

    #[track_caller]
    pub(crate) fn gc(&self, conf: &Value, valid: &[&Container]) -> Outcome {
        let valid: Vec<Value> =
            valid.iter().map(|container| json!({"containerID": container.id, "ifname": "eth0"})).collect();
        let conf = with(with(conf.clone(), "cniVersion", json!("1.1.0")), "cni.dev/valid-attachments", json!(valid));
        let outcome = self.plugin().call("GC", &conf).run();
        outcome.done();
        outcome
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

/// The addresses of `eth0` without those that the kernel makes.
pub(crate) fn addresses(container: &Namespace) -> Vec<IpAddr> {
    let addresses = container.addresses("eth0").into_iter();
    addresses.filter(|address| !address.link_local()).map(|address| address.net.addr()).collect()
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
