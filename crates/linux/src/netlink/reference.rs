//! Tests only: netlink-packet-route as the second opinion on every message, and what goes into messages of any sort.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use proptest::prelude::*;

use super::{Message, Messages, Request};

/// The message as netlink-packet-route writes it.
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

/// The one message in `bytes`, as this crate reads it.
pub(crate) fn only(bytes: &[u8]) -> Message<'_> {
    let mut messages = Messages::new(bytes);
    let message = messages.next().unwrap().unwrap();
    assert_eq!(messages.next(), None);
    message
}

/// Holds a request of ours against the same request of theirs: both ways round, and byte
/// for byte.
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

/// An address of either family with any prefix, host bits and all.
pub(crate) fn any_net() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=128_u8).prop_map(|(ip, prefix)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, prefix.min(longest)).unwrap()
    })
}
