//! Links: creation, deletion, and the attributes that the kernel returns.

use std::collections::BTreeSet;

use linux::{Errno, Error, LinkInfo, LinkKind, MacvlanMode, NewLink, Rtnl};

use crate::sandbox::{another_netns, ifindex, ip, mac, macvlan, nic, sandboxed, with_nic};

#[test]
fn a_new_macvlan_link_is_down_in_the_other_namespace_with_its_final_name() {
    with_nic(|rtnl, parent| {
        let there = another_netns();
        rtnl.new_link(&NewLink {
            kind: LinkKind::Macvlan { mode: MacvlanMode::Private, bcqueuelen: Some(2000) },
            mtu: Some(1400),
            mac: Some(mac("02:00:00:00:00:99")),
            netns: Some(&there),
            ..macvlan("eth0", parent)
        })
        .unwrap();

        let mut inside = Rtnl::open_in(&there).unwrap();
        let link = inside.link("eth0").unwrap().unwrap();
        assert_eq!(link.name, "eth0");
        assert_eq!(link.mac, Some(mac("02:00:00:00:00:99")));
        assert_eq!(link.mtu, 1400);
        assert!(!link.up && !link.loopback);
        assert_eq!(link.arphrd, 1);
        assert_eq!(link.kind.as_deref(), Some("macvlan"));
        assert_eq!(
            link.info,
            LinkInfo::Macvlan { mode: MacvlanMode::Private, bcqueuelen: Some(2000), bcqueuelen_used: Some(2000) }
        );
        assert_eq!(link.parent, Some(parent));
        assert!(link.parent_netnsid.is_some());
        let shown = there.enter(|| ip("-d link show eth0")).unwrap();
        for detail in ["mtu 1400", "02:00:00:00:00:99", "macvlan mode private"] {
            assert!(shown.contains(detail), "{detail} in {shown}");
        }
    });
}

/// Linux 6.1 refuses the name, and later kernels accept it.
#[test]
fn a_name_that_is_taken_only_here_is_accepted_there_or_eexist() {
    sandboxed(|| {
        let parent = nic();
        ip("link add eth0 type veth peer name eth0peer");
        let there = another_netns();
        let made = Rtnl::open().unwrap().new_link(&NewLink { netns: Some(&there), ..macvlan("eth0", parent) });
        let link = Rtnl::open_in(&there).unwrap().link("eth0").unwrap();
        match made {
            Ok(()) => assert_eq!(link.unwrap().kind.as_deref(), Some("macvlan")),
            Err(error) => assert_eq!((error.errno(), link.is_none()), (Some(Errno::EEXIST), true)),
        }
    });
}

#[test]
fn the_driver_of_a_link_is_that_of_the_sockets_namespace() {
    with_nic(|rtnl, _| {
        let there = another_netns();
        there.enter(|| ip("link add br7 type bridge")).unwrap();
        let name = |rtnl: &Rtnl, link: &str| rtnl.driver(link).unwrap().map(|driver| driver.name);
        assert_eq!(name(&Rtnl::open_in(&there).unwrap(), "br7").as_deref(), Some("bridge"));
        assert_eq!(name(rtnl, "br7"), None, "it is in another namespace");
        assert_eq!(rtnl.driver("nic0").unwrap().map(|driver| driver.bus_info).as_deref(), Some(""));
    });
}

#[test]
fn a_link_is_created_with_its_group_and_keeps_it() {
    sandboxed(|| {
        let parent = nic();
        let there = another_netns();
        let group = 0x7fff_ffff;
        let link = NewLink { netns: Some(&there), group, ..macvlan("made0", parent) };
        Rtnl::open().unwrap().new_link(&link).unwrap();
        let mut inside = Rtnl::open_in(&there).unwrap();
        let ifindex = ifindex(&mut inside, "made0");
        inside.rename(ifindex, "other0").unwrap();
        inside.set_up(ifindex).unwrap();
        inside.set_down(ifindex).unwrap();
        assert_eq!(inside.link("other0").unwrap().unwrap().group, group);
        let shown = there.enter(|| ip("-d link show other0")).unwrap();
        assert!(shown.contains("group 2147483647"), "{shown}");
    });
}

/// The test for it must leave no link.
#[test]
fn a_parent_that_is_a_bridge_port_is_found_out() {
    with_nic(|rtnl, parent| {
        let names = |rtnl: &mut Rtnl| rtnl.links().unwrap().into_iter().map(|link| link.name).collect::<Vec<_>>();
        let before = names(rtnl);
        assert!(!rtnl.is_taken_from_macvlan(parent).unwrap());
        assert_eq!(names(rtnl), before);
        rtnl.new_link(&macvlan("one0", parent)).unwrap();
        assert!(!rtnl.is_taken_from_macvlan(parent).unwrap());
        let one = ifindex(rtnl, "one0");
        rtnl.del_link(one).unwrap();
        ip("link add bridge0 type bridge");
        ip("link set nic0 master bridge0");
        assert!(rtnl.is_taken_from_macvlan(parent).unwrap());
        assert_eq!(rtnl.is_taken_from_macvlan(9999).unwrap_err().errno(), Some(Errno::ENODEV));
    });
}

