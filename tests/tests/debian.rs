//! The reference plugins of Debian 12 (a release of 2022) and ours accept the leases and links of each other.

use std::collections::BTreeSet;
use std::path::Path;

use e2e::lab::{Families, lan4};
use e2e::needs::{self, Feature};
use e2e::traffic::assert_reaches;
use e2e::{Binaries, Lab, Plugin, with};
use serde_json::{Value, json};

const DIRECTORY: &str = "/usr/lib/cni";

fn debians<'a>(lab: &'a Lab, name: &str) -> Plugin<'a> {
    let program = Path::new(DIRECTORY).join(name);
    assert!(program.is_file(), "there is no {}: install Debian's containernetworking-plugins", program.display());
    Plugin::new(&lab.host, program).search(DIRECTORY)
}

fn conf(lab: &Lab, kind: &str) -> Value {
    let mut ipam = lab.ipam(Families::Dual);
    ipam["routes"] = json!([{"dst": "10.20.0.0/16", "gw": "192.168.50.254"}, {"dst": "::/0", "gw": "fd50::fe"}]);
    with(lab.conf_with(ipam), "type", json!(kind))
}

/// `before` attaches a container. `after` checks it, attaches another one, and detaches both.
fn takes_over(lab: &Lab, kind: &str, before: &Plugin<'_>, after: &Plugin<'_>) {
    let conf = conf(lab, kind);
    let (old, of_old) = before.attach(lab, &conf);
    after.check(&old, "eth0", &of_old).run().done();
    let (new, of_new) = after.attach(lab, &conf);
    let addresses: BTreeSet<_> = [&old, &new].iter().flat_map(|container| container.address_texts("eth0")).collect();
    let expected = ["192.168.50.100/24", "192.168.50.101/24", "fd50::100/64", "fd50::101/64"];
    assert_eq!(addresses, expected.map(str::to_owned).into());
    for last in [100, 101] {
        assert_reaches(&lab.neighbour, lan4(last));
    }
    after.del(&old, "eth0", &of_old).run().done();
    assert_eq!(old.link_names(), ["lo"]);
    assert_eq!(lab.leases(), ["192.168.50.101", "fd50::101"]);
    after.del(&new, "eth0", &of_new).run().done();
    assert_eq!(lab.leases(), [""; 0]);
}

/// A node with a running container changes from Debian's plugins to ours, and another one back.
fn there_and_back(kind: &str) {
    for binaries in [Binaries::HardLinks, Binaries::PlainCopies] {
        let lab = Lab::new(binaries);
        takes_over(&lab, kind, &debians(&lab, kind), &lab.plugin(kind));
        let lab = Lab::new(binaries);
        takes_over(&lab, kind, &lab.plugin(kind), &debians(&lab, kind));
    }
}

#[test]
fn a_macvlan_container_keeps_running_during_the_change_from_debians_plugins_and_back() {
    there_and_back("macvlan");
}

#[test]
fn an_ipvlan_container_keeps_running_during_the_change_from_debians_plugins_and_back() {
    if needs::here(&[Feature::Ipvlan]) {
        there_and_back("ipvlan");
    }
}
