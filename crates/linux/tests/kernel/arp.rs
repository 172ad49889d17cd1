//! ARP with the kernel at the other end of a wire.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use linux::{Arp, ArpOperation, ArpSocket, Errno, HeardArp, Mac, Netns};

use crate::sandbox::{ip, mac, with_nic};
use crate::wire::{our_mac, soon, their_mac, wired};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

/// A frame with an ARP packet.
fn frame(to: Mac, payload: &[u8]) -> Vec<u8> {
    [&to.octets()[..], &their_mac().octets(), &[8, 6], payload].concat()
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

#[test]
fn the_other_kernel_answers_a_probe_and_learns_nothing() {
    wired(|wire| {
        wire.ip_there("addr add 10.0.0.7/24 dev wire0");
        let mut socket = ArpSocket::open(wire.here).unwrap();
        socket.send(&Arp::probe(our_mac(), ADDRESS)).unwrap();
        let arp = Arp {
            operation: ArpOperation::Reply,
            sender_mac: their_mac(),
            sender: ADDRESS,
            target_mac: our_mac(),
            target: Ipv4Addr::UNSPECIFIED,
        };
        assert_eq!(socket.receive(soon()).unwrap(), Some(HeardArp { arp, is_broadcast: false }));
        assert_eq!(wire.ip_there("-4 neigh show"), "");
    });
}

#[test]
fn nothing_is_heard_if_no_machine_has_the_address() {
    wired(|wire| {
        wire.ip_there("addr add 10.0.0.7/24 dev wire0");
        let mut socket = ArpSocket::open(wire.here).unwrap();
        socket.send(&Arp::probe(our_mac(), address(8))).unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(socket.receive(deadline).unwrap(), None);
        assert!(Instant::now() >= deadline);
    });
}

#[test]
fn an_announcement_is_heard_and_replaces_a_neighbour_of_the_other_kernel() {
    wired(|wire| {
        wire.ip_there("addr add 10.0.0.9/24 dev wire0");
        wire.ip_there("neigh add 10.0.0.7 lladdr 02:00:00:00:00:99 dev wire0 nud stale");
        let mut there = ArpSocket::open_in(&wire.there, wire.other).unwrap();
        let arp = Arp::announcement(our_mac(), ADDRESS);
        ArpSocket::open(wire.here).unwrap().send(&arp).unwrap();
        assert_eq!(there.receive(soon()).unwrap(), Some(HeardArp { arp, is_broadcast: true }));
        let neighbour = wire.ip_there("neigh show 10.0.0.7 dev wire0");
        assert!(neighbour.contains(" lladdr 02:00:00:00:00:10 "), "{neighbour}");
    });
}

#[test]
fn frames_to_one_machine_and_to_several_are_told_apart_and_those_to_others_are_skipped() {
    wired(|wire| {
        let mut socket = ArpSocket::open(wire.here).unwrap();
        let others = mac("02:00:00:00:00:99");
        let group = mac("01:00:5e:00:00:01");
        let packet = |last| Arp::probe(their_mac(), address(last));
        wire.send(&frame(others, &packet(1).encode()));
        wire.send(&frame(our_mac(), &packet(2).encode()));
        wire.send(&frame(our_mac(), &packet(3).encode()[..20]));
        wire.send(&frame(our_mac(), &[0; 46]));
        wire.send(&frame(group, &packet(4).encode()));
        wire.send(&frame(others, &packet(5).encode()));
        // Ethernet fills short frames up.
        wire.send(&frame(Mac::from([0xff; 6]), &[&packet(6).encode()[..], &[0x55; 18]].concat()));
        let expected = [(2, false), (4, true), (6, true)];
        let heard = expected.map(|_| socket.receive(soon()).unwrap().unwrap());
        assert_eq!(heard, expected.map(|(last, is_broadcast)| HeardArp { arp: packet(last), is_broadcast }));
    });
}

#[test]
fn frames_of_a_foreign_vlan_are_skipped() {
    wired(|wire| {
        let mut socket = ArpSocket::open(wire.here).unwrap();
        let packet = |last| Arp::probe(their_mac(), address(last));
        let mut tagged = frame(our_mac(), &packet(1).encode());
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        wire.send(&tagged);
        wire.send(&frame(our_mac(), &packet(2).encode()));
        assert_eq!(socket.receive(soon()).unwrap().unwrap().arp, packet(2));
    });
}

#[test]
fn own_frames_are_not_heard() {
    wired(|wire| {
        let mut socket = ArpSocket::open(wire.here).unwrap();
        let mut marker = ArpSocket::open_in(&wire.there, wire.other).unwrap();
        socket.send(&Arp::probe(our_mac(), ADDRESS)).unwrap();
        marker.receive(soon()).unwrap().unwrap();
        assert_eq!(socket.receive(Instant::now()).unwrap(), None);
    });
}

#[test]
fn what_has_arrived_is_returned_after_the_deadline() {
    wired(|wire| {
        let [mut socket, mut marker] = [(); 2].map(|()| ArpSocket::open(wire.here).unwrap());
        let there = ArpSocket::open_in(&wire.there, wire.other).unwrap();
        for last in 1..=3 {
            there.send(&Arp::probe(their_mac(), address(last))).unwrap();
        }
        // If one socket has the third frame, both have the first two.
        for _ in 1..=3 {
            marker.receive(soon()).unwrap().unwrap();
        }
        let past = Instant::now() - Duration::from_secs(1);
        let heard = [1, 2].map(|_| socket.receive(past).unwrap().unwrap().arp.target);
        assert_eq!(heard, [address(1), address(2)]);
    });
}

/// If other machines sent faster than we read, reading after the deadline never ended.
#[test]
fn reading_after_the_deadline_ends_also_in_a_storm() {
    wired(|wire| {
        let mut socket = ArpSocket::open(wire.here).unwrap();
        let there = ArpSocket::open_in(&wire.there, wire.other).unwrap();
        let past = Instant::now();
        let storm = (0..20_000).take_while(|_| {
            there.send(&Arp::probe(their_mac(), ADDRESS)).unwrap();
            socket.receive(past).unwrap().is_some()
        });
        assert!(storm.count() <= 4096);
        there.send(&Arp::probe(their_mac(), ADDRESS)).unwrap();
        assert!(socket.receive(soon()).unwrap().is_some(), "the next call reads again");
    });
}

#[test]
fn a_link_that_goes_down_is_an_error_and_is_heard_again_when_it_is_up() {
    wired(|wire| {
        let mut socket = ArpSocket::open(wire.here).unwrap();
        let probe = Arp::probe(our_mac(), ADDRESS);
        ip("link set nic0 down");
        assert_eq!(socket.receive(soon()).unwrap_err().errno(), Some(Errno::ENETDOWN));
        assert_eq!(socket.send(&probe).unwrap_err().errno(), Some(Errno::ENETDOWN));
        ip("link set nic0 up");
        wire.await_up();
        socket.send(&probe).unwrap();
        wire.send(&frame(our_mac(), &Arp::probe(their_mac(), ADDRESS).encode()));
        assert_eq!(socket.receive(soon()).unwrap().unwrap().arp, Arp::probe(their_mac(), ADDRESS));
        ip("link del nic0");
        assert_eq!(socket.receive(soon()).unwrap_err().errno(), Some(Errno::ENETDOWN));
        assert_eq!(socket.send(&probe).unwrap_err().errno(), Some(Errno::ENXIO));
    });
}

#[test]
fn a_socket_that_is_opened_while_the_link_is_down_tells_it_once() {
    wired(|wire| {
        ip("link set nic0 down");
        let [mut socket, sender] = [(); 2].map(|()| ArpSocket::open(wire.here).unwrap());
        ip("link set nic0 up");
        wire.await_up();
        let probe = Arp::probe(our_mac(), ADDRESS);
        assert_eq!(sender.send(&probe).unwrap_err().errno(), Some(Errno::ENETDOWN));
        sender.send(&probe).unwrap();
        assert_eq!(socket.receive(soon()).unwrap_err().errno(), Some(Errno::ENETDOWN));
        wire.send(&frame(our_mac(), &Arp::probe(their_mac(), ADDRESS).encode()));
        assert_eq!(socket.receive(soon()).unwrap().unwrap().arp, Arp::probe(their_mac(), ADDRESS));
    });
}

#[test]
fn a_socket_needs_a_link_of_its_namespace() {
    with_nic(|_, _| {
        let error = ArpSocket::open(4711).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV));
        assert_eq!(error.to_string(), "open ARP socket on ifindex 4711: no such device");
        let here = Netns::current().unwrap();
        assert_eq!(ArpSocket::open_in(&here, 4711).unwrap_err().errno(), Some(Errno::ENODEV));
    });
}
