//! The consequences of a conflict: the next address, or a refusal that names address and holder.

use std::thread;
use std::time::Duration;

use e2e::lab::{Families, MACHINE_NIC, NIC, lan4};
use e2e::plugin::slowness;
use e2e::traffic::{Manner, Wire};
use e2e::with;
use serde_json::json;

use crate::site::{Site, detecting};

/// The time for which ADD tries an address again that somebody has asked for.
const AGAIN: Duration = Duration::from_secs(5);

fn nothing_but_the_next_address(site: &Site) {
    let _holder = site.machine(100);
    let conf = site.conf_of(lan4(100), lan4(101));
    let (container, _) = site.gets(&conf, &[lan4(101)]);
    site.detach(&container, &conf);
    assert_eq!(site.leases(), [""; 0]);
    // The address is known to be in use. The next container does not try it again.
    let wire = Wire::open(&site.neighbour, site.neighbour.nic);
    let (container, _) = site.gets(&conf, &[lan4(101)]);
    let probed =
        wire.seen_before_answer(site.neighbour.v4, lan4(101)).into_iter().any(|seen| seen.frame.probes(lan4(100)));
    assert!(!probed, "the next container has probed the address in use");
    site.detach(&container, &conf);
    site.assert_undone(&container);
}

fn ten_conflicts(site: &Site) {
    let held: Vec<_> = (100..115).map(lan4).collect();
    let holder = site.holder(Manner::of(&held).with_many_macs());
    let outcome = site.is_refused(&site.conf_of(lan4(100), lan4(140)), 101, &[NIC]);
    let error = outcome.error();
    let text = format!("{} {}", error.msg, error.details);
    for address in &held[..10] {
        let mac = holder.mac_of(*address);
        assert!(text.contains(&address.to_string()) && text.contains(&mac), "not {address} {mac}: {text}");
    }
    assert!(!text.contains(&held[10].to_string()), "more than ten: {text}");
    assert!(!text.contains("proxy ARP"), "{text}");
}

