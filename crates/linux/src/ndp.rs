//! Neighbour discovery of IPv6 (RFC 4861): a socket that sends solicitations, and sends and hears advertisements.
//!
//! It is a raw ICMPv6 socket, and not a packet socket. So it is fast to close, and the kernel writes the checksums.

use std::io::{IoSlice, IoSliceMut};
use std::mem;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use etherparse::icmpv6::{
    NdpOptionHeader, NdpOptionSlice, NdpOptionType, NeighborAdvertisementHeader, NeighborAdvertisementPayloadSlice,
    TYPE_NEIGHBOR_ADVERTISEMENT,
};
use etherparse::{Icmpv6Header, Icmpv6Slice, Icmpv6Type};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6,
    recvmsg, sendmsg, socket,
};

use crate::patience::{Overtime, readable};
use crate::{Error, Mac, Netns, Result};

/// A router does not forward such a message, and a receiver ignores one that was forwarded.
const HOPS: i32 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A received advertisement: a machine tells that it has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertisement {
    /// The address.
    pub target: Ipv6Addr,
    /// The MAC of the machine, if it tells it.
    pub mac: Option<Mac>,
    /// True if it answers a question.
    pub solicited: bool,
}

impl Advertisement {
    /// Reads an ICMPv6 message. `None` for any other message, and for one that RFC 4861, section 7.1.2 tells to ignore.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message = Icmpv6Slice::from_slice(bytes).ok()?;
        let Icmpv6Type::NeighborAdvertisement(header) = message.icmp_type() else { return None };
        let payload = NeighborAdvertisementPayloadSlice::from_slice(message.payload()).ok()?;
        let mut mac = None;
        for option in payload.options_iterator() {
            if let NdpOptionSlice::TargetLinkLayerAddress(option) = option.ok()? {
                let first = option.link_layer_address().first_chunk::<6>();
                mac = mac.or(first.map(|octets| Mac::from(*octets)));
            }
        }
        let target = payload.target_address();
        Some(Self { target, mac, solicited: header.solicited }).filter(|_| !target.is_multicast())
    }
}

/// Encodes a message with one option. The kernel writes the checksum.
fn encode(message: Icmpv6Type, target: Ipv6Addr, option: NdpOptionType, mac: Mac) -> Vec<u8> {
    // An option counts its length in units of eight bytes.
    let option = NdpOptionHeader { option_type: option, length_units: 1 }.to_bytes();
    let head = Icmpv6Header::new(message).to_bytes();
    [head.as_slice(), &target.octets(), &option, &mac.octets()].concat()
}

/// A socket for advertisements on one link.
#[derive(Debug)]
pub struct NdpSocket {
    socket: OwnedFd,
    ifindex: u32,
    overtime: Overtime,
}

impl NdpSocket {
    /// Opens a socket on a link in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_RAW`, `EAFNOSUPPORT` if the kernel has no IPv6.
    pub fn open(ifindex: u32) -> Result<Self> {
        Self::prepare(ifindex)
            .map_err(|errno| Error::kernel(format_args!("open ICMPv6 socket on ifindex {ifindex}"), errno))
    }

    /// Opens a socket on a link in another network namespace.
    ///
    /// # Errors
    ///
    /// As [`NdpSocket::open`], or if the namespace cannot be entered.
    pub fn open_in(netns: &Netns, ifindex: u32) -> Result<Self> {
        netns.enter(|| Self::open(ifindex))?
    }

