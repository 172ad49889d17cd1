//! The Lab of a fault: a container, another container that must not change, and the state before.

use std::collections::BTreeSet;
use std::fs;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Command, End, Layers, Scenario, judge};
use crate::kernel::Address;
use crate::lab::Families;
use crate::snapshot::Snapshot;
use crate::trace::{Fault, Step};
use crate::{Container, Lab};

const IFNAME: &str = "eth0";
const OTHER: &str = "net0";
/// The link of the VLAN.
const VLAN: &str = "ens3.100";

#[derive(Debug)]
pub(super) struct Site {
    scenario: Scenario,
    lab: Lab,
    container: Container,
    bystander: Container,
    conf: Value,
    before: Snapshot,
    files: BTreeSet<String>,
}

impl Site {
    pub(super) fn new(scenario: Scenario) -> Self {
        let lab = Lab::new(scenario.binaries);
        lab.host.give_own_run();
        // As on a real host. Then Linux 6.1 refuses this name in a container.
        lab.host.create_stray(IFNAME);
        let conf = conf(&lab, scenario);
        let (container, bystander) = (lab.container(), lab.container());
        if scenario.layers == Layers::Take {
            give_default_routes(&container);
        }
        if scenario.layers == Layers::Taken {
            let nic = lab.neighbour.nic;
            lab.neighbour.ip(&format!("address add 192.168.50.101/24 dev {nic}"));
        }
        // The search for a second ipvlan slave would look at all descriptors of the machine. A second user of the host's
        // link would keep it.
        let is_alone = scenario.plugin == "ipvlan"
            || scenario.layers.has_host_access()
            || (scenario.layers.has_vlan() && scenario.layers != Layers::SharedVlan);
        let plugin = if is_alone { "host-local" } else { scenario.plugin };
        if (plugin, scenario.layers) != ("host-local", Layers::Two) {
            lab.plugin(plugin).add(&bystander, IFNAME, &conf).run().result();
        }
        // The first attachment also creates the files that stay.
        let result = lab.plugin(scenario.plugin).add(&container, IFNAME, &conf).run().result();
        if scenario.layers == Layers::ForeignVlan {
            lab.host.create_macvlan_in(&bystander, OTHER, VLAN);
            bystander.set_up(OTHER);
        }
        lab.plugin(scenario.plugin).del(&container, IFNAME, &with(&conf, Some(&result))).run().done();
        let before = lab.snapshot(&[&container, &bystander]);
        let files = files(&lab);
        Self { scenario, lab, container, bystander, conf, before, files }
    }

    /// The system calls of a run without a fault.
    pub(super) fn learn(&self) -> Vec<Step> {
        let added = self.prepare();
        let (outcome, trace) = self.call(added.as_ref()).run_stepwise(None);
        match self.scenario.command {
            Command::Add | Command::AddThenGc => drop(self.del(Some(&outcome.result()))),
            Command::Del | Command::DelThenGc => drop(outcome.done()),
            Command::AddAgain => drop(self.del(added.as_ref())),
        }
        self.assert_as_before("after the run without a fault");
        trace.steps
    }

