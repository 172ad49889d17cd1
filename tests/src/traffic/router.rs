//! A router that sends advertisements (RFC 4861, section 4.2).

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use ipnet::Ipv6Net;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket, sockopt,
};

use crate::Namespace;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Receivers accept only this hop limit, because no other router can have forwarded such a packet.
const HOP_LIMIT: i32 = 255;

/// Advertises `from` as a default router, with a prefix from which hosts make addresses.
pub fn advertise(from: &Namespace, link: &str, prefix: Ipv6Net) {
    let ifindex = from.link(link).ifindex;
    let mut packet = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0];
    packet.extend(1800_u16.to_be_bytes());
    packet.extend([0; 8]);
    // The option with the prefix: its flags "on-link" and "autonomous", and its valid and preferred lifetimes.
    packet.extend([3, 4, prefix.prefix_len(), 0xc0]);
    packet.extend(3600_u32.to_be_bytes());
    packet.extend(1800_u32.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(prefix.network().octets());
    from.run(|| {
        let socket = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)
            .expect("open a raw socket");
        setsockopt(&socket, sockopt::Ipv6MulticastHops, &HOP_LIMIT).expect("set the hop limit");
        let all_nodes = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, ifindex));
        sendto(socket.as_raw_fd(), &packet, &all_nodes, MsgFlags::empty()).expect("advertise a router");
    });
}
