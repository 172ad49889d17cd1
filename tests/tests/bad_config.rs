//! Configurations that cannot work. ADD fails with a code and names key and value. Nothing is changed. Ranges are in
//! `host_local`.

use e2e::lab::{Families, NIC, lan4};
use e2e::traffic::assert_reaches;
use e2e::{cases, with};
use serde_json::json;

cases! {
    #[reference(fails: "another code")]
    fn an_absent_parent_is_named(lab) {
        lab.macvlan().refuses(lab, &with(lab.conf(), "master", json!("nope0")), 7, &["master", "nope0"]);
    }

    #[reference(fails: "another code")]
    fn without_a_parent_and_a_default_route_the_key_is_named(lab) {
        lab.macvlan().refuses(lab, &with(lab.conf(), "master", json!("")), 7, &["master"]);
    }

    #[reference(fails: "another code")]
    fn a_parent_whose_name_no_interface_can_have_is_refused(lab) {
        let name = "sixteen-letters-";
        lab.macvlan().refuses(lab, &with(lab.conf(), "master", json!(name)), 7, &["master", name]);
    }

    #[reference(fails: "another code")]
    fn the_loopback_interface_cannot_be_a_parent(lab) {
        lab.macvlan().refuses(lab, &with(lab.conf(), "master", json!("lo")), 7, &["master", "lo"]);
    }

    #[reference(fails: "another code")]
    fn an_mtu_above_the_parents_is_refused_with_both(lab) {
        lab.macvlan().refuses(lab, &with(lab.conf(), "mtu", json!(1501)), 7, &["mtu", "1501", "1500"]);
    }

    #[reference(fails: "another code")]
    fn an_mtu_that_is_no_size_is_refused(lab) {
        lab.macvlan().refuses(lab, &with(lab.conf(), "mtu", json!(-1)), 7, &["mtu", "-1"]);
        lab.macvlan().refuses(lab, &with(lab.conf(), "mtu", json!("1400")), 7, &["mtu", "1400"]);
    }

    #[reference(fails: "another code")]
    fn a_mac_that_no_interface_can_have_is_refused(lab) {
        for mac in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "no", "02:00:00:00:00:00:00:01"] {
            lab.macvlan().refuses(lab, &with(lab.conf(), "mac", json!(mac)), 7, &["mac", mac]);
        }
    }

    #[reference(fails: "another code")]
    fn a_bad_mac_of_the_runtime_is_refused(lab) {
        let conf = with(lab.conf(), "runtimeConfig", json!({"mac": "01:00:5e:00:00:01"}));
        lab.macvlan().refuses(lab, &conf, 7, &["runtimeConfig.mac", "01:00:5e:00:00:01"]);
    }

    /// The code is that of a malformed CNI_* variable.
    #[reference(fails: "another code")]
    fn a_bad_mac_in_cni_args_is_refused(lab) {
        let container = lab.container();
        let call = lab.macvlan().add(&container, "eth0", &lab.conf()).args("MAC=01:00:5e:00:00:01");
        lab.unchanged(&[&container], || call.run()).fails(4, &["CNI_ARGS", "MAC", "01:00:5e:00:00:01"]);
    }

    #[reference(fails: "another code")]
    fn an_unknown_mode_is_refused(lab) {
        lab.macvlan().refuses(lab, &with(lab.conf(), "mode", json!("bogus")), 2, &["mode", "bogus"]);
    }

    #[reference(fails: "another code")]
    fn keys_of_the_wrong_type_are_named(lab) {
        lab.macvlan().refuses(lab, &with(lab.conf(), "master", json!(5)), 7, &["master", "5"]);
        lab.macvlan().refuses(lab, &with(lab.conf(), "mode", json!(["bridge"])), 7, &["mode"]);
        lab.macvlan().refuses(lab, &with(lab.conf(), "ipam", json!([])), 7, &["ipam"]);
        lab.macvlan().refuses(lab, &with(lab.conf(), "linkInContainer", json!("yes")), 7, &["linkInContainer", "yes"]);
        lab.macvlan().refuses(lab, &with(lab.conf(), "bcqueuelen", json!(-1)), 7, &["bcqueuelen", "-1"]);
    }

    #[reference(fails: "something was changed")]
    fn an_ipam_type_with_a_path_in_it_is_refused(lab) {
        for name in ["../host-local", "/bin/sh", "a/b", ".."] {
            lab.macvlan().refuses(lab, &lab.conf_with(json!({"type": name})), 7, &["ipam.type", name]);
        }
    }

    #[reference(fails: "something was changed")]
    fn an_ipam_type_that_is_not_in_cni_path_is_refused_with_the_path(lab) {
        let bin = lab.bin().to_string_lossy().into_owned();
        let conf = lab.conf_with(json!({"type": "no-such-ipam"}));
        lab.macvlan().refuses(lab, &conf, 7, &["ipam.type", "no-such-ipam", &bin]);
    }

    /// The kernel only says EBUSY.
    #[reference(fails: "another code")]
    fn a_parent_that_is_a_bridge_port_is_explained(lab) {
        lab.plug(&lab.host, "ens4");
        lab.host.create_bridge("br7");
        lab.host.make_port("ens4", "br7");
        let error = lab.macvlan().refuses(lab, &with(lab.conf(), "master", json!("ens4")), 100, &["ens4", "br7"]);
        assert!(error.msg.contains("device or resource busy"), "{error:?}");
    }

    #[reference(fails: "another code")]
    fn a_parent_in_passthru_mode_takes_no_second_container(lab) {
        let (_first, _) = lab.macvlan().attach(lab, &with(lab.conf(), "mode", json!("passthru")));
        lab.macvlan().refuses(lab, &lab.conf(), 100, &["eth0", "ens3", "passthru"]);
    }

    #[reference(fails: "another code")]
    fn check_without_a_prev_result_is_refused(lab) {
        let (container, _) = lab.macvlan().attach(lab, &lab.conf());
        lab.macvlan().check(&container, "eth0", &lab.conf()).run().fails(7, &["prevResult"]);
    }

    #[reference(fails: "another code")]
    fn an_mtu_below_the_minimum_is_refused_with_its_key(lab) {
        lab.macvlan().refuses(lab, &with(lab.conf(), "mtu", json!(10)), 7, &["mtu", "10", "68"]);
    }

    #[reference(fails: "another code")]
    fn an_mtu_that_is_too_small_for_ipv6_is_refused_with_its_key(lab) {
        let container = lab.container();
        let conf = with(lab.conf_with(lab.ipam(Families::V6)), "mtu", json!(1000));
        lab.macvlan().add(&container, "eth0", &conf).run().fails(7, &["mtu", "1000", "1280"]);
        lab.assert_gone(&container);
    }

    /// The kernel only says "invalid argument".
    #[reference(fails: "something was changed")]
    fn an_ipv4_route_with_host_bits_is_refused_with_its_network(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["routes"] = json!([{"dst": "10.20.0.1/16"}]);
        lab.macvlan().refuses(lab, &conf, 7, &["routes", "10.20.0.1/16", "10.20.0.0/16"]);
    }

    #[reference(fails: "another code")]
    fn passthru_on_a_parent_with_other_containers_is_refused_with_the_reason(lab) {
        let (_first, _) = lab.macvlan().attach(lab, &lab.conf());
        let conf = with(lab.conf(), "mode", json!("passthru"));
        lab.macvlan().refuses(lab, &conf, 100, &["eth0", NIC, "passthru", "cannot share its parent"]);
        assert_reaches(&lab.neighbour, lan4(100));
    }
}
