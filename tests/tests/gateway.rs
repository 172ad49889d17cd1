//! detectGateway: ADD notices a gateway that does not answer, before the container misses it.

use std::time::Duration;

use e2e::lab::{Families, MACHINE_NIC, NIC, lan4, lan6};
use e2e::plugin::slowness;
use e2e::traffic::{Manner, Seen, Wire, assert_reaches};
use e2e::{Container, Outcome, with};
use serde_json::{Value, json};

use site::Site;

/// The time in which a gateway must answer.
const LIMIT: Duration = Duration::from_secs(1);

mod site {
    use std::ops::Deref;

    use e2e::host_site::HostSite;
    use e2e::needs::Feature;

    /// All tests of macvlan run on every kernel, except those that need more.
    pub(crate) const NEEDS: &[Feature] = &[];

    pub(crate) struct Site(HostSite);

    impl Site {
        pub(crate) fn new(kind: &'static str) -> Self {
            Self(HostSite::new(kind))
        }
    }

    impl Deref for Site {
        type Target = HostSite;

        fn deref(&self) -> &HostSite {
            &self.0
        }
    }
}

impl Site {
    /// The gateways of the ranges are .1, which no machine has at first.
    fn conf(&self, families: Families, key: Value) -> Value {
        with(self.conf_with(self.ipam(families)), "detectGateway", key)
    }

    fn add(&self, conf: &Value) -> (Container, Outcome) {
        let container = self.container();
        let outcome = self.plugin().add(&container, "eth0", conf).run();
        (container, outcome)
    }

    /// Asserts that ADD succeeds without a remark.
    #[track_caller]
    fn is_content(&self, conf: &Value) -> (Container, Outcome) {
        let (container, outcome) = self.add(conf);
        outcome.result();
        assert_eq!(outcome.stderr, "", "{}", outcome.text());
        (container, outcome)
    }

    /// Asserts that "warn" gives a remark with these names, and that `true` refuses with them and leaves nothing.
    #[track_caller]
    fn misses(&self, families: Families, change: impl Fn(Value) -> Value, names: &[&str]) {
        let (container, outcome) = self.add(&change(self.conf(families, json!("warn"))));
        outcome.result();
        assert!(names.iter().all(|name| outcome.stderr.contains(name)), "{names:?}: {}", outcome.text());
        let conf = change(self.conf(families, json!("warn")));
        self.detach(&container, &conf);
        let (container, outcome) = self.add(&change(self.conf(families, json!(true))));
        outcome.fails(104, names);
        self.assert_undone(&container);
        let most = LIMIT + Duration::from_secs(1) * slowness();
        assert!(outcome.wall >= LIMIT && outcome.wall < most, "{}", outcome.text());
    }
}

fn unchanged(conf: Value) -> Value {
    conf
}

/// The requests for the MAC of an address.
fn requests(seen: &[Seen], ip: std::net::IpAddr) -> Vec<Seen> {
    seen.iter().filter(|seen| seen.frame.asks_for(ip)).cloned().collect()
}

