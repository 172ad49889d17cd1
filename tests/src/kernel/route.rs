//! The routes of a namespace, with all attributes that a CNI configuration can set.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteNextHop, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Namespace;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination: `0.0.0.0/0` or `::/0` for a default route.
    pub dst: IpNet,
    /// `RTA_GATEWAY`.
    pub gateway: Option<IpAddr>,
    /// `RTA_OIF`: the ifindex of a link.
    pub oif: Option<u32>,
    /// `RTA_PRIORITY`. The default for IPv6 is 1024.
    pub priority: Option<u32>,
    /// `RTA_TABLE`.
    pub table: u32,
    /// `rtm_scope`.
    pub scope: RouteScope,
    /// `rtm_protocol`: the creator of the route.
    pub protocol: RouteProtocol,
    /// `rtm_type`.
    pub kind: RouteType,
    /// `RTA_PREFSRC`.
    pub source: Option<IpAddr>,
    /// `RTAX_MTU`.
    pub mtu: Option<u32>,
    /// `RTAX_ADVMSS`.
    pub advmss: Option<u32>,
}

impl Route {
    /// A route with several next hops becomes several routes.
    fn decode(message: &RouteMessage) -> Vec<Self> {
        let Some(route) = Self::decode_header(message) else { return Vec::new() };
        let hops = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => Some(hops),
            _ => None,
        });
        let Some(hops) = hops else { return vec![route] };
        let through = |hop: &RouteNextHop| {
            let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Gateway(address) => ip(address),
                _ => None,
            });
            Self { gateway, oif: Some(hop.interface_index), ..route.clone() }
        };
        hops.iter().map(through).collect()
    }

    fn decode_header(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let unspecified = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut route = Self {
            dst: IpNet::new(unspecified, header.destination_prefix_length).ok()?,
            gateway: None,
            oif: None,
            priority: None,
            table: header.table.into(),
            scope: header.scope,
            protocol: header.protocol,
            kind: header.kind,
            source: None,
            mtu: None,
            advmss: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => {
                    route.dst = IpNet::new(ip(address)?, header.destination_prefix_length).ok()?;
                }
                RouteAttribute::Gateway(address) => route.gateway = ip(address),
                RouteAttribute::PrefSource(address) => route.source = ip(address),
                RouteAttribute::Oif(index) => route.oif = Some(*index),
                RouteAttribute::Priority(priority) => route.priority = Some(*priority),
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Metrics(metrics) => route.decode_metrics(metrics),
                _ => {}
            }
        }
        Some(route)
    }

    fn decode_metrics(&mut self, metrics: &[RouteMetric]) {
        for metric in metrics {
            match metric {
                RouteMetric::Mtu(mtu) => self.mtu = Some(*mtu),
                RouteMetric::Advmss(advmss) => self.advmss = Some(*advmss),
                _ => {}
            }
        }
    }
}

pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

impl Namespace {
    /// All unicast routes of both families and all tables. The kernel adds local and multicast routes for each address.
    pub fn routes(&self) -> Vec<Route> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        self.netlink(|netlink| netlink.dump(request))
            .iter()
            .flat_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => Route::decode(message),
                _ => Vec::new(),
            })
            .filter(|route| route.kind == RouteType::Unicast)
            .collect()
    }

    /// The routes through one link without those that the kernel adds for each address.
    pub fn routes_of(&self, link: &str) -> Vec<Route> {
        let ifindex = self.link(link).ifindex;
        self.routes()
            .into_iter()
            .filter(|route| route.oif == Some(ifindex) && route.protocol != RouteProtocol::Kernel)
            .collect()
    }

    pub fn route_to(&self, dst: &str) -> Route {
        let dst: IpNet = dst.parse().expect("a destination is a prefix");
        let routes = self.routes();
        let mut found = routes.iter().filter(|route| route.dst == dst);
        match (found.next(), found.next()) {
            (Some(route), None) => route.clone(),
            _ => panic!("not one route to {dst} in {routes:#?}"),
        }
    }
}
