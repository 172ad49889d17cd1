//! Compares link messages with those of netlink-packet-route.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoPortKind, InfoVlan, IpVlanFlags, IpVlanMode,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo as Info, LinkLayerType, LinkMessage, MacVlanMode,
    VlanProtocol as TheirVlanProtocol,
};
use proptest::prelude::*;

use super::*;
use crate::netlink::Message;
use crate::netlink::constants::NLM_F_REQUEST;
use crate::netlink::reference::{assert_same, emit, only};

fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = attributes;
    message
}

fn decoded(message: LinkMessage) -> Link {
    decode(&only(&emit(RouteNetlinkMessage::NewLink(message)))).unwrap()
}

#[test]
fn a_request_by_name_equals_that_of_netlink_packet_route() {
    let mut request = get_request(0, 0);
    request.text(IFLA_IFNAME, "eth0");
    let theirs =
        message(vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]), LinkAttribute::IfName("eth0".into())]);
    assert_same(request, NLM_F_REQUEST, RouteNetlinkMessage::GetLink(theirs));
}

#[test]
#[cfg(target_endian = "little")]
fn the_bytes_of_a_request_by_name() {
    let mut request = get_request(0, 0);
    request.text(IFLA_IFNAME, "eth0");
    #[rustfmt::skip]
    let golden = [
        // nlmsghdr: 52 bytes, RTM_GETLINK, NLM_F_REQUEST, sequence 1, port 2
        52, 0, 0, 0, 18, 0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0,
        // ifinfomsg
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // IFLA_EXT_MASK
        8, 0, 29, 0, 8, 0, 0, 0,
        // IFLA_IFNAME, padded
        9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0,
    ];
    assert_eq!(request.sealed(1, 2), golden);
}

#[test]
fn a_request_to_create_a_macvlan_link_equals_that_of_netlink_packet_route() {
    let netns = Netns::current().unwrap();
    let link = NewLink {
        name: "eth0",
        kind: LinkKind::Macvlan { mode: MacvlanMode::Passthru, bcqueuelen: Some(3000) },
        parent: 2,
        mtu: Some(1400),
        mac: Some(Mac::from([2, 0, 0, 0, 0, 9])),
        group: 7,
        arp: true,
        netns: Some(&netns),
    };
    let theirs = message(vec![
        LinkAttribute::IfName("eth0".into()),
        LinkAttribute::Link(2),
        LinkAttribute::Group(7),
        LinkAttribute::Mtu(1400),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]),
        LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()),
        LinkAttribute::LinkInfo(vec![
            Info::Kind(InfoKind::MacVlan),
            Info::Data(InfoData::MacVlan(vec![
                InfoMacVlan::Mode(MacVlanMode::Passthrough),
                InfoMacVlan::BcQueueLen(3000),
            ])),
        ]),
    ]);
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let theirs = RouteNetlinkMessage::NewLink(theirs);
    assert_same(new_request(&link), flags, theirs);
}

#[test]
fn a_request_to_create_a_vlan_link_equals_that_of_netlink_packet_route() {
    for (protocol, their_protocol) in
        [(VlanProtocol::Dot1Q, TheirVlanProtocol::Ieee8021Q), (VlanProtocol::Dot1Ad, TheirVlanProtocol::Ieee8021Ad)]
    {
        let tag = VlanTag { protocol, id: 4094 };
        let mut ours = create_request("ens3.4094", 2, 7, 0);
        kind::emit_vlan(&mut ours, tag);
        let info = vec![
            Info::Kind(InfoKind::Vlan),
            Info::Data(InfoData::Vlan(vec![InfoVlan::Id(4094), InfoVlan::Protocol(their_protocol)])),
        ];
        let theirs = message(vec![
            LinkAttribute::IfName("ens3.4094".into()),
            LinkAttribute::Link(2),
            LinkAttribute::Group(7),
            LinkAttribute::LinkInfo(info),
        ]);
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        assert_same(ours, flags, RouteNetlinkMessage::NewLink(theirs.clone()));
        let read = decoded(theirs);
        assert_eq!((read.kind.as_deref(), read.info), (Some("vlan"), LinkInfo::Vlan(tag)));
    }
}