    fn prepare(ifindex: u32) -> nix::Result<Self> {
        /// A filter: each bit that is 1 blocks a type. (RFC 3542, section 3.2)
        const ICMP6_FILTER: i32 = 1;
        let mut blocked = [u32::MAX; 8];
        blocked[usize::from(TYPE_NEIGHBOR_ADVERTISEMENT) / 32] &= !(1 << (TYPE_NEIGHBOR_ADVERTISEMENT % 32));

        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
        let this = Self { socket, ifindex, overtime: Overtime::default() };
        // First, so that nothing else is heard.
        this.set(libc::IPPROTO_ICMPV6, ICMP6_FILTER, &blocked)?;
        this.set(libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &ifindex.cast_signed())?;
        this.set(libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &HOPS)?;
        this.set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &HOPS)?;
        this.set(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &1)?;
        Ok(this)
    }

    /// `T` is a number or an array of numbers.
    fn set<T: Copy>(&self, level: i32, option: i32, value: &T) -> nix::Result<()> {
        let length = mem::size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes from `value`, which is borrowed and has this size.
        let set = unsafe {
            libc::setsockopt(self.socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
        };
        Errno::result(set).map(drop)
    }

    /// Asks for the MAC of `target`. `source` is an address of the link, and `mac` is its MAC.
    ///
    /// # Errors
    ///
    /// `EADDRNOTAVAIL` if the link does not have the source, or cannot use it yet. The kernel removes the addresses of a
    /// link that is set down. `ENODEV` if the link was deleted.
    pub fn solicit(&self, source: Ipv6Addr, target: Ipv6Addr, mac: Mac) -> Result<()> {
        // The solicited-node address has the last 24 bits of the target. (RFC 4291, section 2.7.1)
        let [.., high, low] = target.segments();
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low);
        self.send(
            source,
            to,
            &encode(Icmpv6Type::NeighborSolicitation, target, NdpOptionType::SOURCE_LINK_LAYER_ADDRESS, mac),
        )
        .map_err(|errno| Error::kernel(format_args!("ask for {target}"), errno))
    }

    /// Tells all machines the MAC of an address of the link. (RFC 4861, section 7.2.6)
    ///
    /// # Errors
    ///
    /// As [`NdpSocket::solicit`].
    pub fn advertise(&self, address: Ipv6Addr, mac: Mac) -> Result<()> {
        let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
        let message = Icmpv6Type::NeighborAdvertisement(header);
        self.send(address, ALL_NODES, &encode(message, address, NdpOptionType::TARGET_LINK_LAYER_ADDRESS, mac))
            .map_err(|errno| Error::kernel(format_args!("advertise {address}"), errno))
    }

    fn send(&self, source: Ipv6Addr, to: Ipv6Addr, bytes: &[u8]) -> nix::Result<()> {
        let info =
            libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: self.ifindex };
        let control = [ControlMessage::Ipv6PacketInfo(&info)];
        let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, self.ifindex));
        loop {
            let parts = [IoSlice::new(bytes)];
            match sendmsg(self.socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to)) {
                Err(Errno::EINTR) => {}
                // The kernel refuses the source, as all else in this message is correct. (net/ipv6/datagram.c)
                Err(Errno::EINVAL) => return Err(Errno::EADDRNOTAVAIL),
                sent => return sent.map(drop),
            }
        }
    }

    /// Returns the next advertisement, or `None` at the deadline. If the deadline is over, returns one that has arrived.
    /// After 4,096 late ones it returns `None`, also if there are more.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn receive(&mut self, deadline: Instant) -> Result<Option<Advertisement>> {
        let failed = |errno| Error::kernel("receive neighbour advertisement", errno);
        let mut bytes = [0; 256];
        while !self.overtime.is_over(deadline) {
            match self.receive_message(&mut bytes) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => match readable(self.socket.as_fd(), deadline).map_err(failed)? {
                    true => {}
                    false => break,
                },
                Err(errno) => return Err(failed(errno)),
                Ok((length, hops)) => {
                    let heard = Advertisement::decode(&bytes[..length]);
                    if let Some(heard) = heard.filter(|_| hops == Some(HOPS)) {
                        return Ok(Some(heard));
                    }
                }
            }
        }
        self.overtime.end();
        Ok(None)
    }

    /// Returns the length of the next message, and its hop limit.
    fn receive_message(&self, bytes: &mut [u8]) -> nix::Result<(usize, Option<i32>)> {
        let mut control = nix::cmsg_space!(i32);
        let mut parts = [IoSliceMut::new(bytes)];
        let descriptor = self.socket.as_raw_fd();
        let message = recvmsg::<()>(descriptor, &mut parts, Some(&mut control), MsgFlags::empty())?;
        let hops = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6HopLimit(hops) => Some(hops),
            _ => None,
        });
        Ok((message.bytes, hops))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);

    /// An advertisement of [`ADDRESS`] with these flags and options. (RFC 4861, section 4.4)
    fn advertisement(flags: u8, options: &[&[u8]]) -> Vec<u8> {
        [&[136, 0, 0, 0, flags, 0, 0, 0], &ADDRESS.octets()[..], &options.concat()].concat()
    }

    fn mac_option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
        [&[kind, 1], &mac[..]].concat()
    }

    fn decoded(options: &[&[u8]]) -> Option<Option<Mac>> {
        Advertisement::decode(&advertisement(0, options)).map(|heard| heard.mac)
    }

    /// The bytes are those of RFC 4861, sections 4.3, 4.4 and 4.6.1.
    #[test]
    fn a_solicitation_has_the_mac_of_the_source_and_an_advertisement_that_of_the_target() {
        let kind = NdpOptionType::SOURCE_LINK_LAYER_ADDRESS;
        let solicitation = encode(Icmpv6Type::NeighborSolicitation, ADDRESS, kind, Mac::from(MAC));
        let expected = [&[135, 0, 0, 0, 0, 0, 0, 0], &ADDRESS.octets()[..], &mac_option(1, MAC)].concat();
        assert_eq!(solicitation, expected);
        let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
        let message = Icmpv6Type::NeighborAdvertisement(header);
        let encoded = encode(message, ADDRESS, NdpOptionType::TARGET_LINK_LAYER_ADDRESS, Mac::from(MAC));
        assert_eq!(encoded, advertisement(0x20, &[&mac_option(2, MAC)]));
    }

    #[test]
    fn the_mac_is_that_of_the_first_target_option() {
        let (target, source, nonce) = (mac_option(2, MAC), mac_option(1, [9; 6]), mac_option(14, [7; 6]));
        assert_eq!(decoded(&[]), Some(None));
        assert_eq!(decoded(&[&source]), Some(None));
        assert_eq!(decoded(&[&nonce, &source, &target, &mac_option(2, [8; 6])]), Some(Some(Mac::from(MAC))));
    }

    #[test]
    fn a_message_that_must_be_ignored_is_not_decoded() {
        let target = mac_option(2, MAC);
        assert_eq!(decoded(&[&target, &[2, 0, 0, 0, 0, 0, 0, 0]]), None, "an option without a length");
        assert_eq!(decoded(&[&target, &[14, 2, 0, 0, 0, 0, 0, 0]]), None, "an option that is cut short");
        assert_eq!(decoded(&[&target, &[14]]), None, "half an option");
        let correct = advertisement(0, &[&target]);
        for (at, value, cause) in [(0, 135, "another type"), (1, 1, "another code"), (8, 0xff, "a group as target")] {
            let mut bytes = correct.clone();
            bytes[at] = value;
            assert_eq!(Advertisement::decode(&bytes), None, "{cause}");
        }
        assert_eq!(Advertisement::decode(&correct[..23]), None);
    }

    proptest! {
        #[test]
        fn an_advertisement_reads_back(flags in any::<u8>(), mac in any::<[u8; 6]>(), others in 0..4_usize) {
            let mut options = vec![mac_option(14, [0; 6]); others];
            options.push(mac_option(2, mac));
            let options: Vec<_> = options.iter().map(Vec::as_slice).collect();
            let expected = Advertisement { target: ADDRESS, mac: Some(Mac::from(mac)), solicited: flags & 0x40 != 0 };
            prop_assert_eq!(Advertisement::decode(&advertisement(flags, &options)), Some(expected));
        }

        #[test]
        fn decoding_never_panics(
            is_advertisement in any::<bool>(),
            options in prop::collection::vec((any::<u8>(), 0..4_u8, any::<[u8; 6]>()), 0..4),
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let options: Vec<_> = options.iter().map(|(kind, units, bytes)| [&[*kind, *units], &bytes[..]].concat()).collect();
            let head = if is_advertisement { advertisement(0, &[&options.concat()]) } else { Vec::new() };
            if let Some(heard) = Advertisement::decode(&[head, rest].concat()) {
                prop_assert!(!heard.target.is_multicast());
            }
        }
    }
}
