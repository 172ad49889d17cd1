//! Wrong values are refused with a reason, and nothing is changed.

use e2e::lab::NIC;
use e2e::needs::Feature;
use e2e::with;
use serde_json::json;

use crate::site::{ID, Site, VLAN, assert_on_vlan};

e2e::on_both_kinds! {
    fn a_wrong_value_is_named(site) {
        let refuse = |conf: &serde_json::Value, text: &str| {
            site.plugin().refuses(site, conf, 7, &[text]);
            site.plugin().call("STATUS", &with(conf.clone(), "cniVersion", json!("1.1.0"))).run().fails(7, &[text]);
        };
        for wrong in [4095, 5000] {
            let said = format!("vlan {wrong}: is not the number of a VLAN; they are 1 to 4094");
            refuse(&with(site.conf(ID), "vlan", json!(wrong)), &said);
        }
        refuse(&with(site.conf(ID), "vlanProtocol", json!("802.1x")), "is neither 802.1Q nor 802.1ad");
        let without = with(with(site.conf(ID), "vlan", json!(null)), "vlanProtocol", json!("802.1Q"));
        refuse(&without, "vlanProtocol \"802.1Q\": is set without vlan");
        refuse(
            &with(site.conf(ID), "linkInContainer", json!(true)),
            "vlan 100: needs the parent on the host, and linkInContainer puts it into the container",
        );
        site.plugin().refuses(site, &with(site.conf(ID), "vlan", json!("100")), 7, &["vlan"]);
        site.assert_nothing_left();
    }

    /// The MTU of a VLAN link is that of its parent.
    fn an_mtu_above_that_of_the_vlan_is_refused(site) {
        site.plugin().refuses(site, &with(site.conf(ID), "mtu", json!(1501)), 7, &["is larger than the MTU 1500"]);
        site.host.create_vlan("small0", NIC, ID);
        site.host.ip("link set small0 mtu 1400");
        let conf = with(site.conf(ID), "mtu", json!(1450));
        site.plugin().refuses(site, &conf, 7, &["is larger than the MTU 1400 of parent small0"]);
        assert_eq!(site.host.link_names(), ["lo", NIC, "small0"]);
        assert_eq!(site.records(), [""; 0]);
        site.host.delete_link("small0");
        site.host.ip(&format!("link set {NIC} mtu 1400"));
        let (container, _) = site.attach(&site.conf(ID));
        assert_eq!((site.vlan_link().mtu, container.link("eth0").mtu), (1400, 1400));
    }

    /// The kernel makes no second link of one VLAN, also if the first is in another namespace.
    fn a_vlan_that_was_moved_to_another_namespace_is_named(site) {
        let elsewhere = site.container();
        site.host.create_vlan(VLAN, NIC, ID);
        site.host.ip(&format!("link set {VLAN} netns {}", elsewhere.path().display()));
        let said = "vlan 100: the link of this VLAN of ens3 is in another network namespace";
        site.plugin().refuses(site, &site.conf(ID), 7, &[said]);
        assert!(elsewhere.has_link(VLAN));
        site.assert_nothing_left();
    }

    fn another_link_may_have_the_usual_name(site) {
        site.give_neighbour(ID);
        site.host.create_stray(VLAN);
        let before = site.host.link_names();
        let (container, _) = site.attach(&site.conf(ID));
        let links = site.host.links();
        let own = links.iter().find(|link| link.kind.as_deref() == Some("vlan")).expect("a VLAN link");
        assert!(own.name.starts_with("underlay"), "{own:?}");
        assert_eq!(crate::site::describe(&site.host, &own.name)["altnames"], json!(["underlay-ens3-vlan100"]));
        assert_on_vlan(site, &container, ID);
        site.detach(&container, &site.conf(ID));
        assert_eq!(site.host.link_names(), before);
    }

    fn a_parent_with_a_long_name_has_vlans_too(site) {
        let long = "enp94s0f1np123";
        site.host.create_stray(long);
        site.host.set_up(long);
        let conf = with(site.conf(4094), "master", json!(long));
        let (container, checked) = site.attach(&conf);
        let name = "underlay-enp94s0f1np123-vlan4094";
        assert_eq!(crate::site::describe(&site.host, name)["linkinfo"]["info_data"]["id"], 4094);
        site.checks(&container, &checked);
        site.detach(&container, &conf);
        assert_eq!(site.records(), [""; 0]);
    }

    fn status_asks_for_the_parent_and_not_for_the_vlan(site) {
        let conf = with(site.conf(ID), "cniVersion", json!("1.1.0"));
        site.plugin().call("STATUS", &conf).run().done();
        assert_eq!(site.host.link_names(), ["lo", NIC]);
        site.plugin().call("STATUS", &with(conf, "master", json!("gone0"))).run().fails(50, &["gone0"]);
    }

    fn check_names_another_vlan(site) {
        let (container, checked) = site.attach(&site.conf(ID));
        let said = "is on ens3.100, which is not VLAN 200 (802.1Q)";
        site.plugin().check(&container, "eth0", &with(checked, "vlan", json!(200))).run().fails(102, &[said]);
        let (plain, checked) = site.attach(&with(site.conf(7), "vlan", json!(null)));
        let said = "is on ens3, which is not VLAN 100 (802.1Q)";
        site.plugin().check(&plain, "eth0", &with(checked, "vlan", json!(ID))).run().fails(102, &[said]);
    }

    /// The link of the VLAN has the MAC of its parent.
    fn the_parent_can_be_chosen_by_a_list_or_by_properties(site) {
        site.give_neighbour(ID);
        let mac = site.host.link(NIC).mac;
        let mut by_mac = with(site.conf(ID), "parent", json!({"mac": mac}));
        by_mac.as_object_mut().expect("an object").remove("master");
        let mut by_subnet = by_mac.clone();
        by_subnet["parent"] = json!({"subnet": "192.168.50.0/24"});
        let by_list = with(site.conf(ID), "master", json!(["gone0", NIC]));
        let attached: Vec<_> = [&by_mac, &by_subnet, &by_list].map(|conf| site.attach(conf)).into();
        for (container, checked) in &attached {
            assert_eq!(container.link("eth0").parent, Some(site.vlan_link().ifindex));
            assert_on_vlan(site, container, ID);
            site.checks(container, checked);
        }
        site.host.create_stray("nic1");
        let (container, checked) = &attached[0];
        let other = json!({"mac": site.host.link("nic1").mac});
        let said = "is on ens3.100, and parent chooses nic1";
        site.plugin().check(container, "eth0", &with(checked.clone(), "parent", other)).run().fails(102, &[said]);
        for (container, checked) in &attached {
            site.detach(container, checked);
        }
        assert!(!site.host.has_link(VLAN));
    }
}

/// As on the machines where the other tests of this file do not run.
#[test]
fn a_kernel_without_vlans_is_named() {
    if Feature::Vlan.is_here() {
        return;
    }
    let site = Site::new("macvlan");
    let said = "this kernel has no VLANs: load the module 8021q, or use a kernel with CONFIG_VLAN_8021Q";
    site.plugin().refuses(&site, &site.conf(ID), 100, &["create VLAN link underlay", said]);
    site.assert_nothing_left();
}
