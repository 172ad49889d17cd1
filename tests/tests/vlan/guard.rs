//! If the kernel deletes a VLAN link, it deletes all links on it. So it stays if anything uses it.

use e2e::lab::NIC;
use e2e::patience::await_that;
use e2e::traffic::assert_reaches;
use e2e::{Container, Outcome};

use crate::site::{ID, Process, Site, VLAN, address4, assert_on_vlan, describe};

/// The last container goes. Asserts that the link stays, and that a remark says why.
#[track_caller]
fn assert_kept(site: &Site, last: &Container, why: &str) {
    let link = site.vlan_link();
    let outcome = site.detach(last, &site.conf(ID));
    assert_says(&outcome, why);
    assert_eq!(site.vlan_link(), link);
    assert_eq!(site.records(), [""; 0]);
    assert!(site.host.link_names().iter().all(|name| !name.starts_with("underlay")), "a link of ours is left");
}

#[track_caller]
fn assert_says(outcome: &Outcome, why: &str) {
    let said = format!("VLAN link {VLAN} is kept: {why}");
    assert!(outcome.stderr.contains(&said), "not said: {said}\n{}", outcome.text());
}

/// Nothing uses the link any more, so GC removes it.
#[track_caller]
fn assert_gc_removes(site: &Site) {
    site.gc(&site.conf(ID), &[]);
    assert!(!site.host.has_link(VLAN), "GC has left the link");
}

/// Creates a link of the same kind as the reference does: without our lock and without a record.
fn attach_as_the_reference(site: &Site, container: &Container) {
    match site.kind {
        "macvlan" => site.host.create_macvlan_in(container, "eth0", VLAN),
        _ => site.host.create_ipvlan_in(container, "eth0", VLAN, "l2", "bridge"),
    }
    container.set_up("eth0");
    container.ip(&format!("address add {}/24 dev eth0", address4(ID, 50)));
}