#[test]
fn a_request_to_create_an_ipvlan_link_equals_that_of_netlink_packet_route() {
    for (mode, their_mode) in
        [(IpvlanMode::L2, IpVlanMode::L2), (IpvlanMode::L3, IpVlanMode::L3), (IpvlanMode::L3s, IpVlanMode::L3S)]
    {
        for (flag, their_flags) in [
            (IpvlanFlag::Bridge, IpVlanFlags::empty()),
            (IpvlanFlag::Private, IpVlanFlags::Private),
            (IpvlanFlag::Vepa, IpVlanFlags::Vepa),
        ] {
            let link = NewLink {
                name: "eth0",
                kind: LinkKind::Ipvlan { mode, flag },
                parent: 2,
                mtu: None,
                mac: None,
                group: 0,
                arp: true,
                netns: None,
            };
            let info = vec![
                Info::Kind(InfoKind::IpVlan),
                Info::Data(InfoData::IpVlan(vec![InfoIpVlan::Mode(their_mode), InfoIpVlan::Flags(their_flags)])),
            ];
            let theirs = message(vec![
                LinkAttribute::IfName("eth0".into()),
                LinkAttribute::Link(2),
                LinkAttribute::LinkInfo(info.clone()),
            ]);
            let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
            let theirs = RouteNetlinkMessage::NewLink(theirs);
            assert_same(new_request(&link), flags, theirs);

            let read = decoded(message(vec![LinkAttribute::IfName("eth0".into()), LinkAttribute::LinkInfo(info)]));
            assert_eq!(read.kind.as_deref(), Some("ipvlan"));
            assert_eq!(read.info, LinkInfo::Ipvlan { mode, flag });
        }
    }
}

#[test]
fn a_request_to_set_a_link_up_equals_that_of_netlink_packet_route() {
    let mut theirs = message(Vec::new());
    theirs.header.index = 5;
    theirs.header.flags = LinkFlags::Up;
    theirs.header.change_mask = LinkFlags::Up;
    let ours = change_request(RTM_SETLINK, 5, IFF_UP, IFF_UP);
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    assert_same(ours, flags, RouteNetlinkMessage::SetLink(theirs));
}

#[test]
fn every_attribute_of_a_link_is_read() {
    let mut theirs = message(vec![
        LinkAttribute::IfName("eth0".into()),
        LinkAttribute::Mtu(9000),
        LinkAttribute::Link(7),
        LinkAttribute::LinkNetNsId(-1),
        LinkAttribute::Controller(3),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]),
        LinkAttribute::LinkInfo(vec![
            Info::Kind(InfoKind::MacVlan),
            Info::Data(InfoData::MacVlan(vec![
                InfoMacVlan::Mode(MacVlanMode::Vepa),
                InfoMacVlan::BcQueueLen(1),
                InfoMacVlan::BcQueueLenUsed(2),
                InfoMacVlan::MacAddrCount(9),
            ])),
            Info::PortKind(InfoPortKind::Bond),
        ]),
    ]);
    theirs.header.index = 5;
    theirs.header.link_layer_type = LinkLayerType::Ether;
    theirs.header.flags = LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Multicast;
    let flags = theirs.header.flags.bits();
    assert_eq!(
        decoded(theirs),
        Link {
            ifindex: 5,
            name: "eth0".into(),
            mac: Some(Mac::from([2, 0, 0, 0, 0, 9])),
            mtu: 9000,
            up: true,
            carrier: true,
            loopback: false,
            arphrd: 1,
            flags,
            kind: Some("macvlan".into()),
            info: LinkInfo::Macvlan { mode: MacvlanMode::Vepa, bcqueuelen: Some(1), bcqueuelen_used: Some(2) },
            parent: Some(7),
            parent_netnsid: Some(-1),
            master: Some(3),
            group: 0,
            alias: String::new(),
            alternative_names: Vec::new(),
            slave_kind: Some("bond".into()),
        }
    );
}

#[test]
fn an_unknown_kind_or_mode_is_read_as_other() {
    for info in [
        vec![
            Info::Kind(InfoKind::MacVlan),
            Info::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Source)])),
        ],
        vec![Info::Kind(InfoKind::Bridge), Info::Data(InfoData::Bridge(vec![InfoBridge::HelloTime(200)]))],
    ] {
        let link = decoded(message(vec![LinkAttribute::IfName("x".into()), LinkAttribute::LinkInfo(info)]));
        assert_eq!(link.info, LinkInfo::Other);
    }
}

#[test]
fn a_hardware_address_of_another_length_is_not_read_as_a_mac() {
    let infiniband = vec![0x80; 20];
    let link = decoded(message(vec![LinkAttribute::IfName("ib0".into()), LinkAttribute::Address(infiniband)]));
    assert_eq!(link.mac, None);
}

