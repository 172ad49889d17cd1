//! The key `vlan`, which the reference ignores. These cases run in a guest.

use e2e::compliance;
use e2e::compliance::Rig;
use e2e::with;
use serde_json::{Value, json};

/// Attaches and detaches a container. The records of the attachment are in a /run of its own.
fn on_vlan(rig: &Rig, conf: Value) {
    rig.host.give_own_run();
    rig.live(&with(conf, "vlan", json!(100)));
}

compliance! {
    #[needs(Vlan)]
    #[differs(
        "H5": "container-1 link eth0 parent: ens3 | ens3.100",
        "H5": "host link ens3.100: - | here",
        "H5": "CHECK: answer end: success | error 102",
    )]
    fn macvlan_on_a_vlan(rig) { on_vlan(rig, rig.conf()); }

    #[needs(Ipvlan, Vlan)]
    #[differs(
        "H5": "container-1 link eth0 parent: ens3 | ens3.100",
        "H5": "host link ens3.100: - | here",
        "H5": "CHECK: answer end: success | error 102",
    )]
    fn ipvlan_on_a_vlan(rig) { on_vlan(rig, rig.ipvlan_conf("l2")); }
}