e2e::on_both_kinds! {
    fn a_container_of_the_reference_keeps_its_link(site) {
        site.give_neighbour(ID);
        let (last, _) = site.attach(&site.conf(ID));
        let foreign = site.container();
        attach_as_the_reference(site, &foreign);
        assert_kept(site, &last, "a macvlan or ipvlan interface without a record is on it");
        assert_reaches(&foreign, address4(ID, 2));
        // GC does not take it either.
        assert_says(&site.gc(&site.conf(ID), &[]), "a macvlan or ipvlan interface without a record is on it");
        assert_reaches(&foreign, address4(ID, 2));
        foreign.delete_link("eth0");
        assert_gc_removes(site);
    }

    fn a_later_last_container_removes_a_link_that_was_kept(site) {
        let (last, _) = site.attach(&site.conf(ID));
        let foreign = site.container();
        attach_as_the_reference(site, &foreign);
        assert_kept(site, &last, "a macvlan or ipvlan interface without a record is on it");
        foreign.delete_link("eth0");
        let (last, _) = site.attach(&site.conf(ID));
        site.detach(&last, &site.conf(ID));
        site.assert_nothing_left();
    }

    fn an_address_of_the_operator_keeps_the_link(site) {
        let (last, _) = site.attach(&site.conf(ID));
        site.host.ip(&format!("address add {}/24 dev {VLAN}", address4(ID, 10)));
        assert_kept(site, &last, "it has the address 10.0.100.10/24");
        site.host.ip(&format!("address delete {}/24 dev {VLAN}", address4(ID, 10)));
        assert_gc_removes(site);
    }

    fn a_route_of_the_operator_keeps_the_link(site) {
        let (last, _) = site.attach(&site.conf(ID));
        site.host.ip(&format!("route add 10.99.0.0/16 dev {VLAN}"));
        assert_kept(site, &last, "the route to 10.99.0.0/16 leads through it");
        site.host.ip(&format!("route delete 10.99.0.0/16 dev {VLAN}"));
        assert_gc_removes(site);
    }

    fn a_vlan_on_the_link_keeps_it(site) {
        let (last, _) = site.attach(&site.conf(ID));
        site.host.create_vlan("inner0", VLAN, 7);
        assert_kept(site, &last, "interface inner0 is on it");
        site.host.delete_link("inner0");
        assert_gc_removes(site);
    }

    /// The kernel deletes it with the link, and does not name the link as its parent.
    fn a_vxlan_over_the_link_keeps_it(site) {
        let (last, _) = site.attach(&site.conf(ID));
        site.host.ip(&format!("link add vx0 type vxlan id 9 dev {VLAN} dstport 4789 group 239.1.1.1"));
        assert_kept(site, &last, "interface vx0 is on it");
        site.host.delete_link("vx0");
        assert_gc_removes(site);
    }

    /// As the plugin host-device or an operator does. A runtime mounts the namespace, or a process is in it.
    fn a_vlan_on_the_link_in_another_namespace_keeps_it(site) {
        let (last, _) = site.attach(&site.conf(ID));
        let elsewhere = site.container();
        site.host.create_vlan("inner0", VLAN, 7);
        site.host.ip(&format!("link set inner0 netns {}", elsewhere.path().display()));
        let _process = Process::sleep(&elsewhere);
        assert_kept(site, &last, "interface inner0 in another network namespace is on it");
        assert!(elsewhere.has_link("inner0"));
        elsewhere.delete_link("inner0");
        assert_gc_removes(site);
    }

    fn a_link_that_is_a_port_of_the_operators_bridge_stays(site) {
        let (last, _) = site.attach(&site.conf(ID));
        site.host.create_bridge("red");
        last.delete_link("eth0");
        site.host.make_port(VLAN, "red");
        assert_kept(site, &last, "it is a port of another interface");
        site.host.delete_link("red");
        assert_gc_removes(site);
    }

    fn a_link_of_the_operator_is_used_as_it_is_and_stays(site) {
        site.give_neighbour(ID);
        site.host.create_vlan("trunk7", NIC, ID);
        // The kernel finds out a little later that it carries packets.
        await_that("the link is up", || describe(&site.host, "trunk7")["operstate"] == "UP");
        let before = describe(&site.host, "trunk7");
        let (container, _) = site.attach(&site.conf(ID));
        assert_eq!(container.link("eth0").parent, Some(site.host.link("trunk7").ifindex));
        assert_on_vlan(site, &container, ID);
        site.detach(&container, &site.conf(ID));
        assert_eq!(describe(&site.host, "trunk7"), before);
        site.gc(&site.conf(ID), &[]);
        assert_eq!(describe(&site.host, "trunk7"), before);
        assert_eq!(site.host.link_names(), ["lo", NIC, "trunk7"]);
        assert_eq!(site.records(), [""; 0]);
    }

    /// The operator takes it over: `ip link set ens3.100 group default`.
    fn a_link_of_which_the_operator_has_changed_the_group_stays(site) {
        let (container, _) = site.attach(&site.conf(ID));
        site.host.ip(&format!("link set {VLAN} group default"));
        site.detach(&container, &site.conf(ID));
        site.gc(&site.conf(ID), &[]);
        assert!(site.host.has_link(VLAN));
        assert_eq!(site.records(), [""; 0]);
    }

    /// A DEL that was killed has reserved the link, so that the kernel refuses all sub-interfaces.
    fn a_reservation_that_was_left_is_removed_by_the_next_call(site) {
        let (container, _) = site.attach(&site.conf(ID));
        container.delete_link("eth0");
        let reserve = || {
            let index = site.vlan_link().ifindex;
            site.host.ip(&format!(
                "link add underlayh{index:x} link {VLAN} group {} type macvlan mode passthru",
                0x756c_766c_u32
            ));
        };
        reserve();
        let (second, _) = site.attach(&site.conf(ID));
        second.delete_link("eth0");
        reserve();
        site.detach(&second, &site.conf(ID));
        site.detach(&container, &site.conf(ID));
        site.assert_nothing_left();
    }

    fn a_container_whose_link_was_moved_by_its_user_does_not_lose_it(site) {
        site.give_neighbour(ID);
        let (container, _) = site.attach(&site.conf(ID));
        let elsewhere = site.container();
        container.ip(&format!("link set eth0 netns {}", elsewhere.path().display()));
        let outcome = site.detach(&container, &site.conf(ID));
        assert_says(&outcome, "a macvlan or ipvlan interface without a record is on it");
        elsewhere.ip(&format!("address add {}/24 dev eth0", address4(ID, 60)));
        elsewhere.set_up("eth0");
        assert_reaches(&elsewhere, address4(ID, 2));
    }
}
