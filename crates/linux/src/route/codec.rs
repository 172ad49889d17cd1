//! Encodes and decodes route messages: `struct rtmsg` and its attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Route, RouteKind};
use crate::netlink::constants::{
    AF_INET, AF_INET6, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, RT_SCOPE_HOST, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN, RT_TABLE_UNSPEC, RTA_DST, RTA_GATEWAY, RTA_METRICS, RTA_MULTIPATH, RTA_OIF, RTA_PREFSRC,
    RTA_PRIORITY, RTA_TABLE, RTA_VIA, RTAX_ADVMSS, RTAX_MTU, RTM_DELROUTE, RTM_F_CLONED, RTM_GETROUTE, RTM_NEWROUTE,
    RTPROT_BOOT,
};
use crate::netlink::{Attribute, Attributes, Decode, Message, Request, attribute_ip};

/// Bytes of `struct rtmsg`.
const HEADER: usize = 12;

/// Bytes of `struct rtnexthop`.
const HOP: usize = 8;

/// The offset of `rtm_table` in the header.
pub(super) const TABLE: usize = 4;

/// Returns a header with only the family.
pub(super) fn header(family: u8) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = family;
    header
}

/// Requests a new route. The flags in `others` decide what happens to other routes to the same destination.
pub(super) fn new_request(route: &Route, others: u16) -> Request {
    request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | others, route)
}

/// Requests the routes that leave by this link: those of an origin in table main, or those of all tables.
pub(super) fn filter(family: u8, protocol: Option<u8>, ifindex: u32) -> Request {
    let mut header = header(family);
    if let Some(protocol) = protocol {
        header[TABLE] = RT_TABLE_MAIN as u8;
        header[5] = protocol;
    }
    let mut request = Request::new(RTM_GETROUTE, NLM_F_DUMP, &header);
    request.u32(RTA_OIF, ifindex);
    request
}

/// Requests that a route is deleted.
pub(super) fn delete_request(route: &Route) -> Request {
    request(RTM_DELROUTE, NLM_F_ACK, route)
}

fn request(kind: u16, flags: u16, route: &Route) -> Request {
    let dst = route.dst.trunc();
    let table = route.table.unwrap_or(RT_TABLE_MAIN);
    let mut header = header(family_of(dst.addr()));
    header[1] = dst.prefix_len();
    // A larger number is only in the attribute.
    header[4] = u8::try_from(table).unwrap_or(RT_TABLE_UNSPEC as u8);
    header[5] = route.protocol.unwrap_or(RTPROT_BOOT);
    header[6] = route.scope.unwrap_or_else(|| usual_scope(route));
    header[7] = number(route.kind);

    let mut request = Request::new(kind, flags, &header);
    if dst.prefix_len() > 0 {
        request.ip(RTA_DST, dst.addr());
    }
    if let Some(gateway) = route.gateway {
        if family_of(gateway) == family_of(dst.addr()) {
            request.ip(RTA_GATEWAY, gateway);
        } else {
            request.bytes(RTA_VIA, &via(gateway));
        }
    }
    if let Some(oif) = route.oif {
        request.u32(RTA_OIF, oif);
    }
    if let Some(source) = route.source {
        request.ip(RTA_PREFSRC, source);
    }
    if let Some(priority) = route.priority {
        request.u32(RTA_PRIORITY, priority);
    }
    if table > u32::from(u8::MAX) {
        request.u32(RTA_TABLE, table);
    }
    if route.mtu.is_some() || route.advmss.is_some() {
        request.nest(RTA_METRICS, |metrics| {
            if let Some(mtu) = route.mtu {
                metrics.u32(RTAX_MTU, mtu);
            }
            if let Some(advmss) = route.advmss {
                metrics.u32(RTAX_ADVMSS, advmss);
            }
        });
    }
    request
}

/// Returns the scope that `ip route add` chooses. Without a gateway, the destination is on the link.
fn usual_scope(route: &Route) -> u8 {
    match (route.dst, route.kind) {
        (IpNet::V6(_), _) => RT_SCOPE_UNIVERSE,
        (_, RouteKind::Local) => RT_SCOPE_HOST,
        (_, RouteKind::Unicast | RouteKind::Broadcast | RouteKind::Multicast) if route.gateway.is_none() => {
            RT_SCOPE_LINK
        }
        _ => RT_SCOPE_UNIVERSE,
    }
}

