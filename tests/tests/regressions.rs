//! Defects of the reference, one test for each, with its number in docs/migrating.md and its story. On the reference,
//! each test fails with the named text.

use std::fs;
use std::thread;
use std::time::Duration;

use e2e::gate::Gate;
use e2e::kernel::Address;
use e2e::lab::{Families, NIC, lan4};
use e2e::patience::{PATIENCE, await_that};
use e2e::traffic::{arp_probe, assert_reaches};
use e2e::{Container, Lab, Outcome, cases, with};
use serde_json::{Value, json};

fn one_address(lab: &Lab) -> Value {
    lab.conf_of("192.168.50.100", "192.168.50.100")
}

fn version_1_1(conf: Value) -> Value {
    with(conf, "cniVersion", json!("1.1.0"))
}

#[track_caller]
fn assert_left_no_link(container: &Container, failed: &Outcome) {
    assert!(!failed.status.success(), "{}", failed.text());
    assert!(!container.has_link("eth0"), "the link stayed: {}", failed.text());
}

/// Repeats GC until so many leases are left. The search of another test may hold the namespace of a container that has
/// ended for a moment, and GC then keeps its lease.
fn collect_until(lab: &Lab, conf: &Value, left: usize) {
    await_that("GC has freed the leases", || {
        lab.macvlan().call("GC", conf).run().done();
        lab.leases().len() == left
    });
}

