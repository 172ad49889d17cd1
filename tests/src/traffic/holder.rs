//! A machine of the LAN that a test programs: it answers for addresses late, with other MACs, or in ways that Linux does
//! not know.

use std::io::PipeWriter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send, socket,
};
use nix::sys::time::TimeSpec;

use super::icmp::checksum;
use super::wire::{BROADCAST, ETHERTYPE_IPV6, Frame, REPLY, REQUEST, arp, link_address};
use crate::Namespace;
use crate::kernel::link::format_mac;
use crate::patience::await_that;

/// `PACKET_OUTGOING`: a frame that this machine has sent itself.
const OUTGOING: u8 = 4;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The reaction of a [`Holder`] to a request for one of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// An ARP reply or a neighbour advertisement.
    Answer,
    /// An ARP announcement of the address, to all.
    Announce,
    /// An ARP probe for the same address, to all: a second machine that wants it.
    ProbeAll,
    /// An ARP probe for the same address, to the sender only. Switches that track devices do this.
    ProbeSender,
    /// The same frame again, unchanged. Some switches do this with all frames.
    Reflect,
}

/// The way in which a [`Holder`] reacts. By default, it answers at once, with the MAC of its link.
#[derive(Clone, Debug)]
pub struct Manner {
    /// `None` for all addresses.
    addresses: Option<Vec<IpAddr>>,
    reaction: Reaction,
    delay: Duration,
    ignored: usize,
    has_many_macs: bool,
}

impl Manner {
    /// Reacts to requests for these addresses.
    pub fn of(addresses: &[IpAddr]) -> Self {
        let addresses = Some(addresses.to_vec());
        Self { addresses, reaction: Reaction::Answer, delay: Duration::ZERO, ignored: 0, has_many_macs: false }
    }

    /// Reacts to requests for every address, as a router with local proxy ARP does.
    pub fn of_everything() -> Self {
        Self { addresses: None, ..Self::of(&[]) }
    }

    pub fn reaction(self, reaction: Reaction) -> Self {
        Self { reaction, ..self }
    }

    /// Waits so long before each reaction.
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Does not react to so many requests at the beginning.
    pub fn ignore(self, ignored: usize) -> Self {
        Self { ignored, ..self }
    }

    /// Has a MAC for each IPv4 address, see [`Holder::mac_of`].
    pub fn with_many_macs(self) -> Self {
        Self { has_many_macs: true, ..self }
    }

    /// Starts it on a link, until the value is dropped.
    pub fn start(self, netns: &Namespace, link: &str) -> Holder {
        let (socket, address) = netns.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
                .expect("open a packet socket");
            let address = link_address(link);
            bind(socket.as_raw_fd(), &address).expect("bind a packet socket");
            (socket, address)
        });
        let mac = address.addr().expect("an Ethernet link has a MAC");
        let (end, stop) = std::io::pipe().expect("make a pipe");
        let asked = Arc::new(AtomicUsize::new(0));
        let has_many_macs = self.has_many_macs;
        let machine = Answering { socket, mac, manner: self, asked: Arc::clone(&asked), pending: Vec::new() };
        let thread = thread::spawn(move || machine.run(&end));
        Holder { mac, has_many_macs, asked, stop: Some(stop), thread: Some(thread) }
    }
}

