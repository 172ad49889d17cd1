//! The loopback plugin.

use e2e::{Container, Lab, cases};
use serde_json::{Value, json};

/// A new container, in which `lo` is down.
fn fresh(lab: &Lab) -> Container {
    let container = lab.container();
    container.set_down("lo");
    container.ip("address delete 127.0.0.1/8 dev lo");
    assert!(!container.link("lo").up);
    container
}

/// The configuration of containerd 1.6 and 1.7.
fn conf(version: &str) -> Value {
    json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"})
}

fn add(lab: &Lab, container: &Container, conf: &Value) -> Value {
    lab.plugin("loopback").add(container, "lo", conf).run().result()
}

cases! {
    #[reference(passes)]
    fn add_sets_lo_up_and_returns_its_addresses(lab) {
        let container = fresh(lab);
        let result = add(lab, &container, &conf("1.0.0"));
        assert_eq!(result, json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": container.path()}],
            "ips": [{"interface": 0, "address": "127.0.0.1/8"}, {"interface": 0, "address": "::1/128"}],
        }));
        assert!(container.link("lo").up);
        assert_eq!(container.address_texts("lo"), ["127.0.0.1/8", "::1/128"]);
    }

    /// A runtime passes the same arguments to all plugins. `loopback` refused unknown arguments.
    #[reference(passes)]
    fn cni_args_are_ignored(lab) {
        for args in ["none", "K8S_POD_NAME=x", "IgnoreUnknown=yes"] {
            let container = fresh(lab);
            let mut conf = conf("1.0.0");
            let plugin = lab.plugin("loopback");
            conf["prevResult"] = plugin.add(&container, "lo", &conf).args(args).run().result();
            plugin.check(&container, "lo", &conf).args(args).run().done();
            plugin.del(&container, "lo", &conf).args(args).run().done();
        }
    }

    /// The runtime repeats the ADD, or has set `lo` up itself.
    #[reference(passes)]
    fn add_returns_the_same_if_lo_is_already_up(lab) {
        let container = fresh(lab);
        let first = add(lab, &container, &conf("1.0.0"));
        assert_eq!(lab.unchanged(&[&container], || add(lab, &container, &conf("1.0.0"))), first);
    }

    #[reference(passes)]
    fn results_from_0_3_0_to_1_0_0_have_the_version(lab) {
        for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
            let container = fresh(lab);
            let result = add(lab, &container, &conf(version));
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
            lab.plugin("loopback").del(&container, "lo", &conf(version)).run().done();
        }
    }

    /// The results of 0.1.0 and 0.2.0 have no interfaces. The reference prints a result of 0.3.0.
    #[reference(fails: "127.0.0.1/8")]
    fn results_of_the_oldest_versions_have_their_format(lab) {
        for version in ["0.1.0", "0.2.0"] {
            let result = add(lab, &fresh(lab), &conf(version));
            let addresses = (&result["ip4"]["ip"], &result["ip6"]["ip"]);
            assert_eq!(addresses, (&json!("127.0.0.1/8"), &json!("::1/128")), "{result}");
        }
    }

    #[reference(fails: "left == right")]
    fn version_1_1_works(lab) {
        let container = fresh(lab);
        let result = add(lab, &container, &conf("1.1.0"));
        assert_eq!(result["interfaces"][0]["mtu"], 65536);
        let call = |command: &str| lab.plugin("loopback").call(command, &conf("1.1.0")).run();
        lab.unchanged(&[&container], || call("STATUS").done().status);
        lab.unchanged(&[&container], || call("GC").done().status);
    }

    #[reference(passes)]
    fn with_any_cni_ifname_the_interface_is_lo(lab) {
        let container = fresh(lab);
        let result = lab.plugin("loopback").add(&container, "eth7", &conf("1.0.0")).run().result();
        assert_eq!(result["interfaces"][0]["name"], "lo");
        assert_eq!(container.link_names(), ["lo"]);
    }

    #[reference(passes)]
    fn in_a_chain_the_previous_result_is_the_result(lab) {
        let container = fresh(lab);
        let mut conf = conf("1.0.0");
        let previous = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/other"}],
            "ips": [{"interface": 0, "address": "192.0.2.1/24", "gateway": "192.0.2.254"}],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {"nameservers": ["192.0.2.53"]},
        });
        conf["prevResult"] = previous.clone();
        assert_eq!(add(lab, &container, &conf), previous);
        assert!(container.link("lo").up);
    }

    #[reference(passes)]
    fn a_container_without_ipv6_has_one_address(lab) {
        let container = fresh(lab);
        container.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        let result = add(lab, &container, &conf("1.0.0"));
        assert_eq!(result["ips"], json!([{"interface": 0, "address": "127.0.0.1/8"}]));
    }

    /// For example the address of a service. The reference refuses the ADD.
    #[reference(fails: "did not succeed")]
    fn an_address_on_lo_that_is_not_a_loopback_address_is_not_in_the_result(lab) {
        let container = fresh(lab);
        container.add_address("lo", "203.0.113.1/32".parse().expect("a prefix"));
        let result = add(lab, &container, &conf("1.0.0"));
        assert!(!result.to_string().contains("203.0.113.1"), "203.0.113.1/32 is in {result}");
        assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
    }

    #[reference(passes)]
    fn del_sets_lo_down_and_can_be_repeated(lab) {
        let container = fresh(lab);
        add(lab, &container, &conf("1.0.0"));
        for _ in 0..2 {
            lab.plugin("loopback").del(&container, "lo", &conf("1.0.0")).run().done();
            assert!(!container.link("lo").up);
        }
    }

    #[reference(passes)]
    fn del_without_a_netns_is_a_success(lab) {
        let container = fresh(lab);
        let call = lab.plugin("loopback").del(&container, "lo", &conf("1.0.0"));
        lab.unchanged(&[&container], || {
            call.clone().without("CNI_NETNS").run().done();
            call.clone().env("CNI_NETNS", "").run().done();
            call.clone().env("CNI_NETNS", lab.path("no-such-netns")).run().done();
        });
    }

    /// The reference sets the lo of the host down.
    #[reference(fails: "something was changed")]
    fn del_does_not_touch_the_lo_of_the_host(lab) {
        let call = lab.plugin("loopback").del(&lab.container(), "lo", &conf("1.0.0"));
        let call = call.env("CNI_NETNS", lab.host.path());
        let outcome = lab.unchanged(&[], || call.run());
        assert!(outcome.done().stderr.contains("the host's own network namespace"), "{}", outcome.text());
        // Also with CNI_NETNS_OVERRIDE.
        lab.unchanged(&[], || call.clone().env("CNI_NETNS_OVERRIDE", "1").run().done().status);
    }

    #[reference(fails: "stdout is not JSON")]
    fn add_and_check_in_the_netns_of_the_host_are_refused(lab) {
        for command in ["ADD", "CHECK"] {
            let call = lab.plugin("loopback").attachment(command, &lab.container(), "lo", &conf("1.0.0"));
            lab.unchanged(&[], || call.env("CNI_NETNS", lab.host.path()).run()).fails(8, &["the host's own"]);
        }
    }

    #[reference(fails: "another code")]
    fn add_without_a_netns_names_it(lab) {
        let missing = lab.path("no-such-netns");
        let call = lab.plugin("loopback").add(&lab.container(), "lo", &conf("1.0.0"));
        call.clone().env("CNI_NETNS", &missing).run().fails(8, &[&missing.to_string_lossy()]);
        call.without("CNI_NETNS").run().fails(4, &["CNI_NETNS"]);
    }

    #[reference(passes)]
    fn check_succeeds_after_add(lab) {
        let container = fresh(lab);
        let mut conf = conf("1.0.0");
        conf["prevResult"] = add(lab, &container, &conf);
        lab.unchanged(&[&container], || lab.plugin("loopback").check(&container, "lo", &conf).run()).done();
    }

    #[reference(passes)]
    fn check_ignores_addresses_of_other_links(lab) {
        let container = fresh(lab);
        let mut conf = conf("1.0.0");
        add(lab, &container, &conf);
        conf["prevResult"] = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "sandbox": container.path()}],
            "ips": [{"interface": 0, "address": "192.0.2.1/24"}],
        });
        lab.plugin("loopback").check(&container, "lo", &conf).run().done();
    }

    #[reference(fails: "another code")]
    fn check_says_that_lo_is_down(lab) {
        lab.plugin("loopback").check(&fresh(lab), "lo", &conf("1.0.0")).run().fails(102, &["lo", "down"]);
    }

    #[reference(fails: "did not fail")]
    fn check_names_an_address_that_is_gone(lab) {
        let container = fresh(lab);
        let mut conf = conf("1.0.0");
        conf["prevResult"] = add(lab, &container, &conf);
        container.ip("address delete 127.0.0.1/8 dev lo");
        lab.plugin("loopback").check(&container, "lo", &conf).run().fails(102, &["lo", "127.0.0.1/8"]);
    }
}
