//! All kinds of parents for macvlan and ipvlan. If the kernel refuses one, the message names the reason and what to do.

use e2e::lab::{NIC, lan4};
use e2e::traffic::{assert_reaches, echo};
use e2e::{Container, Lab, Namespace, cases, with};
use ipnet::IpNet;
use serde_json::{Value, json};

const KINDS: [&str; 2] = ["macvlan", "ipvlan"];

fn conf(lab: &Lab, kind: &str, master: &str) -> Value {
    let mut conf = lab.conf();
    conf["type"] = json!(kind);
    conf["master"] = json!(master);
    conf
}

fn add_lan_address(netns: &Namespace, link: &str, last: u8) {
    netns.add_address(link, IpNet::new(lan4(last), 24).expect("a prefix length"));
}

/// Attaches two containers to `master`, and lets them and `there` reach each other.
fn carries(lab: &Lab, kind: &str, master: &str, there: Option<(&Namespace, std::net::IpAddr)>) {
    let (plugin, conf) = (lab.plugin(kind), conf(lab, kind, master));
    let (first, second) = (plugin.attach(lab, &conf).0, plugin.attach(lab, &conf).0);
    let address = |container: &Container| container.addresses("eth0")[0].net.addr();
    assert_eq!(first.link("eth0").parent, Some(lab.host.link(master).ifindex));
    echo(&first, &second, address(&second), 10_000);
    if let Some((machine, ip)) = there {
        assert_reaches(machine, address(&first));
        assert_reaches(&second, ip);
    }
    for container in [&first, &second] {
        plugin.del(container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo"]);
    }
    assert_eq!(lab.leases(), [""; 0]);
}

/// Creates a tagged network on the LAN, on which the neighbour has 192.168.50.21.
fn tagged(lab: &Lab) -> String {
    let name = format!("{NIC}.100");
    lab.host.create_vlan(&name, NIC, 100);
    let there = format!("{}.100", lab.neighbour.nic);
    lab.neighbour.create_vlan(&there, lab.neighbour.nic, 100);
    // The untagged network has the same subnet, so its address goes.
    lab.neighbour.ip(&format!("address delete {}/24 dev {}", lab.neighbour.v4, lab.neighbour.nic));
    add_lan_address(&lab.neighbour, &there, 21);
    name
}

cases! {
    /// An alternative name has up to 127 characters. A name longer than 15 was refused.
    #[reference(passes)]
    fn an_alternative_name_is_a_name_of_the_parent(lab) {
        for name in ["lan", "enp0s31f6-the-office-lan-on-the-third-floor"] {
            lab.host.ip(&format!("link property add dev {NIC} altname {name}"));
            let (container, conf) = lab.macvlan().attach(lab, &conf(lab, "macvlan", name));
            lab.macvlan().detach(lab, &container, &conf);
        }
    }

    #[needs(Vlan)]
    #[reference(passes)]
    fn macvlan_on_a_vlan(lab) {
        let master = tagged(lab);
        carries(lab, "macvlan", &master, Some((&lab.neighbour, lan4(21))));
    }

    #[needs(Ipvlan, Vlan)]
    #[reference(passes)]
    fn ipvlan_on_a_vlan(lab) {
        let master = tagged(lab);
        carries(lab, "ipvlan", &master, Some((&lab.neighbour, lan4(21))));
    }

    #[needs(Vlan)]
    #[reference(passes)]
    fn a_container_on_a_vlan_is_not_on_the_untagged_network(lab) {
        let master = format!("{NIC}.100");
        lab.host.create_vlan(&master, NIC, 100);
        lab.macvlan().attach(lab, &conf(lab, "macvlan", &master));
        e2e::traffic::assert_silent(&lab.neighbour, lan4(100));
    }

    /// Only the containers of one host reach each other.
    #[needs(Dummy)]
    #[reference(passes)]
    fn macvlan_on_a_dummy(lab) {
        lab.host.ip("link add lan0 up type dummy");
        carries(lab, "macvlan", "lan0", None);
    }

    #[needs(Ipvlan, Dummy)]
    #[reference(passes)]
    fn ipvlan_on_a_dummy(lab) {
        lab.host.ip("link add lan0 up type dummy");
        carries(lab, "ipvlan", "lan0", None);
    }

    #[needs(Bond)]
    #[reference(passes)]
    fn macvlan_on_a_bond(lab) {
        lab.host.create_bond("bond0", NIC);
        carries(lab, "macvlan", "bond0", Some((&lab.neighbour, lab.neighbour.v4)));
    }

    #[needs(Ipvlan, Bond)]
    #[reference(passes)]
    fn ipvlan_on_a_bond(lab) {
        lab.host.create_bond("bond0", NIC);
        carries(lab, "ipvlan", "bond0", Some((&lab.neighbour, lab.neighbour.v4)));
    }

    #[needs(Ipvlan, Bond)]
    #[reference(not_run: "its message has no reason")]
    fn a_slave_of_a_bond_is_refused_naming_the_bond(lab) {
        lab.host.create_bond("bond0", NIC);
        for kind in KINDS {
            lab.plugin(kind).refuses(lab, &conf(lab, kind, NIC), 100, &["busy", NIC, "bond bond0", "master"]);
        }
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "its message has no reason")]
    fn a_port_of_a_bridge_is_refused_naming_the_bridge(lab) {
        lab.host.create_bridge("br0");
        lab.host.make_port(NIC, "br0");
        for kind in KINDS {
            lab.plugin(kind).refuses(lab, &conf(lab, kind, NIC), 100, &["busy", NIC, "bridge br0", "master"]);
        }
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "its message has no reason")]
    fn macvlan_is_refused_on_a_parent_with_ipvlan(lab) {
        let _container = lab.ipvlan().attach(lab, &conf(lab, "ipvlan", NIC)).0;
        let other = with(conf(lab, "macvlan", NIC), "name", json!("other"));
        lab.macvlan().refuses(lab, &other, 100, &["busy", NIC, "ipvlan", "cannot share"]);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "its message has no reason")]
    fn ipvlan_is_refused_on_a_parent_with_macvlan(lab) {
        let _container = lab.macvlan().attach(lab, &conf(lab, "macvlan", NIC)).0;
        let other = with(conf(lab, "ipvlan", NIC), "name", json!("other"));
        lab.ipvlan().refuses(lab, &other, 100, &["busy", NIC, "macvlan", "cannot share"]);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "its message has no reason")]
    fn ipvlan_is_refused_on_the_parent_of_a_macvlan_in_passthru_mode(lab) {
        let alone = with(conf(lab, "macvlan", NIC), "mode", json!("passthru"));
        let _container = lab.macvlan().attach(lab, &alone).0;
        let other = with(conf(lab, "ipvlan", NIC), "name", json!("other"));
        lab.ipvlan().refuses(lab, &other, 100, &["busy", NIC, "macvlan", "cannot share"]);
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "it says nothing")]
    fn a_parent_that_is_down_is_a_warning(lab) {
        lab.host.set_down(NIC);
        for kind in KINDS {
            let container = lab.container();
            let conf = conf(lab, kind, NIC);
            let outcome = lab.plugin(kind).add(&container, "eth0", &conf).run();
            outcome.result();
            assert!(outcome.stderr.contains(NIC) && outcome.stderr.contains("down"), "{}", outcome.text());
            lab.plugin(kind).del(&container, "eth0", &conf).run().done();
        }
    }

    /// Two networks on one LAN lease the same address, because of a mistake in their configurations.
    #[needs(Ipvlan)]
    #[reference(not_run: "its message is another, and the link stays")]
    fn an_address_that_a_sibling_has_is_refused_with_the_text_of_the_kernel(lab) {
        let one = |directory: &str| {
            let mut conf = with(lab.conf_of("192.168.50.100", "192.168.50.100"), "type", json!("ipvlan"));
            conf["ipam"]["dataDir"] = json!(lab.path(directory));
            conf
        };
        let _container = lab.ipvlan().attach(lab, &one("leases")).0;
        let names = ["192.168.50.100", "in use", "Address already assigned to an ipvlan device"];
        let error = lab.ipvlan().refuses(lab, &one("other-leases"), 100, &names);
        assert_eq!(error.details, "");
        let left = std::fs::read_dir(lab.path("other-leases/lan")).expect("a directory of leases");
        let left: Vec<_> = left.map(|entry| entry.expect("read a directory").file_name()).collect();
        assert!(left.iter().all(|name| name != "192.168.50.100"), "the lease was not released: {left:?}");
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[reference(fails: "another code")]
    fn a_tun_interface_is_refused_as_a_parent_by_its_key(lab) {
        lab.host.ip("tuntap add tun0 mode tun");
        lab.host.ip("link set tun0 up");
        lab.macvlan().refuses(lab, &with(lab.conf(), "master", json!("tun0")), 7, &["master", "tun0", "Ethernet"]);
    }

}