e2e::on_both_kinds! {
    fn the_next_address_is_given_and_the_one_in_use_is_kept_from_others(site) {
        nothing_but_the_next_address(site);
    }

    fn after_ten_conflicts_add_fails_and_names_all_of_them(site) {
        ten_conflicts(site);
    }

    fn one_mac_with_all_addresses_is_called_a_proxy(site) {
        let holder = site.holder(Manner::of_everything());
        site.is_refused(&site.conf_of(lan4(100), lan4(140)), 101, &["proxy ARP", &holder.mac_of(lan4(100))]);
    }

    /// Each frame that had come before the holder left counted as a conflict of its own. The LAN was not asked again in the
    /// five seconds.
    fn a_static_address_whose_holder_has_talked_and_left_is_given(site) {
        let conf = detecting(site.static_conf(&[lan4(100)]));
        let container = site.container();
        let wire = Wire::open(&site.neighbour, site.neighbour.nic);
        let outcome = thread::scope(|scope| {
            let call = site.plugin().add(&container, "eth0", &conf);
            let add = scope.spawn(move || call.run());
            wire.seen_until(|frame| frame.probes(lan4(100)));
            for _ in 0..40 {
                wire.ask(lan4(100), lan4(99));
            }
            add.join().expect("an ADD")
        });
        outcome.result();
        assert!(outcome.wall < Duration::from_secs(2) * slowness(), "{}", outcome.text());
    }

    /// A range that ends before ten conflicts.
    fn if_all_addresses_are_in_use_add_fails_and_names_them(site) {
        let holder = site.holder(Manner::of(&[lan4(100), lan4(101)]));
        let outcome = site.add(&site.conf_of(lan4(100), lan4(101))).1;
        let error = outcome.error();
        assert_eq!(error.code, 101, "{}", outcome.text());
        let text = format!("{} {}", error.msg, error.details);
        let mac = holder.mac_of(lan4(100));
        assert!([&lan4(100).to_string(), &lan4(101).to_string(), &mac].iter().all(|name| text.contains(*name)), "{text}");
        assert_eq!(site.leases(), [""; 0]);
    }

    fn a_static_address_in_use_is_refused_after_five_seconds(site) {
        let machine = site.machine(100);
        let mac = machine.link(MACHINE_NIC).mac;
        let outcome = site.is_refused(&site.static_conf(&[lan4(100)]), 103, &["192.168.50.100", &mac, NIC]);
        let slow = Duration::from_secs(1) * e2e::plugin::slowness();
        assert!(outcome.wall > AGAIN - slow && outcome.wall < AGAIN + slow, "{}", outcome.text());
    }

    /// The address moves from one machine to another: its last holder leaves a moment later.
    fn a_static_address_whose_holder_leaves_is_given(site) {
        let holder = site.holder(Manner::of(&[lan4(100)]));
        let (outcome, container) = thread::scope(|scope| {
            let add = scope.spawn(|| site.add(&site.static_conf(&[lan4(100)])));
            holder.await_asked(2);
            drop(holder);
            let (container, outcome) = add.join().expect("an ADD");
            (outcome, container)
        });
        outcome.result();
        assert_eq!(container.address_texts("eth0"), ["192.168.50.100/24"]);
        assert!(outcome.wall < AGAIN, "{}", outcome.text());
        e2e::traffic::assert_reaches(&site.neighbour, lan4(100));
    }

    /// The runtime gives up while ADD still tries.
    fn a_del_while_add_tries_again_leaves_nothing(site) {
        let holder = site.holder(Manner::of(&[lan4(100)]));
        let (conf, container) = (site.static_conf(&[lan4(100)]), site.container());
        let call = site.plugin().add(&container, "eth0", &conf);
        let outcome = thread::scope(|scope| {
            let add = scope.spawn(|| call.run());
            holder.await_asked(2);
            site.plugin().del(&container, "eth0", &conf).run().done();
            assert_eq!(container.link_names(), ["lo"]);
            add.join().expect("an ADD")
        });
        outcome.error();
        site.assert_undone(&container);
    }

    fn a_requested_address_in_use_is_refused(site) {
        let holder = site.holder(Manner::of(&[lan4(120), lan4(121)]));
        let mac = holder.mac_of(lan4(120));
        let conf = site.conf(Families::V4);
        let by_runtime = with(conf.clone(), "runtimeConfig", json!({"ips": ["192.168.50.121/24"]}));
        let (first, second) = (site.container(), site.container());
        let calls = [
            ("192.168.50.120", site.plugin().add(&first, "eth0", &conf).args("IgnoreUnknown=1;IP=192.168.50.120")),
            ("192.168.50.121", site.plugin().add(&second, "eth0", &by_runtime)),
        ];
        thread::scope(|scope| {
            let running = calls.map(|(address, call)| (address, scope.spawn(move || call.run())));
            for (address, outcome) in running {
                outcome.join().expect("a call").fails(103, &[address, &mac, NIC]);
            }
        });
        site.assert_undone(&first);
        site.assert_undone(&second);
    }

    fn an_address_of_a_foreign_ipam_in_use_is_returned_and_refused(site) {
        let machine = site.machine(77);
        let mac = machine.link(MACHINE_NIC).mac;
        let fake = site.fake_ipam("[ $CNI_COMMAND = ADD ] || exit 0\necho $answer");
        let conf = detecting(with(fake, "type", json!(site.kind)));
        let container = site.container();
        let outcome = site.plugin_with_fake(site.kind).add(&container, "eth0", &conf).run();
        outcome.fails(103, &["192.168.50.77", &mac, NIC]);
        site.assert_undone(&container);
        let calls = site.fake_calls();
        assert_eq!((calls[0].as_str(), calls[calls.len() - 1].as_str()), ("ADD", "DEL"), "{calls:?}");
    }
}

#[test]
fn executed_host_local_gives_the_next_address_and_keeps_the_one_in_use_from_others() {
    nothing_but_the_next_address(&Site::of_copies("macvlan"));
}

#[test]
fn executed_host_local_fails_after_ten_conflicts_and_keeps_no_lease() {
    ten_conflicts(&Site::of_copies("macvlan"));
}

#[test]
fn an_executed_static_address_in_use_is_refused() {
    let site = Site::of_copies("macvlan");
    let machine = site.machine(100);
    let mac = machine.link(MACHINE_NIC).mac;
    site.is_refused(&site.static_conf(&[lan4(100)]), 103, &["192.168.50.100", &mac, NIC]);
}

#[test]
fn an_address_of_a_chain_in_use_is_refused() {
    if !e2e::needs::here(&[e2e::needs::Feature::Ipvlan]) {
        return;
    }
    let site = Site::new("ipvlan");
    let machine = site.machine(77);
    let mac = machine.link(MACHINE_NIC).mac;
    let mut conf = e2e::without(site.conf(Families::V4), "ipam");
    conf["prevResult"] = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": NIC}],
        "ips": [{"address": "192.168.50.77/24", "gateway": "192.168.50.1", "interface": 0}],
    });
    site.is_refused(&conf, 103, &["192.168.50.77", &mac, NIC]);
}
