//! `master` as a list of names, and `parent`, which chooses the parent by its properties.

use e2e::lab::{LAN4, LAN6, NIC, lan4};
use e2e::traffic::assert_reaches;
use e2e::{Container, Lab, cases, with, without};
use serde_json::{Value, json};

/// A second NIC of the host, which is not on the LAN of the test.
const OTHER: &str = "ens4";

fn with_other_nic(lab: &Lab) {
    lab.host.create_stray(OTHER);
    lab.host.set_up(OTHER);
    lab.host.ip(&format!("address add 10.9.9.1/24 dev {OTHER}"));
}

fn choosing(lab: &Lab, parent: Value) -> Value {
    with(without(lab.conf(), "master"), "parent", parent)
}

/// Attaches and detaches a container, which must be on the LAN of the Lab.
#[track_caller]
fn is_on_the_lan(lab: &Lab, conf: &Value) {
    let (container, checked) = lab.macvlan().attach(lab, conf);
    assert_eq!(container.link("eth0").parent, Some(lab.host.link(NIC).ifindex));
    assert_reaches(&lab.neighbour, container.addresses("eth0")[0].net.addr());
    lab.macvlan().check(&container, "eth0", &checked).run().done();
    lab.macvlan().detach(lab, &container, conf);
}

fn refuses(lab: &Lab, conf: &Value, names: &[&str]) {
    lab.macvlan().refuses(lab, conf, 7, names);
    let status = with(conf.clone(), "cniVersion", json!("1.1.0"));
    lab.macvlan().call("STATUS", &status).run().error();
}

