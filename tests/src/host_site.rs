//! A Lab whose host has a /run of its own, and the plugin of one kind on it. It is for what plugins change on the host.

use std::net::IpAddr;
use std::ops::Deref;
use std::thread;

use serde_json::{Value, json};

use crate::{Binaries, Container, Lab, Namespace, Outcome, Plugin, with};

/// The directory of the records in /run.
pub const RECORDS: &str = "underlay/attachments";

#[derive(Debug)]
pub struct HostSite {
    lab: Lab,
    /// The name of the plugin: `macvlan` or `ipvlan`.
    pub kind: &'static str,
}

impl Deref for HostSite {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl HostSite {
    pub fn new(kind: &'static str) -> Self {
        Self::of(kind, Binaries::HardLinks)
    }

    pub fn of(kind: &'static str, binaries: Binaries) -> Self {
        let lab = Lab::new(binaries);
        lab.host.give_own_run();
        Self { lab, kind }
    }

    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    pub fn plugin(&self) -> Plugin<'_> {
        self.lab.plugin(self.kind)
    }

    /// Attaches a new container. Returns it with the configuration for CHECK.
    #[track_caller]
    pub fn attach(&self, conf: &Value) -> (Container, Value) {
        self.plugin().attach(self, conf)
    }

    /// Calls DEL for `eth0`, and asserts that no link is left in the container.
    #[track_caller]
    pub fn detach(&self, container: &Container, conf: &Value) -> Outcome {
        let outcome = self.plugin().del(container, "eth0", conf).run();
        outcome.done();
        assert_eq!(container.link_names(), ["lo"]);
        outcome
    }

    #[track_caller]
    pub fn checks(&self, container: &Container, conf: &Value) {
        self.plugin().check(container, "eth0", conf).run().done();
    }

    /// Calls GC. The list of the runtime has `eth0` of these containers.
    #[track_caller]
    pub fn gc(&self, conf: &Value, valid: &[&Container]) -> Outcome {
        let valid: Vec<Value> =
            valid.iter().map(|container| json!({"containerID": container.id, "ifname": "eth0"})).collect();
        let conf = with(with(conf.clone(), "cniVersion", json!("1.1.0")), "cni.dev/valid-attachments", json!(valid));
        let outcome = self.plugin().call("GC", &conf).run();
        outcome.done();
        outcome
    }

    /// Calls the plugin for `eth0` of all containers at once.
    pub fn all_at_once(&self, command: &str, containers: &[Container], conf: &Value) -> Vec<Outcome> {
        thread::scope(|scope| {
            let calls: Vec<_> = containers
                .iter()
                .map(|container| {
                    let call = self.plugin().attachment(command, container, "eth0", conf);
                    scope.spawn(move || call.run())
                })
                .collect();
            calls.into_iter().map(|call| call.join().expect("a call")).collect()
        })
    }

    /// Writes /etc/underlay.conf of the host.
    pub fn write_defaults(&self, text: &str) {
        self.host.write_etc("underlay.conf", text);
    }

    /// A configuration of this kind with that `ipam`.
    pub fn conf_with(&self, ipam: Value) -> Value {
        with(self.lab.conf_with(ipam), "type", json!(self.kind))
    }

    /// A configuration of this kind with static addresses of the LAN.
    pub fn static_conf(&self, addresses: &[IpAddr]) -> Value {
        let length = |ip: &IpAddr| if ip.is_ipv4() { 24 } else { 64 };
        let addresses: Vec<Value> =
            addresses.iter().map(|ip| json!({"address": format!("{ip}/{}", length(ip))})).collect();
        self.conf_with(json!({"type": "static", "addresses": addresses}))
    }

    /// Asserts that nothing of an attachment is left: no link, no lease, and no record.
    #[track_caller]
    pub fn assert_undone(&self, container: &Container) {
        self.lab.assert_gone(container);
        assert_eq!(self.records(), [""; 0]);
    }

    /// The names of the records, sorted.
    pub fn records(&self) -> Vec<String> {
        self.host.run_entries(RECORDS)
    }
}

/// The addresses of `eth0` without those that the kernel makes.
pub fn addresses(container: &Namespace) -> Vec<IpAddr> {
    let addresses = container.addresses("eth0").into_iter();
    addresses.filter(|address| !address.link_local()).map(|address| address.net.addr()).collect()
}
