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
        let lab = Lab::new(Binaries::HardLinks);
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
