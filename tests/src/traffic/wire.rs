//! Frames that a packet socket receives and sends. They show which machine answers for an address, and which one
//! announced it.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

use super::readable;
use crate::Namespace;
use crate::kernel::link::format_mac;
use crate::patience::PATIENCE;

pub(super) const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
pub(super) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// A frame about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// RFC 826.
    Arp {
        /// 1 for a request, 2 for a reply.
        operation: u16,
        /// The MAC of the sender.
        mac: String,
        /// The address of the sender. In a probe, it is 0.0.0.0.
        sender: Ipv4Addr,
        target: Ipv4Addr,
    },
    /// RFC 4861, 4.4.
    Advertisement {
        /// The target link-layer address option.
        mac: Option<String>,
        target: Ipv6Addr,
        solicited: bool,
    },
    /// RFC 4861, 4.3.
    Solicitation {
        /// The address of the sender. In duplicate address detection, it is `::`.
        source: Ipv6Addr,
        target: Ipv6Addr,
    },
}

impl Frame {
    /// Whether this is an unsolicited announcement of `ip`.
    pub fn announces(&self, ip: IpAddr) -> bool {
        match self {
            Self::Arp { sender, target, .. } => sender == target && ip == IpAddr::V4(*sender),
            Self::Advertisement { target, solicited, .. } => !solicited && ip == IpAddr::V6(*target),
            Self::Solicitation { .. } => false,
        }
    }

    /// Returns true for an ARP probe for `ip` (RFC 5227, 2.1.1).
    pub fn probes(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Arp { operation: 1, sender, target, .. }
            if sender.is_unspecified() && ip == IpAddr::V4(*target))
    }

    /// Returns true for a request for the MAC of `ip`, by ARP or neighbour discovery. A probe is no such request.
    pub fn asks_for(&self, ip: IpAddr) -> bool {
        match self {
            Self::Arp { operation: 1, sender, target, .. } => {
                !sender.is_unspecified() && sender != target && ip == IpAddr::V4(*target)
            }
            Self::Solicitation { source, target } => !source.is_unspecified() && ip == IpAddr::V6(*target),
            Self::Arp { .. } | Self::Advertisement { .. } => false,
        }
    }

    /// Returns true for an ARP frame with the sender `ip`. Other machines store the MAC of such a frame.
    pub fn comes_from(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Arp { sender, .. } if ip == IpAddr::V4(*sender))
    }

    /// Returns `None` for any other frame.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let ethertype: [u8; 2] = bytes.get(12..14)?.try_into().ok()?;
        let payload = bytes.get(14..)?;
        match ethertype {
            ETHERTYPE_ARP => Self::decode_arp(payload),
            ETHERTYPE_IPV6 => Self::decode_ipv6(payload),
            _ => None,
        }
    }

    fn decode_arp(arp: &[u8]) -> Option<Self> {
        Some(Self::Arp {
            operation: u16::from_be_bytes(arp.get(6..8)?.try_into().ok()?),
            mac: format_mac(arp.get(8..14)?),
            sender: Ipv4Addr::from(<[u8; 4]>::try_from(arp.get(14..18)?).ok()?),
            target: Ipv4Addr::from(<[u8; 4]>::try_from(arp.get(24..28)?).ok()?),
        })
    }

    fn decode_ipv6(packet: &[u8]) -> Option<Self> {
        let icmp = packet.get(40..)?;
        // The next header must be ICMPv6.
        if packet.get(6) != Some(&58) {
            return None;
        }
        let address = |bytes: Option<&[u8]>| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes?).ok()?));
        let target = address(icmp.get(8..24));
        match icmp.first()? {
            135 => Some(Self::Solicitation { source: address(packet.get(8..24))?, target: target? }),
            136 => {
                let option = icmp.get(24..32).filter(|option| option[..2] == [2, 1]);
                let mac = option.map(|option| format_mac(&option[2..]));
                Some(Self::Advertisement { mac, target: target?, solicited: icmp.get(4)? & 0x40 != 0 })
            }
            _ => None,
        }
    }
}

/// A frame about an address, with the time at which the kernel received it, and with its Ethernet addresses.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: SystemTime,
    pub source: String,
    pub destination: String,
    pub frame: Frame,
}

impl Seen {
    fn decode((at, bytes): (SystemTime, Vec<u8>)) -> Option<Self> {
        let frame = Frame::decode(&bytes)?;
        Some(Self { at, source: format_mac(&bytes[6..12]), destination: format_mac(&bytes[..6]), frame })
    }

    pub fn is_broadcast(&self) -> bool {
        self.destination == format_mac(&BROADCAST)
    }
}

/// A packet socket on one link. It receives frames from its opening.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    mac: [u8; 6],
}