/// A running machine. It stops when it is dropped.
#[derive(Debug)]
pub struct Holder {
    mac: [u8; 6],
    has_many_macs: bool,
    asked: Arc<AtomicUsize>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Holder {
    /// The MAC with which it answers for this address.
    pub fn mac_of(&self, ip: IpAddr) -> String {
        format_mac(&mac_for(self.mac, self.has_many_macs, ip))
    }

    /// The number of requests for its addresses until now.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    #[track_caller]
    pub fn await_asked(&self, times: usize) {
        await_that(&format!("the holder was asked {times} times"), || self.asked() >= times);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn mac_for(own: [u8; 6], has_many: bool, ip: IpAddr) -> [u8; 6] {
    match ip {
        IpAddr::V4(ip) if has_many => [0x02, 0, 0x5e, 0, 0, ip.octets()[3]],
        _ => own,
    }
}

/// The state of the thread.
struct Answering {
    socket: OwnedFd,
    mac: [u8; 6],
    manner: Manner,
    asked: Arc<AtomicUsize>,
    /// Frames to send, each with its time.
    pending: Vec<(Instant, Vec<u8>)>,
}

impl Answering {
    fn run(mut self, end: &impl AsFd) {
        loop {
            self.send_due();
            let next = self.pending.iter().map(|(due, _)| *due).min();
            let timeout = next.map(|due| TimeSpec::from(due.saturating_duration_since(Instant::now())));
            let mut fds =
                [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut fds, timeout, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => panic!("wait for frames: {e}"),
            }
            let has_ended = fds[1].any().unwrap_or(true);
            if has_ended {
                return;
            }
            self.receive();
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.pending).into_iter().partition(|(due, _)| *due <= now);
        self.pending = later;
        let due: Vec<(Instant, Vec<u8>)> = due;
        for (_, frame) in due {
            // The link may be down, and the receiver may be gone.
            let _ = send(self.socket.as_raw_fd(), &frame, MsgFlags::empty());
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            let is_ours = from.is_some_and(|from| from.pkttype() == OUTGOING);
            if !is_ours && let Some(reply) = self.react(&buffer[..length]) {
                self.pending.push((Instant::now() + self.manner.delay, reply));
            }
        }
    }

    /// The reaction to a frame.
    fn react(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let frame = Frame::decode(bytes)?;
        let target = requested(&frame).filter(|target| self.holds(*target))?;
        let already = self.asked.fetch_add(1, Ordering::Relaxed);
        if already < self.manner.ignored {
            return None;
        }
        let asker: [u8; 6] = bytes[6..12].try_into().ok()?;
        let mac = mac_for(self.mac, self.manner.has_many_macs, target);
        match (self.manner.reaction, frame, target) {
            (Reaction::Reflect, ..) => Some(bytes.to_vec()),
            (Reaction::Answer, Frame::Arp { sender, .. }, IpAddr::V4(target)) => {
                Some(arp(asker, REPLY, (mac, target), (asker, sender)))
            }
            (Reaction::Announce, _, IpAddr::V4(target)) => {
                Some(arp(BROADCAST, REQUEST, (mac, target), ([0; 6], target)))
            }
            (Reaction::ProbeAll, _, IpAddr::V4(target)) => {
                Some(arp(BROADCAST, REQUEST, (mac, Ipv4Addr::UNSPECIFIED), ([0; 6], target)))
            }
            (Reaction::ProbeSender, _, IpAddr::V4(target)) => {
                Some(arp(asker, REQUEST, (mac, Ipv4Addr::UNSPECIFIED), ([0; 6], target)))
            }
            (Reaction::Answer, Frame::Solicitation { source, .. }, IpAddr::V6(target)) => {
                Some(advertisement(mac, target, asker, source))
            }
            _ => None,
        }
    }

    fn holds(&self, target: IpAddr) -> bool {
        self.manner.addresses.as_ref().is_none_or(|addresses| addresses.contains(&target))
    }
}

/// The address that a frame asks for. An announcement asks for none.
fn requested(frame: &Frame) -> Option<IpAddr> {
    match frame {
        Frame::Arp { operation: 1, sender, target, .. } if sender != target => Some(IpAddr::V4(*target)),
        Frame::Solicitation { target, .. } => Some(IpAddr::V6(*target)),
        Frame::Arp { .. } | Frame::Advertisement { .. } => None,
    }
}

/// The bytes of the answer to a solicitation (RFC 4861, 7.2.4). The answer to duplicate address detection goes to all.
fn advertisement(mac: [u8; 6], target: Ipv6Addr, asker: [u8; 6], source: Ipv6Addr) -> Vec<u8> {
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let (to, receiver, flags) = if source.is_unspecified() {
        ([0x33, 0x33, 0, 0, 0, 1], ALL_NODES, OVERRIDE)
    } else {
        (asker, source, SOLICITED | OVERRIDE)
    };
    let mut icmp = vec![136, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac);
    let length = u8::try_from(icmp.len()).expect("a short packet");
    let pseudo = [&target.octets()[..], &receiver.octets(), &[0, 0, 0, length, 0, 0, 0, 58], &icmp].concat();
    icmp[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let mut frame = [to, mac].concat();
    frame.extend(ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0, 0, length, 58, 255]);
    frame.extend(target.octets());
    frame.extend(receiver.octets());
    frame.extend(icmp);
    frame
}
