//! Compares route messages with those of netlink-packet-route.

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use proptest::prelude::*;

use super::codec::{decode, kind_of, new_request};
use super::*;
use crate::netlink::constants::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, RTM_NEWROUTE};
use crate::netlink::reference::{any_net, assert_same, emit, only};
use crate::netlink::{Decode, Message};

const FLAGS: u16 = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> RouteAddress {
    match ip(text) {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// A unicast route in table main with the protocol `boot` and the scope `universe`.
fn message(family: AddressFamily, prefix: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family,
        destination_prefix_length: prefix,
        table: 254,
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = attributes;
    message
}

fn read(message: &Message<'_>) -> Decode<Vec<Route>> {
    let mut routes = Vec::new();
    decode(message, |route| routes.push(route))?;
    Ok(routes)
}

fn decoded(message: RouteMessage) -> Decode<Vec<Route>> {
    read(&only(&emit(RouteNetlinkMessage::NewRoute(message))))
}

#[test]
fn a_request_with_all_attributes_equals_that_of_netlink_packet_route() {
    for (dst, gateway, family) in
        [("192.168.7.0/24", "10.0.0.1", AddressFamily::Inet), ("fd07::/48", "fe80::1", AddressFamily::Inet6)]
    {
        let route = Route {
            gateway: Some(ip(gateway)),
            oif: Some(5),
            priority: Some(77),
            table: Some(1234),
            mtu: Some(1280),
            advmss: Some(1200),
            scope: Some(0),
            protocol: Some(3),
            ..Route::to(net(dst))
        };
        let destination = address(dst.split('/').next().unwrap());
        let mut theirs = message(
            family,
            route.dst.prefix_len(),
            vec![
                RouteAttribute::Destination(destination),
                RouteAttribute::Gateway(address(gateway)),
                RouteAttribute::Oif(5),
                RouteAttribute::Priority(77),
                RouteAttribute::Table(1234),
                RouteAttribute::Metrics(vec![RouteMetric::Mtu(1280), RouteMetric::Advmss(1200)]),
            ],
        );
        theirs.header.table = 0;
        assert_eq!(decoded(theirs.clone()), Ok(vec![route.clone()]));
        let theirs = RouteNetlinkMessage::NewRoute(theirs);
        assert_same(new_request(&route, NLM_F_EXCL), FLAGS, theirs);
    }
}

#[test]
fn a_default_route_has_no_destination() {
    let route = Route { gateway: Some(ip("10.0.0.1")), ..Route::default() };
    let gateway = RouteAttribute::Gateway(address("10.0.0.1"));
    let theirs = message(AddressFamily::Inet, 0, vec![gateway]);
    let theirs = RouteNetlinkMessage::NewRoute(theirs);
    assert_same(new_request(&route, NLM_F_EXCL), FLAGS, theirs);
}

#[test]
fn the_default_scope_depends_on_gateway_kind_and_family() {
    for (dst, kind, theirs_kind, scope) in [
        ("10.2.0.0/16", RouteKind::Unicast, RouteType::Unicast, RouteScope::Link),
        ("10.2.0.0/16", RouteKind::Local, RouteType::Local, RouteScope::Host),
        ("10.2.0.0/16", RouteKind::Blackhole, RouteType::BlackHole, RouteScope::Universe),
        ("fd02::/16", RouteKind::Unicast, RouteType::Unicast, RouteScope::Universe),
    ] {
        let route = Route { kind, ..Route::to(net(dst).trunc()) };
        let family = match route.dst {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        let destination = address(&route.dst.addr().to_string());
        let destination = RouteAttribute::Destination(destination);
        let mut theirs = message(family, 16, vec![destination]);
        theirs.header.scope = scope;
        theirs.header.kind = theirs_kind;
        let theirs = RouteNetlinkMessage::NewRoute(theirs);
        assert_same(new_request(&route, NLM_F_EXCL), FLAGS, theirs);
    }
}

#[test]
fn a_gateway_of_the_other_family_is_written_and_read() {
    let route = Route {
        gateway: Some(ip("fe80::1")),
        oif: Some(5),
        table: Some(254),
        scope: Some(0),
        protocol: Some(3),
        ..Route::to(net("10.0.0.0/8"))
    };
    let theirs = message(
        AddressFamily::Inet,
        8,
        vec![
            RouteAttribute::Destination(address("10.0.0.0")),
            RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())),
            RouteAttribute::Oif(5),
        ],
    );
    assert_eq!(decoded(theirs.clone()), Ok(vec![route.clone()]));
    let theirs = RouteNetlinkMessage::NewRoute(theirs);
    assert_same(new_request(&route, NLM_F_EXCL), FLAGS, theirs);
}

#[test]
fn each_of_several_next_hops_is_read_as_a_route() {
    let hop = |interface_index, gateway| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = interface_index;
        hop.attributes = vec![RouteAttribute::Gateway(address(gateway))];
        hop
    };
    let theirs = message(
        AddressFamily::Inet,
        0,
        vec![RouteAttribute::Priority(9), RouteAttribute::MultiPath(vec![hop(5, "10.0.0.1"), hop(6, "10.0.0.2")])],
    );
    let routes = decoded(theirs).unwrap();
    let seen: Vec<_> = routes.iter().map(|route| (route.oif, route.gateway, route.priority)).collect();
    assert_eq!(seen, [(Some(5), Some(ip("10.0.0.1")), Some(9)), (Some(6), Some(ip("10.0.0.2")), Some(9)),]);
}