#[test]
fn every_macvlan_mode_is_set_and_read_back() {
    sandboxed(|| {
        let mut rtnl = Rtnl::open().unwrap();
        for &mode in MacvlanMode::ALL {
            let parent = nic();
            let kind = LinkKind::Macvlan { mode, bcqueuelen: None };
            rtnl.new_link(&NewLink { kind, ..macvlan("eth0", parent) }).unwrap();
            let link = rtnl.link("eth0").unwrap().unwrap();
            match link.info {
                LinkInfo::Macvlan { mode: read, .. } => assert_eq!(read, mode),
                other => panic!("{other:?}"),
            }
            // The parent is in the same namespace, so the kernel names no other one.
            assert_eq!((link.parent, link.parent_netnsid), (Some(parent), None));
            let shown = ip("-d link show eth0");
            assert!(shown.contains(&format!("macvlan mode {mode}")), "{shown}");
            rtnl.del_link(parent).unwrap();
        }
    });
}

#[test]
fn a_missing_link_is_none_and_not_an_error() {
    sandboxed(|| {
        let mut rtnl = Rtnl::open().unwrap();
        assert_eq!(rtnl.link("eth0").unwrap(), None);
        assert_eq!(rtnl.link_by_index(4711).unwrap(), None);
        assert_eq!(rtnl.link_by_index(0).unwrap(), None);
        let lo = rtnl.link("lo").unwrap().unwrap();
        assert!(lo.loopback && !lo.up);
        assert_eq!((lo.ifindex, lo.kind, lo.info), (1, None, LinkInfo::None));
    });
}

#[test]
fn a_link_is_found_by_its_alternative_name() {
    with_nic(|rtnl, parent| {
        ip("link property add dev nic0 altname uplink");
        let link = rtnl.link("uplink").unwrap().unwrap();
        assert_eq!((link.ifindex, link.name.as_str()), (parent, "nic0"));
    });
}

#[test]
fn the_master_of_a_bridge_port_is_read() {
    with_nic(|rtnl, _| {
        ip("link add br0 type bridge");
        ip("link set nic0 master br0");
        let bridge = rtnl.link("br0").unwrap().unwrap();
        assert_eq!(bridge.kind.as_deref(), Some("bridge"));
        assert_eq!(bridge.info, LinkInfo::Other);
        let port = rtnl.link("nic0").unwrap().unwrap();
        assert_eq!(port.master, Some(bridge.ifindex));
        assert_eq!(port.slave_kind.as_deref(), Some("bridge"));
        assert_eq!(port.kind.as_deref(), Some("veth"));
    });
}

#[test]
fn a_bridge_port_cannot_be_a_parent() {
    with_nic(|rtnl, parent| {
        ip("link add br0 type bridge");
        ip("link set nic0 master br0");
        let error = rtnl.new_link(&macvlan("eth0", parent)).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EBUSY));
        assert_eq!(error.to_string(), format!("create macvlan eth0 on ifindex {parent}: device or resource busy"));
        assert_eq!(rtnl.link("eth0").unwrap(), None);
    });
}

#[test]
fn a_taken_name_is_eexist() {
    with_nic(|rtnl, parent| {
        rtnl.new_link(&macvlan("eth0", parent)).unwrap();
        let error = rtnl.new_link(&macvlan("eth0", parent)).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST));
        assert_eq!(error.to_string(), format!("create macvlan eth0 on ifindex {parent}: file exists"));
    });
}

#[test]
fn a_missing_parent_is_enodev() {
    sandboxed(|| {
        let mut rtnl = Rtnl::open().unwrap();
        let error = rtnl.new_link(&macvlan("eth0", 4711)).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV));
    });
}

#[test]
fn the_error_has_the_text_of_the_kernel_about_an_mtu() {
    with_nic(|rtnl, parent| {
        let error = rtnl.new_link(&NewLink { mtu: Some(70_000), ..macvlan("eth0", parent) }).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("create macvlan eth0 on ifindex {parent}: invalid argument: mtu greater than device maximum")
        );
    });
}

