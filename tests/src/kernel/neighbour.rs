//! Neighbour entries of a namespace.

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Namespace;

impl Namespace {
    /// `ip neigh replace IP lladdr MAC dev LINK nud permanent`: nobody has to be asked.
    pub fn set_neighbour(&self, link: &str, ip: IpAddr, mac: &str) {
        let mut message = NeighbourMessage::default();
        message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = self.link(link).ifindex;
        message.header.state = NeighbourState::Permanent;
        let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a MAC"));
        message.attributes = vec![
            NeighbourAttribute::Destination(match ip {
                IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
                IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
            }),
            NeighbourAttribute::LinkLayerAddress(bytes.collect()),
        ];
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.netlink(|netlink| netlink.request(message, NLM_F_CREATE | NLM_F_REPLACE))
            .unwrap_or_else(|errno| panic!("set the neighbour {ip}: {errno}"));
    }
}