cases! {
    /// IPAM had no address, so ADD failed, but its link stayed. Every retry failed with "file exists", also when there
    /// was an address again, until an operator deleted the link.
    #[reference(fails: "link stayed")]
    fn u1_ipam_failure_leaves_no_link_and_the_retry_works(lab) {
        let conf = one_address(lab);
        let (first, second) = (lab.container(), lab.container());
        lab.macvlan().add(&first, "eth0", &conf).run().result();
        let failed = lab.macvlan().add(&second, "eth0", &conf).run();
        assert_left_no_link(&second, &failed);
        failed.fails(101, &["192.168.50.100"]);
        lab.macvlan().del(&first, "eth0", &conf).run().done();
        lab.macvlan().add(&second, "eth0", &conf).run().result();
        assert_eq!(second.address_texts("eth0"), ["192.168.50.100/24"]);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    /// A route could not be added. ADD failed and released its address, but the link stayed up with that address. The
    /// next container got the same address, and both answered for it.
    #[reference(fails: "link stayed")]
    fn u2_a_bad_route_leaves_no_link_and_no_lease(lab) {
        let mut conf = one_address(lab);
        conf["ipam"]["routes"] = json!([{"dst": "10.9.0.0/16", "gw": "172.31.0.1"}]);
        let container = lab.container();
        let failed = lab.macvlan().add(&container, "eth0", &conf).run();
        assert_left_no_link(&container, &failed);
        // The last text is the kernel's, from its extended acknowledgement.
        failed.fails(100, &["10.9.0.0/16", "172.31.0.1", "eth0", "Nexthop has invalid gateway"]);
        assert_eq!(lab.leases(), [""; 0]);
        lab.macvlan().add(&container, "eth0", &one_address(lab)).run().result();
        assert_reaches(&lab.neighbour, lan4(100));
    }

    /// A runtime gave the netns of the host by mistake, and DEL deleted the host's link of that name. The reference
    /// 1.10.0 refuses such a DEL, so the container cannot be deleted.
    #[reference(fails: "did not succeed")]
    fn del_in_the_hosts_netns_touches_no_link_and_releases_the_address(lab) {
        let container = lab.container();
        lab.macvlan().add(&container, "lan0", &lab.conf()).run().result();
        lab.host.create_macvlan_in(&lab.host, "lan0", NIC);
        let before = lab.host.link("lan0");
        let call = lab.macvlan().del(&container, "lan0", &lab.conf()).env("CNI_NETNS", lab.host.path());
        let outcome = call.run();
        assert_eq!(lab.host.find_link("lan0"), Some(before), "the host's link is gone: {}", outcome.text());
        outcome.done();
        assert!(outcome.stderr.contains("CNI_NETNS"), "no warning: {}", outcome.text());
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// The path of the netns belonged to another container by then. Its eth0 is not a macvlan.
    #[reference(fails: "the foreign link is gone")]
    fn u6_del_in_a_recycled_netns_leaves_a_link_of_another_kind(lab) {
        let (container, conf) = lab.macvlan().attach(lab, &lab.conf());
        container.delete_link("eth0");
        container.create_stray("eth0");
        let before = container.link("eth0");
        let outcome = lab.macvlan().del(&container, "eth0", &conf).run();
        assert_eq!(container.find_link("eth0"), Some(before), "the foreign link is gone: {}", outcome.text());
        outcome.done();
        assert!(outcome.stderr.contains("eth0"), "no warning: {}", outcome.text());
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// As above, and its eth0 is a macvlan, but not of this attachment: prevResult has another MAC.
    #[reference(fails: "the foreign link is gone")]
    fn u6_del_in_a_recycled_netns_leaves_a_macvlan_with_another_mac(lab) {
        let (container, conf) = lab.macvlan().attach(lab, &lab.conf());
        container.delete_link("eth0");
        lab.host.create_macvlan_in(&container, "eth0", NIC);
        let before = container.link("eth0");
        let outcome = lab.macvlan().del(&container, "eth0", &conf).run();
        assert_eq!(container.find_link("eth0"), Some(before), "the foreign link is gone: {}", outcome.text());
        outcome.done();
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// A node lost power after a lease file was created and before it was written.
    #[reference(fails: "did not succeed")]
    fn u7_an_empty_lease_file_is_reclaimed_when_the_range_runs_out(lab) {
        lab.write_lease("192.168.50.100", "");
        let read = || fs::read_to_string(lab.lease_file("192.168.50.100")).expect("read a lease");
        let conf = lab.conf_of("192.168.50.100", "192.168.50.101");
        // As long as another address is free, the file stays.
        let (first, _) = lab.macvlan().attach(lab, &conf);
        assert_eq!(first.address_texts("eth0"), ["192.168.50.101/24"]);
        assert_eq!(read(), "");
        let (second, _) = lab.macvlan().attach(lab, &conf);
        assert_eq!(second.address_texts("eth0"), ["192.168.50.100/24"]);
        assert_eq!(read(), format!("{}\r\neth0", second.id));
    }

    /// GC reported success and freed nothing, so a lost address was lost for ever.
    #[reference(fails: "left == right")]
    fn u9_gc_frees_what_is_not_in_the_list_and_nothing_else(lab) {
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let (kept, lost) = (lab.container(), lab.container());
            let mut conf = version_1_1(lab.conf());
            for container in [&kept, &lost] {
                lab.macvlan().add(container, "eth0", &conf).run().result();
            }
            let address = kept.address_texts("eth0").remove(0);
            conf[key] = json!([{"containerID": kept.id, "ifname": "eth0"}]);
            // The list may be incomplete: a container that runs keeps its lease.
            let outcome = lab.macvlan().call("GC", &conf).run();
            assert_eq!(outcome.done().text().matches("192.168.50.").count(), 1, "{}", outcome.text());
            assert_eq!(lab.leases().len(), 2);
            drop(lost);
            collect_until(lab, &conf, 1);
            assert_eq!(lab.leases(), [address.trim_end_matches("/24")]);
            assert!(kept.has_link("eth0"));
            // A GC of another network frees nothing in this one.
            let mut elsewhere = conf.clone();
            elsewhere["name"] = json!("lan2");
            elsewhere[key] = json!([]);
            lab.macvlan().call("GC", &elsewhere).run().done();
            assert_eq!(lab.leases().len(), 1);
            conf[key] = json!([]);
            drop(kept);
            collect_until(lab, &conf, 0);
            assert_eq!(lab.leases(), [""; 0]);
        }
    }

    /// A node whose NIC was missing reported that it was ready for pods.
    #[reference(fails: "did not fail")]
    fn u10_status_says_when_the_parent_is_missing(lab) {
        let conf = with(version_1_1(lab.conf()), "master", json!("nope0"));
        lab.unchanged(&[], || lab.macvlan().call("STATUS", &conf).run()).fails(50, &["master", "nope0"]);
    }

    /// A full range was code 50 in an earlier release. A runtime calls STATUS every few seconds, and one such answer
    /// made the node NotReady: running pods were removed from their Services and evicted.
    #[reference(fails: "no remark")]
    fn s1_a_full_range_is_a_remark_of_status_and_an_error_only_if_the_configuration_asks_for_it(lab) {
        let mut conf = version_1_1(one_address(lab));
        let (container, _) = lab.macvlan().attach(lab, &conf);
        let status = |program: &str, conf: &Value| {
            lab.unchanged(&[&container], || lab.plugin(program).call("STATUS", conf).run())
        };
        let full = "no free address in ipam.ranges[0] (192.168.50.100-192.168.50.100): \
                    1 addresses, 1 leases, 0 reclaimed";
        for word in [json!(null), json!("available")] {
            conf["ipam"]["statusWhenFull"] = word;
            for program in ["macvlan", "host-local"] {
                let outcome = status(program, &conf);
                outcome.done();
                assert!(outcome.stderr.contains(&format!("host-local: {full}")), "no remark: {}", outcome.text());
            }
        }
        conf["ipam"]["statusWhenFull"] = json!("unavailable");
        for program in ["macvlan", "host-local"] {
            status(program, &conf).fails(50, &[full]);
        }
        conf["ipam"]["statusWhenFull"] = json!("ready");
        for program in ["macvlan", "host-local"] {
            status(program, &conf).fails(7, &["ipam.statusWhenFull \"ready\": is neither available nor unavailable"]);
        }
    }

    #[reference(fails: "another code")]
    fn u10_status_says_when_the_ipam_plugin_is_missing(lab) {
        let conf = version_1_1(lab.conf_with(json!({"type": "no-such-ipam"})));
        lab.macvlan().call("STATUS", &conf).run().fails(50, &["ipam.type", "no-such-ipam"]);
    }

    /// After a crash the runtime repeats the ADD of a container that had asked for an address.
    #[reference(fails: "did not succeed")]
    fn u11_the_same_owner_gets_the_address_that_it_has_again(lab) {
        let container = lab.container();
        let mut conf = lab.conf();
        let first = lab.host_local().add(&container, "eth0", &conf).run().result();
        conf["runtimeConfig"] = json!({"ips": ["192.168.50.100"]});
        let again = lab.host_local().add(&container, "eth0", &conf).run().result();
        assert_eq!(first, again);
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        // Another container does not get it.
        lab.host_local().add(&lab.container(), "eth0", &conf).run().fails(101, &["192.168.50.100"]);
    }

    /// For one or two seconds after ADD, the container could not send from the address.
    #[reference(fails: "is tentative")]
    fn u12_an_ipv6_address_without_a_gateway_is_usable_on_return(lab) {
        let conf = lab.ipam_answering(&json!({"cniVersion": "1.0.0", "ips": [{"address": "fd50::77/64"}]}));
        let (container, _) = lab.plugin_with_fake("macvlan").attach(lab, &conf);
        let addresses = container.addresses("eth0");
        assert_eq!(addresses.len(), 1);
        assert!(!addresses.iter().any(Address::tentative), "an address is tentative: {addresses:?}");
        assert_reaches(&lab.neighbour, "fd50::77".parse().expect("an address"));
    }

    /// Two containers had one MAC. The error was EADDRINUSE without a reason, and the second link stayed.
    #[reference(fails: "the link stayed")]
    fn u13_a_mac_that_another_container_has_is_explained_and_leaves_nothing(lab) {
        let conf = with(lab.conf(), "mac", json!("02:00:00:00:00:07"));
        let ((_first, _), second) = (lab.macvlan().attach(lab, &conf), lab.container());
        let failed = lab.macvlan().add(&second, "eth0", &conf).run();
        assert_left_no_link(&second, &failed);
        failed.fails(100, &["02:00:00:00:00:07", NIC, "address already in use"]);
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    /// A container with a static MAC restarts: the old one still exists when the new one is attached.
    #[reference(not_run: "it tries once, and it is chance if the old container still exists then")]
    fn u13_add_waits_for_a_mac_that_a_dying_container_still_has(lab) {
        let conf = with(lab.conf(), "mac", json!("02:00:00:00:00:07"));
        let ((old, _), new) = (lab.macvlan().attach(lab, &conf), lab.container());
        let outcome = thread::scope(|scope| {
            let add = scope.spawn(|| lab.macvlan().add(&new, "eth0", &conf).run());
            // The new link has its address and cannot be set up. Now the old link goes.
            await_that("the new container has its address", || {
                new.find_link("eth0").is_some() && new.has_address(lan4(101)) || add.is_finished()
            });
            old.delete_link("eth0");
            add.join().expect("an ADD")
        });
        outcome.result();
        assert_eq!(new.link("eth0").mac, "02:00:00:00:00:07");
        assert_reaches(&lab.neighbour, lan4(101));
    }

    /// The address was released while the old container still answered for it. For some milliseconds, two containers
    /// answered. Here IPAM stops during the release, and the test asks on the wire.
    #[reference(fails: "still answers")]
    fn u14_at_the_time_of_its_release_no_machine_answers_for_the_address(lab) {
        let (mut asked, mut go) = (Gate::new(lab, "asked"), Gate::new(lab, "go"));
        let del = "if [ $CNI_COMMAND = DEL ]; then echo >$LAB/asked; read word <$LAB/go; exit 0; fi";
        let conf = lab.fake_ipam(&format!("{del}\necho \"$answer\""));
        let plugin = lab.plugin_with_fake("macvlan");
        let (container, _) = plugin.attach(lab, &conf);
        let probe = |patience| {
            arp_probe(&lab.neighbour, lab.neighbour.nic, lab.neighbour.v4, lan4(77), patience)
        };
        assert_eq!(probe(PATIENCE), Some(container.link("eth0").mac));
        let (answer, outcome) = thread::scope(|scope| {
            let del = scope.spawn(|| plugin.del(&container, "eth0", &conf).run());
            assert!(asked.wait(), "no release");
            let answer = probe(Duration::from_millis(400));
            go.open();
            (answer, del.join().expect("a DEL"))
        });
        assert_eq!(answer, None, "a machine still answers");
        outcome.done();
        assert_eq!(container.link_names(), ["lo"]);
    }

    /// After an edit two ranges overlapped, and then no pod of that network could be deleted.
    #[reference(fails: "did not succeed")]
    fn u15_del_works_after_the_ranges_were_edited_to_overlap(lab) {
        let range = json!({"subnet": "192.168.50.0/24"});
        for ranges in [json!([[range, range]]), json!("nonsense")] {
            let (container, mut conf) = lab.macvlan().attach(lab, &lab.conf());
            conf["ipam"]["ranges"] = ranges;
            lab.macvlan().detach(lab, &container, &conf);
        }
    }

    /// ADD succeeded, but the parent was down: no packet passed, and no message named the cause.
    #[reference(fails: "no warning")]
    fn u16_a_parent_that_is_down_is_a_warning_on_add(lab) {
        lab.host.set_down(NIC);
        let container = lab.container();
        let outcome = lab.macvlan().add(&container, "eth0", &lab.conf()).run();
        outcome.result();
        assert!(outcome.stderr.contains(NIC) && outcome.stderr.contains("down"), "no warning: {}", outcome.text());
        lab.host.set_up(NIC);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[reference(fails: "did not fail")]
    fn u16_a_parent_that_is_down_is_an_error_of_status(lab) {
        lab.host.set_down(NIC);
        let conf = version_1_1(lab.conf());
        lab.unchanged(&[], || lab.macvlan().call("STATUS", &conf).run()).fails(50, &[NIC, "down"]);
    }

    /// If a VPN, 6to4 or jumbo frames are behind the router, connections stop without these attributes.
    #[reference(fails: "left == right")]
    fn u17_routes_have_the_mtu_and_advmss_that_they_were_given(lab) {
        let mut ipam = lab.ipam(Families::Dual);
        ipam["routes"] = json!([
            {"dst": "10.20.0.0/16", "gw": "192.168.50.254", "mtu": 1400, "advmss": 1340},
            {"dst": "fd99::/48", "gw": "fd50::fe", "mtu": 1380, "advmss": 1300},
        ]);
        let mut conf = lab.conf_with(ipam);
        if lab.binaries() != e2e::Binaries::Reference {
            conf = version_1_1(conf);
        }
        let (container, result) = lab.macvlan().attached(lab, &conf);
        for (dst, mtu, advmss) in [("10.20.0.0/16", 1400, 1340), ("fd99::/48", 1380, 1300)] {
            let route = container.route_to(dst);
            assert_eq!((route.mtu, route.advmss), (Some(mtu), Some(advmss)), "{route:?}");
        }
        assert_eq!(result["routes"][0]["mtu"], 1400);
        assert_eq!(result["routes"][1]["advmss"], 1300);
    }

    /// The other attributes of a route in version 1.1.0 of the specification.
    #[reference(fails: "did not succeed")]
    fn u17_routes_have_their_priority_table_and_scope(lab) {
        use rtnetlink::packet_route::route::RouteScope;
        let mut ipam = lab.ipam(Families::V4);
        ipam["routes"] = json!([
            {"dst": "10.20.0.0/16", "gw": "192.168.50.254", "priority": 77},
            {"dst": "10.30.0.0/16", "gw": "192.168.50.254", "table": 1000},
            {"dst": "10.40.0.0/16", "scope": 253},
        ]);
        let (container, conf) = lab.macvlan().attach(lab, &version_1_1(lab.conf_with(ipam)));
        assert_eq!(container.route_to("10.20.0.0/16").priority, Some(77));
        assert_eq!(container.route_to("10.30.0.0/16").table, 1000);
        let on_link = container.route_to("10.40.0.0/16");
        assert_eq!((on_link.scope, on_link.gateway), (RouteScope::Link, None));
        lab.macvlan().check(&container, "eth0", &conf).run().done();
    }
}
