//! CHECK compares the kernel with the result of ADD and names the first difference.

use e2e::binaries::peers;
use e2e::lab::{Families, NIC};
use e2e::{Container, Lab, Plugin, cases, with};
use serde_json::{Value, json};

/// The code for a difference. The specification has no code for it.
const DIFFERS: u64 = 102;

/// A container with a route. The configuration has the result.
fn attached(lab: &Lab) -> (Container, Value) {
    let mut ipam = lab.ipam(Families::V4);
    ipam["routes"] = json!([{"dst": "10.20.0.0/16", "gw": "192.168.50.254"}]);
    let conf = lab.conf_with(ipam);
    lab.macvlan().attach(lab, &conf)
}

/// A container with a route that has `mtu` and `advmss`. The configuration has the result.
fn with_route_metrics(lab: &Lab, version: &str) -> (Container, Value) {
    let mut ipam = lab.ipam(Families::V4);
    ipam["routes"] = json!([{"dst": "10.20.0.0/16", "gw": "192.168.50.254", "mtu": 1400, "advmss": 1340}]);
    let conf = with(lab.conf_with(ipam), "cniVersion", json!(version));
    lab.macvlan().attach(lab, &conf)
}

cases! {
    #[reference(passes)]
    fn check_succeeds_after_add(lab) {
        let (container, conf) = attached(lab);
        lab.unchanged(&[&container], || lab.macvlan().check(&container, "eth0", &conf).run()).done();
    }

    /// The kernel changes some numbers: table 0 becomes table main, and a large MTU or MSS becomes its maximum. CHECK
    /// looked for the numbers of the result.
    #[reference(passes)]
    fn check_accepts_routes_whose_numbers_the_kernel_changes(lab) {
        let mut ipam = lab.ipam(Families::Dual);
        ipam["routes"] = json!([
            {"dst": "10.20.0.0/16", "gw": "192.168.50.254", "table": 0, "mtu": 70_000, "advmss": 70_000, "priority": 0},
            {"dst": "fd99::/48", "gw": "fd50::fe", "table": 0, "mtu": 70_000, "advmss": 70_000, "priority": 0},
        ]);
        let (container, conf) = lab.macvlan().attach(lab, &lab.conf_with(ipam));
        lab.macvlan().check(&container, "eth0", &conf).run().done();
        for dst in ["10.20.0.0/16", "fd99::/48"] {
            assert_eq!(container.route_to(dst).table, 254, "{dst}");
        }
    }

    /// The reference writes `mtu` and `advmss` of a route into its result, but not into the kernel. After a change to
    /// Underlay, CHECK failed on healthy containers.
    #[reference(passes)]
    fn check_accepts_a_route_that_the_reference_made_without_its_mtu(lab) {
        for version in ["1.0.0", "1.1.0"] {
            let (container, mut conf) = with_route_metrics(lab, version);
            conf["prevResult"]["interfaces"][0].as_object_mut().expect("an interface").remove("mtu");
            container.ip("route replace 10.20.0.0/16 via 192.168.50.254 dev eth0");
            lab.macvlan().check(&container, "eth0", &conf).run().done();
        }
    }

    /// The reference's tuning sets the MTU and does not change the result. From 1.1.0 on, our result has the MTU of the
    /// interface, so CHECK failed on healthy containers of such a chain.
    #[reference(passes)]
    fn check_accepts_an_mtu_that_tuning_has_set(lab) {
        let mut conf = with(lab.conf(), "cniVersion", json!("1.1.0"));
        let (container, result) = lab.macvlan().attached(lab, &conf);
        let directory = peers("reference");
        let tuning = Plugin::new(&lab.host, directory.join("tuning")).search(directory);
        let next = json!({
            "cniVersion": "1.1.0", "name": "lan", "type": "tuning", "mtu": 1400, "dataDir": lab.path("tuning"),
            "prevResult": result,
        });
        conf["prevResult"] = tuning.add(&container, "eth0", &next).run().result();
        assert_eq!(container.link("eth0").mtu, 1400);
        lab.macvlan().check(&container, "eth0", &conf).run().done();
    }

    #[reference(fails: "did not fail")]
    fn a_route_that_has_lost_its_mtu_is_named(lab) {
        let (container, conf) = with_route_metrics(lab, "1.1.0");
        container.ip("route replace 10.20.0.0/16 via 192.168.50.254 dev eth0");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "10.20.0.0/16"]);
    }

    #[reference(fails: "did not fail")]
    fn a_route_with_another_mtu_is_named(lab) {
        let (container, mut conf) = with_route_metrics(lab, "1.0.0");
        container.ip("route replace 10.20.0.0/16 via 192.168.50.254 dev eth0 mtu 1300 advmss 1340");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "10.20.0.0/16"]);
        conf["prevResult"]["interfaces"][0].as_object_mut().expect("an interface").remove("mtu");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "10.20.0.0/16"]);
    }

    #[reference(fails: "another code")]
    fn an_address_that_is_gone_is_named(lab) {
        let (container, conf) = attached(lab);
        container.ip("address delete 192.168.50.100/24 dev eth0");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "192.168.50.100/24"]);
    }

    #[reference(fails: "another code")]
    fn a_route_that_is_gone_is_named(lab) {
        let (container, conf) = attached(lab);
        container.ip("route del 10.20.0.0/16");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["10.20.0.0/16", "192.168.50.254"]);
    }

    #[reference(fails: "another code")]
    fn a_route_with_another_gateway_is_named(lab) {
        let (container, conf) = attached(lab);
        container.ip("route replace 10.20.0.0/16 via 192.168.50.253");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["10.20.0.0/16", "192.168.50.254"]);
    }

    #[reference(not_run: "it looks for a gateway that is not in the result")]
    fn a_link_that_is_down_is_named(lab) {
        let (container, conf) = attached(lab);
        container.set_down("eth0");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "down"]);
    }

    #[reference(fails: "another code")]
    fn a_link_with_another_mac_is_named_with_both(lab) {
        let (container, mut conf) = attached(lab);
        conf["prevResult"]["interfaces"][0]["mac"] = json!("02:00:00:00:00:99");
        let mac = container.link("eth0").mac;
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "02:00:00:00:00:99", &mac]);
    }

    #[reference(fails: "another code")]
    fn a_link_of_another_kind_is_named(lab) {
        let (container, conf) = attached(lab);
        container.delete_link("eth0");
        container.create_stray("eth0");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "veth", "macvlan"]);
    }

    #[reference(fails: "another code")]
    fn a_link_in_another_mode_is_named_with_both(lab) {
        let (container, mut conf) = attached(lab);
        conf["mode"] = json!("private");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "bridge", "private"]);
    }

    #[reference(fails: "another code")]
    fn a_lease_that_is_gone_is_an_unknown_attachment(lab) {
        let (container, conf) = attached(lab);
        std::fs::remove_file(lab.lease_file("192.168.50.100")).expect("remove the lease");
        lab.macvlan().differs(lab, &container, &conf, 3, &[&container.id]);
    }

    #[reference(fails: "another code")]
    fn a_netns_that_is_missing_is_named(lab) {
        let (container, conf) = attached(lab);
        let missing = lab.path("no-such-netns");
        let call = lab.macvlan().check(&container, "eth0", &conf).env("CNI_NETNS", &missing);
        call.run().fails(8, &[&missing.to_string_lossy()]);
    }

    /// A meta plugin such as Multus edits the result. CHECK must compare with the result, not with the configuration.
    #[reference(not_run: "it also compares with the configuration")]
    fn a_route_that_is_not_in_the_result_is_not_looked_for(lab) {
        let (container, mut conf) = attached(lab);
        conf["prevResult"]["routes"] = json!([]);
        container.ip("route del 10.20.0.0/16");
        lab.macvlan().check(&container, "eth0", &conf).run().done();
    }

    #[reference(fails: "did not succeed")]
    fn check_accepts_a_parent_with_a_new_name(lab) {
        let (container, conf) = attached(lab);
        lab.host.rename(NIC, "ens9");
        lab.host.set_up("ens9");
        lab.macvlan().check(&container, "eth0", &conf).run().done();
    }

    #[reference(fails: "did not succeed")]
    fn check_accepts_a_passthru_link_whose_parent_has_another_mac(lab) {
        let (container, conf) = lab.macvlan().attach(lab, &with(lab.conf(), "mode", json!("passthru")));
        lab.host.ip(&format!("link set {NIC} address 02:00:00:00:00:77"));
        lab.unchanged(&[&container], || lab.macvlan().check(&container, "eth0", &conf).run()).done();
    }

    #[reference(fails: "did not fail")]
    fn check_names_a_default_route_that_was_replaced_by_a_blackhole(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        let (container, conf) = lab.macvlan().attach(lab, &conf);
        lab.macvlan().check(&container, "eth0", &conf).run().done();
        container.ip("route del default");
        container.ip("route add blackhole default");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "0.0.0.0/0", "192.168.50.1"]);
    }

    #[reference(fails: "did not fail")]
    fn check_names_a_default_route_with_another_gateway(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        let (container, conf) = lab.macvlan().attach(lab, &conf);
        container.ip("route replace default via 192.168.50.99");
        lab.macvlan().differs(lab, &container, &conf, DIFFERS, &["eth0", "0.0.0.0/0", "192.168.50.1"]);
    }
}