#[test]
fn setting_up_a_second_link_with_the_same_mac_is_eaddrinuse() {
    with_nic(|rtnl, parent| {
        for name in ["eth0", "eth1"] {
            rtnl.new_link(&NewLink { mac: Some(mac("02:00:00:00:00:77")), ..macvlan(name, parent) }).unwrap();
        }
        let first = ifindex(rtnl, "eth0");
        let second = ifindex(rtnl, "eth1");
        rtnl.set_up(first).unwrap();
        let error = rtnl.set_up(second).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EADDRINUSE));
    });
}

#[test]
fn a_link_is_renamed_set_up_set_down_and_deleted() {
    with_nic(|rtnl, parent| {
        rtnl.new_link(&macvlan("before", parent)).unwrap();
        let link = ifindex(rtnl, "before");
        rtnl.rename(link, "fifteen.letters").unwrap();
        assert_eq!(rtnl.link("before").unwrap(), None);
        assert_eq!(ifindex(rtnl, "fifteen.letters"), link);

        rtnl.set_up(link).unwrap();
        let up = rtnl.link_by_index(link).unwrap().unwrap();
        assert!(up.up && up.carrier, "{up:?}");
        rtnl.set_down(link).unwrap();
        assert!(!rtnl.link_by_index(link).unwrap().unwrap().up);

        rtnl.del_link(link).unwrap();
        assert_eq!(rtnl.link_by_index(link).unwrap(), None);
        let error = rtnl.del_link(link).unwrap_err();
        assert_eq!(error.to_string(), format!("delete link with ifindex {link}: no such device"));
        assert_eq!(error.errno(), Some(Errno::ENODEV));
    });
}

#[test]
fn invalid_names_are_refused_without_a_call_of_the_kernel() {
    with_nic(|rtnl, parent| {
        for (name, why) in [
            ("", "empty"),
            ("sixteen_letters_", "longer than 15 bytes"),
            ("eth%d", "contains NUL or %"),
            ("eth0\0x", "contains NUL or %"),
        ] {
            for error in [
                rtnl.link(name).unwrap_err(),
                rtnl.new_link(&macvlan(name, parent)).unwrap_err(),
                rtnl.rename(parent, name).unwrap_err(),
            ] {
                let Error::InterfaceName { name: said, reason } = error else { panic!("{error:?}") };
                assert_eq!((said.as_str(), reason), (name, why));
            }
        }
        let names: Vec<_> = rtnl.links().unwrap().into_iter().map(|l| l.name).collect();
        assert_eq!(names, ["lo", "wire0", "nic0"]);
    });
}

#[test]
fn a_list_of_links_in_several_datagrams_is_complete() {
    with_nic(|rtnl, parent| {
        let names: BTreeSet<_> = (0..150).map(|n| format!("mv{n}")).collect();
        for name in &names {
            rtnl.new_link(&macvlan(name, parent)).unwrap();
        }
        let links = rtnl.links().unwrap();
        assert_eq!(links.len(), names.len() + 3);
        let found: BTreeSet<_> =
            links.into_iter().filter(|link| link.kind.as_deref() == Some("macvlan")).map(|link| link.name).collect();
        assert_eq!(found, names);
    });
}

#[test]
fn links_of_one_kind_are_listed_and_others_are_not() {
    with_nic(|rtnl, nic0| {
        assert_eq!(rtnl.links_of_kind("macvlan").unwrap(), []);
        rtnl.new_link(&macvlan("mv0", nic0)).unwrap();
        let names = |rtnl: &mut Rtnl, kind| {
            rtnl.links_of_kind(kind).unwrap().into_iter().map(|link| link.name).collect::<Vec<_>>()
        };
        assert_eq!(names(rtnl, "macvlan"), ["mv0"]);
        assert_eq!(names(rtnl, "veth").len(), 2);
        assert_eq!(names(rtnl, "nosuchkind"), [""; 0]);
    });
}

#[test]
fn a_link_has_an_alias_and_alternative_names_and_no_arp() {
    with_nic(|rtnl, nic0| {
        rtnl.new_link(&NewLink { arp: false, ..macvlan("mv0", nic0) }).unwrap();
        let index = ifindex(rtnl, "mv0");
        rtnl.set_alias(index, "for the test").unwrap();
        rtnl.add_alternative_name(index, "another-name-of-mv0").unwrap();
        let link = rtnl.link_by_any_name("another-name-of-mv0").unwrap().unwrap();
        assert_eq!((link.ifindex, link.alias.as_str()), (index, "for the test"));
        let shown = ip("link show mv0");
        assert!(shown.contains("NOARP") && shown.contains("altname another-name-of-mv0"), "{shown}");
        let taken = rtnl.add_alternative_name(nic0, "another-name-of-mv0").unwrap_err();
        assert_eq!(taken.errno(), Some(Errno::EEXIST));
    });
}
