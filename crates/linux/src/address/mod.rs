//! IP addresses of links: listing, adding and deleting them.

use std::net::IpAddr;

use ipnet::IpNet;

pub use watch::AddressWatch;

use crate::netlink::constants::{
    AF_INET, AF_INET6, AF_UNSPEC, IFA_ADDRESS, IFA_BROADCAST, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_NODAD,
    IFA_F_OPTIMISTIC, IFA_F_PERMANENT, IFA_F_TEMPORARY, IFA_F_TENTATIVE, IFA_FLAGS, IFA_LOCAL, NLM_F_ACK, NLM_F_CREATE,
    NLM_F_DUMP, NLM_F_EXCL, RT_SCOPE_UNIVERSE, RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR,
};
use crate::netlink::{Attributes, Decode, Message, Request};
use crate::{Result, Rtnl};

#[cfg(test)]
mod tests;
mod watch;

/// Bytes of `struct ifaddrmsg`.
const HEADER: usize = 8;

/// So many addresses fit into one datagram: it has at least a page, and an address takes about 80 bytes.
const SURELY_ONE_DATAGRAM: usize = 32;

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The ifindex of the link.
    pub ifindex: u32,
    /// The link's own address with its host bits, and the length of the prefix.
    pub address: IpNet,
    /// The other end, if the address is a point-to-point address. Then the prefix is that of the other end.
    pub peer: Option<IpAddr>,
    /// How far the address reaches (`RT_SCOPE_*`); 0 is everywhere.
    pub scope: u8,
    /// `IFA_F_*`.
    pub flags: u32,
}

impl Address {
    /// Returns true while duplicate address detection runs. The address cannot be used yet. (RFC 4862)
    pub const fn tentative(&self) -> bool {
        self.flags & IFA_F_TENTATIVE != 0
    }

    /// Returns true if the address can be used while duplicate address detection runs. (RFC 4429)
    pub const fn optimistic(&self) -> bool {
        self.flags & IFA_F_OPTIMISTIC != 0
    }

    /// Returns true if duplicate address detection found that another machine uses the address.
    pub const fn dad_failed(&self) -> bool {
        self.flags & IFA_F_DADFAILED != 0
    }

    /// Returns true if new connections must not use the address. (RFC 4862, section 5.5.4)
    pub const fn deprecated(&self) -> bool {
        self.flags & IFA_F_DEPRECATED != 0
    }

    /// Returns true for an IPv6 address that the kernel replaces after some hours. (RFC 8981)
    pub fn temporary(&self) -> bool {
        self.address.addr().is_ipv6() && self.flags & IFA_F_TEMPORARY != 0
    }

    /// Returns true if the address has no lifetime. An address from a router advertisement has one.
    pub const fn permanent(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0
    }
}

impl Rtnl {
    /// Lists the addresses of one link, IPv4 first.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such link, `EINTR` if the addresses changed during every dump.
    pub fn addresses(&mut self, ifindex: u32) -> Result<Vec<Address>> {
        self.addresses_of(AF_UNSPEC, ifindex)
    }

    /// Lists the addresses of all links.
    ///
    /// # Errors
    ///
    /// `EINTR` if the addresses changed during every dump.
    pub fn all_addresses(&mut self) -> Result<Vec<Address>> {
        self.dump_addresses(AF_UNSPEC, 0, None)
    }

    fn addresses_of(&mut self, family: u8, ifindex: u32) -> Result<Vec<Address>> {
        let list = self.dump_addresses(family, ifindex, Some(ifindex))?;
        if list.len() <= SURELY_ONE_DATAGRAM {
            return Ok(list);
        }
        // If a list has several datagrams, it may change in between. The kernel reports that only for a dump of all
        // links. (seen on 6.18)
        self.dump_addresses(family, 0, Some(ifindex))
    }

    fn dump_addresses(&mut self, family: u8, ask: u32, wanted: Option<u32>) -> Result<Vec<Address>> {
        let header = header(family, 0, 0, ask);
        let operation = match wanted {
            Some(ifindex) => format!("list addresses of ifindex {ifindex}"),
            None => "list addresses".to_owned(),
        };
        self.socket.dump(
            Request::new(RTM_GETADDR, NLM_F_DUMP, &header),
            format_args!("{operation}"),
            |message, list| {
                // Kernels before 4.20 always send the addresses of all links.
                list.extend(decode(message)?.filter(|its| wanted.is_none_or(|ifindex| its.ifindex == ifindex)));
                Ok(())
            },
        )
    }

