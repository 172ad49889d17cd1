//! Attributes: length, type and value. Any bytes can be read without a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Decode, aligned};
use crate::Mac;

const HEADER: usize = 4;

/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` share the field with the type.
const TYPE_MASK: u16 = 0x3fff;

/// One attribute. Its value is not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

/// Iterates over the attributes in a slice. Ends after an attribute that does not fit.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Iterates over the attributes after a fixed header of `length` bytes.
    pub(crate) fn after(bytes: &'a [u8], length: usize) -> Decode<Self> {
        if bytes.len() < length {
            return Err("message shorter than its header");
        }
        Ok(Self(bytes.get(aligned(length)..).unwrap_or_default()))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Decode<Attribute<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        // Fewer bytes than a header are padding, as in the kernel.
        let (&[a, b, c, d], _) = rest.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = rest.get(HEADER..length) else {
            self.0 = &[];
            return Some(Err("attribute does not fit into its message"));
        };
        self.0 = rest.get(aligned(length)..).unwrap_or_default();
        Some(Ok(Attribute { kind: u16::from_ne_bytes([c, d]) & TYPE_MASK, value }))
    }
}

impl<'a> Attribute<'a> {
    /// Returns the first bytes of the value. A newer kernel may append more.
    fn prefix<const N: usize>(&self) -> Decode<[u8; N]> {
        self.value.first_chunk().copied().ok_or("attribute value too short")
    }

    pub(crate) fn u16(&self) -> Decode<u16> {
        Ok(u16::from_ne_bytes(self.prefix()?))
    }

    pub(crate) fn u32(&self) -> Decode<u32> {
        Ok(u32::from_ne_bytes(self.prefix()?))
    }

    pub(crate) fn i32(&self) -> Decode<i32> {
        Ok(i32::from_ne_bytes(self.prefix()?))
    }

    /// Returns a string up to its NUL. Replaces bytes that are not UTF-8.
    pub(crate) fn text(&self) -> String {
        let end = self.value.iter().position(|&byte| byte == 0);
        let text = &self.value[..end.unwrap_or(self.value.len())];
        String::from_utf8_lossy(text).into_owned()
    }

    pub(crate) fn ip(&self) -> Decode<IpAddr> {
        ip(self.value)
    }

    /// Returns a MAC. Returns `None` if the value has another length.
    pub(crate) fn mac(&self) -> Option<Mac> {
        <[u8; 6]>::try_from(self.value).ok().map(Mac::from)
    }

    pub(crate) fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }
}

/// Reads an address in network byte order. Its length decides the family.
pub(crate) fn ip(bytes: &[u8]) -> Decode<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(Ipv4Addr::from(octets).into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(Ipv6Addr::from(octets).into())
    } else {
        Err("address of neither 4 nor 16 bytes")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn padding_and_flags_of_attributes_are_ignored() {
        let mut bytes = Vec::new();
        for (length, kind, value) in [(7_u16, 3_u16, &b"lo\0\0"[..]), (8, 0x8000 | 18, &[1, 2, 3, 4])] {
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        }
        let attributes: Vec<_> = Attributes::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(attributes[0].kind, 3);
        assert_eq!(attributes[0].text(), "lo");
        assert_eq!(attributes[1].kind, 18);
        assert_eq!(attributes[1].value, [1, 2, 3, 4]);
        assert_eq!(attributes.len(), 2);
    }

    #[test]
    fn an_attribute_of_length_zero_is_an_error() {
        let results: Vec<_> = Attributes::new(&[0; 64]).collect();
        assert_eq!(results, [Err("attribute does not fit into its message")]);
    }

    #[test]
    fn an_attribute_longer_than_its_message_is_an_error() {
        let mut bytes = 9_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0, 0, 0, 0, 0]);
        assert_eq!(Attributes::new(&bytes).next(), Some(Err("attribute does not fit into its message")));
    }

    proptest! {
        #[test]
        fn the_iterator_ends_with_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            // Each attribute has at least four bytes.
            let steps = Attributes::new(&bytes).take(1000).count();
            prop_assert!(steps <= bytes.len() / 4 + 1);
            for attribute in Attributes::new(&bytes).flatten() {
                let _ = (attribute.u16(), attribute.u32(), attribute.i32());
                let _ = (attribute.text(), attribute.ip(), attribute.mac());
                let _ = attribute.nested().count();
            }
        }
    }
}