    /// Injects a fault. Returns how the call ended, and true if the fault happened. Panics if there is a leak.
    pub(super) fn suffer(&mut self, fault: &Fault) -> (End, bool) {
        let added = self.prepare();
        let (outcome, trace) = self.call(added.as_ref()).run_stepwise(Some(fault));
        let what = outcome.text();
        assert!(!trace.hung, "it does not end: {what}");
        self.assert_addresses_are_leased(&what);
        let end = judge(self.scenario.command, fault, &outcome, trace.struck);
        let result = match (self.scenario.command, end) {
            (Command::Add | Command::AddThenGc, End::Succeeded) => {
                self.assert_whole(&outcome.result(), &what);
                Some(outcome.result())
            }
            (Command::Add | Command::AddThenGc, End::Failed) => {
                self.assert_nothing_left(&what);
                None
            }
            (Command::Del | Command::DelThenGc, End::Succeeded) => {
                self.assert_nothing_left(&outcome.done().text());
                added
            }
            (Command::AddAgain, _) => {
                // host-local by itself returns the same lease again.
                assert!(end != End::Succeeded || !self.makes_links(), "it was attached already: {what}");
                self.assert_whole(added.as_ref().expect("it was attached"), &what);
                added
            }
            _ => added,
        };
        if matches!(self.scenario.command, Command::AddThenGc | Command::DelThenGc) {
            self.lose_container();
            // A lease may stay: a new namespace of another test can have the inode of the container's.
            self.assert_host_is_clean(&format!("after GC, after {what}"));
        }
        let said = self.del(result.as_ref());
        self.assert_nothing_left(&format!("after DEL, which said {said}, after {what}"));
        let again = self.add();
        self.assert_whole(&again, "ADD again");
        let said = self.del(Some(&again));
        self.assert_as_before(&format!("after DEL, which said {said}, after {what}"));
        (end, trace.struck)
    }

    fn prepare(&self) -> Option<Value> {
        (!matches!(self.scenario.command, Command::Add | Command::AddThenGc)).then(|| self.add())
    }

    /// The namespace of the container goes without a DEL, and GC comes. A new container with the same ID takes its place.
    fn lose_container(&mut self) {
        let mut fresh = self.lab.container();
        fresh.id.clone_from(&self.container.id);
        self.container = fresh;
        self.gc();
    }

