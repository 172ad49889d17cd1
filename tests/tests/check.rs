//! CHECK compares the kernel with the result of ADD and names the difference.

use e2e::binaries::peers;
use e2e::kernel::NewRoute;
use e2e::lab::{Families, NIC};
use e2e::{Container, Lab, Plugin, cases, with};
use serde_json::{Value, json};

/// CHECK found a difference. The code is ours: the specification has none for it.
const DIFFERS: u64 = 102;

/// A container, and a configuration with the result in it.
fn attached(lab: &Lab) -> (Container, Value) {
    let mut ipam = lab.ipam(Families::V4);
    ipam["routes"] = json!([{"dst": "10.20.0.0/16", "gw": "192.168.50.254"}]);
    let conf = lab.conf_with(ipam);
    lab.macvlan().attach(lab, &conf)
}

/// A container with a route that has `mtu` and `advmss`, and a configuration with the result in it.
fn with_route_metrics(lab: &Lab, version: &str) -> (Container, Value) {
    let mut ipam = lab.ipam(Families::V4);
    ipam["routes"] = json!([{"dst": "10.20.0.0/16", "gw": "192.168.50.254", "mtu": 1400, "advmss": 1340}]);
    let conf = with(lab.conf_with(ipam), "cniVersion", json!(version));
    lab.macvlan().attach(lab, &conf)
}

fn replace_route(container: &Container, route: &str) {
    container.ip(&format!("route replace {route}"));
}

#[track_caller]
fn amiss(lab: &Lab, container: &Container, conf: &Value, code: u64, names: &[&str]) {
    lab.unchanged(&[container], || lab.macvlan().check(container, "eth0", conf).run()).fails(code, names);
}

