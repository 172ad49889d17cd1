//! static under macvlan: the addresses of the configuration and of the runtime, and what is refused.

use e2e::lab::{NIC, lan4, lan6};
use e2e::traffic::{assert_reaches, echo};
use e2e::{Lab, cases, with};
use serde_json::{Value, json};

fn conf(lab: &Lab, addresses: Value) -> Value {
    lab.conf_with(json!({"type": "static", "addresses": addresses, "routes": [{"dst": "0.0.0.0/0"}]}))
}

cases! {
    #[reference(passes)]
    fn the_container_has_the_addresses_of_the_configuration(lab) {
        let addresses = json!([
            {"address": "192.168.50.77/24", "gateway": "192.168.50.20"},
            {"address": "fd50::77/64", "gateway": "fd50::20"},
        ]);
        let conf = conf(lab, addresses);
        let (container, checked) = lab.macvlan().attach(lab, &conf);
        assert_eq!(container.address_texts("eth0"), ["192.168.50.77/24", "fd50::77/64"]);
        assert_eq!(container.route_to("0.0.0.0/0").gateway, Some(lab.neighbour.v4));
        echo(&lab.neighbour, &container, lan4(77), 10_000);
        echo(&lab.neighbour, &container, lan6(77), 10_000);
        lab.macvlan().check(&container, "eth0", &checked).run().done();
        for conf in [&checked, &conf] {
            lab.macvlan().detach(lab, &container, conf);
        }
    }

    /// As Multus calls it, with the capability `ips` and an annotation of the pod.
    #[reference(passes)]
    fn the_runtime_names_the_address(lab) {
        let conf = with(conf(lab, json!([])), "runtimeConfig", json!({"ips": ["192.168.50.78/24"]}));
        let (container, checked) = lab.macvlan().attach(lab, &conf);
        assert_reaches(&lab.neighbour, lan4(78));
        lab.macvlan().check(&container, "eth0", &checked).run().done();
        lab.macvlan().detach(lab, &container, &conf);
    }

    /// The gateway of the configuration goes with its address. So the default route led to no router.
    #[reference(not_run: "it prints no remark")]
    fn a_default_route_without_a_router_is_a_remark(lab) {
        let said = |dst: &str| {
            format!("ADD: ipam.routes {dst}: no address has a gateway for it, so it leads to no router; write gw into the route")
        };
        let add = |addresses: Value, routes: Value| {
            let mut conf = with(conf(lab, addresses), "runtimeConfig", json!({"ips": ["192.168.50.78/24", "fd50::78/64"]}));
            conf["ipam"]["routes"] = routes;
            let container = lab.container();
            let outcome = lab.macvlan().add(&container, "eth0", &conf).run();
            outcome.result();
            let route = container.routes_of("eth0").into_iter().find(|route| route.dst.to_string() == "0.0.0.0/0");
            lab.macvlan().detach(lab, &container, &conf);
            (outcome.stderr, route.and_then(|route| route.gateway))
        };
        let configured = json!([{"address": "192.168.50.77/24", "gateway": "192.168.50.20"}]);
        let (stderr, gateway) = add(configured.clone(), json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd50::20"}]));
        assert!(stderr.contains(&said("0.0.0.0/0")) && !stderr.contains("::/0"), "{stderr}");
        assert_eq!(gateway, None);
        let router = json!([{"dst": "0.0.0.0/0", "gw": "192.168.50.20"}]);
        assert_eq!(add(configured.clone(), router), (String::new(), Some(lab.neighbour.v4)));
        assert_eq!(add(configured, json!([{"dst": "0.0.0.0/0", "scope": 253}])), (String::new(), None));
    }

    #[reference(not_run: "its messages name no key")]
    fn what_is_wrong_is_named_with_its_key(lab) {
        for (address, said) in [
            (json!({"address": "192.168.50.77"}), "ipam.addresses[0].address \"192.168.50.77\": has no prefix length; write it behind the address, as in 10.0.0.5/24"),
            (json!({"address": "192.168.50.77/33"}), "ipam.addresses[0].address \"192.168.50.77/33\": is not an address with a prefix length, such as 10.0.0.5/24"),
            (json!({"address": "192.168.50.77 /24"}), "ipam.addresses[0].address \"192.168.50.77 /24\": is not an address with a prefix length"),
            (json!({"gateway": "192.168.50.1"}), "ipam.addresses[0].address: is missing"),
            (json!({"address": "192.168.50.77/24", "gateway": "192.168.5.1"}), "ipam.addresses[0].gateway \"192.168.5.1\": is not in the network 192.168.50.0/24"),
            (json!({"address": "192.168.50.77/24", "gateway": "fd50::1"}), "ipam.addresses[0].gateway \"fd50::1\": is not in the network 192.168.50.0/24"),
            (json!({"address": "192.168.50.77/24", "gateway": "192.168.50.77"}), "ipam.addresses[0].gateway \"192.168.50.77\": is the address of the container itself"),
            (json!({"address": "192.168.50.77/24", "gateway": "router"}), "ipam.addresses[0].gateway \"router\": is not an IP address"),
            (json!({"address": "192.168.50.0/24"}), "is the network itself, and not an address in it"),
            (json!({"address": "192.168.50.255/24"}), "is the broadcast address of its network"),
            (json!({"address": "192.168.50.77/0"}), "\"192.168.50.77/0\": has the prefix length 0, which puts all addresses on the link"),
            (json!({"address": "fd50::77/0"}), "has the prefix length 0"),
            (json!({"address": "127.0.0.1/8"}), "is not the address of a container"),
            (json!({"address": "::ffff:10.0.0.5/120"}), "is an IPv4 address in the form of IPv6; write it in the form of IPv4"),
        ] {
            lab.macvlan().refuses(lab, &conf(lab, json!([address])), 7, &[said]);
        }
        let twice = json!([{"address": "192.168.50.77/24"}, {"address": "192.168.50.77/16"}]);
        let said = "ipam.addresses[1].address 192.168.50.77/16: ipam.addresses[0].address names this address too";
        lab.macvlan().refuses(lab, &conf(lab, twice), 7, &[said]);
        lab.macvlan().refuses(lab, &conf(lab, json!([])), 7, &["ipam.addresses: is not set, and the runtime names no address"]);
        let two = with(conf(lab, json!([{"address": "10.0.0.5/24"}, {"address": "10.0.1.5/24"}])), "cniVersion", json!("0.2.0"));
        lab.macvlan().refuses(lab, &two, 7, &["ipam.addresses[1].address 10.0.1.5/24: is the second address of this family"]);
        let runtime = with(conf(lab, json!([])), "runtimeConfig", json!({"ips": ["192.168.50.77"]}));
        lab.macvlan().refuses(lab, &runtime, 7, &["runtimeConfig.ips[0] \"192.168.50.77\": has no prefix length"]);
        let call = |args: &str| {
            let container = lab.container();
            lab.macvlan().add(&container, "eth0", &conf(lab, json!([]))).args(args).run()
        };
        call("IP=192.168.50.77").fails(4, &["CNI_ARGS IP \"192.168.50.77\": has no prefix length"]);
        call("IP=192.168.50.77/24;GATEWAY=10.0.0.1").fails(4, &["CNI_ARGS GATEWAY 10.0.0.1: is in the network of no address of IP"]);
        call("IP=192.168.50.77/24;GATEWAY=router").fails(4, &["CNI_ARGS GATEWAY router: is not an IP address"]);
    }

    /// A wrong edit of the configuration must not prevent a DEL.
    #[reference(passes)]
    fn del_reads_no_address(lab) {
        let (container, _) = lab.macvlan().attach(lab, &conf(lab, json!([{"address": "192.168.50.77/24"}])));
        lab.macvlan().detach(lab, &container, &conf(lab, json!([{"address": "nonsense"}])));
    }

    #[reference(not_run: "it answers neither")]
    fn status_reads_the_configuration_and_gc_has_nothing_to_do(lab) {
        let version = |conf| with(conf, "cniVersion", json!("1.1.0"));
        let good = version(conf(lab, json!([{"address": "192.168.50.77/24"}])));
        lab.macvlan().call("STATUS", &good).run().done();
        // The runtime may name an address later.
        lab.macvlan().call("STATUS", &version(conf(lab, json!([])))).run().done();
        let bad = version(conf(lab, json!([{"address": "192.168.50.77"}])));
        lab.macvlan().call("STATUS", &bad).run().fails(7, &["ipam.addresses[0].address"]);
        let (container, _) = lab.macvlan().attach(lab, &good);
        let gc = with(good, "cni.dev/valid-attachments", json!([]));
        lab.macvlan().call("GC", &gc).run().done();
        assert_reaches(&lab.neighbour, lan4(77));
        assert_eq!(container.link("eth0").parent, Some(lab.host.link(NIC).ifindex));
    }

    #[reference(not_run: "its CHECK succeeds")]
    fn check_names_an_address_that_is_not_in_the_result(lab) {
        let (container, mut checked) = lab.macvlan().attach(lab, &conf(lab, json!([{"address": "192.168.50.77/24"}])));
        checked["ipam"]["addresses"] = json!([{"address": "192.168.50.78/24"}]);
        let said = "ipam.addresses[0].address 192.168.50.78/24: is not in the result of ADD";
        lab.macvlan().differs(lab, &container, &checked, 102, &[said]);
        checked["ipam"]["addresses"] = json!([{"address": "192.168.50.77/24", "gateway": "192.168.50.1"}]);
        let said = "ipam.addresses[0].address 192.168.50.77/24: has another gateway in the result of ADD";
        lab.macvlan().differs(lab, &container, &checked, 102, &[said]);
    }

    #[reference(not_run: "it does not remark on keys")]
    fn a_misspelt_key_is_named(lab) {
        let mut conf = conf(lab, json!([{"address": "192.168.50.77/24"}]));
        conf["ipam"]["adresses"] = json!([]);
        let outcome = lab.macvlan().add(&lab.container(), "eth0", &conf).run();
        outcome.result();
        assert!(outcome.stderr.contains("ipam.adresses") && outcome.stderr.contains("addresses"), "{}", outcome.text());
    }
}
