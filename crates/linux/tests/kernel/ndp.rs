//! Neighbour discovery with the kernel at the other end of a wire.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{Icmpv6Type, PacketBuilder};
use linux::{Advertisement, Errno, NdpSocket, Patience};

use crate::sandbox::{ip, with_nic};
use crate::wire::{our_mac, soon, their_mac, wired};

const OURS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x10);
const THEIRS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x20);

/// Gives an address to a link without duplicate address detection, and waits until the kernel answers for it.
fn assign(address: Ipv6Addr, link: &str) {
    ip(&format!("addr add {address}/64 dev {link} nodad"));
    let mut patience = Patience::new(Duration::from_secs(20));
    while ip(&format!("-6 route show table local {address}")).is_empty() {
        assert!(patience.pause(), "{address} cannot be used");
    }
}

/// A frame with an advertisement of an address, without an option.
fn frame(address: Ipv6Addr, hops: u8) -> Vec<u8> {
    let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(their_mac().octets(), our_mac().octets())
        .ipv6(THEIRS.octets(), OURS.octets(), hops)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header))
        .write(&mut bytes, &address.octets())
        .expect("build a frame");
    bytes
}

#[test]
fn the_other_kernel_answers_a_solicitation_with_its_mac() {
    wired(|wire| {
        assign(OURS, "nic0");
        wire.there.enter(|| assign(THEIRS, "wire0")).unwrap();
        let mut socket = NdpSocket::open(wire.here).unwrap();
        socket.solicit(OURS, THEIRS, our_mac()).unwrap();
        let expected = Advertisement { target: THEIRS, mac: Some(their_mac()), solicited: true };
        assert_eq!(socket.receive(soon()).unwrap(), Some(expected));
        let neighbour = wire.ip_there("neigh show fd00::10 dev wire0");
        assert!(neighbour.contains(" lladdr 02:00:00:00:00:10 "), "{neighbour}");
    });
}

#[test]
fn an_unsolicited_advertisement_is_heard_and_replaces_a_neighbour_of_the_other_kernel() {
    wired(|wire| {
        assign(OURS, "nic0");
        wire.there.enter(|| assign(THEIRS, "wire0")).unwrap();
        wire.ip_there("neigh add fd00::10 lladdr 02:00:00:00:00:99 dev wire0 nud stale");
        let mut there = NdpSocket::open_in(&wire.there, wire.other).unwrap();
        NdpSocket::open(wire.here).unwrap().advertise(OURS, our_mac()).unwrap();
        let expected = Advertisement { target: OURS, mac: Some(our_mac()), solicited: false };
        assert_eq!(there.receive(soon()).unwrap(), Some(expected));
        let neighbour = wire.ip_there("neigh show fd00::10 dev wire0");
        assert!(neighbour.contains(" lladdr 02:00:00:00:00:10 "), "{neighbour}");
    });
}

/// A router decrements the hop limit, so 255 proves that the sender is on this link. (RFC 4861, section 7.1.2)
#[test]
fn a_forwarded_advertisement_is_ignored() {
    wired(|wire| {
        assign(OURS, "nic0");
        let mut socket = NdpSocket::open(wire.here).unwrap();
        wire.send(&frame(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), 254));
        wire.send(&frame(THEIRS, 255));
        let expected = Advertisement { target: THEIRS, mac: None, solicited: false };
        assert_eq!(socket.receive(soon()).unwrap(), Some(expected));
        assert_eq!(socket.receive(Instant::now()).unwrap(), None);
    });
}

#[test]
fn advertisements_on_another_link_are_not_heard() {
    wired(|wire| {
        ip("link add other0 type veth peer name other1");
        let [other, same] = ["other0", "nic0"].map(|name| {
            let index = std::fs::read_to_string(format!("/proc/thread-self/net/dev_snmp6/{name}")).unwrap();
            index.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
        });
        assert_eq!(same, wire.here);
        assign(OURS, "nic0");
        let [mut deaf, mut marker] = [other, same].map(|index| NdpSocket::open(index).unwrap());
        wire.send(&frame(THEIRS, 255));
        wire.send(&frame(THEIRS, 255));
        for _ in 0..2 {
            marker.receive(soon()).unwrap().unwrap();
        }
        assert_eq!(deaf.receive(Instant::now()).unwrap(), None);
    });
}

#[test]
fn the_source_must_be_an_address_of_the_link_that_can_be_used() {
    with_nic(|_, nic| {
        let socket = NdpSocket::open(nic).unwrap();
        let refused = |error: linux::Error| {
            assert_eq!(error.errno(), Some(Errno::EADDRNOTAVAIL), "{error}");
            error.to_string()
        };
        let words = refused(socket.solicit(OURS, THEIRS, our_mac()).unwrap_err());
        assert_eq!(words, "ask for fd00::20: cannot assign requested address");
        // Duplicate address detection takes a second.
        ip("addr add fd00::10/64 dev nic0");
        let words = refused(socket.advertise(OURS, our_mac()).unwrap_err());
        assert_eq!(words, "advertise fd00::10: cannot assign requested address");
    });
}

/// The kernel removes the addresses of a link that is set down.
#[test]
fn a_link_that_is_down_or_gone_sends_nothing() {
    wired(|wire| {
        assign(OURS, "nic0");
        let socket = NdpSocket::open(wire.here).unwrap();
        let refused = || socket.advertise(OURS, our_mac()).unwrap_err().errno();
        ip("link set nic0 down");
        assert_eq!(refused(), Some(Errno::EADDRNOTAVAIL));
        ip("link del nic0");
        assert_eq!(refused(), Some(Errno::ENODEV));
    });
}
