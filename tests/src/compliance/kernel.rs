//! Links, addresses and routes with all attributes of the kernel. Not counters and clocks, and not link-local and
//! multicast addresses, which the kernel adds by itself after some time.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::state::Facts;
use crate::Namespace;
use crate::kernel::link::format_mac;
use crate::kernel::route;

/// `RT_TABLE_LOCAL`. (include/uapi/linux/rtnetlink.h)
const LOCAL: u32 = 255;

/// The names of a namespace's links by their numbers.
pub(super) type Names = BTreeMap<u32, String>;

pub(super) fn names(netns: &Namespace) -> Names {
    netns.links().into_iter().map(|link| (link.ifindex, link.name)).collect()
}

/// Adds everything of one namespace. `host` has the links of the host, in which a parent may be.
pub(super) fn describe(whose: &str, netns: &Namespace, host: &Names, facts: &mut Facts) {
    let own = names(netns);
    let dump = |request| netns.netlink(|netlink| netlink.dump(request));
    for answer in dump(RouteNetlinkMessage::GetLink(LinkMessage::default())) {
        if let RouteNetlinkMessage::NewLink(message) = answer {
            describe_link(whose, &message, &own, host, facts);
        }
    }
    for answer in dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())) {
        if let RouteNetlinkMessage::NewAddress(message) = answer {
            describe_address(whose, &message, &own, facts);
        }
    }
    let mut seen = BTreeMap::new();
    for answer in dump(RouteNetlinkMessage::GetRoute(RouteMessage::default())) {
        if let RouteNetlinkMessage::NewRoute(message) = answer {
            describe_route(whose, &message, &own, &mut seen, facts);
        }
    }
}

/// The name of an attribute and its value.
fn attribute(attribute: &impl Debug) -> (String, String) {
    let text = format!("{attribute:?}");
    match text.split_once('(') {
        Some((name, value)) => (name.to_owned(), value.strip_suffix(')').unwrap_or(value).to_owned()),
        None => (text, String::new()),
    }
}

fn name_of(names: &Names, ifindex: u32) -> String {
    names.get(&ifindex).cloned().unwrap_or_else(|| "elsewhere".to_owned())
}

fn describe_link(whose: &str, message: &LinkMessage, own: &Names, host: &Names, facts: &mut Facts) {
    let name = name_of(own, message.header.index);
    let thing = format!("{whose} link {name}");
    let mut add = |key: &str, value: String| facts.add(&thing, key, value);
    // This flag is set a moment later.
    add("flags", format!("{:?}", message.header.flags.difference(LinkFlags::Running)));
    add("type", format!("{:?}", message.header.link_layer_type));
    let is_elsewhere = message.attributes.iter().any(|one| matches!(one, LinkAttribute::LinkNetNsId(_)));
    let is_veth = message.attributes.iter().any(|one| match one {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    });
    for one in &message.attributes {
        match one {
            LinkAttribute::IfName(_)
            | LinkAttribute::OperState(_)
            | LinkAttribute::Stats(_)
            | LinkAttribute::Stats64(_)
            | LinkAttribute::CarrierChanges(_)
            | LinkAttribute::CarrierUpCount(_)
            | LinkAttribute::CarrierDownCount(_)
            | LinkAttribute::PermAddress(_)
            | LinkAttribute::LinkNetNsId(_) => {}
            LinkAttribute::Link(parent) => {
                // For veth this is the peer, and its number may also belong to a link here.
                if !is_veth {
                    add("parent", name_of(if is_elsewhere { host } else { own }, *parent));
                }
            }
            LinkAttribute::Address(mac) => add("mac", format_mac(mac)),
            // The others are sysctls, and are read as sysctls.
            LinkAttribute::AfSpecUnspec(families) => {
                for family in families {
                    if let AfSpecUnspec::Inet6(items) = family {
                        for item in items.iter().filter(|item| matches!(item, AfSpecInet6::AddrGenMode(_))) {
                            add("addr_gen_mode", attribute(item).1);
                        }
                    }
                }
            }
            LinkAttribute::LinkInfo(infos) => {
                for (key, value) in infos.iter().flat_map(describe_info) {
                    add(&key, value);
                }
            }
            other => {
                let (key, value) = attribute(other);
                add(&key, value);
            }
        }
    }
}

