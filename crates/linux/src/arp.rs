//! ARP for IPv4 on Ethernet: the packets (RFC 826), and a socket that sends and hears them.

use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use etherparse::{ArpEthIpv4Packet, ArpHardwareId, ArpOperation as Operation, ArpPacketSlice, EtherType};
use nix::errno::Errno;
use nix::libc;

use crate::patience::{Overtime, readable};
use crate::{Error, Mac, Netns, Result};

/// Bytes of a packet. A frame can be longer: Ethernet fills short ones up.
const LENGTH: usize = ArpEthIpv4Packet::LEN;

/// The operation of an ARP packet.
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
    /// The operation.
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
        let operation = match self.operation {
            ArpOperation::Request => Operation::REQUEST,
            ArpOperation::Reply => Operation::REPLY,
        };
        ArpEthIpv4Packet {
            operation,
            sender_mac: self.sender_mac.octets(),
            sender_ipv4: self.sender.octets(),
            target_mac: self.target_mac.octets(),
            target_ipv4: self.target.octets(),
        }
        .to_bytes()
    }

    /// Reads the bytes after the header of a frame. `None` for another protocol, and for other operations.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let packet = ArpPacketSlice::from_slice(bytes).ok()?;
        let is_ethernet_ipv4 =
            packet.hw_addr_type() == ArpHardwareId::ETHERNET && packet.proto_addr_type() == EtherType::IPV4;
        let operation = match packet.operation() {
            Operation::REQUEST if is_ethernet_ipv4 => ArpOperation::Request,
            Operation::REPLY if is_ethernet_ipv4 => ArpOperation::Reply,
            _ => return None,
        };
        let mac = |octets: &[u8]| <[u8; 6]>::try_from(octets).ok().map(Mac::from);
        let address = |octets: &[u8]| <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from);
        Some(Self {
            operation,
            sender_mac: mac(packet.sender_hw_addr())?,
            sender: address(packet.sender_protocol_addr())?,
            target_mac: mac(packet.target_hw_addr())?,
            target: address(packet.target_protocol_addr())?,
        })
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
    /// Opens a socket on a link in the network namespace of the calling thread. If the link is down, the first `send` or
    /// `receive` fails with `ENETDOWN`, also if the link is up by then.
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

    /// From now on, the kernel drops packets whose sender and target are not among these addresses. So many calls that
    /// listen on one parent do not wake each other up, and no answer is lost because the socket is full of others. Packets
    /// that have arrived before stay. For more than 60 addresses, everything is heard.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn hear_only(&self, addresses: &[Ipv4Addr]) -> Result<()> {
        // A jump of the filter is at most 255 steps.
        if addresses.len() > MOST_FILTERED {
            return self.hear_all();
        }
        let filter = filter(addresses);
        let program = libc::sock_fprog {
            len: libc::c_ushort::try_from(filter.len()).unwrap_or_default(),
            filter: filter.as_ptr().cast_mut(),
        };
        self.set(libc::SO_ATTACH_FILTER, &program)
    }

    /// From now on, all packets are heard.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn hear_all(&self) -> Result<()> {
        match self.set(libc::SO_DETACH_FILTER, &0) {
            // There was no filter.
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            set => set,
        }
    }

    /// Sets an option of the socket. The kernel reads `value` during the call only.
    fn set<T>(&self, option: libc::c_int, value: &T) -> Result<()> {
        let length = mem::size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes of `value`, and what these point to, which the callers keep alive.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                std::ptr::from_ref(value).cast(),
                length,
            )
        };
        Errno::result(set).map(drop).map_err(|errno| Error::kernel("set the filter of an ARP socket", errno))
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
    address.sll_protocol = EtherType::ARP.0.to_be();
    address.sll_ifindex = ifindex;
    address
}

/// For more addresses there is no filter.
const MOST_FILTERED: usize = 60;