#[test]
fn cached_routes_and_other_families_are_skipped() {
    let mut cached = message(AddressFamily::Inet, 0, vec![]);
    cached.header.flags = RouteFlags::Cloned;
    assert_eq!(decoded(cached), Ok(vec![]));
    let mpls = message(AddressFamily::Mpls, 20, vec![]);
    assert_eq!(decoded(mpls), Ok(vec![]));
}

#[test]
fn every_kind_of_route_reads_back() {
    for number in 0..=u8::MAX {
        let mut theirs = message(AddressFamily::Inet, 0, vec![]);
        theirs.header.kind = RouteType::from(number);
        let route = decoded(theirs).unwrap().remove(0);
        let mut request = new_request(&route, NLM_F_EXCL);
        assert_eq!(only(request.sealed(0, 0)).payload[7], number);
    }
}

#[test]
fn defects_are_errors() {
    let wrong = |prefix, attributes| decoded(message(AddressFamily::Inet, prefix, attributes));
    assert_eq!(wrong(33, vec![]), Err("prefix longer than its address"));
    let v6 = RouteAttribute::Destination(address("fd00::"));
    assert_eq!(wrong(24, vec![v6]), Err("destination of another family than its route"));
}

#[test]
fn a_next_hop_of_length_zero_is_an_error() {
    let mut payload = super::codec::header(AF_INET).to_vec();
    payload.extend(12_u16.to_ne_bytes());
    payload.extend(9_u16.to_ne_bytes());
    payload.extend([0; 8]);
    let message = Message { kind: RTM_NEWROUTE, flags: 0, sequence: 0, port: 0, payload: &payload };
    assert_eq!(read(&message), Err("next hop does not fit"));
}

/// Whether packets of such a route leave through a link.
fn casts(kind: RouteKind) -> bool {
    matches!(kind, RouteKind::Unicast | RouteKind::Broadcast | RouteKind::Multicast)
}

prop_compose! {
    fn any_route()(
        dst in any_net(), [gateway, source] in any::<[Option<IpAddr>; 2]>(),
        [oif, priority, mtu, advmss] in any::<[Option<u32>; 4]>(),
        table in prop::option::of(prop_oneof![250..260_u32, any::<u32>()]),
        [scope, protocol] in any::<[Option<u8>; 2]>(), kind in any::<u8>(),
    ) -> Route {
        Route { dst, gateway, oif, priority, table, scope, mtu, advmss, source, protocol, kind: kind_of(kind) }
    }
}

proptest! {
    /// The host bits of the destination are not compared. A table, scope or protocol of `None` is read as its default.
    #[test]
    fn an_added_route_reads_back(route in any_route()) {
        let mut request = new_request(&route, NLM_F_EXCL);
        let read = read(&only(request.sealed(1, 2)));
        let scope = match route.dst {
            _ if route.scope.is_some() => route.scope,
            IpNet::V4(_) if route.kind == RouteKind::Local => Some(254),
            IpNet::V4(_) if route.gateway.is_none() && casts(route.kind) => Some(253),
            _ => Some(0),
        };
        let (dst, table, protocol) = (route.dst.trunc(), route.table.or(Some(254)), route.protocol.or(Some(3)));
        prop_assert_eq!(read, Ok(vec![Route { dst, table, scope, protocol, ..route }]));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        family in prop::sample::select(vec![2_u8, 10]),
        rest in prop::collection::vec(any::<u8>(), 11..12),
        kind in prop::sample::select(vec![1_u16, 5, 8, 9, 18]),
        value in prop::collection::vec(any::<u8>(), 0..128),
    ) {
        let mut payload = vec![family];
        payload.extend(rest);
        payload.extend((value.len() as u16 + 4).to_ne_bytes());
        payload.extend(kind.to_ne_bytes());
        payload.extend(&value);
        let message = Message { kind: RTM_NEWROUTE, flags: 0, sequence: 0, port: 0, payload: &payload };
        if let Ok(routes) = read(&message) {
            // A next hop takes eight bytes.
            prop_assert!(routes.len() <= value.len() / 8 + 1);
        }
    }
}