/// Decodes one message, and calls `found` with its route, or with one route per next hop. Skips routes that the kernel
/// keeps only for itself. (`RTM_F_CLONED`)
pub(crate) fn decode(message: &Message<'_>, mut found: impl FnMut(Route)) -> Decode<()> {
    if message.kind != RTM_NEWROUTE {
        return Err("not a route");
    }
    let attributes = Attributes::after(message.payload, HEADER)?;
    let Some(header) = message.payload.first_chunk::<HEADER>() else {
        return Err("message shorter than its header");
    };
    let &[family, prefix, _, _, table, protocol, scope, kind, a, b, c, d] = header;
    if u32::from_ne_bytes([a, b, c, d]) & RTM_F_CLONED != 0 {
        return Ok(());
    }
    let everywhere = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return Ok(()),
    };
    let mut dst = everywhere;
    let mut route = Route {
        table: Some(u32::from(table)),
        scope: Some(scope),
        protocol: Some(protocol),
        kind: kind_of(kind),
        ..Route::default()
    };
    let mut hops: &[u8] = &[];
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            RTA_DST => dst = attribute.ip()?,
            RTA_PREFSRC => route.source = Some(attribute.ip()?),
            RTA_PRIORITY => route.priority = Some(attribute.u32()?),
            RTA_TABLE => route.table = Some(attribute.u32()?),
            RTA_METRICS => metrics(attribute, &mut route)?,
            RTA_MULTIPATH => hops = attribute.value,
            _ => hop_attribute(attribute, &mut route)?,
        }
    }
    if dst.is_ipv4() != everywhere.is_ipv4() {
        return Err("destination of another family than its route");
    }
    route.dst = IpNet::new(dst, prefix).map_err(|_| "prefix longer than its address")?;
    if hops.is_empty() {
        found(route);
        return Ok(());
    }
    while !hops.is_empty() {
        let (hop, rest) = split_hop(hops)?;
        found(decode_hop(hop, &route)?);
        hops = rest;
    }
    Ok(())
}

/// Decodes an attribute of a next hop. A route with one next hop has it among its own attributes.
fn hop_attribute(attribute: Attribute<'_>, route: &mut Route) -> Decode<()> {
    match attribute.kind {
        RTA_OIF => route.oif = Some(attribute.u32()?),
        RTA_GATEWAY => route.gateway = Some(attribute.ip()?),
        RTA_VIA => {
            // struct rtvia is the family, then the address.
            let address = attribute.value.get(2..).ok_or("attribute value too short")?;
            route.gateway = Some(attribute_ip(address)?);
        }
        _ => {}
    }
    Ok(())
}

fn metrics(attribute: Attribute<'_>, route: &mut Route) -> Decode<()> {
    for metric in attribute.nested() {
        let metric = metric?;
        match metric.kind {
            RTAX_MTU => route.mtu = Some(metric.u32()?),
            RTAX_ADVMSS => route.advmss = Some(metric.u32()?),
            _ => {}
        }
    }
    Ok(())
}

/// Splits off the first `struct rtnexthop`. It begins with its length, and is padded like an attribute.
fn split_hop(hops: &[u8]) -> Decode<(&[u8], &[u8])> {
    let &[a, b] = hops.first_chunk().ok_or("next hop does not fit")?;
    let length = usize::from(u16::from_ne_bytes([a, b]));
    if length < HOP {
        return Err("next hop does not fit");
    }
    let hop = hops.get(..length).ok_or("next hop does not fit")?;
    let rest = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    Ok((hop, rest))
}

fn decode_hop(hop: &[u8], whole: &Route) -> Decode<Route> {
    let mut route = whole.clone();
    let Some(&[_, _, _, _, a, b, c, d]) = hop.first_chunk::<HOP>() else {
        return Err("next hop does not fit");
    };
    route.oif = Some(u32::from_ne_bytes([a, b, c, d])).filter(|&oif| oif != 0);
    for attribute in Attributes::after(hop, HOP)? {
        hop_attribute(attribute?, &mut route)?;
    }
    Ok(route)
}

fn family_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// Writes `struct rtvia`.
fn via(gateway: IpAddr) -> Vec<u8> {
    let mut bytes = u16::from(family_of(gateway)).to_ne_bytes().to_vec();
    match gateway {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
    bytes
}

/// `RTN_*`. (include/uapi/linux/rtnetlink.h)
const KINDS: [(u8, RouteKind); 9] = [
    (1, RouteKind::Unicast),
    (2, RouteKind::Local),
    (3, RouteKind::Broadcast),
    (4, RouteKind::Anycast),
    (5, RouteKind::Multicast),
    (6, RouteKind::Blackhole),
    (7, RouteKind::Unreachable),
    (8, RouteKind::Prohibit),
    (9, RouteKind::Throw),
];

pub(super) fn kind_of(number: u8) -> RouteKind {
    KINDS.iter().find(|(known, _)| *known == number).map_or(RouteKind::Other(number), |&(_, kind)| kind)
}

fn number(kind: RouteKind) -> u8 {
    match kind {
        RouteKind::Other(number) => number,
        known => KINDS.iter().find(|(_, kind)| *kind == known).map_or(0, |&(number, _)| number),
    }
}
