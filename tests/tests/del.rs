//! DEL leaves nothing, and changes nothing of others, whatever has happened since ADD.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;

use e2e::lab::{Families, NIC, lan4};
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
            lab.macvlan().del(&container, "eth0", &conf).run().done();
            lab.assert_gone(&container);
        }
    }

    #[reference(passes)]
    fn del_without_add_is_a_success(lab) {
        let container = lab.container();
        lab.unchanged(&[&container], || lab.macvlan().del(&container, "eth0", &lab.conf()).run()).done();
    }

    /// The container has gone, and its netns with it: the runtime has nothing to say.
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

    /// An unmounted netns leaves a plain file where it was mounted, for instance after a reboot.
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
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
    }

    #[reference(passes)]
    fn del_works_when_the_parent_has_been_renamed(lab) {
        let (container, conf) = attached(lab);
        lab.host.set_down(NIC);
        lab.host.rename(NIC, "ens9");
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
    }

    #[reference(passes)]
    fn del_works_when_the_parent_has_been_deleted(lab) {
        let (container, conf) = attached(lab);
        lab.host.delete_link(NIC);
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
    }

    #[reference(passes)]
    fn del_needs_no_default_route_even_without_a_master(lab) {
        lab.add_default_route(NIC);
        let container = lab.container();
        let conf = with(lab.conf(), "master", json!(""));
        lab.macvlan().add(&container, "eth0", &conf).run().result();
        lab.host.set_down(NIC);
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
    }

    /// An operator who edits a configuration wrongly still wants the pods of the old one to end.
    #[reference(not_run: "it fails on some of these and not on others")]
    fn del_works_whatever_the_configuration_has_become(lab) {
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
            lab.macvlan().del(&container, "eth0", &conf).run().done();
            lab.assert_gone(&container);
        }
    }

    #[reference(passes)]
    fn del_works_when_the_ranges_have_moved(lab) {
        let (container, mut conf) = attached(lab);
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.99.0.0/24"}]]);
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
    }

    #[reference(fails: "did not succeed")]
    fn del_works_with_malformed_cni_args(lab) {
        let (container, conf) = attached(lab);
        lab.macvlan().del(&container, "eth0", &conf).args("nonsense").run().done();
        lab.assert_gone(&container);
    }

    #[reference(passes)]
    fn del_leaves_the_other_containers_alone(lab) {
        let ((first, conf), (second, _)) = (attached(lab), attached(lab));
        lab.macvlan().del(&first, "eth0", &conf).run().done();
        assert_eq!(lab.leases(), ["192.168.50.101"]);
        assert!(second.has_link("eth0"));
        assert_reaches(&lab.neighbour, lan4(101));
        assert_silent(&lab.neighbour, lan4(100));
    }

    #[reference(passes)]
    fn add_after_del_works_again(lab) {
        for _ in 0..3 {
            let (container, conf) = attached(lab);
            lab.macvlan().del(&container, "eth0", &conf).run().done();
            lab.assert_gone(&container);
        }
    }

    /// FACTS 5: as many containers as there are addresses, all at once.
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

    /// A restart with an address of its own: the old container's DEL and the new one's ADD, on a
    /// range of one. Whoever comes first, in the end the address is the new one's or nobody's.
    #[reference(not_run: "its ADD fails for good when it comes first, and leaves the link (U1)")]
    fn del_of_the_old_beside_add_of_the_new_on_a_range_of_one(lab) {
        let mut ipam = lab.ipam(Families::V4);
        ipam["ranges"] = json!([[{"subnet": "192.168.50.0/24", "rangeStart": "192.168.50.100", "rangeEnd": "192.168.50.100"}]]);
        let conf = lab.conf_with(ipam);
        let mut old = lab.container();
        lab.macvlan().add(&old, "eth0", &conf).run().result();
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

    /// DEL took the link for somebody else's, released the address, and left it answering for that.
    #[reference(passes)]
    fn del_knows_a_link_whose_container_has_changed_its_mac(lab) {
        let (container, conf) = attached(lab);
        container.ip("link set eth0 address 02:00:00:00:00:99");
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
        assert_silent(&lab.neighbour, lan4(100));
    }

    #[reference(passes)]
    fn del_knows_a_passthru_link_whose_parent_has_changed_its_mac(lab) {
        let (container, conf) = lab.macvlan().attach(lab, &with(lab.conf(), "mode", json!("passthru")));
        lab.host.ip(&format!("link set {NIC} address 02:00:00:00:00:77"));
        assert_eq!(container.link("eth0").mac, "02:00:00:00:00:77");
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
    }

    /// U6 as it may not come back: the addresses are another container's, so the link is too.
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

    /// ... and so it is when it has even the address, which is another container's by now.
    #[reference(fails: "the foreign link is gone")]
    fn del_in_a_recycled_netns_leaves_a_macvlan_with_the_address_that_is_leased_to_another(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["ranges"][0][0]["rangeEnd"] = json!("192.168.50.100");
        let (old, old_conf) = lab.macvlan().attach(lab, &conf);
        // Gone without a DEL, as a netns goes.
        old.delete_link("eth0");
        fs::remove_file(lab.data_dir().join("lan/192.168.50.100")).expect("remove the lease");
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

    /// Of two DELs of one attachment the second failed on what the first had just taken away.
    #[reference(not_run: "one of them fails now and then")]
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
