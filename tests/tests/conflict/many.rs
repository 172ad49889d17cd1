//! Two hosts on one LAN that give addresses of the same pool, and do not know of each other. e2e/conflict_load has more of
//! them.

use std::thread;

use e2e::lab::{Families, MACHINE_NIC, NIC, lan4, lan6};
use e2e::samples::show;
use e2e::{Container, Machine, Outcome, Plugin, with};
use serde_json::{Value, json};

use crate::site::{Site, addresses};

/// A second host, with its own leases.
struct Second<'a> {
    site: &'a Site,
    machine: Machine,
}

impl<'a> Second<'a> {
    fn new(site: &'a Site) -> Self {
        let machine = site.machine(11);
        machine.give_own_run();
        if site.kind == "ipvlan" {
            // See containers_come_and_go_at_once in tests/host_access/many.rs.
            for (host, nic) in [(&site.host, NIC), (&machine, MACHINE_NIC)] {
                host.ip(&format!("link add keep0 link {nic} type ipvlan mode l2"));
            }
        }
        Self { site, machine }
    }

    fn plugin(&self) -> Plugin<'_> {
        self.site.plugin().on(&self.machine)
    }

    /// A configuration of the first host as the second has it.
    fn conf(&self, conf: &Value) -> Value {
        let mut conf = with(conf.clone(), "master", json!(MACHINE_NIC));
        if conf["ipam"]["type"] == "host-local" {
            conf["ipam"]["dataDir"] = json!(self.site.path("leases-of-second"));
        }
        conf
    }
}

/// One ADD on each host, at the same moment.
fn race(second: &Second<'_>, conf: &Value) -> [(Container, Outcome); 2] {
    let site = second.site;
    let (here, there) = (site.container(), site.container());
    let calls = [site.plugin().add(&here, "eth0", conf), second.plugin().add(&there, "eth0", &second.conf(conf))];
    let [first, other] = thread::scope(|scope| {
        calls.map(|call| scope.spawn(move || call.run())).map(|call| call.join().expect("a call"))
    });
    [(here, first), (there, other)]
}

fn undo(second: &Second<'_>, ends: &[(Container, Outcome); 2], conf: &Value) {
    second.site.plugin().del(&ends[0].0, "eth0", conf).run().done();
    second.plugin().del(&ends[1].0, "eth0", &second.conf(conf)).run().done();
}

e2e::on_both_kinds! {
    fn two_hosts_that_want_one_static_address_at_the_same_moment_never_both_get_it(site) {
        let second = Second::new(site);
        let conf = site.static_conf(&[lan4(200)]);
        for round in 0..4 {
            let ends = race(&second, &conf);
            let winners = ends.iter().filter(|(_, outcome)| outcome.status.success()).count();
            show(&format!("round {round}: {winners} of 2"));
            assert!(winners < 2, "both have the address: {}\n{}", ends[0].1.text(), ends[1].1.text());
            for (container, outcome) in &ends {
                if !outcome.status.success() {
                    outcome.fails(103, &["192.168.50.200"]);
                    assert_eq!(container.link_names(), ["lo"]);
                }
            }
            undo(&second, &ends, &conf);
        }
    }

    fn two_hosts_that_want_one_static_ipv6_address_at_the_same_moment_never_both_get_it(site) {
        let second = Second::new(site);
        let conf = site.static_conf(&[lan6(77)]);
        for round in 0..3 {
            let ends = race(&second, &conf);
            let winners = ends.iter().filter(|(_, outcome)| outcome.status.success()).count();
            show(&format!("round {round}: {winners} of 2"));
            assert!(winners < 2, "both have the address: {}\n{}", ends[0].1.text(), ends[1].1.text());
            undo(&second, &ends, &conf);
        }
    }

    /// Two networks of one host, whose containers are siblings.
    fn two_containers_of_one_host_that_want_one_static_address_never_both_get_it(site) {
        let conf = site.static_conf(&[lan4(200)]);
        let networks = ["first", "other"].map(|name| with(conf.clone(), "name", json!(name)));
        let containers = [site.container(), site.container()];
        for round in 0..3 {
            let calls = [0, 1].map(|number| site.plugin().add(&containers[number], "eth0", &networks[number]));
            let outcomes: [Outcome; 2] = thread::scope(|scope| {
                calls.map(|call| scope.spawn(move || call.run())).map(|call| call.join().expect("a call"))
            });
            let winners = outcomes.iter().filter(|outcome| outcome.status.success()).count();
            show(&format!("round {round}: {winners} of 2"));
            assert!(winners < 2, "both have the address: {}\n{}", outcomes[0].text(), outcomes[1].text());
            for (container, conf) in containers.iter().zip(&networks) {
                site.plugin().del(container, "eth0", conf).run().done();
            }
        }
    }

    fn two_hosts_with_one_pool_never_give_one_address_twice(site) {
        let second = Second::new(site);
        let conf = site.conf(Families::V4);
        for round in 0..12 {
            let ends = race(&second, &conf);
            for (_, outcome) in &ends {
                outcome.result();
            }
            let [first, other] = [addresses(&ends[0].0), addresses(&ends[1].0)];
            assert_ne!(first, other, "round {round}");
            undo(&second, &ends, &conf);
        }
    }
}
