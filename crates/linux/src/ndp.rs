//! Neighbour discovery of IPv6 (RFC 4861): a socket that sends solicitations, and sends and hears advertisements.
//!
//! It is a raw ICMPv6 socket, and not a packet socket. So it is fast to close, and the kernel writes the checksums.

use std::io::{IoSlice, IoSliceMut};
use std::mem;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6,
    recvmsg, sendmsg, socket,
};

use crate::patience::{Overtime, readable};
use crate::{Error, Mac, Netns, Result};

/// The types of the messages. (RFC 4861, sections 4.3 and 4.4)
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The types of the options. (RFC 4861, section 4.6.1)
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
/// The flags of an advertisement.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Bytes of both messages before their options.
const HEADER: usize = 24;
/// Bytes of an option with a MAC, which counts itself in units of eight bytes.
const OPTION: usize = 8;
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
        let (head, mut options) = bytes.split_at_checked(HEADER)?;
        if head[0] != ADVERTISEMENT || head[1] != 0 {
            return None;
        }
        let mut mac = None;
        while let [kind, units, ..] = *options {
            let (option, rest) = options.split_at_checked(usize::from(units) * 8).filter(|_| units > 0)?;
            if kind == TARGET_MAC && mac.is_none() {
                mac = option[2..].first_chunk::<6>().map(|octets| Mac::from(*octets));
            }
            options = rest;
        }
        let target = Ipv6Addr::from(*head[8..].first_chunk::<16>()?);
        Some(Self { target, mac, solicited: head[4] & SOLICITED != 0 }).filter(|_| !target.is_multicast())
    }
}

/// Encodes a message with one option. The kernel writes the checksum.
fn encode(kind: u8, flags: u8, target: Ipv6Addr, option: u8, mac: Mac) -> [u8; HEADER + OPTION] {
    let mut bytes = [0; HEADER + OPTION];
    bytes[0] = kind;
    bytes[4] = flags;
    bytes[8..HEADER].copy_from_slice(&target.octets());
    bytes[HEADER..HEADER + 2].copy_from_slice(&[option, 1]);
    bytes[HEADER + 2..].copy_from_slice(&mac.octets());
    bytes
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
        blocked[usize::from(ADVERTISEMENT) / 32] &= !(1 << (ADVERTISEMENT % 32));

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
    /// `EADDRNOTAVAIL` if the link does not have the source, or cannot use it yet. `ENETDOWN` if the link is down.
    pub fn solicit(&self, source: Ipv6Addr, target: Ipv6Addr, mac: Mac) -> Result<()> {
        // The solicited-node address has the last 24 bits of the target. (RFC 4291, section 2.7.1)
        let [.., high, low] = target.segments();
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low);
        self.send(source, to, &encode(SOLICITATION, 0, target, SOURCE_MAC, mac))
            .map_err(|errno| Error::kernel(format_args!("ask for {target}"), errno))
    }

    /// Tells all machines the MAC of an address of the link. (RFC 4861, section 7.2.6)
    ///
    /// # Errors
    ///
    /// As [`NdpSocket::solicit`].
    pub fn advertise(&self, address: Ipv6Addr, mac: Mac) -> Result<()> {
        self.send(address, ALL_NODES, &encode(ADVERTISEMENT, OVERRIDE, address, TARGET_MAC, mac))
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
