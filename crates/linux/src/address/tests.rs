//! Compares address messages with those of netlink-packet-route.

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use proptest::prelude::*;

use super::*;
use crate::netlink::constants::NLM_F_REQUEST;
use crate::netlink::reference::{any_net, assert_same, emit, only};

fn message(family: AddressFamily, prefix_len: u8, index: u32, attributes: Vec<AddressAttribute>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family;
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn decoded(message: AddressMessage) -> Decode<Option<Address>> {
    decode(&only(&emit(RouteNetlinkMessage::NewAddress(message))))
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_request_to_add_an_address_equals_that_of_netlink_packet_route() {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    for (address, family, broadcast) in [
        ("10.1.2.3/24", AddressFamily::Inet, Some("10.1.2.255")),
        ("10.1.2.3/30", AddressFamily::Inet, Some("10.1.2.3")),
        ("10.1.2.3/31", AddressFamily::Inet, None),
        ("10.1.2.3/32", AddressFamily::Inet, None),
        ("fd00::5/64", AddressFamily::Inet6, None),
    ] {
        let address = net(address);
        let mut attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
        attributes.extend(broadcast.map(|b| AddressAttribute::Broadcast(b.parse().unwrap())));
        let theirs = message(family, address.prefix_len(), 5, attributes);
        let theirs = RouteNetlinkMessage::NewAddress(theirs);
        assert_same(new_request(5, address, 0), flags, theirs);
    }
}

#[test]
#[cfg(target_endian = "little")]
fn the_bytes_of_a_request_to_add_an_address() {
    #[rustfmt::skip]
    let golden = [
        // nlmsghdr: 48 bytes, RTM_NEWADDR, REQUEST|ACK|EXCL|CREATE, sequence 1, port 2
        48, 0, 0, 0, 20, 0, 0x05, 0x06, 1, 0, 0, 0, 2, 0, 0, 0,
        // ifaddrmsg: AF_INET, /24, flags, scope, ifindex 5
        2, 24, 0, 0, 5, 0, 0, 0,
        // IFA_LOCAL, IFA_ADDRESS, IFA_BROADCAST
        8, 0, 2, 0, 10, 1, 2, 3,
        8, 0, 1, 0, 10, 1, 2, 3,
        8, 0, 4, 0, 10, 1, 2, 255,
    ];
    assert_eq!(new_request(5, net("10.1.2.3/24"), 0).sealed(1, 2), golden);
}

#[test]
fn a_request_to_delete_an_address_names_its_peer() {
    let address =
        Address { ifindex: 5, address: net("10.0.0.1/32"), peer: Some(ip("10.0.0.2")), scope: 253, flags: 0x80 };
    let mut theirs = message(
        AddressFamily::Inet,
        32,
        5,
        vec![AddressAttribute::Local(ip("10.0.0.1")), AddressAttribute::Address(ip("10.0.0.2"))],
    );
    theirs.header.scope = AddressScope::Link;
    assert_same(del_request(&address), NLM_F_REQUEST | NLM_F_ACK, RouteNetlinkMessage::DelAddress(theirs));
}

#[test]
fn the_flags_of_32_bits_replace_those_of_8_bits() {
    let mut theirs = message(
        AddressFamily::Inet6,
        64,
        5,
        vec![
            AddressAttribute::Address(ip("fd00::5")),
            AddressAttribute::Flags(AddressFlags::Permanent | AddressFlags::Tentative | AddressFlags::Noprefixroute),
        ],
    );
    theirs.header.flags = AddressHeaderFlags::Permanent;
    let address = decoded(theirs).unwrap().unwrap();
    assert_eq!(address.address, net("fd00::5/64"));
    assert_eq!((address.ifindex, address.peer), (5, None));
    assert!(address.permanent() && address.tentative());
    assert!(!address.dad_failed() && !address.optimistic());
    assert_eq!(address.flags, 0x80 | 0x40 | 0x200);
}

#[test]
fn a_failure_of_duplicate_address_detection_is_read() {
    let mut theirs = message(AddressFamily::Inet6, 64, 5, vec![AddressAttribute::Address(ip("fd00::5"))]);
    theirs.header.flags = AddressHeaderFlags::Dadfailed | AddressHeaderFlags::Tentative;
    let address = decoded(theirs).unwrap().unwrap();
    assert!(address.dad_failed() && address.tentative());
}

#[test]
fn a_point_to_point_address_is_read_with_its_peer() {
    let theirs = message(
        AddressFamily::Inet,
        32,
        5,
        vec![AddressAttribute::Address(ip("10.0.0.2")), AddressAttribute::Local(ip("10.0.0.1"))],
    );
    let address = decoded(theirs).unwrap().unwrap();
    assert_eq!(address.address, net("10.0.0.1/32"));
    assert_eq!(address.peer, Some(ip("10.0.0.2")));
}

#[test]
fn defects_are_errors_and_other_families_are_skipped() {
    let v4 = |prefix, attributes| decoded(message(AddressFamily::Inet, prefix, 5, attributes));
    assert_eq!(v4(24, vec![]), Err("address message without an address"));
    assert_eq!(v4(33, vec![AddressAttribute::Local(ip("10.0.0.1"))]), Err("prefix longer than its address"));
    assert_eq!(v4(24, vec![AddressAttribute::Local(ip("fd00::1"))]), Err("address of another family than its message"));
    let phonet = message(AddressFamily::Phonet, 0, 5, vec![]);
    assert_eq!(decoded(phonet), Ok(None));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        family in prop::sample::select(vec![0_u8, 2, 10]),
        rest in prop::collection::vec(any::<u8>(), 0..128),
    ) {
        let mut payload = vec![family];
        payload.extend(rest);
        let message = Message { kind: RTM_NEWADDR, flags: 0, sequence: 0, port: 0, payload: &payload };
        if let Ok(Some(address)) = decode(&message) {
            prop_assert_eq!(address.address.addr().is_ipv4(), family == AF_INET);
        }
    }

    #[test]
    fn an_added_address_reads_back(address in any_net(), ifindex in any::<u32>()) {
        let mut request = new_request(ifindex, address, 0);
        let read = decode(&only(request.sealed(1, 2)));
        prop_assert_eq!(read, Ok(Some(Address { ifindex, address, peer: None, scope: 0, flags: 0 })));
    }

    /// The flags are not compared. A peer that equals the address is read as none.
    #[test]
    fn a_deleted_address_reads_back(
        address in any_net(),
        peer in any::<Option<IpAddr>>(),
        ifindex in any::<u32>(),
        scope in any::<u8>(),
        flags in any::<u32>(),
    ) {
        let peer = peer.filter(|peer| *peer != address.addr());
        let address = Address { ifindex, address, peer, scope, flags };
        let mut request = del_request(&address);
        let read = decode(&only(request.sealed(1, 2)));
        prop_assert_eq!(read, Ok(Some(Address { flags: 0, ..address })));
    }
}