cases! {
    #[reference(passes)]
    fn all_is_well_after_add(lab) {
        let (container, conf) = attached(lab);
        lab.unchanged(&[&container], || lab.macvlan().check(&container, "eth0", &conf).run()).done();
    }

    /// Table 0 is table main, and from some number on MTU and MSS are the kernel's own largest: CHECK looked for what
    /// the result had named.
    #[reference(passes)]
    fn routes_with_numbers_that_the_kernel_makes_others_of_are_well(lab) {
        let mut ipam = lab.ipam(Families::Dual);
        ipam["routes"] = json!([
            {"dst": "10.20.0.0/16", "gw": "192.168.50.254", "table": 0, "mtu": 70_000, "advmss": 70_000, "priority": 0},
            {"dst": "fd99::/48", "gw": "fd50::fe", "table": 0, "mtu": 70_000, "advmss": 70_000, "priority": 0},
        ]);
        let mut conf = lab.conf_with(ipam);
        let container = lab.container();
        conf["prevResult"] = lab.macvlan().add(&container, "eth0", &conf).run().result();
        lab.macvlan().check(&container, "eth0", &conf).run().done();
        for dst in ["10.20.0.0/16", "fd99::/48"] {
            assert_eq!(container.route_to(dst).table, 254, "{dst}");
        }
    }

    /// The reference writes `mtu` and `advmss` of a route into its result and does not set them: after a swap, CHECK failed
    /// on every healthy container of such a network.
    #[reference(passes)]
    fn a_route_that_the_reference_made_without_its_mtu_is_well(lab) {
        for version in ["1.0.0", "1.1.0"] {
            let (container, mut conf) = with_route_metrics(lab, version);
            conf["prevResult"]["interfaces"][0].as_object_mut().expect("an interface").remove("mtu");
            replace_route(&container, "10.20.0.0/16 via 192.168.50.254 dev eth0");
            lab.macvlan().check(&container, "eth0", &conf).run().done();
        }
    }

    /// The reference's tuning sets the MTU and leaves the result as it was. From 1.1.0 on, our result has the MTU of the
    /// interface, and CHECK failed on every healthy container of such a chain.
    #[reference(passes)]
    fn an_mtu_that_tuning_has_set_is_well(lab) {
        let mut conf = lab.conf();
        conf["cniVersion"] = json!("1.1.0");
        let container = lab.container();
        let result = lab.macvlan().add(&container, "eth0", &conf).run().result();
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
    fn a_route_of_ours_that_has_lost_its_mtu_is_named(lab) {
        let (container, conf) = with_route_metrics(lab, "1.1.0");
        replace_route(&container, "10.20.0.0/16 via 192.168.50.254 dev eth0");
        amiss(lab, &container, &conf, DIFFERS, &["eth0", "10.20.0.0/16"]);
    }

    #[reference(fails: "did not fail")]
    fn a_route_with_another_mtu_is_named(lab) {
        let (container, mut conf) = with_route_metrics(lab, "1.0.0");
        replace_route(&container, "10.20.0.0/16 via 192.168.50.254 dev eth0 mtu 1300 advmss 1340");
        amiss(lab, &container, &conf, DIFFERS, &["eth0", "10.20.0.0/16"]);
        conf["prevResult"]["interfaces"][0].as_object_mut().expect("an interface").remove("mtu");
        amiss(lab, &container, &conf, DIFFERS, &["eth0", "10.20.0.0/16"]);
    }

    #[reference(fails: "another code")]
    fn an_address_that_is_gone_is_named(lab) {
        let (container, conf) = attached(lab);
        container.delete_address("eth0", "192.168.50.100/24".parse().expect("a prefix"));
        amiss(lab, &container, &conf, DIFFERS, &["eth0", "192.168.50.100/24"]);
    }

    #[reference(fails: "another code")]
    fn a_route_that_is_gone_is_named(lab) {
        let (container, conf) = attached(lab);
        container.delete_routes_to("10.20.0.0/16");
        amiss(lab, &container, &conf, DIFFERS, &["10.20.0.0/16", "192.168.50.254"]);
    }

    #[reference(fails: "another code")]
    fn a_route_that_goes_elsewhere_is_named(lab) {
        let (container, conf) = attached(lab);
        container.delete_routes_to("10.20.0.0/16");
        container.add_route(&NewRoute {
            dst: "10.20.0.0/16".parse().expect("a prefix"),
            gateway: Some("192.168.50.253".parse().expect("an address")),
            link: "eth0",
            priority: None,
        });
        amiss(lab, &container, &conf, DIFFERS, &["10.20.0.0/16", "192.168.50.254"]);
    }

    #[reference(not_run: "it looks for a gateway that nobody asked for")]
    fn a_link_that_is_down_is_named(lab) {
        let (container, conf) = attached(lab);
        container.set_down("eth0");
        amiss(lab, &container, &conf, DIFFERS, &["eth0", "down"]);
    }

    #[reference(fails: "another code")]
    fn a_link_with_another_mac_is_named_with_both(lab) {
        let (container, mut conf) = attached(lab);
        conf["prevResult"]["interfaces"][0]["mac"] = json!("02:00:00:00:00:99");
        let mac = container.link("eth0").mac;
        amiss(lab, &container, &conf, DIFFERS, &["eth0", "02:00:00:00:00:99", &mac]);
    }

    #[reference(fails: "another code")]
    fn a_link_of_another_kind_is_named(lab) {
        let (container, conf) = attached(lab);
        container.delete_link("eth0");
        container.create_stray("eth0");
        amiss(lab, &container, &conf, DIFFERS, &["eth0", "veth", "macvlan"]);
    }

    #[reference(fails: "another code")]
    fn a_link_in_another_mode_is_named_with_both(lab) {
        let (container, mut conf) = attached(lab);
        conf["mode"] = json!("private");
        amiss(lab, &container, &conf, DIFFERS, &["eth0", "bridge", "private"]);
    }

    #[reference(fails: "another code")]
    fn a_lease_that_is_gone_is_an_unknown_attachment(lab) {
        let (container, conf) = attached(lab);
        std::fs::remove_file(lab.data_dir().join("lan/192.168.50.100")).expect("remove the lease");
        amiss(lab, &container, &conf, 3, &[&container.id]);
    }

    #[reference(fails: "another code")]
    fn a_netns_that_is_missing_is_named(lab) {
        let (container, conf) = attached(lab);
        let missing = lab.path("no-such-netns");
        let call = lab.macvlan().check(&container, "eth0", &conf).env("CNI_NETNS", &missing);
        call.run().fails(8, &[&missing.to_string_lossy()]);
    }

    /// A meta plugin such as Multus edits the result: CHECK is against that, not the configuration.
    #[reference(not_run: "it looks at the configuration as well")]
    fn what_the_result_no_longer_says_is_not_looked_for(lab) {
        let (container, mut conf) = attached(lab);
        conf["prevResult"]["routes"] = json!([]);
        container.delete_routes_to("10.20.0.0/16");
        lab.macvlan().check(&container, "eth0", &conf).run().done();
    }

    /// The parent is the host's affair; the attachment is whole as long as the link is.
    #[reference(fails: "did not succeed")]
    fn a_parent_with_a_new_name_is_no_matter(lab) {
        let (container, conf) = attached(lab);
        lab.host.set_down(NIC);
        lab.host.rename(NIC, "ens9");
        lab.host.set_up("ens9");
        lab.macvlan().check(&container, "eth0", &conf).run().done();
    }

    #[reference(fails: "did not succeed")]
    fn check_of_a_passthru_link_whose_parent_has_changed_its_mac_is_content(lab) {
        let (container, conf) = lab.macvlan().attach(lab, &with(lab.conf(), "mode", json!("passthru")));
        lab.host.ip(&format!("link set {NIC} address 02:00:00:00:00:77"));
        lab.unchanged(&[&container], || lab.macvlan().check(&container, "eth0", &conf).run()).done();
    }

    #[reference(fails: "did not fail")]
    fn check_names_a_default_route_that_leads_nowhere(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        let (container, conf) = lab.macvlan().attach(lab, &conf);
        lab.macvlan().check(&container, "eth0", &conf).run().done();
        container.ip("route del default");
        container.ip("route add blackhole default");
        let check = || lab.macvlan().check(&container, "eth0", &conf).run();
        lab.unchanged(&[&container], check).fails(DIFFERS, &["eth0", "0.0.0.0/0", "192.168.50.1"]);
    }

    #[reference(fails: "did not fail")]
    fn check_names_a_default_route_by_another_gateway(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        let (container, conf) = lab.macvlan().attach(lab, &conf);
        container.ip("route replace default via 192.168.50.99");
        let check = || lab.macvlan().check(&container, "eth0", &conf).run();
        lab.unchanged(&[&container], check).fails(DIFFERS, &["eth0", "0.0.0.0/0", "192.168.50.1"]);
    }
}
