//! The addresses of a namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::AddressMessageBuilder;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};

use crate::Namespace;

/// One address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ifindex: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// `IFA_FLAGS`.
    pub flags: AddressFlags,
    pub scope: AddressScope,
    /// `IFA_BROADCAST`.
    pub broadcast: Option<IpAddr>,
}

impl Address {
    fn decode(message: &AddressMessage) -> Option<Self> {
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        let (mut address, mut local, mut broadcast) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Broadcast(ip) => broadcast = Some(IpAddr::V4(*ip)),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        // On a point-to-point link, IFA_ADDRESS is the peer, and IFA_LOCAL is the address of the link.
        let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
        Some(Self { ifindex: message.header.index, net, flags, scope: message.header.scope, broadcast })
    }

    /// Whether duplicate address detection has not ended. The address cannot be used yet.
    pub fn tentative(&self) -> bool {
        self.flags.contains(AddressFlags::Tentative)
    }

    pub fn duplicate(&self) -> bool {
        self.flags.contains(AddressFlags::Dadfailed)
    }

    pub fn link_local(&self) -> bool {
        match self.net.addr() {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
    }
}

impl Namespace {
    pub fn all_addresses(&self) -> Vec<Address> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.netlink(|netlink| netlink.dump(request))
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => Address::decode(message),
                _ => None,
            })
            .collect()
    }

    /// The addresses of one link, without the link-local ones, which the kernel adds.
    pub fn addresses(&self, link: &str) -> Vec<Address> {
        let ifindex = self.link(link).ifindex;
        self.all_addresses().into_iter().filter(|address| address.ifindex == ifindex && !address.link_local()).collect()
    }

    /// As [`Namespace::addresses`], as sorted texts such as "192.0.2.7/24".
    pub fn address_texts(&self, link: &str) -> Vec<String> {
        let mut texts: Vec<String> = self.addresses(link).iter().map(|address| address.net.to_string()).collect();
        texts.sort();
        texts
    }

    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.all_addresses().iter().any(|address| address.net.addr() == ip)
    }

    /// Adds an address without duplicate address detection, so it can be used at once.
    pub fn add_address(&self, link: &str, net: IpNet) {
        let mut message = message(self.link(link).ifindex, net);
        message.header.flags |= AddressHeaderFlags::Nodad;
        let request = RouteNetlinkMessage::NewAddress(message);
        self.netlink(|netlink| netlink.request(request, NLM_F_CREATE | NLM_F_EXCL))
            .unwrap_or_else(|errno| panic!("add {net} to {link}: {errno}"));
    }
}

fn message(ifindex: u32, net: IpNet) -> AddressMessage {
    match net {
        IpNet::V4(net) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(ifindex).address(net.addr(), net.prefix_len()).build()
        }
        IpNet::V6(net) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(ifindex).address(net.addr(), net.prefix_len()).build()
        }
    }
}
