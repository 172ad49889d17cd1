//! DEL leaves nothing and does not touch other attachments, whatever has happened since ADD.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;

use e2e::lab::{NIC, lan4};
use e2e::scenario::all_at_once;
use e2e::traffic::{assert_reaches, assert_silent};
use e2e::{Call, Container, Lab, cases, with};
use serde_json::{Value, json};

fn attached(lab: &Lab) -> (Container, Value) {
    lab.macvlan().attach(lab, &lab.conf())
}

fn prefix(text: &str) -> ipnet::IpNet {
    text.parse().expect("an address with its prefix length")
}

fn del_at(lab: &Lab, netns: &Path) {
    let (container, conf) = attached(lab);
    assert_eq!(lab.leases().len(), 1);
    lab.macvlan().del(&container, "eth0", &conf).env("CNI_NETNS", netns).run().done();
    assert_eq!(lab.leases(), [""; 0]);
}

cases! {
    #[reference(passes)]
    fn del_twice_is_a_success_twice(lab) {
        let (container, conf) = attached(lab);
        for _ in 0..2 {
            lab.macvlan().detach(lab, &container, &conf);
        }
    }

    #[reference(passes)]
    fn del_without_add_is_a_success(lab) {
        let container = lab.container();
        lab.unchanged(&[&container], || lab.macvlan().del(&container, "eth0", &lab.conf()).run()).done();
    }

    /// The container has ended, so the runtime has no netns to name.
    #[reference(passes)]
    fn del_without_a_netns_releases_the_address(lab) {
        let (container, conf) = attached(lab);
        let calls = [
            lab.macvlan().del(&container, "eth0", &conf).env("CNI_NETNS", ""),
            lab.macvlan().del(&container, "eth0", &conf).without("CNI_NETNS"),
        ];
        for call in calls {
            call.run().done();
            assert_eq!(lab.leases(), [""; 0]);
        }
    }

    #[reference(passes)]
    fn del_with_a_netns_that_is_missing_releases_the_address(lab) {
        let (container, conf) = attached(lab);
        let missing = lab.path("no-such-netns");
        lab.macvlan().del(&container, "eth0", &conf).env("CNI_NETNS", &missing).run().done();
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// After a reboot there is a plain file at the path where the netns was mounted.
    #[reference(fails: "did not succeed")]
    fn del_with_a_plain_file_where_the_netns_was_releases_the_address(lab) {
        let (container, conf) = attached(lab);
        let plain = lab.path("left-behind");
        std::fs::write(&plain, "").expect("write a file");
        lab.macvlan().del(&container, "eth0", &conf).env("CNI_NETNS", &plain).run().done();
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn del_works_when_the_link_is_gone_already(lab) {
        let (container, conf) = attached(lab);
        container.delete_link("eth0");
        lab.macvlan().detach(lab, &container, &conf);
    }

    #[reference(passes)]
    fn del_works_when_the_parent_has_been_renamed(lab) {
        let (container, conf) = attached(lab);
        lab.host.rename(NIC, "ens9");
        lab.macvlan().detach(lab, &container, &conf);
    }

    #[reference(passes)]
    fn del_works_when_the_parent_has_been_deleted(lab) {
        let (container, conf) = attached(lab);
        lab.host.delete_link(NIC);
        lab.macvlan().detach(lab, &container, &conf);
    }

    #[reference(passes)]
    fn del_needs_no_default_route_even_without_a_master(lab) {
        lab.add_default_route();
        let conf = with(lab.conf(), "master", json!(""));
        let (container, _) = lab.macvlan().attach(lab, &conf);
        lab.host.set_down(NIC);
        lab.macvlan().detach(lab, &container, &conf);
    }

    /// An edit broke the configuration. The pods that run must still be deleted.
    #[reference(not_run: "it fails on some of these and not on others")]
    fn del_works_with_a_configuration_that_is_broken_now(lab) {
        let edits = [
            ("master", json!("nope0")),
            ("mode", json!("bogus")),
            ("mtu", json!(100_000)),
            ("mac", json!("nonsense")),
            ("runtimeConfig", json!({"mac": "nonsense", "ips": ["nonsense"]})),
            ("args", json!({"cni": {"ips": ["nonsense"]}})),
            ("prevResult", json!({"cniVersion": "1.0.0", "ips": "nonsense"})),
            ("prevResult", json!(null)),
        ];
        for (key, value) in edits {
            let (container, mut conf) = attached(lab);
            conf[key] = value;
            lab.macvlan().detach(lab, &container, &conf);
        }
    }

    #[reference(passes)]
    fn del_works_when_the_ranges_have_moved(lab) {
        let (container, mut conf) = attached(lab);
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.99.0.0/24"}]]);
        lab.macvlan().detach(lab, &container, &conf);
    }

    #[reference(fails: "did not succeed")]
    fn del_works_with_malformed_cni_args(lab) {
        let (container, conf) = attached(lab);
        lab.macvlan().del(&container, "eth0", &conf).args("nonsense").run().done();
        lab.assert_gone(&container);
    }

    #[reference(passes)]
    fn del_does_not_touch_other_containers(lab) {
        let ((first, conf), (second, _)) = (attached(lab), attached(lab));
        lab.macvlan().del(&first, "eth0", &conf).run().done();
        assert_eq!(lab.leases(), ["192.168.50.101"]);
        assert!(second.has_link("eth0"));
        assert_reaches(&lab.neighbour, lan4(101));
        assert_silent(&lab.neighbour, lan4(100));
    }

    /// The range has fifty addresses.
    #[reference(passes)]
    fn fifty_adds_at_once_get_fifty_addresses(lab) {
        let containers: Vec<Container> = (0..50).map(|_| lab.container()).collect();
        let conf = lab.conf();
        let addresses: HashSet<String> = thread::scope(|scope| {
            let adds: Vec<_> = containers
                .iter()
                .map(|container| scope.spawn(|| lab.macvlan().add(container, "eth0", &conf).run().result()))
                .collect();
            adds.into_iter()
                .map(|add| add.join().expect("an ADD"))
                .map(|result| result["ips"][0]["address"].as_str().expect("an address").to_owned())
                .collect()
        });
        assert_eq!(addresses.len(), 50);
        assert_eq!(lab.leases().len(), 50);
        for container in &containers {
            let texts = container.address_texts("eth0");
            assert!(texts.len() == 1 && addresses.contains(&texts[0]), "{texts:?}");
        }
        thread::scope(|scope| {
            for container in &containers {
                scope.spawn(|| lab.macvlan().del(container, "eth0", &conf).run().done().status);
            }
        });
        assert_eq!(lab.leases(), [""; 0]);
        assert!(containers.iter().all(|container| !container.has_link("eth0")));
    }

    /// A container restarts on a range of one address. Whichever call is first, the new container gets the address, or
    /// its ADD fails and leaves nothing.
    #[reference(not_run: "if its ADD is first, it fails and leaves the link (U1)")]
    fn del_of_the_old_container_and_add_of_the_new_one_share_a_range_of_one(lab) {
        let conf = lab.conf_of("192.168.50.100", "192.168.50.100");
        let (mut old, _) = lab.macvlan().attach(lab, &conf);
        for _ in 0..5 {
            let new = lab.container();
            let outcome = thread::scope(|scope| {
                let del = scope.spawn(|| lab.macvlan().del(&old, "eth0", &conf).run());
                let add = lab.macvlan().add(&new, "eth0", &conf).run();
                del.join().expect("a DEL").done();
                add
            });
            assert!(!old.has_link("eth0"));
            if !outcome.status.success() {
                outcome.fails(101, &["192.168.50.100"]);
                lab.assert_gone(&new);
                lab.macvlan().add(&new, "eth0", &conf).run().result();
            }
            assert_eq!(lab.leases(), ["192.168.50.100"]);
            assert_eq!(new.address_texts("eth0"), ["192.168.50.100/24"]);
            assert_reaches(&lab.neighbour, lan4(100));
            old = new;
        }
    }

    /// DEL thought that the link was foreign: it released the address and left the link, which still answered for it.
    #[reference(passes)]
    fn del_deletes_a_link_whose_mac_the_container_has_changed(lab) {
        let (container, conf) = attached(lab);
        container.ip("link set eth0 address 02:00:00:00:00:99");
        lab.macvlan().detach(lab, &container, &conf);
        assert_silent(&lab.neighbour, lan4(100));
    }

    #[reference(passes)]
    fn del_deletes_a_passthru_link_whose_parent_has_another_mac(lab) {
        let (container, conf) = lab.macvlan().attach(lab, &with(lab.conf(), "mode", json!("passthru")));
        lab.host.ip(&format!("link set {NIC} address 02:00:00:00:00:77"));
        assert_eq!(container.link("eth0").mac, "02:00:00:00:00:77");
        lab.macvlan().detach(lab, &container, &conf);
    }

    /// U6: the addresses belong to another container, so the link does too.
    #[reference(fails: "the foreign link is gone")]
    fn del_in_a_recycled_netns_leaves_a_macvlan_with_other_addresses(lab) {
        let (container, conf) = attached(lab);
        container.delete_link("eth0");
        lab.host.create_macvlan_in(&container, "eth0", NIC);
        container.add_address("eth0", prefix("192.168.50.200/24"));
        container.set_up("eth0");
        let outcome = lab.macvlan().del(&container, "eth0", &conf).run();
        assert!(container.has_link("eth0"), "the foreign link is gone: {}", outcome.text());
        outcome.done();
        assert!(outcome.stderr.contains("eth0"), "no warning: {}", outcome.text());
        assert_reaches(&lab.neighbour, lan4(200));
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// As above, and the link even has the address of the result: it is leased to another container now.
    #[reference(fails: "the foreign link is gone")]
    fn del_in_a_recycled_netns_leaves_a_macvlan_with_the_address_that_is_leased_to_another(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["ranges"][0][0]["rangeEnd"] = json!("192.168.50.100");
        let (old, old_conf) = lab.macvlan().attach(lab, &conf);
        // The link goes without a DEL, as with its netns.
        old.delete_link("eth0");
        fs::remove_file(lab.lease_file("192.168.50.100")).expect("remove the lease");
        let new_owner = |call: Call<'_>| call.env("CNI_CONTAINERID", "the-next-one").run();
        new_owner(lab.macvlan().add(&old, "eth0", &conf)).result();
        let outcome = lab.macvlan().del(&old, "eth0", &old_conf).run();
        assert!(old.has_link("eth0"), "the foreign link is gone: {}", outcome.text());
        outcome.done();
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        assert_reaches(&lab.neighbour, lan4(100));
        new_owner(lab.macvlan().del(&old, "eth0", &conf)).done();
        lab.assert_gone(&old);
    }

    #[reference(fails: "did not succeed")]
    fn del_with_a_netns_below_a_plain_file_releases_the_address(lab) {
        let [path, _] = lab.odd_paths();
        del_at(lab, &path);
    }

    #[reference(fails: "did not succeed")]
    fn del_with_a_netns_that_is_a_socket_releases_the_address(lab) {
        let [_, path] = lab.odd_paths();
        del_at(lab, &path);
    }

    /// The second of two DELs failed because the first one had just deleted the link.
    #[reference(not_run: "one of them sometimes fails")]
    fn four_dels_at_once_succeed_thirty_times(lab) {
        for _ in 0..30 {
            let (container, conf) = attached(lab);
            for outcome in all_at_once(4, || lab.macvlan().del(&container, "eth0", &conf).run()) {
                outcome.done();
            }
            lab.assert_gone(&container);
        }
    }
}
