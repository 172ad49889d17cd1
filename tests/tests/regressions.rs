//! Defects of the reference, one test for each, with its number in docs/migrating.md and its story. On the reference,
//! each test fails with the named text.

use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use e2e::kernel::Address;
use e2e::lab::{Families, NIC, lan4};
use e2e::patience::{PATIENCE, await_that};
use e2e::plugin::write_script;
use e2e::traffic::{arp_probe, assert_reaches, readable};
use e2e::{Container, Lab, cases, with};
use serde_json::{Value, json};

/// host-local over one address, or few.
fn range(lab: &Lab, first: &str, last: &str) -> Value {
    let range = json!({"subnet": "192.168.50.0/24", "rangeStart": first, "rangeEnd": last});
    json!({"type": "host-local", "dataDir": lab.data_dir(), "ranges": [[range]]})
}

fn one_address(lab: &Lab) -> Value {
    lab.conf_with(range(lab, "192.168.50.100", "192.168.50.100"))
}

fn version_1_1(mut conf: Value) -> Value {
    conf["cniVersion"] = json!("1.1.0");
    conf
}

/// A FIFO at which two sides meet. It is opened in both directions, so that the opening does not wait.
fn fifo(lab: &Lab, name: &str) -> fs::File {
    let path = lab.path(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("make a FIFO");
    fs::OpenOptions::new().read(true).write(true).open(&path).expect("open a FIFO")
}

/// GC until so many leases are left: another test that looks through namespaces may hold a dead container's for an
/// instant, and GC takes nothing from what lives.
fn collect_until(lab: &Lab, conf: &Value, left: usize) {
    await_that("the leases that GC leaves", || {
        lab.macvlan().call("GC", conf).run().done();
        lab.leases().len() == left
    });
}

cases! {
    /// IPAM had no address, the ADD failed, and its link stayed: when there was an address
    /// again, the retry failed with "file exists", until somebody deleted the link by hand.
    #[reference(fails: "link stayed")]
    fn u1_ipam_failure_leaves_no_link_and_the_retry_works(lab) {
        let conf = one_address(lab);
        let (first, second) = (lab.container(), lab.container());
        lab.macvlan().add(&first, "eth0", &conf).run().result();
        let failed = lab.macvlan().add(&second, "eth0", &conf).run();
        assert!(!failed.status.success(), "{}", failed.text());
        assert!(!second.has_link("eth0"), "the link stayed: {}", failed.text());
        failed.fails(101, &["192.168.50.100"]);
        lab.macvlan().del(&first, "eth0", &conf).run().done();
        lab.macvlan().add(&second, "eth0", &conf).run().result();
        assert_eq!(second.address_texts("eth0"), ["192.168.50.100/24"]);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    /// A route could not be added, the ADD failed and released its address, but the link stayed
    /// up with it: the next container got the same one, and two machines answered for it.
    #[reference(fails: "link stayed")]
    fn u2_a_bad_route_leaves_no_link_and_no_lease(lab) {
        let mut conf = one_address(lab);
        conf["ipam"]["routes"] = json!([{"dst": "10.9.0.0/16", "gw": "172.31.0.1"}]);
        let container = lab.container();
        let failed = lab.macvlan().add(&container, "eth0", &conf).run();
        assert!(!failed.status.success(), "{}", failed.text());
        assert!(!container.has_link("eth0"), "the link stayed: {}", failed.text());
        // With the kernel's own reason, from its extended acknowledgement.
        failed.fails(100, &["10.9.0.0/16", "172.31.0.1", "eth0", "Nexthop has invalid gateway"]);
        assert_eq!(lab.leases(), [""; 0]);
        lab.macvlan().add(&container, "eth0", &one_address(lab)).run().result();
        assert_reaches(&lab.neighbour, lan4(100));
    }

    /// A runtime that named the host's netns by mistake lost the host's link of that name. Since 1.10.0 the reference
    /// refuses, and the container stays.
    #[reference(fails: "did not succeed")]
    fn del_in_the_hosts_netns_touches_no_link_and_releases_the_address(lab) {
        let container = lab.container();
        lab.macvlan().add(&container, "lan0", &lab.conf()).run().result();
        lab.host.create_macvlan("lan0", NIC);
        let before = lab.host.link("lan0");
        let call = lab.macvlan().del(&container, "lan0", &lab.conf()).env("CNI_NETNS", lab.host.path());
        let outcome = call.run();
        assert_eq!(lab.host.find_link("lan0"), Some(before), "the host's link is gone: {}", outcome.text());
        outcome.done();
        assert!(outcome.stderr.contains("CNI_NETNS"), "no warning: {}", outcome.text());
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// The netns had been given to another container, whose eth0 is no macvlan at all.
    #[reference(fails: "the foreign link is gone")]
    fn u6_del_in_a_recycled_netns_leaves_a_link_of_another_kind(lab) {
        let container = lab.container();
        let result = lab.macvlan().add(&container, "eth0", &lab.conf()).run().result();
        container.delete_link("eth0");
        container.create_stray("eth0");
        let before = container.link("eth0");
        let conf = with(lab.conf().clone(), "prevResult", result.clone());
        let outcome = lab.macvlan().del(&container, "eth0", &conf).run();
        assert_eq!(container.find_link("eth0"), Some(before), "the foreign link is gone: {}", outcome.text());
        outcome.done();
        assert!(outcome.stderr.contains("eth0"), "no warning: {}", outcome.text());
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// ... or is a macvlan, but not the one of this attachment: prevResult has another MAC.
    #[reference(fails: "the foreign link is gone")]
    fn u6_del_in_a_recycled_netns_leaves_a_macvlan_with_another_mac(lab) {
        let container = lab.container();
        let result = lab.macvlan().add(&container, "eth0", &lab.conf()).run().result();
        container.delete_link("eth0");
        lab.host.create_macvlan_in(&container, "eth0", NIC);
        let before = container.link("eth0");
        let conf = with(lab.conf().clone(), "prevResult", result.clone());
        let outcome = lab.macvlan().del(&container, "eth0", &conf).run();
        assert_eq!(container.find_link("eth0"), Some(before), "the foreign link is gone: {}", outcome.text());
        outcome.done();
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// A node lost power between the creation of a lease file and the writing of it.
    #[reference(fails: "did not succeed")]
    fn u7_an_empty_lease_file_is_reclaimed_when_the_range_runs_out(lab) {
        fs::create_dir_all(lab.data_dir().join("lan")).expect("make a directory");
        let torn = lab.data_dir().join("lan/192.168.50.100");
        fs::write(&torn, "").expect("write a file");
        let (first, second) = (lab.container(), lab.container());
        let conf = lab.conf_with(range(lab, "192.168.50.100", "192.168.50.101"));
        // Not on mere doubt: as long as there is another address, it is left alone.
        lab.macvlan().add(&first, "eth0", &conf).run().result();
        assert_eq!(first.address_texts("eth0"), ["192.168.50.101/24"]);
        assert_eq!(fs::read_to_string(&torn).expect("the torn lease"), "");
        lab.macvlan().add(&second, "eth0", &conf).run().result();
        assert_eq!(second.address_texts("eth0"), ["192.168.50.100/24"]);
        assert_eq!(fs::read_to_string(&torn).expect("the lease"), format!("{}\r\neth0", second.id));
    }

    /// GC reported success and did nothing: leaked addresses stayed leaked for good.
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
            lab.unchanged(&[&kept, &lost], || lab.snapshot(&[]));
            // A list may be incomplete: what lives is not taken from, whatever the list says.
            let outcome = lab.macvlan().call("GC", &conf).run();
            assert_eq!(outcome.done().text().matches("192.168.50.").count(), 1, "{}", outcome.text());
            assert_eq!(lab.leases().len(), 2);
            drop(lost);
            collect_until(lab, &conf, 1);
            assert_eq!(lab.leases(), [address.trim_end_matches("/24")]);
            assert!(kept.has_link("eth0"));
            // Another network's leases are not ours to judge.
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

    /// A node without its NIC still reported that it was ready for pods.
    #[reference(fails: "did not fail")]
    fn u10_status_says_when_the_parent_is_missing(lab) {
        let conf = with(version_1_1(lab.conf()), "master", json!("nope0"));
        lab.unchanged(&[], || lab.macvlan().call("STATUS", &conf).run()).fails(50, &["master", "nope0"]);
    }

    /// A full range was code 50 here. A runtime asks for STATUS every few seconds, and one such answer made the node
    /// NotReady at once: pods that had their addresses were taken out of their Services and evicted.
    #[reference(fails: "no remark")]
    fn s1_a_full_range_is_a_remark_of_status_and_an_error_only_if_the_configuration_asks_for_it(lab) {
        let mut conf = version_1_1(one_address(lab));
        let container = lab.container();
        lab.macvlan().add(&container, "eth0", &conf).run().result();
        let status = |program: &str, conf: &Value| {
            lab.unchanged(&[&container], || lab.plugin(program).call("STATUS", conf).run())
        };
        let full = "no free address in ipam.ranges[0] (192.168.50.100-192.168.50.100): 1 addresses, 1 leases, 0 reclaimed";
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

    /// After a crash the runtime repeats the ADD of a container that has asked for its address.
    #[reference(fails: "did not succeed")]
    fn u11_the_same_owner_gets_the_address_that_it_has_again(lab) {
        let container = lab.container();
        let mut conf = lab.conf();
        let first = lab.host_local().add(&container, "eth0", &conf).run().result();
        conf["runtimeConfig"] = json!({"ips": ["192.168.50.100"]});
        let again = lab.host_local().add(&container, "eth0", &conf).run().result();
        assert_eq!(first, again);
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        // Only its own address.
        lab.host_local().add(&lab.container(), "eth0", &conf).run().fails(101, &["192.168.50.100"]);
    }

    /// Nothing could be sent from it for the first one or two seconds of the container's life.
    #[reference(fails: "is tentative")]
    fn u12_an_ipv6_address_without_a_gateway_is_usable_on_return(lab) {
        fs::create_dir(lab.path("fake")).expect("make a directory");
        let body = concat!(
            "[ $CNI_COMMAND = ADD ] || exit 0\n",
            r#"echo '{"cniVersion": "1.0.0", "ips": [{"address": "fd50::77/64"}]}'"#,
        );
        write_script(&lab.path("fake/fake"), body);
        let container = lab.container();
        let plugin = lab.macvlan().search(format!("{}:{}", lab.bin().display(), lab.path("fake").display()));
        plugin.add(&container, "eth0", &lab.conf_with(json!({"type": "fake"}))).run().result();
        let addresses = container.addresses("eth0");
        assert_eq!(addresses.len(), 1);
        assert!(!addresses.iter().any(Address::tentative), "an address is tentative: {addresses:?}");
        assert_reaches(&lab.neighbour, "fd50::77".parse().expect("an address"));
    }

    /// Two containers with one MAC: the kernel says no more than EADDRINUSE, and the second
    /// one's link stayed behind.
    #[reference(fails: "the link stayed")]
    fn u13_a_mac_that_another_container_has_is_explained_and_leaves_nothing(lab) {
        let conf = with(lab.conf(), "mac", json!("02:00:00:00:00:07"));
        let (first, second) = (lab.container(), lab.container());
        lab.macvlan().add(&first, "eth0", &conf).run().result();
        let failed = lab.macvlan().add(&second, "eth0", &conf).run();
        assert!(!failed.status.success(), "{}", failed.text());
        assert!(!second.has_link("eth0"), "the link stayed: {}", failed.text());
        failed.fails(100, &["02:00:00:00:00:07", NIC, "address already in use"]);
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    /// A restart with a static MAC: the old container is still going when the new one comes.
    #[reference(not_run: "it tries once, and whether the old one is still there at that moment is chance")]
    fn u13_a_mac_that_a_dying_container_still_has_is_waited_for(lab) {
        let conf = with(lab.conf(), "mac", json!("02:00:00:00:00:07"));
        let (old, new) = (lab.container(), lab.container());
        lab.macvlan().add(&old, "eth0", &conf).run().result();
        let outcome = thread::scope(|scope| {
            let add = scope.spawn(|| lab.macvlan().add(&new, "eth0", &conf).run());
            // It has its address and cannot come up: now the other one goes.
            await_that("the new container's address", || {
                new.find_link("eth0").is_some() && new.has_address(lan4(101)) || add.is_finished()
            });
            old.delete_link("eth0");
            add.join().expect("an ADD")
        });
        outcome.result();
        assert_eq!(new.link("eth0").mac, "02:00:00:00:00:07");
        assert_reaches(&lab.neighbour, lan4(101));
    }

    /// The address was free for the next container while the old one still answered for it: for
    /// some milliseconds there were two. Here the IPAM plugin holds still, and the wire is asked.
    #[reference(fails: "still answers")]
    fn u14_at_the_time_of_its_release_nobody_answers_for_the_address(lab) {
        fs::create_dir(lab.path("fake")).expect("make a directory");
        let (mut asked, mut go) = (fifo(lab, "asked"), fifo(lab, "go"));
        let body = format!(
            "if [ $CNI_COMMAND = DEL ]; then echo >{asked}; read word <{go}; exit 0; fi\n\
             echo '{{\"cniVersion\": \"1.0.0\", \"ips\": [{{\"address\": \"192.168.50.77/24\"}}]}}'",
            asked = lab.path("asked").display(),
            go = lab.path("go").display(),
        );
        write_script(&lab.path("fake/fake"), &body);
        let container = lab.container();
        let plugin = lab.macvlan().search(format!("{}:{}", lab.bin().display(), lab.path("fake").display()));
        let conf = lab.conf_with(json!({"type": "fake"}));
        plugin.add(&container, "eth0", &conf).run().result();
        let probe = |patience| {
            arp_probe(&lab.neighbour, lab.neighbour.nic, lab.neighbour.v4, lan4(77), patience)
        };
        assert_eq!(probe(PATIENCE), Some(container.link("eth0").mac));
        let (answer, outcome) = thread::scope(|scope| {
            let del = scope.spawn(|| plugin.del(&container, "eth0", &conf).run());
            assert!(readable(&asked, Instant::now() + PATIENCE).expect("wait for the release"), "no release");
            asked.read_exact(&mut [0]).expect("read from a FIFO");
            let answer = probe(Duration::from_millis(400));
            writeln!(go, "go").expect("write to a FIFO");
            (answer, del.join().expect("a DEL"))
        });
        assert_eq!(answer, None, "somebody still answers");
        outcome.done();
        assert_eq!(container.link_names(), ["lo"]);
    }

    /// An edit made two ranges overlap, and from then on no pod of that network could end.
    #[reference(fails: "did not succeed")]
    fn u15_del_works_after_the_ranges_were_edited_to_overlap(lab) {
        let container = lab.container();
        lab.macvlan().add(&container, "eth0", &lab.conf()).run().result();
        let mut conf = lab.conf();
        let range = json!({"subnet": "192.168.50.0/24"});
        conf["ipam"]["ranges"] = json!([[range, range]]);
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert_eq!(lab.leases(), [""; 0]);
        assert_eq!(container.link_names(), ["lo"]);
        // Or made no sense at all.
        let container = lab.container();
        lab.macvlan().add(&container, "eth0", &lab.conf()).run().result();
        conf["ipam"]["ranges"] = json!("nonsense");
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// The ADD succeeded, nothing passed, and nothing said why.
    #[reference(fails: "no warning")]
    fn u16_a_parent_that_is_down_is_a_warning_on_add(lab) {
        lab.host.set_down(NIC);
        let container: Container = lab.container();
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

    /// With 6to4, a VPN or jumbo frames behind the router these keep connections from hanging.
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
        let container = lab.container();
        let result = lab.macvlan().add(&container, "eth0", &conf).run().result();
        for (dst, mtu, advmss) in [("10.20.0.0/16", 1400, 1340), ("fd99::/48", 1380, 1300)] {
            let route = container.route_to(dst);
            assert_eq!((route.mtu, route.advmss), (Some(mtu), Some(advmss)), "{route:?}");
        }
        assert_eq!(result["routes"][0]["mtu"], 1400);
        assert_eq!(result["routes"][1]["advmss"], 1300);
    }

    /// The rest of what a route can have since spec 1.1.0.
    #[reference(fails: "did not succeed")]
    fn u17_routes_have_their_priority_table_and_scope(lab) {
        use rtnetlink::packet_route::route::RouteScope;
        let mut ipam = lab.ipam(Families::V4);
        ipam["routes"] = json!([
            {"dst": "10.20.0.0/16", "gw": "192.168.50.254", "priority": 77},
            {"dst": "10.30.0.0/16", "gw": "192.168.50.254", "table": 1000},
            {"dst": "10.40.0.0/16", "scope": 253},
        ]);
        let conf = version_1_1(lab.conf_with(ipam));
        let container = lab.container();
        let mut checked = conf.clone();
        checked["prevResult"] = lab.macvlan().add(&container, "eth0", &conf).run().result();
        assert_eq!(container.route_to("10.20.0.0/16").priority, Some(77));
        assert_eq!(container.route_to("10.30.0.0/16").table, 1000);
        let on_link = container.route_to("10.40.0.0/16");
        assert_eq!((on_link.scope, on_link.gateway), (RouteScope::Link, None));
        lab.macvlan().check(&container, "eth0", &checked).run().done();
    }
}
