//! ARP for IPv4 on Ethernet: the packets (RFC 826), and a socket that sends and hears them.

use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;

use crate::patience::{Overtime, readable};
use crate::{Error, Mac, Netns, Result};

/// Bytes of a packet. A frame can be longer: Ethernet fills short ones up.
const LENGTH: usize = 28;
/// Hardware type Ethernet, protocol IPv4, and the lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ETH_P_ARP: u16 = 0x0806;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArpOperation {
    /// Asks for the MAC of the target.
    Request,
    /// Tells the MAC of the sender.
    Reply,
}

/// An ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// What it is for.
    pub operation: ArpOperation,
    /// The MAC of the sender.
    pub sender_mac: Mac,
    /// The address of the sender. In a probe, it is 0.0.0.0.
    pub sender: Ipv4Addr,
    /// The MAC of the target. In a request, it has no meaning.
    pub target_mac: Mac,
    /// The address of the target.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Asks for the MAC of an address.
    pub fn request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self { operation: ArpOperation::Request, sender_mac: mac, sender, target_mac: Mac::from([0; 6]), target }
    }

    /// Asks whether a machine has an address, without a change in any machine's table. (RFC 5227, section 2.1.1)
    pub fn probe(mac: Mac, address: Ipv4Addr) -> Self {
        Self::request(mac, Ipv4Addr::UNSPECIFIED, address)
    }

    /// Tells the MAC of an address. (RFC 5227, section 2.3)
    pub fn announcement(mac: Mac, address: Ipv4Addr) -> Self {
        Self::request(mac, address, address)
    }

    /// The bytes after the header of the frame.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..6].copy_from_slice(&ETHERNET_IPV4);
        bytes[7] = match self.operation {
            ArpOperation::Request => 1,
            ArpOperation::Reply => 2,
        };
        bytes[8..14].copy_from_slice(&self.sender_mac.octets());
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac.octets());
        bytes[24..].copy_from_slice(&self.target.octets());
        bytes
    }

    /// Reads the bytes after the header of a frame. `None` for another protocol, and for other operations.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.first_chunk()?;
        let operation = match bytes[6..8] {
            [0, 1] => ArpOperation::Request,
            [0, 2] => ArpOperation::Reply,
            _ => return None,
        };
        let mac = |at: usize| Some(Mac::from(*bytes[at..].first_chunk::<6>()?));
        let address = |at: usize| Some(Ipv4Addr::from(*bytes[at..].first_chunk::<4>()?));
        let packet =
            Self { operation, sender_mac: mac(8)?, sender: address(14)?, target_mac: mac(18)?, target: address(24)? };
        bytes.starts_with(&ETHERNET_IPV4).then_some(packet)
    }
}

/// A received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeardArp {
    /// The packet.
    pub arp: Arp,
    /// True if the frame was for several machines.
    pub is_broadcast: bool,
}

/// A packet socket for ARP on one link. (packet(7))
///
/// It is slow to close: the kernel waits until no processor uses it, which takes milliseconds.
#[derive(Debug)]
pub struct ArpSocket {
    socket: OwnedFd,
    ifindex: i32,
    overtime: Overtime,
}

impl ArpSocket {
    /// Opens a socket on a link in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_RAW`, `ENODEV` if there is no such link.
    pub fn open(ifindex: u32) -> Result<Self> {
        let failed = || Error::kernel(format_args!("open ARP socket on ifindex {ifindex}"), Errno::last());
        let flags = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Without a protocol, the socket hears nothing before bind(2), which would take milliseconds otherwise.
        // SAFETY: socket(2) takes only numbers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
        if socket == -1 {
            return Err(failed());
        }
        // SAFETY: the kernel has just opened this descriptor for us, and no other value owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let ifindex = ifindex.cast_signed();
        let address = address(ifindex);
        // SAFETY: `address` is a local variable of this size.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), SIZE) } == -1 {
            return Err(failed());
        }
        Ok(Self { socket, ifindex, overtime: Overtime::default() })
    }

    /// Opens a socket on a link in another network namespace.
    ///
    /// # Errors
    ///
    /// As [`ArpSocket::open`], or if the namespace cannot be entered.
    pub fn open_in(netns: &Netns, ifindex: u32) -> Result<Self> {
        netns.enter(|| Self::open(ifindex))?
    }

    /// Sends a packet to all machines.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` if the link is down, `ENXIO` if it was deleted.
    pub fn send(&self, arp: &Arp) -> Result<()> {
        let mut address = address(self.ifindex);
        address.sll_halen = 6;
        address.sll_addr = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
        let bytes = arp.encode();
        loop {
            // SAFETY: `bytes` and `address` are local variables of these sizes.
            let sent = unsafe {
                let to = (&raw const address).cast();
                libc::sendto(self.socket.as_raw_fd(), bytes.as_ptr().cast(), LENGTH, 0, to, SIZE)
            };
            match Errno::result(sent) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::kernel(format_args!("send ARP for {}", arp.target), errno)),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Returns the next packet, or `None` at the deadline. If the deadline is over, returns what has arrived, but no more
    /// than 4,096 packets. Frames to other machines do not count: a NIC in promiscuous mode gets them, also those of
    /// other VLANs.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` if the link is down or was deleted. The kernel tells it once. The socket works again
    /// when the link is up.
    pub fn receive(&mut self, deadline: Instant) -> Result<Option<HeardArp>> {
        let failed = |errno| Error::kernel("receive ARP", errno);
        let mut bytes = [0_u8; LENGTH];
        while !self.overtime.is_over(deadline) {
            let mut from = address(self.ifindex);
            let mut size = SIZE;
            // SAFETY: the kernel writes at most these sizes into the local variables.
            let received = unsafe {
                let from = (&raw mut from).cast();
                let into = bytes.as_mut_ptr().cast();
                libc::recvfrom(self.socket.as_raw_fd(), into, LENGTH, 0, from, &raw mut size)
            };
            match Errno::result(received) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => match readable(self.socket.as_fd(), deadline).map_err(failed)? {
                    true => {}
                    false => break,
                },
                Err(errno) => return Err(failed(errno)),
                Ok(length) => {
                    let is_broadcast = matches!(from.sll_pkttype, libc::PACKET_BROADCAST | libc::PACKET_MULTICAST);
                    let is_for_us = is_broadcast || from.sll_pkttype == libc::PACKET_HOST;
                    let length = usize::try_from(length).unwrap_or_default();
                    if let Some(arp) = Arp::decode(&bytes[..length.min(LENGTH)]).filter(|_| is_for_us) {
                        return Ok(Some(HeardArp { arp, is_broadcast }));
                    }
                }
            }
        }
        self.overtime.end();
        Ok(None)
    }
}

const SIZE: libc::socklen_t = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;

fn address(ifindex: i32) -> libc::sockaddr_ll {
    // SAFETY: all bytes zero are a valid `sockaddr_ll`, which has only numbers.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = ETH_P_ARP.to_be();
    address.sll_ifindex = ifindex;
    address
}