    /// Adds an address of universal scope to a link. If an IPv4 prefix is shorter than 31 bits, its broadcast address
    /// is set too.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the link already has the address.
    pub fn new_address(&mut self, ifindex: u32, address: IpNet) -> Result<()> {
        self.request_address(ifindex, address, 0)
    }

    /// Adds an address as [`Rtnl::new_address`] does, without duplicate address detection. So nothing is sent, and the
    /// address can be used at once.
    ///
    /// # Errors
    ///
    /// As [`Rtnl::new_address`].
    pub fn new_address_unseen(&mut self, ifindex: u32, address: IpNet) -> Result<()> {
        self.request_address(ifindex, address, IFA_F_NODAD as u8)
    }

    fn request_address(&mut self, ifindex: u32, address: IpNet, address_flags: u8) -> Result<()> {
        let request = new_request(ifindex, address, address_flags);
        self.socket.acknowledge(request, format_args!("add address {address} to ifindex {ifindex}"))
    }

    /// Removes an address from its link.
    ///
    /// # Errors
    ///
    /// `EADDRNOTAVAIL` if the link does not have the address.
    pub fn del_address(&mut self, address: &Address) -> Result<()> {
        self.socket.acknowledge(
            del_request(address),
            format_args!("delete address {} from ifindex {}", address.address, address.ifindex),
        )
    }
}

fn family_of(address: IpNet) -> u8 {
    match address {
        IpNet::V4(_) => AF_INET,
        IpNet::V6(_) => AF_INET6,
    }
}

fn header(family: u8, prefix: u8, scope: u8, ifindex: u32) -> [u8; HEADER] {
    let [a, b, c, d] = ifindex.to_ne_bytes();
    [family, prefix, 0, scope, a, b, c, d]
}

fn new_request(ifindex: u32, address: IpNet, address_flags: u8) -> Request {
    let family = family_of(address);
    let mut header = header(family, address.prefix_len(), RT_SCOPE_UNIVERSE, ifindex);
    header[2] = address_flags;
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut request = Request::new(RTM_NEWADDR, flags, &header);
    request.ip(IFA_LOCAL, address.addr());
    request.ip(IFA_ADDRESS, address.addr());
    // A network of two addresses has no broadcast address. (RFC 3021)
    if matches!(address, IpNet::V4(_)) && address.prefix_len() < 31 {
        request.ip(IFA_BROADCAST, address.broadcast());
    }
    request
}

fn del_request(address: &Address) -> Request {
    let family = family_of(address.address);
    let prefix = address.address.prefix_len();
    let header = header(family, prefix, address.scope, address.ifindex);
    let mut request = Request::new(RTM_DELADDR, NLM_F_ACK, &header);
    let own = address.address.addr();
    request.ip(IFA_LOCAL, own);
    request.ip(IFA_ADDRESS, address.peer.unwrap_or(own));
    request
}

/// Returns `None` for an address that is neither IPv4 nor IPv6.
pub(crate) fn decode(message: &Message<'_>) -> Decode<Option<Address>> {
    if !matches!(message.kind, RTM_NEWADDR | RTM_DELADDR) {
        return Err("not an address");
    }
    let attributes = Attributes::after(message.payload, HEADER)?;
    let Some(&[family, prefix, flags, scope, a, b, c, d]) = message.payload.first_chunk() else {
        return Err("message shorter than its header");
    };
    if !matches!(family, AF_INET | AF_INET6) {
        return Ok(None);
    }
    let mut flags = u32::from(flags);
    let (mut address, mut local) = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFA_ADDRESS => address = Some(attribute.ip()?),
            IFA_LOCAL => local = Some(attribute.ip()?),
            // The header has only the lowest eight bits of the flags.
            IFA_FLAGS => flags = attribute.u32()?,
            _ => {}
        }
    }
    // IFA_ADDRESS is the other end. If there is none, the kernel repeats the own address there, or leaves IFA_LOCAL
    // out.
    let own = local.or(address).ok_or("address message without an address")?;
    if own.is_ipv4() != (family == AF_INET) {
        return Err("address of another family than its message");
    }
    Ok(Some(Address {
        ifindex: u32::from_ne_bytes([a, b, c, d]),
        address: IpNet::new(own, prefix).map_err(|_| "prefix longer than its address")?,
        peer: address.filter(|&other| other != own),
        scope,
        flags,
    }))
}
