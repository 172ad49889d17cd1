//! /etc/underlay.conf: the defaults of a node for the keys about the LAN.

use std::time::Duration;

use e2e::lab::{Families, lan4};
use e2e::patience::PATIENCE;
use e2e::traffic::Wire;
use e2e::with;
use serde_json::{Value, json};

use site::Site;

const FILE: &str = "/etc/underlay.conf";

mod site {
    use std::ops::Deref;

    use e2e::host_site::HostSite;
    use e2e::needs::Feature;

    /// All tests of macvlan run on every kernel.
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
    /// A configuration without any of the keys.
    fn conf(&self) -> Value {
        self.conf_with(self.ipam(Families::V4))
    }

    /// Asserts that the next container gets the address that ends with this.
    #[track_caller]
    fn gives(&self, conf: &Value, last: u8) {
        let (container, _) = self.attach(conf);
        assert_eq!(container.address_texts("eth0"), [format!("192.168.50.{last}/24")]);
        self.detach(&container, conf);
    }
}

e2e::on_both_kinds! {
    fn a_file_without_keys_changes_nothing(site) {
        site.write_defaults("{}");
        let _holder = site.machine(100);
        site.gives(&site.conf(), 100);
    }

    fn detection_is_on_for_all_networks(site) {
        site.write_defaults(r#"{"detectIPConflict": true, "detectTimeout": 300}"#);
        let _holder = site.machine(100);
        site.gives(&site.conf(), 101);
    }

    fn the_networks_key_has_priority(site) {
        site.write_defaults(r#"{"detectIPConflict": true, "detectGateway": true}"#);
        let _holder = site.machine(100);
        let conf = with(with(site.conf(), "detectIPConflict", json!(false)), "detectGateway", json!(false));
        site.gives(&conf, 100);
    }

    fn the_network_may_set_one_key_and_the_file_another(site) {
        site.write_defaults(r#"{"detectTimeout": 1000, "detectGateway": "warn"}"#);
        let conf = with(with(site.conf(), "detectIPConflict", json!(true)), "detectGateway", json!(false));
        let container = site.container();
        let outcome = site.plugin().add(&container, "eth0", &conf).run();
        outcome.result();
        assert!(outcome.wall >= Duration::from_secs(1), "{}", outcome.text());
    }

    fn gateways_are_asked_for_all_networks(site) {
        site.write_defaults(r#"{"detectGateway": true}"#);
        let container = site.container();
        site.plugin().add(&container, "eth0", &site.conf()).run().fails(104, &["192.168.50.1"]);
        site.assert_undone(&container);
    }

    fn announcements_are_repeated_for_all_networks(site) {
        site.write_defaults(r#"{"announce": {"count": 2, "interval": 100}}"#);
        let wire = Wire::open(&site.neighbour, site.neighbour.nic);
        let _container = site.attach(&site.conf());
        for _ in 0..2 {
            assert!(wire.wait_for(PATIENCE, |frame| frame.announces(lan4(100))).is_some(), "not two");
        }
    }

    /// An ADD that ignored the file would give addresses that other machines have.
    fn a_broken_file_is_an_error_that_names_it_and_del_works_all_the_same(site) {
        let (container, checked) = site.attach(&site.conf());
        for text in [
            "",
            "{",
            "[]",
            "true",
            r#"{"detectIPConflict": "yes"}"#,
            r#"{"detectTimeout": 49}"#,
            r#"{"detectTimeout": 10001}"#,
            r#"{"announce": {"count": 0}}"#,
            r#"{"announce": {"count": 11}}"#,
            r#"{"announce": {"interval": 99}}"#,
            r#"{"announce": {"often": true}}"#,
            r#"{"detectGateway": "perhaps"}"#,
            r#"{"detectConflict": true}"#,
            r#"{"master": "ens3"}"#,
        ] {
            site.write_defaults(text);
            let other = site.container();
            let outcome = site.plugin().add(&other, "eth0", &site.conf()).run();
            assert!(outcome.error().msg.contains(FILE), "{text}: {}", outcome.text());
            assert_eq!(other.link_names(), ["lo"]);
            site.plugin().del(&other, "eth0", &site.conf()).run().done();
        }
        site.checks(&container, &checked);
        site.detach(&container, &site.conf());
        site.assert_undone(&container);
    }

    /// Its own keys have the same limits.
    fn a_network_with_bad_values_is_refused(site) {
        for (key, value, names) in [
            ("detectIPConflict", json!("yes"), "detectIPConflict"),
            ("detectTimeout", json!(49), "detectTimeout"),
            ("detectTimeout", json!(10_001), "detectTimeout"),
            ("announce", json!({"count": 0}), "count"),
            ("announce", json!({"count": 11}), "count"),
            ("announce", json!({"count": 2, "interval": 99}), "interval"),
            ("announce", json!({"count": 2, "interval": 10_001}), "interval"),
            ("detectGateway", json!("perhaps"), "detectGateway"),
        ] {
            let container = site.container();
            let outcome = site.plugin().add(&container, "eth0", &with(site.conf(), key, value.clone())).run();
            let error = outcome.error();
            assert!(error.msg.contains(names), "{key} {value}: {}", outcome.text());
            assert_eq!(container.link_names(), ["lo"]);
        }
    }

    fn the_limits_themselves_are_allowed(site) {
        let conf = with(site.conf(), "detectIPConflict", json!(true));
        let (container, conf_with_prev) = site.attach(&with(with(conf, "detectTimeout", json!(50)), "announce", json!({"count": 10, "interval": 100})));
        site.detach(&container, &conf_with_prev);
    }
}