impl Wire {
    pub fn open(netns: &Namespace, link: &str) -> Self {
        netns.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
                .expect("open a packet socket");
            let address = link_address(link);
            bind(socket.as_raw_fd(), &address).expect("bind a packet socket");
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true).expect("ask for the time of each frame");
            let mac = address.addr().expect("an Ethernet link has a MAC");
            Self { socket, mac }
        })
    }

    /// Returns the first frame for which `wanted` is true, or none if the time is over.
    pub fn wait_for(&self, patience: Duration, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let deadline = Instant::now() + patience;
        while let Some((_, bytes)) = self.next(deadline) {
            if let Some(frame) = Frame::decode(&bytes).filter(&wanted) {
                return Some(frame);
            }
        }
        None
    }

    /// Waits for a router advertisement (RFC 4861, 4.2). Returns false if none comes.
    pub fn wait_for_router(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        // After the headers of Ethernet and IPv6.
        let is_it = |frame: &[u8]| {
            frame.get(12..14) == Some(&ETHERTYPE_IPV6) && frame.get(20) == Some(&58) && frame.get(54) == Some(&134)
        };
        while let Some((_, frame)) = self.next(deadline) {
            if is_it(&frame) {
                return true;
            }
        }
        false
    }

    /// Returns the bytes of all frames up to the first for which `last` is true.
    pub fn frames_until(&self, last: impl Fn(&Frame) -> bool) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut frames = Vec::new();
        while let Some((_, bytes)) = self.next(deadline) {
            let is_last = Frame::decode(&bytes).is_some_and(|frame| last(&frame));
            frames.push(bytes);
            if is_last {
                return frames;
            }
        }
        panic!("the last frame did not come; those before: {frames:02x?}");
    }

    /// Returns all frames about addresses up to the first for which `last` is true.
    #[track_caller]
    pub fn seen_until(&self, last: impl Fn(&Frame) -> bool) -> Vec<Seen> {
        let (seen, is_complete) = self.seen_within(PATIENCE, last);
        assert!(is_complete, "the last frame did not come; those before: {seen:#?}");
        seen
    }

    /// Returns all frames about addresses that arrive in this time, up to the first for which `last` is true, and
    /// whether that one came.
    pub fn seen_within(&self, patience: Duration, last: impl Fn(&Frame) -> bool) -> (Vec<Seen>, bool) {
        let deadline = Instant::now() + patience;
        let mut all = Vec::new();
        while let Some(next) = self.next(deadline) {
            if let Some(seen) = Seen::decode(next) {
                let is_last = last(&seen.frame);
                all.push(seen);
                if is_last {
                    return (all, true);
                }
            }
        }
        (all, false)
    }

    /// Returns all frames about addresses that have arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen_within(Duration::ZERO, |_| false).0
    }

    /// Returns the next frame and its time, or none if the time is over.
    fn next(&self, deadline: Instant) -> Option<(SystemTime, Vec<u8>)> {
        while readable(&self.socket, deadline).expect("wait for a frame") {
            match self.receive() {
                Ok(received) => return Some(received),
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
                Err(e) => panic!("read a frame: {e}"),
            }
        }
        None
    }

    fn receive(&self) -> Result<(SystemTime, Vec<u8>), Errno> {
        let mut buffer = vec![0; 9216];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let mut control = cmsg_space!(TimeSpec);
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
        let at = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmTimestampns(time) => Some(SystemTime::UNIX_EPOCH + Duration::from(time)),
            _ => None,
        });
        let length = message.bytes;
        buffer.truncate(length);
        Ok((at.expect("the kernel notes the time"), buffer))
    }

    /// Asks for `target`, which answers. Returns all frames that came before the answer: after it, everything that was
    /// sent before the question has arrived.
    #[track_caller]
    pub fn seen_before_answer(&self, sender: IpAddr, target: IpAddr) -> Vec<Seen> {
        self.ask(sender, target);
        self.seen_until(|frame| matches!(frame, Frame::Arp { operation: 2, sender, .. } if *sender == target))
    }

    /// Sends an ARP request for `target`. With the sender 0.0.0.0, it is a probe (RFC 5227).
    pub fn ask(&self, sender: IpAddr, target: IpAddr) {
        let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else {
            panic!("ARP is about IPv4, not {sender} and {target}");
        };
        let frame = arp(BROADCAST, REQUEST, (self.mac, sender), ([0; 6], target));
        send(self.socket.as_raw_fd(), &frame, MsgFlags::empty()).expect("send a frame");
    }
}

pub(super) const REQUEST: u8 = 1;
pub(super) const REPLY: u8 = 2;

/// The bytes of an ARP frame (RFC 826). The source of the Ethernet header is the MAC of the sender.
pub(super) fn arp(
    destination: [u8; 6],
    operation: u8,
    (mac, sender): ([u8; 6], Ipv4Addr),
    (target_mac, target): ([u8; 6], Ipv4Addr),
) -> Vec<u8> {
    let mut frame = [destination, mac].concat();
    frame.extend(ETHERTYPE_ARP);
    // Ethernet, IPv4, and the lengths of their addresses.
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend(target_mac);
    frame.extend(target.octets());
    frame
}

/// Sends an ARP request for `target`. Returns the MAC of the first answer. Unlike a ping, it neither reads nor changes
/// the neighbour table.
pub fn arp_probe(from: &Namespace, link: &str, sender: IpAddr, target: IpAddr, patience: Duration) -> Option<String> {
    let wire = Wire::open(from, link);
    wire.ask(sender, target);
    let answer =
        wire.wait_for(patience, |frame| matches!(frame, Frame::Arp { operation: 2, sender, .. } if *sender == target))?;
    match answer {
        Frame::Arp { mac, .. } => Some(mac),
        Frame::Advertisement { .. } | Frame::Solicitation { .. } => None,
    }
}

/// The packet address of a link. Without unsafe code, nix has no other way to make one.
pub(super) fn link_address(link: &str) -> LinkAddr {
    getifaddrs()
        .expect("list the interfaces")
        .filter(|interface| interface.interface_name == link)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .unwrap_or_else(|| panic!("there is no {link}"))
}
