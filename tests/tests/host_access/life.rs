//! The host's link and its routes live as long as their containers, whatever happens to these or to the parent.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::thread;

use e2e::lab::{Families, NIC};
use e2e::patience::{PATIENCE, await_that};
use e2e::traffic::{assert_reaches, ping};
use e2e::{Binaries, Plugin, with};
use serde_json::json;

use crate::site::{DUAL, RECORDS, Site, address, addresses, assert_reach_each_other, other_lan};

e2e::on_both_kinds! {
    fn a_del_without_a_previous_result_removes_everything(site) {
        let conf = site.conf(DUAL);
        let (container, _) = site.attach(&conf);
        site.detach(&container, &conf);
        site.assert_nothing_left();
        // A second DEL has nothing to do.
        site.detach(&container, &conf);
    }

    fn a_del_without_a_namespace_removes_everything(site) {
        let conf = site.conf(DUAL);
        let (container, checked) = site.attach(&conf);
        site.plugin().del(&container, "eth0", &checked).without("CNI_NETNS").run().done();
        site.assert_nothing_left();
        assert_eq!(site.leases(), [""; 0]);
    }

    /// Without the stale route's removal, the host could not reach the machine that has the address now.
    fn the_routes_to_a_container_that_is_gone_are_removed_by_the_next_call(site) {
        let conf = site.conf(Families::V4);
        let (moved, _) = site.attach(&conf);
        let ip = address(&moved);
        let id = moved.id.clone();
        drop(moved);
        site.neighbour.ip(&format!("address add {ip}/32 dev eth0"));
        let container = site.container();
        let outcome = site.plugin().add(&container, "eth0", &conf).run();
        outcome.result();
        let said = format!("container {id} is gone: removed the host's routes to its eth0");
        assert!(outcome.stderr.contains(&said), "{}", outcome.text());
        assert_reaches(&site.host, ip);
        assert_eq!(site.host_routes(), [address(&container).to_string()]);
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    fn del_and_gc_remove_the_routes_to_a_container_that_is_gone(site) {
        let conf = site.conf(Families::V4);
        let (live, _) = site.attach(&conf);
        let (other, _) = site.attach(&conf);
        drop(site.attach(&conf));
        assert_eq!(site.records().len(), 3);
        site.detach(&other, &conf);
        assert_eq!(site.records(), [format!("{}:eth0", live.id)]);
        let (gone, _) = site.attach(&conf);
        let id = gone.id.clone();
        drop(gone);
        let outcome = site.gc(&conf, &[&live]);
        assert!(outcome.stderr.contains(&format!("container {id} is gone")), "{}", outcome.text());
        assert_eq!(site.records(), [format!("{}:eth0", live.id)]);
        assert_reach_each_other(site, &live);
    }

    /// No record can have such a name. DEL failed with the error of the kernel.
    fn a_container_with_a_long_id_has_no_record_and_its_del_succeeds(site) {
        let (_live, _) = site.attach(&site.conf(Families::V4));
        let mut conf = site.conf(Families::V4);
        conf.as_object_mut().expect("an object").remove("hostAccess");
        let (container, id) = (site.container(), "c".repeat(252));
        let call = |command: &str| site.plugin().attachment(command, &container, "eth0", &conf).env("CNI_CONTAINERID", &id);
        call("ADD").run().result();
        call("DEL").run().done();
        assert_eq!(container.link_names(), ["lo"]);
    }

    /// The list of a runtime that has lost its state is no reason to take a route from a container that runs.
    fn gc_keeps_the_routes_of_a_container_that_runs_and_is_not_in_the_list(site) {
        let conf = site.conf(DUAL);
        let (container, checked) = site.attach(&conf);
        site.gc(&conf, &[]);
        assert_reach_each_other(site, &container);
        site.checks(&container, &checked);
    }

    fn an_incomplete_record_of_an_add_that_was_killed_is_removed(site) {
        let conf = site.conf(Families::V4);
        let (live, _) = site.attach(&conf);
        site.host.run(|| fs::write(Path::new("/run").join(RECORDS).join("killed:eth0"), "{\"network\":").expect("write"));
        site.gc(&conf, &[&live]);
        assert_eq!(site.records(), [format!("{}:eth0", live.id)]);
        assert_reach_each_other(site, &live);
    }

    /// It is a remark for other attachments: their calls must not fail.
    fn a_record_that_cannot_be_read_disturbs_no_other_attachment(site) {
        let conf = site.conf(Families::V4);
        let odd = Path::new("/run").join(RECORDS).join("odd:eth0");
        let (first, _) = site.attach(&conf);
        // Reading a directory fails with EISDIR.
        site.host.run(|| fs::create_dir(&odd).expect("make a directory"));
        let container = site.container();
        let outcome = site.plugin().add(&container, "eth0", &conf).run();
        outcome.result();
        assert!(outcome.stderr.contains(&format!("read {}: ", odd.display())), "{}", outcome.text());
        assert_reach_each_other(site, &container);
        site.detach(&container, &conf);
        assert_reach_each_other(site, &first);
        site.detach(&first, &conf);
        assert_eq!(site.host_links().len(), 0);
        assert_eq!(site.records(), ["odd:eth0"]);
    }

    /// Another release may write other keys. Its record was removed as incomplete, and so its routes stayed for ever.
    fn the_record_of_another_release_is_left_alone_and_its_routes_too(site) {
        let conf = site.conf(Families::V4);
        let (live, checked) = site.attach(&conf);
        let path = Path::new("/run").join(RECORDS).join(format!("{}:eth0", live.id));
        let text = site.host.run(|| fs::read_to_string(&path).expect("read a record"));
        let other = text.replace("\"schema\":1", "\"schema\":99");
        assert_ne!(text, other);
        site.host.run(|| fs::write(&path, &other).expect("write a record"));
        site.gc(&conf, &[]);
        let (second, _) = site.attach(&conf);
        site.detach(&second, &conf);
        assert_reach_each_other(site, &live);
        let said = format!("read {}: another release of Underlay has written this record", path.display());
        site.plugin().check(&live, "eth0", &checked).run().fails(5, &[&said]);
        let outcome = site.plugin().del(&live, "eth0", &conf).run();
        assert!(outcome.done().stderr.contains(&format!("{said}: the host's routes to the container stay")), "{}", outcome.text());
        assert_eq!(site.records().len(), 1);
        // The record is again as this release wrote it.
        site.host.run(|| fs::write(&path, &text).expect("write a record"));
        site.detach(&live, &conf);
        site.assert_nothing_left();
    }

    /// CHECK succeeded, because it compared only what is in the record.
    fn check_fails_if_the_record_is_gone_or_cannot_be_read(site) {
        let conf = site.conf(Families::V4);
        let (container, checked) = site.attach(&conf);
        let path = Path::new("/run").join(RECORDS).join(format!("{}:eth0", container.id));
        let text = site.host.run(|| fs::read_to_string(&path).expect("read a record"));
        for content in [Some(&text[..text.len() / 2]), None] {
            site.host.run(|| match content {
                Some(content) => fs::write(&path, content).expect("write a record"),
                None => fs::remove_file(&path).expect("remove a record"),
            });
            site.differs(&container, &checked, "hostAccess is set, and ADD has left no record of it");
        }
        site.host.run(|| fs::create_dir(&path).expect("make a directory"));
        site.plugin().check(&container, "eth0", &checked).run().fails(5, &[&format!("read {}: ", path.display())]);
    }

    /// The records of one parent were looked at for another, although each ADD on it could have found this one.
    fn a_container_that_is_gone_is_found_among_those_of_another_parent(site) {
        let _machine = other_lan(site, "ens4", "10.9.9.1/24", "10.9.9.2/24");
        let mut other = with(with(site.conf(Families::V4), "name", json!("lan2")), "master", json!("ens4"));
        other["ipam"]["ranges"] = json!([[{"subnet": "10.9.9.0/24", "rangeStart": "10.9.9.100"}]]);
        let _others: Vec<_> = (0..8).map(|_| site.attach(&other)).collect();
        let conf = site.conf(Families::V4);
        let (gone, _) = site.attach(&conf);
        let ip = address(&gone).to_string();
        drop(gone);
        let _container = site.attach(&conf);
        assert!(!site.host_routes().contains(&ip), "the route to {ip} is left");
    }

    /// A DEL that had come meanwhile has found no record. The ADD wrote one nevertheless, for an address that was free.
    fn an_add_whose_container_has_gone_while_others_held_the_lock_does_nothing_on_the_host(site) {
        let conf = site.conf(Families::V4);
        let lock = site.host.run(|| {
            fs::create_dir("/run/underlay").expect("make a directory");
            fs::File::create("/run/underlay/host-side.lock").expect("make the lock")
        });
        lock.lock().expect("take the lock");
        let container = site.container();
        let outcome = thread::scope(|scope| {
            let call = scope.spawn(|| site.plugin().add(&container, "eth0", &conf).run());
            await_that("the interface is up", || container.find_link("eth0").is_some_and(|link| link.up));
            container.delete_link("eth0");
            lock.unlock().expect("release the lock");
            call.join().expect("a call")
        });
        assert!(outcome.error().msg.contains("it was deleted during the ADD"), "{}", outcome.text());
        site.assert_nothing_left();
        assert!(!site.host.run_entries("underlay").contains(&"attachments".to_owned()), "it has written a record");
    }

    /// systemd's 50-default.conf sets `rp_filter` of each new link, and an operator may load all sysctls at any time.
    fn an_add_repairs_the_sysctls_that_another_program_has_changed(site) {
        let conf = site.conf(DUAL);
        let (first, _) = site.attach(&conf);
        let link = site.host_link();
        let keys = [("ipv4", "rp_filter", "1"), ("ipv4", "arp_ignore", "8"), ("ipv6", "accept_ra", "0")];
        let path = |family: &str, key: &str| format!("net/{family}/conf/{}/{key}", link.name);
        for (family, key, _) in keys {
            site.host.set_sysctl(&path(family, key), "2");
        }
        let (second, _) = site.attach(&conf);
        for (family, key, expected) in keys {
            assert_eq!(site.host.sysctl(&path(family, key)), expected, "{key}");
        }
        for container in [&first, &second] {
            assert_reach_each_other(site, container);
        }
    }

    /// A container with host networking, or a second runtime with its own namespace of hosts, shares /run with this one.
    fn the_record_of_another_host_namespace_is_left_alone(site) {
        let conf = site.conf(Families::V4);
        let (live, _) = site.attach(&conf);
        let elsewhere = Site::new(site.kind);
        let (_theirs, _) = elsewhere.attach(&elsewhere.conf(Families::V4));
        let name = elsewhere.records().remove(0);
        let read = || fs::read(Path::new("/run").join(RECORDS).join(&name)).expect("read a record");
        let content = elsewhere.host.run(read);
        let foreign = Path::new("/run").join(RECORDS).join("foreign:eth0");
        site.host.run(|| fs::write(&foreign, content).expect("write a record"));
        site.gc(&conf, &[&live]);
        let container = site.container();
        let del = site.plugin().del(&container, "eth0", &conf).env("CNI_CONTAINERID", "foreign");
        del.run().done();
        assert_eq!(site.records(), [format!("{}:eth0", live.id), "foreign:eth0".to_owned()]);
        assert_reach_each_other(site, &live);
    }

    /// A reboot empties /run and the kernel's state.
    fn after_a_reboot_del_and_add_work(site) {
        let conf = site.conf(DUAL);
        let (container, checked) = site.attach(&conf);
        let after = Site::new(site.kind);
        after.plugin().del(&container, "eth0", &checked).without("CNI_NETNS").run().done();
        after.assert_nothing_left();
        let (again, _) = after.attach(&after.conf(DUAL));
        assert_reach_each_other(&after, &again);
    }

    /// As after `rm -r /run/underlay`: the kernel's state has no record.
    fn without_the_records_the_next_add_works(site) {
        let conf = site.conf(Families::V4);
        let (lost, _) = site.attach(&conf);
        let ip = address(&lost);
        site.host.run(|| fs::remove_dir_all("/run/underlay").expect("remove the records"));
        site.plugin().del(&lost, "eth0", &conf).run().done();
        let (container, _) = site.attach(&with(conf.clone(), "args", json!({"cni": {"ips": [ip.to_string()]}})));
        assert_eq!(address(&container), ip);
        assert_reach_each_other(site, &container);
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    fn a_parent_that_is_deleted_and_made_again_gets_a_new_link(site) {
        let lab_nic = "nic0";
        let _machine = other_lan(site, lab_nic, "192.168.50.10/24", "192.168.50.21/24");
        site.host.ip(&format!("address delete {}/24 dev {NIC}", site.host.v4));
        let conf = with(site.conf(Families::V4), "master", json!(lab_nic));
        let (first, _) = site.attach(&conf);
        site.host.delete_link(lab_nic);
        await_that("the host's link is gone", || site.host_links().is_empty());
        let _machine = other_lan(site, lab_nic, "192.168.50.10/24", "192.168.50.21/24");
        let (second, _) = site.attach(&conf);
        assert_reach_each_other_by_v4(site, &second);
        site.detach(&first, &conf);
        assert_reach_each_other_by_v4(site, &second);
        site.detach(&second, &conf);
        site.assert_nothing_left();
    }

    /// A link that is down loses its routes and neighbours; the parent's going down and up does not touch them.
    fn the_parent_may_go_down_and_come_up_again(site) {
        let (container, checked) = site.attach(&site.conf(DUAL));
        site.host.set_down(NIC);
        site.host.set_up(NIC);
        site.host.ip(&format!("address replace {}/64 dev {NIC} nodad", site.host.v6));
        for address in addresses(&container) {
            assert!(ping(&site.host, address, PATIENCE).is_some(), "{address} does not answer");
        }
        site.checks(&container, &checked);
    }

    fn two_networks_of_one_parent_share_the_link(site) {
        let first_conf = site.conf(Families::V4);
        let mut second_conf = with(site.conf(Families::V6), "name", json!("lan2"));
        second_conf["hostAccess"] = json!({"services": ["fd96::/112"]});
        let (first, _) = site.attach(&first_conf);
        let (second, _) = site.attach(&second_conf);
        let link = site.host_link();
        assert_reach_each_other(site, &first);
        assert_reach_each_other(site, &second);
        site.detach(&first, &first_conf);
        assert_eq!(site.host_link().ifindex, link.ifindex);
        assert_reach_each_other(site, &second);
        site.detach(&second, &second_conf);
        site.assert_nothing_left();
    }

    /// As with Multus: each DEL removes its own part only.
    fn one_container_can_have_two_interfaces_of_one_parent(site) {
        let mut conf = site.conf(DUAL);
        conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let (container, _) = site.attach(&conf);
        let outcome = site.plugin().add(&container, "net1", &conf).run();
        outcome.result();
        assert!(!outcome.stderr.contains("leave by net1 now"), "the first interface leads there: {}", outcome.text());
        let second = container.addresses("net1")[0].net.addr();
        assert_eq!(site.host_routes().len(), 4);
        assert_reaches(&site.host, address(&container));
        assert_reaches(&site.host, second);
        // The routes of the second interface take over.
        site.plugin().del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo", "net1"]);
        assert_reaches(&site.host, second);
        assert_reaches(&container, site.host.v4);
        assert_reaches(&container, site.host.v6);
        site.plugin().add(&container, "eth0", &conf).run().result();
        site.plugin().del(&container, "net1", &conf).run().done();
        assert_reach_each_other(site, &container);
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    fn one_container_can_have_two_interfaces_of_two_parents(site) {
        let _machine = other_lan(site, "ens4", "10.9.9.1/24", "10.9.9.2/24");
        let conf = site.conf(Families::V4);
        let (container, _) = site.attach(&conf);
        let range = json!([[{"subnet": "10.9.9.0/24", "rangeStart": "10.9.9.100"}]]);
        let mut other = with(with(conf.clone(), "name", json!("lan2")), "master", json!("ens4"));
        other["ipam"]["ranges"] = range;
        site.plugin().add(&container, "net1", &other).run().result();
        let second = container.addresses("net1")[0].net.addr();
        assert_eq!(site.host_links().len(), 2);
        // Each link has a private address of its own.
        assert_eq!(site.private(), ["169.254.255.1/32", "169.254.255.2/32"]);
        assert_reaches(&site.host, second);
        assert_reach_each_other(site, &container);
        assert_reaches(&container, "10.9.9.1".parse().expect("an address"));
        site.plugin().del(&container, "net1", &other).run().done();
        assert_reach_each_other(site, &container);
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    /// A second ADD of the same attachment fails, and takes nothing from the first.
    fn a_second_add_of_one_attachment_leaves_the_first_as_it_is(site) {
        let conf = site.conf(DUAL);
        let (container, checked) = site.attach(&conf);
        site.unchanged(&[&container], || site.plugin().add(&container, "eth0", &conf).run()).error();
        site.checks(&container, &checked);
        assert_reach_each_other(site, &container);
    }
}

/// The commands stand in docs/migrating.md.
#[test]
fn after_a_del_of_the_reference_the_commands_of_the_page_remove_the_rest() {
    let page = fs::read_to_string(e2e::document::folder().join("migrating.md")).expect("read the page");
    for command in ["`ip link delete underlay-ens3`", "`rm -r /run/underlay`"] {
        assert!(page.contains(command), "the page has no {command}");
    }
    let site = Site::new("macvlan");
    let conf = site.conf(DUAL);
    let (container, _) = site.attach(&conf);
    let scratch = site.path("reference");
    fs::create_dir(&scratch).expect("make a directory");
    let reference = Binaries::Reference.directory(&scratch);
    let plugin = Plugin::new(&site.host, reference.join("macvlan")).search(&reference);
    plugin.del(&container, "eth0", &conf).run().done();
    site.assert_gone(&container);
    assert_eq!(site.host_routes().len(), 2, "the reference knows nothing of them");
    site.host.ip(&format!("link delete underlay-{NIC}"));
    site.host.run(|| fs::remove_dir_all("/run/underlay").expect("remove the records"));
    site.assert_nothing_left();
}

/// In a user namespace, root cannot enter the directory of the host's root. Every DEL and GC failed there, although no
/// container had host access.
#[test]
fn records_of_another_user_are_no_obstacle_for_containers_without_host_access() {
    let site = Site::new("macvlan");
    site.host.run(|| {
        fs::create_dir_all(Path::new("/run").join(RECORDS)).expect("make a directory");
        chown("/run/underlay", Some(65_534), Some(65_534)).expect("give the directory away");
        fs::set_permissions("/run/underlay", Permissions::from_mode(0o700)).expect("close the directory");
    });
    let plugin = site.lab().under("setpriv --bounding-set -all,+net_admin,+sys_admin,+sys_ptrace", "macvlan");
    let conf = with(with(site.conf(DUAL), "hostAccess", json!(false)), "cniVersion", json!("1.1.0"));
    let (container, checked) = plugin.attach(site.lab(), &conf);
    plugin.check(&container, "eth0", &checked).run().done();
    plugin.call("GC", &with(conf.clone(), "cni.dev/valid-attachments", json!([]))).run().done();
    plugin.del(&container, "eth0", &conf).run().done();
    site.assert_gone(&container);
    // Host access needs the directory.
    let conf = with(conf, "hostAccess", json!(true));
    let names = ["lock /run/underlay/host-side.lock", "permission denied"];
    plugin.add(&site.container(), "eth0", &conf).run().fails(5, &names);
    site.assert_nothing_left();
}

fn assert_reach_each_other_by_v4(site: &Site, container: &e2e::Container) {
    e2e::traffic::echo(&site.host, container, address(container), 10_000);
    e2e::traffic::echo(container, &site.host, site.host.v4, 10_000);
}

mod ipvlan_only {
    use super::*;

    fn site() -> Option<Site> {
        e2e::needs::here(&[e2e::needs::Feature::Ipvlan]).then(|| Site::new("ipvlan"))
    }

    fn rp_filter(site: &Site) -> String {
        site.host.sysctl(&format!("net/ipv4/conf/{NIC}/rp_filter"))
    }

    /// Packets of containers to the host arrive on the parent.
    #[test]
    fn the_parents_reverse_path_filter_is_loose_as_long_as_the_link_exists() {
        let Some(site) = site() else { return };
        let conf = site.conf(Families::V4);
        for was in ["1", "0"] {
            site.host.set_sysctl("net/ipv4/conf/all/rp_filter", if was == "0" { "1" } else { "0" });
            site.host.set_sysctl(&format!("net/ipv4/conf/{NIC}/rp_filter"), was);
            let container = site.container();
            let outcome = site.plugin().add(&container, "eth0", &conf).run();
            outcome.result();
            let said = format!("set rp_filter of {NIC} from {was} to 2 as long as the host's link ");
            assert!(outcome.stderr.contains(&said), "{}", outcome.text());
            assert_eq!(rp_filter(&site), "2");
            assert_reach_each_other(&site, &container);
            site.detach(&container, &conf);
            assert_eq!(rp_filter(&site), was);
        }
    }

    /// With 2, the kernel drops all packets from machines that another interface leads to, if the parent has no address.
    #[test]
    fn a_parent_without_an_address_gets_no_reverse_path_filter() {
        let Some(site) = site() else { return };
        let nic = "ens4";
        site.plug(&site.host, nic);
        site.add_default_route();
        let key = format!("net/ipv4/conf/{nic}/rp_filter");
        let conf = with(site.conf(Families::V4), "master", json!(nic));
        for was in ["1", "2"] {
            site.host.set_sysctl(&key, was);
            let container = site.container();
            let outcome = site.plugin().add(&container, "eth0", &conf).run();
            outcome.result();
            let said = format!("set rp_filter of {nic} from {was} to 0 as long as the host's link ");
            assert!(outcome.stderr.contains(&said), "{}", outcome.text());
            assert_reach_each_other_by_v4(&site, &container);
            site.detach(&container, &conf);
            assert_eq!(site.host.sysctl(&key), was);
        }
        site.host.set_sysctl("net/ipv4/conf/all/rp_filter", "2");
        let outcome = site.plugin().add(&site.container(), "eth0", &conf).run();
        outcome.result();
        let said = format!("all.rp_filter is 2, and {nic} has no IPv4 address: ");
        assert!(outcome.stderr.contains(&said), "{}", outcome.text());
    }

    #[test]
    fn a_reverse_path_filter_that_the_operator_has_changed_meanwhile_stays() {
        let Some(site) = site() else { return };
        let conf = site.conf(Families::V4);
        site.host.set_sysctl(&format!("net/ipv4/conf/{NIC}/rp_filter"), "1");
        let (container, _) = site.attach(&conf);
        site.host.set_sysctl(&format!("net/ipv4/conf/{NIC}/rp_filter"), "0");
        site.detach(&container, &conf);
        assert_eq!(rp_filter(&site), "0");
    }

    /// Without this, no container reaches the host any more. The first value is the one that comes back.
    #[test]
    fn a_reverse_path_filter_that_is_made_strict_again_is_loosened_by_the_next_add() {
        let Some(site) = site() else { return };
        let conf = site.conf(Families::V4);
        site.host.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
        let (first, _) = site.attach(&conf);
        site.host.set_sysctl(&format!("net/ipv4/conf/{NIC}/rp_filter"), "1");
        let (second, _) = site.attach(&conf);
        assert_eq!(rp_filter(&site), "2");
        assert_reach_each_other(&site, &first);
        site.detach(&first, &conf);
        site.detach(&second, &conf);
        assert_eq!(rp_filter(&site), "0");
    }

    fn redirects(container: &e2e::Container) -> u64 {
        let snmp = container.run(|| fs::read_to_string("/proc/thread-self/net/snmp").expect("read the counters"));
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Icmp: ")).map(str::split_whitespace);
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let (_, value) = names.zip(values).find(|(name, _)| *name == "InRedirects").expect("a counter");
        value.parse().expect("a number")
    }

    /// The host forwards by the interface on which a packet came, so it sends redirects. After the second one, the
    /// container sent to the machine itself, and for five minutes after the address had moved to the host.
    #[test]
    fn an_address_that_moves_to_the_host_is_reached_after_redirects() {
        let Some(site) = site() else { return };
        let moving = "192.168.50.5";
        site.host.set_sysctl("net/ipv4/ip_forward", "1");
        site.neighbour.ip(&format!("address add {moving}/32 dev {}", site.neighbour.nic));
        let (container, _) = site.attach(&site.conf_with(Families::V4, json!({"addresses": [moving]})));
        let moving_ip = moving.parse().expect("an address");
        await_that("the host has sent redirects", || {
            assert!(ping(&container, moving_ip, PATIENCE).is_some());
            redirects(&container) >= 3
        });
        site.neighbour.ip(&format!("address delete {moving}/32 dev {}", site.neighbour.nic));
        site.host.ip(&format!("address add {moving}/32 dev {NIC}"));
        e2e::traffic::echo(&container, &site.host, moving_ip, 10_000);
    }

    /// The containers are gone without a DEL. The host's link was all that was left, and no other kind or mode could
    /// use the parent.
    #[test]
    fn the_link_of_containers_that_are_gone_does_not_keep_another_kind_or_mode_from_the_parent() {
        let Some(site) = site() else { return };
        let l2 = site.conf(Families::V4);
        let mut l3 = with(l2.clone(), "mode", json!("l3"));
        let mut macvlan = with(l2.clone(), "type", json!("macvlan"));
        for conf in [&mut l3, &mut macvlan] {
            conf["hostAccess"] = json!(false);
        }
        for (first, kind, conf) in
            [("ipvlan", "ipvlan", &l3), ("ipvlan", "macvlan", &macvlan), ("macvlan", "ipvlan", &l2)]
        {
            let with_access = with(macvlan.clone(), "hostAccess", json!(true));
            let with_access = if first == "ipvlan" { &l2 } else { &with_access };
            let (live, _) = site.lab().plugin(first).attach(site.lab(), with_access);
            site.lab().plugin(kind).add(&site.container(), "eth0", conf).run().error();
            assert_reach_each_other(&site, &live);
            drop(live);
            let (container, _) = site.lab().plugin(kind).attach(site.lab(), conf);
            site.lab().plugin(kind).del(&container, "eth0", conf).run().done();
            drop(container);
            site.assert_nothing_left();
        }
    }

    /// All links of ipvlan have the parent's MAC, so a new MAC makes all permanent neighbours wrong.
    #[test]
    fn check_names_a_parent_whose_mac_has_changed() {
        let Some(site) = site() else { return };
        let (container, checked) = site.attach(&site.conf(Families::V4));
        site.host.ip(&format!("link set {NIC} address 02:00:00:00:00:77"));
        site.differs(&container, &checked, "has another MAC");
        // A new container sees the new one.
        let (again, _) = site.attach(&site.conf(Families::V4));
        assert_reach_each_other(&site, &again);
    }
}
