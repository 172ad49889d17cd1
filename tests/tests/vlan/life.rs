//! The VLAN link lives as long as its containers, whatever happens to these or to the parent.

use std::fs;
use std::path::Path;

use e2e::lab::NIC;
use e2e::patience::await_that;
use e2e::with;
use serde_json::json;

use crate::site::{ID, RECORDS, Site, VLAN, assert_on_vlan, describe};

e2e::on_both_kinds! {
    fn the_link_comes_with_the_first_container_and_goes_with_the_last(site) {
        site.give_neighbour(ID);
        let conf = site.conf(ID);
        let (first, checked) = site.attach(&conf);
        let (second, _) = site.attach(&conf);
        let link = site.vlan_link();
        assert_eq!((link.kind.as_deref(), link.up, link.mtu), (Some("vlan"), true, 1500));
        assert_eq!(link.parent, Some(site.host.link(NIC).ifindex));
        let seen = describe(&site.host, VLAN);
        assert_eq!(seen["linkinfo"]["info_data"]["protocol"], "802.1Q", "{seen}");
        assert_eq!(seen["linkinfo"]["info_data"]["id"], ID, "{seen}");
        assert_eq!(seen["altnames"], json!(["underlay-ens3-vlan100"]), "{seen}");
        assert_eq!(seen["ifalias"], "Underlay: VLAN 100 of ens3", "{seen}");
        for container in [&first, &second] {
            assert_eq!(container.link("eth0").parent, Some(link.ifindex));
            assert_on_vlan(site, container, ID);
        }
        site.checks(&first, &checked);
        site.detach(&first, &conf);
        assert_eq!(site.vlan_link().ifindex, link.ifindex);
        assert_on_vlan(site, &second, ID);
        site.detach(&second, &conf);
        site.assert_nothing_left();
    }

    fn a_del_needs_neither_the_key_nor_the_parent_nor_a_previous_result(site) {
        let (container, _) = site.attach(&site.conf(ID));
        let mut other = with(site.conf(ID), "master", json!("gone0"));
        other.as_object_mut().expect("an object").remove("vlan");
        site.detach(&container, &other);
        site.assert_nothing_left();
        // A second DEL has nothing to do.
        site.detach(&container, &other);
    }

    fn a_del_without_a_namespace_removes_everything(site) {
        let conf = site.conf(ID);
        let (container, checked) = site.attach(&conf);
        let del = site.plugin().del(&container, "eth0", &checked).without("CNI_NETNS");
        drop(container);
        let outcome = del.run();
        outcome.done();
        assert_eq!(site.records(), [""; 0]);
        // The kernel deletes namespaces one after the other, also those of other tests. The call waits for 5 s.
        if outcome.stderr.contains("VLAN link ens3.100 is kept: a macvlan or ipvlan interface without a record is on it") {
            await_that("GC has removed the link", || {
                site.gc(&conf, &[]);
                !site.host.has_link(VLAN)
            });
        }
        site.assert_nothing_left();
    }

    fn gc_removes_the_link_of_containers_that_are_gone(site) {
        let conf = site.conf(ID);
        site.attach_and_lose(&conf);
        site.attach_and_lose(&conf);
        let (live, _) = site.attach(&site.conf(200));
        site.gc(&conf, &[]);
        assert_eq!(site.host.link_names(), ["lo", NIC, "ens3.200"]);
        assert_eq!(site.records(), [format!("{}:eth0", live.id)]);
        site.detach(&live, &site.conf(200));
        site.assert_nothing_left();
    }

    /// The list of a runtime that has lost its state is no reason to take the link from a container that runs.
    fn gc_keeps_the_link_of_a_container_that_runs_and_is_not_in_the_list(site) {
        site.give_neighbour(ID);
        let (container, checked) = site.attach(&site.conf(ID));
        site.unchanged(&[&container], || site.gc(&site.conf(ID), &[]));
        assert_on_vlan(site, &container, ID);
        site.checks(&container, &checked);
    }

    /// A container that is gone without a DEL is no user.
    fn the_last_container_that_runs_removes_the_link_of_those_that_are_gone(site) {
        let conf = site.conf(ID);
        let (last, _) = site.attach(&conf);
        site.attach_and_lose(&conf);
        site.attach_and_lose(&conf);
        site.detach(&last, &conf);
        site.assert_nothing_left();
    }

    /// A reboot empties /run and the kernel's state.
    fn after_a_reboot_del_and_add_work(site) {
        let conf = site.conf(ID);
        let (container, checked) = site.attach(&conf);
        let after = Site::new(site.kind);
        after.plugin().del(&container, "eth0", &checked).without("CNI_NETNS").run().done();
        after.assert_nothing_left();
        after.give_neighbour(ID);
        let (again, _) = after.attach(&after.conf(ID));
        assert_on_vlan(&after, &again, ID);
    }

    /// As after `rm -r /run/underlay`.
    fn without_the_records_the_next_container_takes_the_link_over(site) {
        let conf = site.conf(ID);
        let (lost, _) = site.attach(&conf);
        site.host.run(|| fs::remove_dir_all("/run/underlay").expect("remove the records"));
        site.detach(&lost, &conf);
        let link = site.vlan_link();
        let (container, _) = site.attach(&conf);
        assert_eq!(site.vlan_link().ifindex, link.ifindex);
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    fn a_second_add_of_one_attachment_leaves_the_first_as_it_is(site) {
        site.give_neighbour(ID);
        let conf = site.conf(ID);
        let (container, checked) = site.attach(&conf);
        site.unchanged(&[&container], || site.plugin().add(&container, "eth0", &conf).run()).error();
        site.checks(&container, &checked);
        assert_on_vlan(site, &container, ID);
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    fn an_add_that_fails_leaves_no_link(site) {
        let mut conf = site.conf(ID);
        conf["ipam"]["routes"] = json!([{"dst": "10.77.0.0/16", "gw": "10.88.0.1"}]);
        let container = site.container();
        site.plugin().add(&container, "eth0", &conf).run().fails(100, &["10.77.0.0/16"]);
        assert_eq!(container.link_names(), ["lo"]);
        assert_eq!(site.leases_in("lan100"), [""; 0]);
        site.assert_nothing_left();
    }

    fn a_parent_that_is_renamed_keeps_its_vlan(site) {
        site.give_neighbour(ID);
        let conf = site.conf(ID);
        let (container, _) = site.attach(&conf);
        site.host.set_down(NIC);
        site.host.rename(NIC, "lan0");
        site.host.set_up("lan0");
        let now = with(conf.clone(), "master", json!("lan0"));
        let (second, _) = site.attach(&now);
        assert_eq!(second.link("eth0").parent, Some(site.vlan_link().ifindex));
        assert_on_vlan(site, &second, ID);
        site.detach(&container, &conf);
        assert_on_vlan(site, &second, ID);
        site.detach(&second, &now);
        assert_eq!(site.host.link_names(), ["lo", "lan0"]);
        assert_eq!(site.records(), [""; 0]);
    }

    fn a_parent_that_is_deleted_and_made_again_gets_a_new_link(site) {
        let conf = with(site.conf(ID), "master", json!("nic0"));
        site.host.create_stray("nic0");
        site.host.set_up("nic0");
        let (first, _) = site.attach(&conf);
        site.host.delete_link("nic0");
        await_that("the container's link is gone", || first.link_names() == ["lo"]);
        site.host.create_stray("nic0");
        site.host.set_up("nic0");
        let (second, checked) = site.attach(&conf);
        site.detach(&first, &conf);
        site.checks(&second, &checked);
        site.detach(&second, &conf);
        assert!(!site.host.has_link("nic0.100"));
        assert_eq!(site.records(), [""; 0]);
    }

    /// The kernel sets the links of VLANs up together with their parent.
    fn a_parent_that_is_down_gets_the_link_and_both_come_up_later(site) {
        site.give_neighbour(ID);
        site.host.set_down(NIC);
        let container = site.container();
        let outcome = site.plugin().add(&container, "eth0", &site.conf(ID)).run();
        outcome.result();
        assert!(outcome.stderr.contains("parent ens3.100 is down"), "{}", outcome.text());
        assert!(!site.vlan_link().up);
        site.host.set_up(NIC);
        await_that("the VLAN link is up", || site.vlan_link().up);
        assert_on_vlan(site, &container, ID);
        site.detach(&container, &site.conf(ID));
        site.assert_nothing_left();
    }

    fn a_link_that_was_set_down_is_set_up_by_the_next_add(site) {
        let (_container, _) = site.attach(&site.conf(ID));
        site.host.set_down(VLAN);
        let (_second, _) = site.attach(&site.conf(ID));
        assert!(site.vlan_link().up);
    }

    fn with_host_access_the_hosts_link_goes_first(site) {
        site.give_neighbour(ID);
        site.add_default_route();
        let conf = with(site.conf(ID), "hostAccess", json!(true));
        let (first, checked) = site.attach(&conf);
        let (second, _) = site.attach(&conf);
        let links = site.host.links().into_iter();
        let own: Vec<_> = links.filter(|link| link.name.starts_with("underlay")).map(|link| link.parent).collect();
        assert_eq!(own, [Some(site.vlan_link().ifindex)]);
        for container in [&first, &second] {
            assert_on_vlan(site, container, ID);
            e2e::traffic::echo(container, &site.host, site.host.v4, 10_000);
            for address in crate::site::addresses(container) {
                e2e::traffic::echo(&site.host, container, address, 10_000);
            }
        }
        site.checks(&first, &checked);
        site.detach(&first, &conf);
        assert_on_vlan(site, &second, ID);
        e2e::traffic::echo(&second, &site.host, site.host.v4, 10_000);
        site.detach(&second, &conf);
        site.assert_nothing_left();
    }

    /// The VLAN link was configured again, and the kernel dropped the packets of the first container to the host.
    fn an_add_while_the_parent_is_down_takes_no_host_access_from_others(site) {
        site.give_neighbour(ID);
        site.add_default_route();
        let conf = with(site.conf(ID), "hostAccess", json!(true));
        let (first, _) = site.attach(&conf);
        site.host.set_down(NIC);
        let (_second, _) = site.attach(&site.conf(ID));
        site.host.set_up(NIC);
        await_that("the VLAN link is up", || site.vlan_link().up);
        e2e::traffic::echo(&first, &site.host, site.host.v4, 10_000);
    }

    /// Its container has a VLAN and host access, and is gone.
    fn with_host_access_a_container_that_is_gone_leaves_nothing(site) {
        let conf = with(site.conf(ID), "hostAccess", json!(true));
        let (last, _) = site.attach(&conf);
        site.attach_and_lose(&conf);
        site.attach_and_lose(&site.conf(ID));
        site.detach(&last, &conf);
        site.assert_nothing_left();
    }

    /// Some runtimes never call GC.
    fn the_next_add_on_the_parent_removes_the_link_of_containers_that_are_gone(site) {
        site.attach_and_lose(&site.conf(200));
        let (container, _) = site.attach(&site.conf(ID));
        assert_eq!(site.host.link_names(), ["lo", NIC, VLAN]);
        site.detach(&container, &site.conf(ID));
        site.assert_nothing_left();
    }

    /// The kernel sets the links of VLANs up together with their parent, also one that a killed ADD has not configured.
    fn a_link_that_is_up_and_not_complete_is_configured_by_the_next_add(site) {
        site.host.ip(&format!("link add link {NIC} name {VLAN} group {} up type vlan id {ID}", 0x756c_766c_u32));
        let (container, _) = site.attach(&site.conf(ID));
        assert_eq!(describe(&site.host, VLAN)["ifalias"], "Underlay: VLAN 100 of ens3");
        assert_eq!(site.host.sysctl("net/ipv4/conf/ens3.100/arp_ignore"), "1");
        assert_eq!(site.host.address_texts(VLAN), [""; 0]);
        site.detach(&container, &site.conf(ID));
        site.assert_nothing_left();
    }

    fn gc_removes_a_vlan_and_the_vlan_in_it_at_once(site) {
        let (outer, _) = site.attach(&site.conf(ID));
        let inner = with(site.conf(5), "master", json!(VLAN));
        site.attach_and_lose(&inner);
        outer.delete_link("eth0");
        drop(outer);
        site.gc(&inner, &[]);
        site.assert_nothing_left();
    }

    /// An ADD that was killed has left the record of another VLAN.
    fn an_add_after_a_killed_one_with_another_vlan_removes_the_first_link(site) {
        let (container, _) = site.attach(&site.conf(200));
        container.delete_link("eth0");
        site.plugin().add(&container, "eth0", &site.conf(ID)).run().result();
        assert_eq!(site.host.link_names(), ["lo", NIC, VLAN]);
        site.detach(&container, &site.conf(ID));
        site.assert_nothing_left();
    }

    fn a_record_that_is_damaged_disturbs_no_other_attachment(site) {
        site.give_neighbour(ID);
        let conf = site.conf(ID);
        let (live, _) = site.attach(&conf);
        let (last, _) = site.attach(&conf);
        let damaged = Path::new("/run").join(RECORDS).join("damaged:eth0");
        site.host.run(|| fs::write(damaged, "{\"network\":").expect("write"));
        site.detach(&last, &conf);
        assert_on_vlan(site, &live, ID);
        site.gc(&conf, &[&live]);
        assert_eq!(site.records(), [format!("{}:eth0", live.id)]);
        site.detach(&live, &conf);
        site.assert_nothing_left();
    }
}