    fn call(&self, added: Option<&Value>) -> crate::Call<'_> {
        let plugin = self.lab.plugin(self.scenario.plugin);
        match self.scenario.command {
            Command::Add | Command::AddAgain | Command::AddThenGc => plugin.add(&self.container, IFNAME, &self.conf),
            Command::Del | Command::DelThenGc => plugin.del(&self.container, IFNAME, &with(&self.conf, added)),
        }
    }

    fn add(&self) -> Value {
        self.lab.plugin(self.scenario.plugin).add(&self.container, IFNAME, &self.conf).run().result()
    }

    /// Returns what the call said.
    fn del(&self, result: Option<&Value>) -> String {
        let conf = with(&self.conf, result);
        let outcome = self.lab.plugin(self.scenario.plugin).del(&self.container, IFNAME, &conf).run();
        outcome.done().text()
    }

    fn gc(&self) {
        let mut conf = self.conf.clone();
        conf["cniVersion"] = json!("1.1.0");
        conf["cni.dev/valid-attachments"] = json!([{"containerID": self.bystander.id, "ifname": IFNAME}]);
        self.lab.plugin(self.scenario.plugin).call("GC", &conf).run().done();
    }

    fn makes_links(&self) -> bool {
        self.scenario.plugin != "host-local"
    }

    fn assert_whole(&self, result: &Value, what: &str) {
        let list = |key: &str| result[key].as_array().cloned().unwrap_or_default();
        let addresses: Vec<IpNet> = list("ips").iter().map(|ip| parse(&ip["address"])).collect();
        let expected = match self.scenario.layers {
            Layers::Two => 0,
            Layers::V4 | Layers::Vlan | Layers::VlanAccess | Layers::SharedVlan | Layers::ForeignVlan => 1,
            Layers::Dual | Layers::HostAccess | Layers::Take | Layers::Citizen | Layers::Taken => 2,
        };
        assert_eq!(addresses.len(), expected, "another number of addresses: {result}\n{what}");
        let leased: BTreeSet<String> = addresses.iter().map(|address| address.addr().to_string()).collect();
        assert_eq!(self.leased(), leased, "other leases than in the result: {what}");
        if !self.makes_links() {
            return;
        }
        let link = self.container.find_link(IFNAME).unwrap_or_else(|| panic!("there is no {IFNAME}: {what}"));
        assert!(link.up, "{IFNAME} is down: {what}");
        assert_eq!(link.kind.as_deref(), Some(self.scenario.plugin), "{what}");
        assert_eq!(result["interfaces"][0]["mac"], link.mac.as_str(), "{what}");
        let its = self.addresses();
        let unusable = its.iter().find(|address| address.tentative() || address.duplicate());
        assert!(unusable.is_none(), "{unusable:?} cannot be used: {what}");
        let its: BTreeSet<IpNet> = its.iter().map(|address| address.net).collect();
        assert_eq!(its, addresses.into_iter().collect(), "other addresses than in the result: {what}");
        let routes = self.container.routes();
        for route in list("routes") {
            let dst: IpNet = parse(&route["dst"]);
            let there = routes.iter().any(|its| its.dst == dst && its.oif == Some(link.ifindex));
            assert!(there, "the route to {dst} is missing: {what}");
        }
        if self.scenario.layers.has_vlan() {
            assert_eq!(link.parent, Some(self.lab.host.link(VLAN).ifindex), "not on the VLAN: {what}");
        }
        if self.scenario.layers.has_host_access() {
            let routes = self.lab.host.routes();
            for address in leased {
                let there = routes.iter().any(|its| its.dst.addr().to_string() == address);
                assert!(there, "the host has no route to {address}: {what}");
            }
        }
    }

    fn assert_nothing_left(&self, what: &str) {
        if self.makes_links() {
            assert_eq!(self.link_names(), [""; 0], "a link is left: {what}");
        }
        assert_eq!(self.leased(), BTreeSet::new(), "a lease is left: {what}");
        self.assert_host_is_clean(what);
    }

    fn assert_host_is_clean(&self, what: &str) {
        let layers = self.scenario.layers;
        if layers.has_host_access() || layers.has_vlan() {
            // In doubt, the link of the VLAN stays until GC.
            if what.contains("is kept: ") && layers != Layers::ForeignVlan {
                self.gc();
            }
            let links = self.lab.host.link_names();
            assert!(
                !links.iter().any(|name| name.starts_with("underlay")),
                "the host's link is left: {links:?} {what}"
            );
            assert_eq!(self.lab.host.has_link(VLAN), layers.shares_vlan(), "the link of the VLAN: {links:?} {what}");
            let records = self.lab.host.run_entries("underlay/attachments");
            let expected = usize::from(layers == Layers::SharedVlan);
            assert_eq!(records.len(), expected, "records are left: {records:?} {what}");
        }
    }

    /// Whatever happens, no address is on a link that could be given to another container.
    fn assert_addresses_are_leased(&self, what: &str) {
        let leased = self.leased();
        for address in self.addresses() {
            let ip = address.net.addr().to_string();
            assert!(leased.contains(&ip), "{ip} is on the link, and not leased: {what}");
        }
    }

    fn assert_as_before(&self, what: &str) {
        let now = self.lab.snapshot(&[&self.container, &self.bystander]);
        let mut difference = self.before.difference(&now);
        // Where the next lease goes on from: it changes with every ADD.
        difference.retain(|line| !line.contains("/last_reserved_ip."));
        assert!(difference.is_empty(), "not as before: {difference:?} {what}");
        assert_eq!(files(&self.lab), self.files, "other files than before: {what}");
    }

    /// The container's own addresses, without those that the kernel makes itself.
    fn addresses(&self) -> Vec<Address> {
        let on = |link: &String| self.container.addresses(link).into_iter().filter(|address| !address.link_local());
        self.link_names().iter().flat_map(on).collect()
    }

    /// The links of the container without `lo` and [`OTHER`].
    fn link_names(&self) -> Vec<String> {
        let names = self.container.link_names().into_iter();
        names.filter(|name| name != "lo" && !name.starts_with(OTHER)).collect()
    }

    fn leased(&self) -> BTreeSet<String> {
        let owner = format!("{}\r\n{IFNAME}", self.container.id);
        let is_its = |ip: &String| {
            fs::read_to_string(self.lab.data_dir().join("lan").join(ip)).is_ok_and(|content| content == owner)
        };
        self.lab.leases().into_iter().filter(is_its).collect()
    }
}

