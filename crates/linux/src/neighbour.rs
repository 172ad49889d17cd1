//! Neighbours: the MACs to which a link sends packets for addresses on its wire.

use std::net::IpAddr;

use nix::errno::Errno;

use crate::netlink::constants::{
    AF_INET, AF_INET6, NDA_DST, NDA_LLADDR, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NUD_PERMANENT, RTM_DELNEIGH,
    RTM_GETNEIGH, RTM_NEWNEIGH,
};
use crate::netlink::{Attributes, Decode, Message, Request};
use crate::{Mac, Result, Rtnl};

/// Bytes of `struct ndmsg`.
const HEADER: usize = 12;

impl Rtnl {
    /// Sets a permanent neighbour of a link. The kernel never asks for its MAC, and nobody on the wire can change it.
    /// Replaces another neighbour with this address. (`NUD_PERMANENT`)
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such link.
    pub fn set_neighbour(&mut self, ifindex: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let operation = format_args!("set neighbour {address} of ifindex {ifindex}");
        self.socket.acknowledge(new_request(ifindex, address, mac), operation)
    }

    /// Deletes a neighbour.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the link has no neighbour with this address.
    pub fn del_neighbour(&mut self, ifindex: u32, address: IpAddr) -> Result<()> {
        let request = request(RTM_DELNEIGH, NLM_F_ACK, 0, ifindex, address);
        self.socket.acknowledge(request, format_args!("delete neighbour {address} of ifindex {ifindex}"))
    }

    /// Returns the MAC of a permanent neighbour. Returns `None` if there is none with this address.
    pub fn permanent_neighbour(&mut self, ifindex: u32, address: IpAddr) -> Result<Option<Mac>> {
        let request = request(RTM_GETNEIGH, 0, 0, ifindex, address);
        match self.socket.get(request, format_args!("find neighbour {address} of ifindex {ifindex}"), permanent) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            found => found,
        }
    }
}

fn new_request(ifindex: u32, address: IpAddr, mac: Mac) -> Request {
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut request = request(RTM_NEWNEIGH, flags, NUD_PERMANENT, ifindex, address);
    request.bytes(NDA_LLADDR, &mac.octets());
    request
}

fn request(kind: u16, flags: u16, state: u16, ifindex: u32, address: IpAddr) -> Request {
    let mut header = [0; HEADER];
    header[0] = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    let mut request = Request::new(kind, flags, &header);
    request.ip(NDA_DST, address);
    request
}

fn permanent(message: &Message<'_>) -> Decode<Option<Mac>> {
    if message.kind != RTM_NEWNEIGH {
        return Err("not a neighbour");
    }
    let attributes = Attributes::after(message.payload, HEADER)?;
    let Some(header) = message.payload.first_chunk::<HEADER>() else {
        return Err("message shorter than its header");
    };
    if u16::from_ne_bytes([header[8], header[9]]) & NUD_PERMANENT == 0 {
        return Ok(None);
    }
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == NDA_LLADDR {
            return Ok(attribute.mac());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
    use netlink_packet_route::{AddressFamily, route::RouteType};
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::constants::NLM_F_REQUEST;
    use crate::netlink::reference::{assert_same, emit, only};

    fn theirs(ifindex: u32, state: NeighbourState, address: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = ifindex;
        message.header.state = state;
        message.header.kind = RouteType::Unspec;
        let its = match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        };
        message.attributes = vec![NeighbourAttribute::Destination(its)];
        message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec())));
        message
    }

    proptest! {
        #[test]
        fn requests_equal_those_of_netlink_packet_route(ifindex: u32, address: IpAddr, octets: [u8; 6]) {
            let mac = Mac::from(octets);
            let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
            let message = theirs(ifindex, NeighbourState::Permanent, address, Some(mac));
            assert_same(new_request(ifindex, address, mac), flags, RouteNetlinkMessage::NewNeighbour(message));
            let message = theirs(ifindex, NeighbourState::None, address, None);
            let ours = request(RTM_DELNEIGH, NLM_F_ACK, 0, ifindex, address);
            assert_same(ours, NLM_F_REQUEST | NLM_F_ACK, RouteNetlinkMessage::DelNeighbour(message));
        }

        #[test]
        fn only_a_permanent_neighbour_is_read_back(address: IpAddr, octets: [u8; 6]) {
            let mac = Mac::from(octets);
            for (state, expected) in [(NeighbourState::Permanent, Some(mac)), (NeighbourState::Stale, None)] {
                let message = emit(RouteNetlinkMessage::NewNeighbour(theirs(2, state, address, Some(mac))));
                prop_assert_eq!(permanent(&only(&message)), Ok(expected));
            }
        }
    }
}