#[test]
fn defects_are_errors() {
    let cut = Message { kind: RTM_NEWLINK, flags: 0, sequence: 0, port: 0, payload: &[0; 15] };
    assert_eq!(decode(&cut), Err("message shorter than its header"));
    let nameless = Message { payload: &[0; 16], ..cut };
    assert_eq!(decode(&nameless), Err("link without a name"));
    let other = Message { kind: 20, ..cut };
    assert_eq!(decode(&other), Err("not a link"));
}

fn any_kind() -> impl Strategy<Value = LinkKind> {
    let macvlan = (prop::sample::select(MacvlanMode::ALL), any::<Option<u32>>());
    let ipvlan = (prop::sample::select(IpvlanMode::ALL), prop::sample::select(IpvlanFlag::ALL));
    prop_oneof![
        macvlan.prop_map(|(mode, bcqueuelen)| LinkKind::Macvlan { mode, bcqueuelen }),
        ipvlan.prop_map(|(mode, flag)| LinkKind::Ipvlan { mode, flag }),
    ]
}

proptest! {
    /// The namespace is not compared, because messages of the kernel do not have it. A parent or an MTU of zero counts
    /// as none.
    #[test]
    fn a_created_link_reads_back(
        name in "[^\0%]{1,15}", kind in any_kind(), parent in any::<u32>(), mtu in any::<Option<u32>>(),
        mac in any::<Option<[u8; 6]>>(), group in any::<u32>(), arp in any::<bool>(),
    ) {
        let mac = mac.map(Mac::from);
        let mut request = new_request(&NewLink { name: &name, kind, parent, mtu, mac, group, arp, netns: None });
        let link = decode(&only(request.sealed(1, 2))).unwrap();
        let info = match kind {
            LinkKind::Macvlan { mode, bcqueuelen } => LinkInfo::Macvlan { mode, bcqueuelen, bcqueuelen_used: None },
            LinkKind::Ipvlan { mode, flag } => LinkInfo::Ipvlan { mode, flag },
        };
        prop_assert_eq!((link.name, link.kind.as_deref(), link.info), (name, Some(kind.name()), info));
        prop_assert_eq!((link.parent.unwrap_or(0), link.mtu, link.mac), (parent, mtu.unwrap_or(0), mac));
        prop_assert_eq!((link.group, link.flags & IFF_NOARP == 0), (group, arp));
    }

    /// The mask of changed flags is not compared.
    #[test]
    fn changed_flags_and_a_changed_group_read_back(ifindex in any::<u32>(), flags in any::<u32>(), group in any::<u32>()) {
        let mut request = change_request(RTM_NEWLINK, ifindex, flags, !0);
        request.u32(IFLA_GROUP, group);
        request.text(IFLA_IFNAME, "eth0");
        request.text(IFLA_IFALIAS, "a text");
        request.nest(IFLA_PROP_LIST | NLA_F_NESTED, |list| {
            list.text(IFLA_ALT_IFNAME, "lan0");
            list.text(IFLA_ALT_IFNAME, "office");
        });
        let link = decode(&only(request.sealed(1, 2))).unwrap();
        prop_assert_eq!((link.ifindex, link.flags, link.group), (ifindex, flags, group));
        prop_assert_eq!(link.alias, "a text");
        prop_assert_eq!(link.alternative_names, ["lan0", "office"]);
        prop_assert_eq!((link.up, link.carrier), (flags & 1 != 0, flags & 0x1_0000 != 0));
        prop_assert_eq!(link.loopback, flags & 8 != 0);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(payload in prop::collection::vec(any::<u8>(), 0..256)) {
        let message = Message { kind: RTM_NEWLINK, flags: 0, sequence: 0, port: 0, payload: &payload };
        if let Ok(link) = decode(&message) {
            prop_assert!(!link.name.is_empty());
        }
    }

    /// A damaged message reaches more code of the decoder than random bytes.
    #[test]
    fn a_damaged_link_is_read_without_a_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        length in any::<prop::sample::Index>(),
    ) {
        let link = NewLink {
            name: "eth0",
            kind: LinkKind::Macvlan { mode: MacvlanMode::Bridge, bcqueuelen: Some(1) },
            parent: 2,
            mtu: Some(1),
            mac: None,
            group: 1,
            arp: true,
            netns: None,
        };
        let mut request = new_request(&link);
        let mut bytes = request.sealed(1, 2).to_vec();
        bytes.drain(..16);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(length.index(bytes.len() + 1));
        let message = Message { kind: RTM_NEWLINK, flags: 0, sequence: 0, port: 0, payload: &bytes };
        if let Ok(link) = decode(&message) {
            prop_assert!(!link.name.is_empty());
        }
    }
}
