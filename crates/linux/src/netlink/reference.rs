//! Only for tests: compares every message with that of netlink-packet-route.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use proptest::prelude::*;

use super::{Message, Messages, Request};

/// Writes a message with netlink-packet-route.
pub(crate) fn emit(message: RouteNetlinkMessage) -> Vec<u8> {
    emit_payload(NetlinkPayload::InnerMessage(message), NetlinkHeader::default())
}

pub(crate) fn emit_payload(payload: NetlinkPayload<RouteNetlinkMessage>, header: NetlinkHeader) -> Vec<u8> {
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads the only message in `bytes` with this crate.
pub(crate) fn only(bytes: &[u8]) -> Message<'_> {
    let mut messages = Messages::new(bytes);
    let message = messages.next().unwrap().unwrap();
    assert_eq!(messages.next(), None);
    message
}

/// Asserts that a request has the bytes that netlink-packet-route writes, and that netlink-packet-route reads it back.
pub(crate) fn assert_same(mut ours: Request, flags: u16, theirs: RouteNetlinkMessage) {
    let ours = ours.sealed(7, 4242).to_vec();
    let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&ours).unwrap();
    assert_eq!(read.payload, NetlinkPayload::InnerMessage(theirs.clone()));
    assert_eq!(read.header.flags, flags);
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = 7;
    header.port_number = 4242;
    let payload = NetlinkPayload::InnerMessage(theirs);
    assert_eq!(ours, emit_payload(payload, header));
}

/// Any address with any prefix length. It may have host bits.
pub(crate) fn any_net() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=128_u8).prop_map(|(ip, prefix)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, prefix.min(longest)).unwrap()
    })
}