/// The kind of a link. Only kinds that plugins create have their data here: that of a bridge has timers.
fn describe_info(info: &LinkInfo) -> Vec<(String, String)> {
    match info {
        LinkInfo::Kind(kind) => vec![("kind".to_owned(), kind.to_string())],
        LinkInfo::Data(InfoData::MacVlan(data)) => data.iter().map(attribute).collect(),
        LinkInfo::Data(InfoData::IpVlan(data)) => data.iter().map(attribute).collect(),
        _ => Vec::new(),
    }
}

fn describe_address(whose: &str, message: &AddressMessage, own: &Names, facts: &mut Facts) {
    let ip = message.attributes.iter().find_map(|one| match one {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let peer = message.attributes.iter().find_map(|one| match one {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    let Some(ip) = ip.or(peer).filter(|ip| !of_the_kernel(*ip)) else { return };
    let link = name_of(own, message.header.index);
    let thing = format!("{whose} address {ip} on {link}");
    let mut add = |key: &str, value: String| facts.add(&thing, key, value);
    add("prefix", message.header.prefix_len.to_string());
    add("scope", format!("{:?}", message.header.scope));
    for one in &message.attributes {
        match one {
            AddressAttribute::CacheInfo(info) => {
                let lifetime = |seconds: u32| if seconds == u32::MAX { "forever" } else { "limited" };
                add("lifetime", format!("{} {}", lifetime(info.ifa_valid), lifetime(info.ifa_preferred)));
            }
            other => {
                let (key, value) = attribute(other);
                add(&key, value);
            }
        }
    }
}

/// The kernel adds and removes these addresses by itself.
fn of_the_kernel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

/// Several routes to one destination are numbered.
fn describe_route(
    whose: &str,
    message: &RouteMessage,
    own: &Names,
    seen: &mut BTreeMap<String, u32>,
    facts: &mut Facts,
) {
    let header = &message.header;
    let everywhere = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return,
    };
    let (mut to, mut table) = (everywhere, u32::from(header.table));
    for one in &message.attributes {
        match one {
            RouteAttribute::Destination(ip) => to = route::ip(ip).unwrap_or(everywhere),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    // The kernel adds the local routes of IPv6 a moment later.
    if of_the_kernel(to) || (to.is_ipv6() && table == LOCAL) {
        return;
    }
    let route = format!("{whose} route {to}/{} table {table}", header.destination_prefix_length);
    let number = seen.entry(route.clone()).or_default();
    *number += 1;
    let route = if *number == 1 { route } else { format!("{route} #{number}") };
    let mut add = |key: &str, value: String| facts.add(&route, key, value);
    add("scope", format!("{:?}", header.scope));
    add("protocol", format!("{:?}", header.protocol));
    add("type", format!("{:?}", header.kind));
    add("tos", header.tos.to_string());
    add("flags", format!("{:?}", header.flags));
    for one in &message.attributes {
        match one {
            RouteAttribute::Destination(_) | RouteAttribute::Table(_) | RouteAttribute::CacheInfo(_) => {}
            RouteAttribute::Oif(ifindex) => {
                add("dev", name_of(own, *ifindex));
            }
            RouteAttribute::Gateway(ip) | RouteAttribute::PrefSource(ip) => {
                let text = route::ip(ip).map_or_else(|| format!("{ip:?}"), |ip| ip.to_string());
                add(if matches!(one, RouteAttribute::Gateway(_)) { "gateway" } else { "src" }, text);
            }
            other => {
                let (key, value) = attribute(other);
                add(&key, value);
            }
        }
    }
}