/// Another interface of the container, which leads out.
fn give_default_routes(container: &Container) {
    container.create_stray(OTHER);
    container.set_up(OTHER);
    container.set_up(&format!("{OTHER}p"));
    container.ip(&format!("address add 10.9.9.5/24 dev {OTHER}"));
    container.ip(&format!("address add fd09::5/64 dev {OTHER} nodad"));
    container.ip(&format!("route add default via 10.9.9.1 dev {OTHER}"));
    container.ip(&format!("route add default via fd09::1 dev {OTHER}"));
}

fn conf(lab: &Lab, scenario: Scenario) -> Value {
    let mut conf = match (scenario.plugin, scenario.layers) {
        (_, Layers::Two) => lab.conf_with(json!({})),
        (_, Layers::V4) => lab.conf_with(lab.ipam(Families::V4)),
        (_, Layers::Vlan | Layers::VlanAccess | Layers::SharedVlan | Layers::ForeignVlan) => {
            crate::with(lab.conf_with(lab.ipam(Families::V4)), "vlan", json!(100))
        }
        (_, Layers::Dual | Layers::HostAccess | Layers::Take | Layers::Citizen | Layers::Taken) => {
            lab.conf_with(lab.ipam(Families::Dual))
        }
    };
    let routes = match scenario.layers {
        Layers::Two => json!(null),
        Layers::V4 | Layers::Vlan | Layers::VlanAccess | Layers::SharedVlan | Layers::ForeignVlan => {
            json!([{"dst": "0.0.0.0/0"}])
        }
        Layers::Dual | Layers::HostAccess | Layers::Take | Layers::Citizen | Layers::Taken => {
            json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}])
        }
    };
    if scenario.layers == Layers::Take {
        conf["defaultRoute"] = json!("take");
    }
    if scenario.layers == Layers::Citizen {
        conf["detectIPConflict"] = json!(true);
        // The shortest time, because each fault costs three ADDs.
        conf["detectTimeout"] = json!(50);
        conf["announce"] = json!({"count": 2, "interval": 100});
        conf["detectGateway"] = json!(true);
        conf["ipam"]["ranges"][0][0]["gateway"] = json!(lab.neighbour.v4);
        conf["ipam"]["ranges"][1][0]["gateway"] = json!(lab.neighbour.v6);
    }
    if scenario.layers == Layers::Taken {
        conf["detectIPConflict"] = json!(true);
        conf["detectTimeout"] = json!(50);
        // One of three IPv4 addresses is the other container's. The addresses are leased in turn, so that each ADD comes to the one of
        // the other machine before it gets the third.
        conf["ipam"]["conflictDelay"] = json!(0);
        conf["ipam"]["ranges"][0][0]["rangeEnd"] = json!("192.168.50.102");
    }
    if scenario.layers.has_host_access() {
        conf["hostAccess"] = json!({"services": ["10.96.0.0/16"]});
    }
    if routes.is_array() {
        conf["ipam"]["routes"] = routes;
    }
    conf["type"] = json!(scenario.plugin);
    conf
}

fn with(conf: &Value, result: Option<&Value>) -> Value {
    let mut conf = conf.clone();
    if let Some(result) = result {
        conf["prevResult"] = result.clone();
    }
    conf
}

fn parse<T: std::str::FromStr>(value: &Value) -> T {
    let text = value.as_str().unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("a result with {value}"))
}

/// The names of all files in the lease directory, with temporary files and records.
fn files(lab: &Lab) -> BTreeSet<String> {
    let entries = fs::read_dir(lab.lease_file("")).into_iter().flatten();
    entries.map(|entry| entry.expect("read a directory").file_name().to_string_lossy().into_owned()).collect()
}