/// A program of the kernel's packet filter: accepts packets with one of the addresses as sender or target.
/// (Documentation/networking/filter.rst)
fn filter(addresses: &[Ipv4Addr]) -> Vec<libc::sock_filter> {
    /// The places of sender and target in a packet.
    const PLACES: [u32; 2] = [14, 24];
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jt, k| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    // The last step accepts, and the one before it drops.
    let length = PLACES.len() * (1 + addresses.len());
    let mut program = Vec::with_capacity(length + 2);
    for place in PLACES {
        program.push(step(LOAD, 0, place));
        for address in addresses {
            let to_accept = length - program.len();
            program.push(step(EQUAL, u8::try_from(to_accept).unwrap_or_default(), u32::from(*address)));
        }
    }
    program.push(step(RETURN, 0, 0));
    program.push(step(RETURN, 0, u32::MAX));
    program
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

    /// The bytes are those of RFC 826, and the fields those of RFC 5227.
    #[test]
    fn a_probe_has_no_sender_and_an_announcement_has_it_twice() {
        let request = [0, 1, 8, 0, 6, 4, 0, 1];
        let bytes = |sender: [u8; 4]| [&request[..], &MAC, &sender, &[0; 6], &[10, 0, 0, 7]].concat();
        assert_eq!(Arp::probe(Mac::from(MAC), ADDRESS).encode()[..], bytes([0; 4]));
        assert_eq!(Arp::announcement(Mac::from(MAC), ADDRESS).encode()[..], bytes([10, 0, 0, 7]));
        let asker = Ipv4Addr::new(10, 0, 0, 9);
        assert_eq!(Arp::request(Mac::from(MAC), asker, ADDRESS).encode()[..], bytes([10, 0, 0, 9]));
    }

    #[test]
    fn other_protocols_lengths_and_operations_are_not_decoded() {
        let correct = Arp::probe(Mac::from(MAC), ADDRESS).encode();
        let changes =
            [(0, 1), (1, 6), (2, 0x86), (3, 0xdd), (4, 8), (4, 5), (5, 16), (5, 3), (6, 1), (7, 0), (7, 3), (7, 8)];
        for (at, value) in changes {
            let mut bytes = [&correct[..], &[0; 64]].concat();
            bytes[at] = value;
            assert_eq!(Arp::decode(&bytes), None, "byte {at} is {value}");
        }
    }

    /// A jump that is too far made the kernel drop every answer.
    #[test]
    fn each_jump_of_the_filter_leads_to_its_end() {
        for count in [0, 1, MOST_FILTERED] {
            let addresses: Vec<Ipv4Addr> = (0..count).map(|last| Ipv4Addr::from(last as u32)).collect();
            let program = filter(&addresses);
            let jumps = program.iter().enumerate().filter(|(_, step)| u32::from(step.code) & 7 == libc::BPF_JMP);
            let ends: Vec<usize> = jumps.map(|(at, step)| at + 1 + usize::from(step.jt)).collect();
            assert_eq!(ends, vec![program.len() - 1; 2 * count]);
        }
    }

    fn any_arp() -> impl Strategy<Value = Arp> {
        let operation = prop_oneof![Just(ArpOperation::Request), Just(ArpOperation::Reply)];
        let machine = || (any::<[u8; 6]>(), any::<Ipv4Addr>());
        (operation, machine(), machine()).prop_map(|(operation, (sender_mac, sender), (target_mac, target))| {
            let [sender_mac, target_mac] = [sender_mac, target_mac].map(Mac::from);
            Arp { operation, sender_mac, sender, target_mac, target }
        })
    }

    proptest! {
        /// Ethernet fills short frames up.
        #[test]
        fn a_packet_reads_back_also_with_filling(arp in any_arp(), filling in 0..64_usize) {
            let bytes = [&arp.encode()[..], &vec![0; filling]].concat();
            prop_assert_eq!(Arp::decode(&bytes), Some(arp));
            prop_assert_eq!(Arp::decode(&bytes[..LENGTH - 1]), None);
        }

        #[test]
        fn decoding_never_panics_and_loses_nothing(
            head in prop_oneof![Just(vec![]), Just(vec![0, 1, 8, 0, 6, 4, 0]), Just(vec![0, 1, 8, 0])],
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [head, rest].concat();
            if let Some(arp) = Arp::decode(&bytes) {
                prop_assert_eq!(&arp.encode()[..], &bytes[..LENGTH]);
            }
        }
    }
}