cases! {
    #[reference(not_run: "it has no lists")]
    fn the_first_name_that_exists_is_the_parent(lab) {
        with_other_nic(lab);
        lab.host.ip(&format!("link property add dev {NIC} altname office"));
        for names in [json!([NIC]), json!(["enp7s0", NIC, OTHER]), json!(["enp7s0", "office"])] {
            is_on_the_lan(lab, &with(lab.conf(), "master", names));
        }
        let none = with(lab.conf(), "master", json!(["enp7s0", "enp8s0"]));
        refuses(lab, &none, &["master [\"enp7s0\", \"enp8s0\"]: none of these interfaces exists"]);
        for (value, said) in [
            (json!([]), "master []: is an empty list"),
            (json!(7), "master 7: is neither the name of an interface nor a list of names"),
            (json!([NIC, 7]), "master[1] 7: is not text"),
            (json!([NIC, "a/b"]), "master[1] \"a/b\""),
        ] {
            refuses(lab, &with(lab.conf(), "master", value), &[said]);
        }
    }

    /// One configuration is right for nodes whose NICs have different names.
    #[reference(not_run: "it has no such key")]
    fn each_property_chooses_the_parent(lab) {
        with_other_nic(lab);
        lab.host.ip(&format!("link property add dev {NIC} altname a-name-that-is-longer-than-fifteen"));
        lab.host.ip(&format!("link set {NIC} alias lan"));
        let mac = lab.host.link(NIC).mac;
        for parent in [
            json!({"mac": mac}),
            json!({"mac": mac.to_uppercase()}),
            json!({"altname": "a-name-that-is-longer-than-fifteen"}),
            json!({"alias": "lan"}),
            json!({"subnet": LAN4}),
            json!({"subnet": LAN6}),
            json!({"subnet": "192.168.0.0/16"}),
            json!({"driver": "veth", "subnet": LAN4}),
            json!({"driver": "veth", "mac": mac, "alias": "lan"}),
        ] {
            is_on_the_lan(lab, &choosing(lab, parent));
        }
    }

    #[reference(not_run: "it has no such key")]
    fn no_interface_or_several_are_an_error_that_lists_what_tells_them_apart(lab) {
        with_other_nic(lab);
        lab.host.ip(&format!("link set {OTHER} alias storage"));
        lab.host.ip(&format!("link property add dev {OTHER} altname san0"));
        let (mac, other) = (lab.host.link(NIC).mac, lab.host.link(OTHER).mac);
        let about = [
            format!("{NIC} (mac {mac}, address 192.168.50.10/24, address fd50::10/64"),
            format!("{OTHER} (mac {other}, address 10.9.9.1/24"),
            "driver veth, altname san0, alias \"storage\"".to_owned(),
        ];
        let refuses_all = |parent: Value, said: &str| {
            let names: Vec<&str> = [said].into_iter().chain(about.iter().map(String::as_str)).collect();
            refuses(lab, &choosing(lab, parent), &names);
        };
        let none = "no interface has all of this; there are ";
        refuses_all(json!({"subnet": "10.0.0.0/24"}), &format!("parent (subnet 10.0.0.0/24): {none}"));
        refuses_all(json!({"mac": other, "subnet": LAN4}), &format!("parent (mac {other}, subnet {LAN4}): {none}"));
        refuses_all(json!({"pciAddress": "0000:00:03.0"}), &format!("parent (pciAddress \"0000:00:03.0\"): {none}"));
        let several = "several interfaces have all of this; add a key that tells them apart: ";
        let place = |given: &str, shown: &str| {
            refuses_all(json!({"pciAddress": given}), &format!("parent (pciAddress \"{shown}\"): {none}"));
        };
        // As lspci prints it.
        place("AF:00.1", "0000:af:00.1");
        place("usb-0000:00:14.0-1", "usb-0000:00:14.0-1");
        refuses_all(json!({"driver": "veth"}), &format!("parent (driver \"veth\"): {several}"));
    }

    #[reference(not_run: "it has no such key")]
    fn what_is_wrong_in_parent_is_named_with_its_key(lab) {
        for (parent, said) in [
            (json!({}), "parent {}: chooses nothing; write mac, altname, alias, subnet, driver or pciAddress into it"),
            (json!("ens3"), "parent \"ens3\": is not an object"),
            (json!({"mac": "52:54"}), "parent.mac \"52:54\""),
            (json!({"subnet": "192.168.50.0"}), "parent.subnet \"192.168.50.0\""),
            (json!({"subnet": "192.168.50.10/24"}), "parent.subnet \"192.168.50.10/24\": has host bits set; the network is 192.168.50.0/24"),
            (json!({"driver": 7}), "parent.driver 7"),
        ] {
            refuses(lab, &choosing(lab, parent), &[said]);
        }
        let both = with(lab.conf(), "parent", json!({"subnet": LAN4}));
        refuses(lab, &both, &["is set beside master; both choose the parent, so remove one"]);
        let misspelt = choosing(lab, json!({"subnet": LAN4, "drivers": "veth"}));
        let outcome = lab.macvlan().add(&lab.container(), "eth0", &misspelt).run();
        outcome.result();
        assert!(outcome.stderr.contains("parent.drivers") && outcome.stderr.contains("driver"), "{}", outcome.text());
    }

    /// A VLAN has the MAC of its NIC, and may have the address that the NIC had.
    #[needs(Vlan)]
    #[reference(not_run: "it has no such key")]
    fn a_vlan_of_the_chosen_nic_does_not_count(lab) {
        lab.host.create_vlan("ens3.100", NIC, 100);
        lab.host.set_up("ens3.100");
        lab.host.ip("address add 10.100.0.1/24 dev ens3.100");
        is_on_the_lan(lab, &choosing(lab, json!({"mac": lab.host.link(NIC).mac})));
        let (container, _) = lab.macvlan().attach(lab, &choosing(lab, json!({"subnet": "10.100.0.0/24"})));
        assert_eq!(container.link("eth0").parent, Some(lab.host.link("ens3.100").ifindex));
    }

    /// A macvlan of the host, such as the host's link of host access, is on the NIC too.
    #[reference(not_run: "it has no such key")]
    fn a_sub_interface_of_the_host_does_not_count(lab) {
        lab.host.ip(&format!("link add shim0 link {NIC} type macvlan mode bridge"));
        lab.host.ip("address add 192.168.50.11/32 dev shim0");
        lab.host.set_up("shim0");
        is_on_the_lan(lab, &choosing(lab, json!({"subnet": LAN4})));
    }

    #[needs(Bond)]
    #[reference(not_run: "it has no such key")]
    fn a_port_of_the_chosen_bond_does_not_count(lab) {
        lab.host.create_bond("bond0", NIC);
        let (container, _) = lab.macvlan().attach(lab, &choosing(lab, json!({"mac": lab.host.link("bond0").mac})));
        assert_eq!(container.link("eth0").parent, Some(lab.host.link("bond0").ifindex));
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[reference(not_run: "it has no such key")]
    fn a_parent_in_the_container_is_chosen_there(lab) {
        let container = lab.container();
        lab.plug(&container, "lan0");
        lab.plug(&container, "lan1");
        container.ip("link set lan1 alias chosen");
        let conf = with(choosing(lab, json!({"alias": "chosen"})), "linkInContainer", json!(true));
        lab.macvlan().add(&container, "eth0", &conf).run().result();
        assert_eq!(container.link("eth0").parent, Some(container.link("lan1").ifindex));
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo", "lan0", "lan1"]);
        let names = with(without(lab.conf(), "master"), "linkInContainer", json!(true));
        let names = with(names, "master", json!(["lan7", "lan1"]));
        lab.macvlan().add(&container, "eth0", &names).run().result();
        assert_eq!(container.link("eth0").parent, Some(container.link("lan1").ifindex));
    }

    #[reference(not_run: "it has no such key")]
    fn status_looks_at_the_chosen_parent(lab) {
        with_other_nic(lab);
        let conf = |parent| with(choosing(lab, parent), "cniVersion", json!("1.1.0"));
        lab.macvlan().call("STATUS", &conf(json!({"subnet": LAN4}))).run().done();
        let missing = conf(json!({"subnet": "10.0.0.0/24"}));
        lab.macvlan().call("STATUS", &missing).run().fails(50, &["no interface has all of this"]);
        lab.host.set_down(OTHER);
        let down = conf(json!({"mac": lab.host.link(OTHER).mac}));
        lab.macvlan().call("STATUS", &down).run().fails(50, &["parent ens4 is down"]);
    }

    #[reference(not_run: "it has no such key")]
    fn check_names_another_parent_and_del_needs_none(lab) {
        with_other_nic(lab);
        let conf = choosing(lab, json!({"alias": "lan"}));
        lab.host.ip(&format!("link set {NIC} alias lan"));
        let attached: Vec<(Container, Value)> = (0..2).map(|_| lab.macvlan().attach(lab, &conf)).collect();
        let check = |(container, conf): &(Container, Value)| lab.macvlan().check(container, "eth0", conf).run();
        check(&attached[0]).done();
        lab.host.ip(&format!("link set {NIC} alias wan"));
        check(&attached[0]).done();
        lab.host.ip(&format!("link set {OTHER} alias lan"));
        check(&attached[0]).fails(102, &["is on ens3, and parent chooses ens4"]);
        lab.macvlan().del(&attached[0].0, "eth0", &conf).run().done();
        lab.host.ip(&format!("link set {OTHER} alias none"));
        lab.macvlan().detach(lab, &attached[1].0, &conf);
    }

    /// A driver of another NIC that did not answer made each ADD fail.
    #[reference(not_run: "it has no such key")]
    fn drivers_are_asked_only_if_they_matter_and_need_not_answer(lab) {
        with_other_nic(lab);
        let calls = lab.path("calls");
        let asked = || std::fs::read_to_string(&calls).expect("the calls").matches("SIOCETHTOOL").count();
        let traced = |fault: &str| lab.under(&format!("strace -f -o {} -e trace=ioctl {fault}", calls.display()), "macvlan");
        let conf = |parent| with(choosing(lab, parent), "cniVersion", json!("1.1.0"));
        let container = lab.container();
        let subnet = conf(json!({"subnet": LAN4}));
        traced("").add(&container, "eth0", &subnet).run().result();
        assert_eq!(asked(), 0);
        lab.macvlan().detach(lab, &container, &subnet);
        // One of the two NICs does not answer: it is not chosen, and it is no error.
        for nic in [NIC, OTHER] {
            lab.host.ip(&format!("link set {nic} alias lan"));
        }
        let veth = conf(json!({"driver": "veth", "alias": "lan"}));
        traced("").call("STATUS", &veth).run().fails(50, &["several interfaces have all of this"]);
        // Half of the questions are for the choice, and the others for the message. The newest link is the last one.
        let newest = asked() / 2;
        traced(&format!("-e inject=ioctl:error=EIO:when={newest}")).call("STATUS", &veth).run().done();
        assert_eq!(asked(), newest);
        // The list has what is known.
        let names = ["no interface has all of this; there are ", "ens3 (mac ", "ens4 (mac "];
        let error = traced("-e inject=ioctl:error=EIO").call("STATUS", &conf(json!({"driver": "e1000e"}))).run().fails(50, &names);
        assert!(!error.msg.contains("driver veth"), "{error:?}");
        // Only the interface with this address is asked.
        traced("").call("STATUS", &conf(json!({"subnet": LAN4, "driver": "veth"}))).run().done();
        assert_eq!(asked(), 1);
    }

    /// The address of the host is often on a macvlan of the host, so that the host reaches its containers. The kernel
    /// puts the container's macvlan onto the NIC, and CHECK said that this was another parent.
    #[reference(not_run: "it has no such key")]
    fn the_nic_below_a_chosen_macvlan_of_the_host_is_the_parent(lab) {
        lab.host.ip(&format!("link add shim0 link {NIC} type macvlan mode bridge"));
        lab.host.ip("address add 10.9.8.1/24 dev shim0");
        lab.host.set_up("shim0");
        is_on_the_lan(lab, &choosing(lab, json!({"subnet": "10.9.8.0/24"})));
        lab.host.set_down("shim0");
        // The NIC is up.
        let status = with(choosing(lab, json!({"subnet": "10.9.8.0/24"})), "cniVersion", json!("1.1.0"));
        lab.macvlan().call("STATUS", &status).run().done();
        lab.host.set_up("shim0");
        with_other_nic(lab);
        lab.host.ip(&format!("link add shim1 link {OTHER} type macvlan mode bridge"));
        let conf = choosing(lab, json!({"alias": "shim"}));
        lab.host.ip("link set shim0 alias shim");
        let (container, checked) = lab.macvlan().attach(lab, &conf);
        lab.macvlan().check(&container, "eth0", &checked).run().done();
        lab.host.ip("link set shim0 alias none");
        lab.host.ip("link set shim1 alias shim");
        lab.macvlan().differs(lab, &container, &checked, 102, &["is on ens3, and parent chooses ens4"]);
    }

    /// The parent of both macvlans is not visible from there.
    #[reference(not_run: "it has no such key")]
    fn the_host_may_be_a_container_with_a_macvlan_itself(lab) {
        let outer = lab.container();
        lab.macvlan().add(&outer, "eth0", &lab.conf()).run().result();
        let conf = choosing(lab, json!({"subnet": LAN4}));
        let (plugin, container) = (lab.macvlan().on(&outer), lab.container());
        let result = plugin.add(&container, "eth0", &conf).run().result();
        plugin.check(&container, "eth0", &with(conf.clone(), "prevResult", result)).run().done();
        assert_reaches(&lab.neighbour, container.addresses("eth0")[0].net.addr());
        plugin.del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo"]);
    }

    /// Host access looked for its link on the macvlan that was chosen, and it is on the NIC.
    #[reference(not_run: "it has no such key")]
    fn host_access_works_on_the_nic_below_a_chosen_macvlan(lab) {
        lab.host.give_own_run();
        lab.host.ip(&format!("link add shim0 link {NIC} type macvlan mode bridge"));
        lab.host.ip("link set shim0 alias shim");
        lab.host.set_up("shim0");
        let conf = with(choosing(lab, json!({"alias": "shim"})), "hostAccess", json!(true));
        let attached: Vec<(Container, Value)> = (0..2).map(|_| lab.macvlan().attach(lab, &conf)).collect();
        for (container, checked) in &attached {
            assert_reaches(container, lab.host.v4);
            lab.macvlan().check(container, "eth0", checked).run().done();
        }
        lab.host.ip(&format!("link show underlay-{NIC}"));
        for (container, checked) in &attached {
            lab.macvlan().del(container, "eth0", checked).run().done();
        }
        assert!(!lab.host.link_names().iter().any(|name| name.starts_with("underlay")));
    }

    #[reference(not_run: "it has no such key")]
    fn check_compares_a_parent_in_the_container_too(lab) {
        let container = lab.container();
        lab.plug(&container, "lan0");
        lab.plug(&container, "lan1");
        container.ip("link set lan1 alias chosen");
        let conf = with(choosing(lab, json!({"alias": "chosen"})), "linkInContainer", json!(true));
        let result = lab.macvlan().add(&container, "eth0", &conf).run().result();
        let checked = with(conf, "prevResult", result);
        lab.macvlan().check(&container, "eth0", &checked).run().done();
        // A new name makes no difference.
        container.ip("link set lan1 down");
        container.ip("link set lan1 name office");
        container.ip("link set office up");
        lab.macvlan().check(&container, "eth0", &checked).run().done();
        container.ip("link set office alias none");
        container.ip("link set lan0 alias chosen");
        lab.macvlan().differs(lab, &container, &checked, 102, &["is on office, and parent chooses lan0"]);
    }
}
