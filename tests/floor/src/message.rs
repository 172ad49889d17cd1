//! rtnetlink requests, byte by byte. (include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, ip.h)

use std::net::IpAddr;
use std::os::fd::RawFd;

use crate::address::Address;

const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_CREATE_EXCL: u16 = 0x600;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_BRIDGE: u32 = 4;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// One request without its sequence number.
pub(crate) struct Request(pub(crate) Vec<u8>);

/// The offsets of the flags and of the sequence number.
pub(crate) const FLAGS: usize = 6;
pub(crate) const SEQUENCE: usize = 8;

impl Request {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[FLAGS..SEQUENCE].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(header);
        Self(bytes).measured()
    }

    fn with(mut self, kind: u16, payload: &[u8]) -> Self {
        self.0.extend(attribute(kind, payload));
        self.measured()
    }

    fn measured(mut self) -> Self {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = 4 + payload.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// `struct ifinfomsg`.
fn link_header(ifindex: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn family(address: &Address) -> u8 {
    if address.is_v4() { AF_INET } else { AF_INET6 }
}

/// Creates a macvlan in mode bridge in another netns.
pub(crate) fn new_macvlan(name: &str, parent: u32, netns: RawFd) -> Request {
    let data = attribute(IFLA_MACVLAN_MODE, &MACVLAN_MODE_BRIDGE.to_ne_bytes());
    let info = [attribute(IFLA_INFO_KIND, b"macvlan"), attribute(IFLA_INFO_DATA, &data)].concat();
    Request::new(RTM_NEWLINK, NLM_F_CREATE_EXCL, &link_header(0, 0))
        .with(IFLA_IFNAME, &terminated(name))
        .with(IFLA_LINK, &parent.to_ne_bytes())
        .with(IFLA_NET_NS_FD, &netns.to_ne_bytes())
        .with(IFLA_LINKINFO, &info)
}

pub(crate) fn get_link(name: &str) -> Request {
    Request::new(RTM_GETLINK, 0, &link_header(0, 0))
        .with(IFLA_IFNAME, &terminated(name))
        .with(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes())
}

/// The sysctl `arp_notify` of the link, without /proc.
pub(crate) fn set_arp_notify(ifindex: u32) -> Request {
    let one = attribute(IPV4_DEVCONF_ARP_NOTIFY, &1u32.to_ne_bytes());
    let spec = attribute(u16::from(AF_INET), &attribute(IFLA_INET_CONF, &one));
    Request::new(RTM_SETLINK, 0, &link_header(ifindex, 0)).with(IFLA_AF_SPEC, &spec)
}

pub(crate) fn set_up(ifindex: u32) -> Request {
    Request::new(RTM_SETLINK, 0, &link_header(ifindex, IFF_UP))
}

pub(crate) fn delete_link(name: &str) -> Request {
    Request::new(RTM_DELLINK, 0, &link_header(0, 0)).with(IFLA_IFNAME, &terminated(name))
}

/// An IPv4 address gets its broadcast address.
pub(crate) fn new_address(ifindex: u32, address: &Address) -> Request {
    let [a, b, c, d] = ifindex.to_ne_bytes();
    let ip = octets(address.ip);
    let request = Request::new(RTM_NEWADDR, NLM_F_CREATE_EXCL, &[family(address), address.length, 0, 0, a, b, c, d])
        .with(IFA_LOCAL, &ip)
        .with(IFA_ADDRESS, &ip);
    match address.ip {
        IpAddr::V4(ip) => {
            let hosts = u32::MAX.checked_shr(address.length.into()).unwrap_or(0);
            request.with(IFA_BROADCAST, &(ip.to_bits() | hosts).to_be_bytes())
        }
        IpAddr::V6(_) => request,
    }
}

pub(crate) fn new_default_route(ifindex: u32, address: &Address) -> Request {
    let header = [family(address), 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
    Request::new(RTM_NEWROUTE, NLM_F_CREATE_EXCL, &header)
        .with(RTA_GATEWAY, &octets(address.gateway))
        .with(RTA_OIF, &ifindex.to_ne_bytes())
}