e2e::on_both_kinds! {
    fn a_gateway_that_answers_is_no_news(site) {
        let _gateway = site.machine(1);
        for key in [json!("warn"), json!(true), json!(false)] {
            let (_, outcome) = site.is_content(&site.conf(Families::Dual, key));
            assert!(outcome.wall < LIMIT * slowness(), "{}", outcome.text());
        }
    }

    fn a_gateway_that_does_not_answer_is_a_remark_or_a_refusal(site) {
        site.misses(Families::V4, unchanged, &["192.168.50.1", "eth0", NIC]);
    }

    fn an_ipv6_gateway_that_does_not_answer_is_a_remark_or_a_refusal(site) {
        site.misses(Families::V6, with_gateway6, &["fd50::1", "eth0", NIC]);
    }

    fn each_family_has_its_gateway(site) {
        let _only_v4 = site.holder(Manner::of(&[lan4(1)]));
        site.misses(Families::Dual, with_gateway6, &["fd50::1"]);
        let _both = site.machine(1);
        site.is_content(&with_gateway6(site.conf(Families::Dual, json!(true))));
    }

    fn an_ipv6_gateway_that_answers_is_no_news(site) {
        let _gateway = site.machine(1);
        site.is_content(&with_gateway6(site.conf(Families::V6, json!(true))));
    }

    /// Some gateways must first wake up. The tries are at 0, 100, 300 and 700 ms.
    fn a_gateway_that_answers_the_third_try_is_no_news(site) {
        let gateway = site.holder(Manner::of(&[lan4(1)]).ignore(2));
        let (_, outcome) = site.is_content(&site.conf(Families::V4, json!(true)));
        assert_eq!(gateway.asked(), 3);
        assert!(outcome.wall > Duration::from_millis(300), "{}", outcome.text());
    }

    fn a_gateway_that_answers_late_is_no_news(site) {
        let _gateway = site.holder(Manner::of(&[lan4(1), lan6(1)]).after(Duration::from_millis(350)));
        site.is_content(&with_gateway6(site.conf(Families::Dual, json!(true))));
    }

    /// The request has our address as sender, so that the gateway learns where we are.
    fn the_gateway_is_asked_from_our_address_and_after_it_was_announced(site) {
        let _gateway = site.holder(Manner::of(&[lan4(1)]).ignore(3));
        let wire = Wire::open(&site.neighbour, site.neighbour.nic);
        let (container, _) = site.is_content(&site.conf(Families::V4, json!(true)));
        let seen = wire.seen_before_answer(site.neighbour.v4, lan4(100));
        let asked = requests(&seen, lan4(1));
        assert_eq!(asked.len(), 4, "{seen:#?}");
        assert!(asked.iter().all(|seen| seen.frame.comes_from(lan4(100))), "{asked:#?}");
        assert!(asked.iter().all(|seen| seen.source == container.link("eth0").mac), "{asked:#?}");
        let times: Vec<_> = asked.iter().map(|seen| seen.at.duration_since(asked[0].at).unwrap_or_default()).collect();
        for (time, expected) in times.iter().zip([0, 100, 300, 700].map(Duration::from_millis)) {
            let late = Duration::from_millis(60) * slowness();
            assert!(*time + Duration::from_millis(10) >= expected && *time < expected + late, "{times:?}");
        }
    }

    /// The kernel passes no frames between the container and its host, so it could not answer.
    fn a_gateway_that_is_the_host_itself_is_not_asked(site) {
        let mut conf = site.conf(Families::Dual, json!(true));
        conf["ipam"]["ranges"][0][0]["gateway"] = json!(site.host.v4);
        conf["ipam"]["ranges"][1][0]["gateway"] = json!(site.host.v6);
        let wire = Wire::open(&site.neighbour, site.neighbour.nic);
        let (_, outcome) = site.add(&conf);
        outcome.result();
        let seen = wire.seen_before_answer(site.neighbour.v4, lan4(100));
        for host in [site.host.v4, site.host.v6] {
            let asked = requests(&seen, host);
            assert!(asked.is_empty(), "{asked:#?}");
        }
    }

    /// If another machine has the address, the ADD must not change the gateway's neighbour table.
    fn an_address_in_use_never_asks_the_gateway(site) {
        let gateway = site.machine(1);
        let holder = site.machine(100);
        assert_reaches(&gateway, lan4(100));
        let wire = Wire::open(&gateway, MACHINE_NIC);
        let conf = with(site.conf(Families::V4, json!(true)), "detectIPConflict", json!(true));
        let (container, outcome) = site.add(&conf);
        outcome.result();
        let mac = holder.link(MACHINE_NIC).mac;
        let remark = format!("macvlan: ADD: {mac} has 192.168.50.100; another address is tried\n");
        assert_eq!(outcome.stderr.replace("ipvlan", "macvlan"), remark, "{}", outcome.text());
        assert_eq!(container.address_texts("eth0"), ["192.168.50.101/24"]);
        let seen = wire.seen();
        assert!(seen.iter().filter(|seen| seen.frame.comes_from(lan4(100))).all(|seen| seen.source == mac), "{seen:#?}");
        assert!(!requests(&seen, lan4(1)).is_empty(), "{seen:#?}");
    }

    /// Bridges of virtual machines often have fe80::1. It is another address than the gateway of that name on the LAN.
    fn a_link_local_gateway_is_not_an_address_of_another_link(site) {
        site.host.create_bridge("virbr0");
        site.host.ip("address add fe80::1/64 dev virbr0 nodad");
        let addresses = json!([{"address": "fd50::77/64", "gateway": "fe80::1"}]);
        let conf = with(site.conf_with(json!({"type": "static", "addresses": addresses})), "detectGateway", json!(true));
        let (_, outcome) = site.add(&conf);
        outcome.fails(104, &["fe80::1"]);
    }

    fn without_a_carrier_a_remark_says_that_no_gateway_was_asked(site) {
        site.unplug();
        for key in [json!("warn"), json!(true)] {
            let (_, outcome) = site.add(&site.conf(Families::V4, key));
            outcome.result();
            assert!(outcome.stderr.contains("carrier"), "{}", outcome.text());
        }
    }

    fn without_a_gateway_nothing_is_asked(site) {
        let conf = with(site.static_conf(&[lan4(100)]), "detectGateway", json!(true));
        let (_, outcome) = site.is_content(&conf);
        assert!(outcome.wall < LIMIT * slowness(), "{}", outcome.text());
    }

    fn routes_are_those_of_an_add_without_the_key(site) {
        let _gateway = site.machine(1);
        let routes = |key: Value| {
            let mut conf = with(with_gateway6(site.conf(Families::Dual, key)), "defaultRoute", json!("take"));
            conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.20.0.0/16"}]);
            let (container, outcome) = site.add(&conf);
            outcome.result();
            let all = container.routes_of("eth0").into_iter().filter(|route| route.gateway.is_some());
            let mut texts: Vec<_> = all.map(|route| format!("{:?} {:?} {:?}", route.dst, route.gateway, route.priority)).collect();
            texts.sort();
            site.detach(&container, &conf);
            texts
        };
        let expected = routes(json!(false));
        assert_eq!(expected.len(), 3, "{expected:?}");
        for key in [json!(true), json!("warn")] {
            assert_eq!(routes(key), expected);
        }
    }

    #[needs(Vlan)]
    fn the_message_names_the_vlan(site) {
        let names = ["192.168.50.1", "eth0", NIC, "VLAN 100"];
        site.misses(Families::V4, |conf| with(conf, "vlan", json!(100)), &names);
        assert_eq!(site.host.link_names(), ["lo", NIC]);
    }

    fn what_was_heard_is_in_the_message(site) {
        let outcome = site.add(&site.conf(Families::V4, json!(true))).1;
        let text = outcome.fails(104, &["192.168.50.1"]);
        assert!(!text.details.is_empty() || text.msg.len() > 60, "no causes are named: {}", outcome.text());
    }
}

/// host-local knows no gateway of an IPv6 range unless it is named.
fn with_gateway6(mut conf: Value) -> Value {
    if let Some(sets) = conf["ipam"]["ranges"].as_array_mut() {
        for range in sets.iter_mut().filter(|set| set[0]["subnet"].as_str().is_some_and(|subnet| subnet.contains(':')))
        {
            range[0]["gateway"] = json!("fd50::1");
        }
    }
    conf
}

impl Site {
    fn holder(&self, manner: Manner) -> e2e::traffic::Holder {
        manner.start(&self.neighbour, MACHINE_NIC)
    }
}
