//! Routes of a namespace, with all attributes of a CNI configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteNextHop, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Namespace;

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination; `0.0.0.0/0` and `::/0` are the default routes.
    pub dst: IpNet,
    /// `RTA_GATEWAY`.
    pub gateway: Option<IpAddr>,
    /// `RTA_OIF`: a link's number.
    pub oif: Option<u32>,
    /// `RTA_PRIORITY`; the kernel gives IPv6 routes 1024 by itself.
    pub priority: Option<u32>,
    /// `RTA_TABLE`.
    pub table: u32,
    /// `rtm_scope`.
    pub scope: RouteScope,
    /// `rtm_protocol`: who made it.
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
    /// A route with several next hops is as many routes.
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

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// A route for the Lab to add.
#[derive(Clone, Debug)]
pub struct NewRoute<'a> {
    /// Where to.
    pub dst: IpNet,
    /// Through which router; none for a route on the link.
    pub gateway: Option<IpAddr>,
    /// Through which link.
    pub link: &'a str,
    /// The metric.
    pub priority: Option<u32>,
}

impl Namespace {
    /// All routes of both families and all tables but those of the multicast and local
    /// addresses that the kernel makes for every address.
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

    /// The routes through one link that somebody asked for: not the one of the subnet, which
    /// comes with the address, and not the link-local one.
    pub fn routes_of(&self, link: &str) -> Vec<Route> {
        let ifindex = self.link(link).ifindex;
        self.routes()
            .into_iter()
            .filter(|route| route.oif == Some(ifindex) && route.protocol != RouteProtocol::Kernel)
            .collect()
    }

    /// The one route to that destination.
    pub fn route_to(&self, dst: &str) -> Route {
        let dst: IpNet = dst.parse().expect("a destination is a prefix");
        let routes = self.routes();
        let mut found = routes.iter().filter(|route| route.dst == dst);
        match (found.next(), found.next()) {
            (Some(route), None) => route.clone(),
            _ => panic!("not one route to {dst} in {routes:#?}"),
        }
    }

    /// Adds a unicast route to the main table.
    pub fn add_route(&self, route: &NewRoute<'_>) {
        let ifindex = self.link(route.link).ifindex;
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.dst.network(), route.dst.prefix_len())
            .expect("a destination of one family")
            .output_interface(ifindex);
        match route.gateway {
            Some(gateway) => builder = builder.gateway(gateway).expect("a gateway of that family"),
            None => builder = builder.scope(RouteScope::Link),
        }
        if let Some(priority) = route.priority {
            builder = builder.priority(priority);
        }
        let message = RouteNetlinkMessage::NewRoute(builder.build());
        self.netlink(|netlink| netlink.request(message, NLM_F_CREATE | NLM_F_EXCL))
            .unwrap_or_else(|errno| panic!("add a route to {}: {errno}", route.dst));
    }

    /// Deletes every unicast route to that destination.
    pub fn delete_routes_to(&self, dst: &str) {
        let dst: IpNet = dst.parse().expect("a destination is a prefix");
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let routes = self.netlink(|netlink| netlink.dump(request));
        let mut deleted = 0;
        for answer in routes {
            let RouteNetlinkMessage::NewRoute(message) = answer else { continue };
            if Route::decode(&message).iter().any(|route| route.dst == dst && route.kind == RouteType::Unicast) {
                self.netlink(|netlink| netlink.request(RouteNetlinkMessage::DelRoute(message), 0))
                    .unwrap_or_else(|errno| panic!("delete a route to {dst}: {errno}"));
                deleted += 1;
            }
        }
        assert!(deleted > 0, "there is no route to {dst}");
    }
}
