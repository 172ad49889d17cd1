//! Messages: writes a request, and iterates over the replies in a datagram.

use std::net::IpAddr;

use super::constants::NLM_F_REQUEST;
use super::{Decode, aligned};

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// A request. Its sequence number and port are written when it is sent.
#[derive(Debug)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// Starts a request with the fixed header of its type. Adds `NLM_F_REQUEST` to the flags.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(header);
        bytes.resize(aligned(bytes.len()), 0);
        Self(bytes)
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |request| request.0.extend(value));
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Appends a string with its NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |request| {
            request.0.extend(value.as_bytes());
            request.0.push(0);
        });
    }

    pub(crate) fn ip(&mut self, kind: u16, value: IpAddr) {
        match value {
            IpAddr::V4(address) => self.bytes(kind, &address.octets()),
            IpAddr::V6(address) => self.bytes(kind, &address.octets()),
        }
    }

    /// Appends an attribute. `fill` writes its value.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        // The field has 16 bits. Attributes are far shorter: they have names, numbers and addresses.
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(aligned(self.0.len()), 0);
    }

    /// Writes the missing fields of the header, and returns the bytes to send.
    pub(crate) fn sealed(&mut self, sequence: u32, port: u32) -> &[u8] {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0[12..16].copy_from_slice(&port.to_ne_bytes());
        &self.0
    }
}

/// One received message. Its payload is not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// Iterates over the messages of one datagram. Ends after a message that does not fit.
#[derive(Clone, Debug)]
pub(crate) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Decode<Message<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        if rest.is_empty() {
            return None;
        }
        self.0 = &[];
        let Some((header, _)) = rest.split_first_chunk::<HEADER>() else {
            return Some(Err("datagram ends within a message header"));
        };
        let length = usize::try_from(u32_at(header, 0)).unwrap_or(usize::MAX);
        let Some(payload) = rest.get(HEADER..length) else {
            return Some(Err("message does not fit into its datagram"));
        };
        self.0 = rest.get(aligned(length)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32_at(header, 8),
            port: u32_at(header, 12),
            payload,
        }))
    }
}

fn u32_at(header: &[u8; HEADER], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::{Attribute, Attributes};

    /// Expected bytes, in the byte order of the machine that runs the test.
    fn golden(words: &[u16], tail: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn a_request_has_lengths_padding_sequence_and_port() {
        let mut request = Request::new(18, 0x4, &[0; 4]);
        request.text(3, "lo");
        let mut expected = 28_u32.to_ne_bytes().to_vec();
        expected.extend(golden(&[18, 0x5], &[]));
        expected.extend(7_u32.to_ne_bytes());
        expected.extend(4242_u32.to_ne_bytes());
        expected.extend([0; 4]);
        expected.extend(golden(&[7, 3], b"lo\0\0"));
        assert_eq!(request.sealed(7, 4242), expected);
    }

    #[test]
    fn the_length_of_a_nested_attribute_includes_its_content() {
        let mut request = Request::new(18, 0, &[]);
        request.nest(18, |info| {
            info.text(1, "macvlan");
            info.u16(2, 1);
        });
        let bytes = request.sealed(0, 0)[HEADER..].to_vec();
        let mut expected = golden(&[24, 18], &golden(&[12, 1], b"macvlan\0"));
        expected.extend(golden(&[6, 2, 1, 0], &[]));
        assert_eq!(bytes, expected);
    }

    #[test]
    fn two_messages_of_one_datagram_are_read() {
        let mut datagram = Request::new(16, 0, &[1; 5]).sealed(1, 2).to_vec();
        datagram.extend(Request::new(3, 0, &[]).sealed(1, 2));
        let messages: Vec<_> = Messages::new(&datagram).map(Result::unwrap).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].kind, messages[1].kind), (16, 3));
        assert_eq!(messages[0].payload, [1, 1, 1, 1, 1, 0, 0, 0]);
        assert_eq!((messages[1].sequence, messages[1].port), (1, 2));
    }

    #[test]
    fn a_message_of_length_zero_is_an_error() {
        let results: Vec<_> = Messages::new(&[0; 64]).collect();
        assert_eq!(results, [Err("message does not fit into its datagram")]);
    }

    #[test]
    fn an_incomplete_header_is_an_error() {
        let results: Vec<_> = Messages::new(&[1; 15]).collect();
        assert_eq!(results, [Err("datagram ends within a message header")]);
    }

    /// Reads exactly N attributes.
    fn list<const N: usize>(attributes: Attributes<'_>) -> [Attribute<'_>; N] {
        attributes.map(Result::unwrap).collect::<Vec<_>>().try_into().unwrap()
    }

    proptest! {
        #[test]
        fn the_iterator_ends_with_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let steps = Messages::new(&bytes).take(1000).count();
            prop_assert!(steps <= bytes.len() / HEADER + 1);
        }

        /// The kinds of attributes have no flags in their two highest bits, and the fixed header ends at a multiple of
        /// four bytes.
        #[test]
        fn requests_in_one_datagram_read_back(
            requests in prop::collection::vec(
                (
                    any::<[u16; 2]>(),
                    any::<[u32; 2]>(),
                    any::<[u8; 8]>(),
                    prop::collection::vec((0..0x4000_u16, prop::collection::vec(any::<u8>(), 0..40)), 0..5),
                ),
                1..4,
            ),
        ) {
            let mut datagram = Vec::new();
            for ([kind, flags], [sequence, port], header, attributes) in &requests {
                let mut request = Request::new(*kind, *flags, header);
                attributes.iter().for_each(|(kind, value)| request.bytes(*kind, value));
                datagram.extend(request.sealed(*sequence, *port));
            }
            let mut messages = Messages::new(&datagram);
            for ([kind, flags], [sequence, port], header, attributes) in &requests {
                let message = messages.next().unwrap().unwrap();
                prop_assert_eq!((message.kind, message.flags), (*kind, NLM_F_REQUEST | *flags));
                prop_assert_eq!((message.sequence, message.port), (*sequence, *port));
                prop_assert!(message.payload.starts_with(header));
                let read = Attributes::after(message.payload, header.len()).unwrap();
                let read: Vec<_> = read.map(Result::unwrap).collect();
                let written: Vec<_> = attributes.iter().map(|(kind, value)| Attribute { kind: *kind, value }).collect();
                prop_assert_eq!(read, written);
            }
            prop_assert_eq!(messages.next(), None);
        }

        #[test]
        fn values_in_a_nest_read_back(
            short in any::<u16>(), long in any::<u32>(), ip in any::<IpAddr>(), text in "[^\0]{0,20}",
        ) {
            let mut request = Request::new(0, 0, &[]);
            request.nest(1, |outer| {
                outer.u16(2, short);
                outer.nest(3, |inner| {
                    inner.u32(4, long);
                    inner.ip(5, ip);
                });
                outer.text(6, &text);
            });
            let payload = &request.sealed(0, 0)[HEADER..];
            let [nest] = list(Attributes::new(payload));
            let [first, inner, last] = list(nest.nested());
            let [number, address] = list(inner.nested());
            prop_assert_eq!([nest, first, inner, number, address, last].map(|its| its.kind), [1, 2, 3, 4, 5, 6]);
            prop_assert_eq!((first.u16(), last.text()), (Ok(short), text));
            prop_assert_eq!((number.u32(), address.ip()), (Ok(long), Ok(ip)));
        }
    }
}
