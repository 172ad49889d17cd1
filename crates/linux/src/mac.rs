//! Ethernet hardware addresses.

use std::fmt;
use std::str::FromStr;

/// A 48-bit hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

/// The text is not a hardware address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a hardware address such as 02:00:5e:10:00:01")]
pub struct ParseMacError {
    /// The text as it was given.
    pub text: String,
}

impl Mac {
    /// The six octets, in the order in which they go over the wire.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A group address, broadcast among them: no interface can have it.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// `00:00:00:00:00:00`: no interface can have it.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Six pairs of hexadecimal digits, all separated by `:` or all by `-`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseMacError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Mac> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut groups = text.split(separator);
    let mut octets = [0; 6];
    for octet in &mut octets {
        let group = groups.next()?;
        // from_str_radix would take a sign.
        if group.len() != 2 || !group.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *octet = u8::from_str_radix(group, 16).ok()?;
    }
    groups.next().is_none().then_some(Mac(octets))
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_are_read_and_colons_written() {
        for text in ["02:AB:cd:00:01:ff", "02-ab-CD-00-01-ff"] {
            let mac: Mac = text.parse().unwrap();
            assert_eq!(mac.octets(), [0x02, 0xab, 0xcd, 0x00, 0x01, 0xff]);
            assert_eq!(mac.to_string(), "02:ab:cd:00:01:ff");
        }
    }

    #[test]
    fn anything_else_is_an_error_that_names_it() {
        for text in [
            "",
            "02:ab",
            "02:ab:cd:00:01:ff:00",
            "02:ab:cd:00:01:ff:",
            "02:ab:cd:00:01:fg",
            "2:ab:cd:0:1:ff",
            "02:ab:cd-00-01-ff",
            "+2:ab:cd:00:01:ff",
            "02ab.cd00.01ff",
            "02:ab:cd:00:01:f\u{e9}",
        ] {
            let error = text.parse::<Mac>().unwrap_err();
            assert_eq!(error.to_string(), format!("{text:?} is not a hardware address such as 02:00:5e:10:00:01"));
        }
    }

    #[test]
    fn group_and_zero_addresses_are_recognised() {
        assert!(Mac([0x01, 0, 0x5e, 0, 0, 1]).is_multicast());
        assert!(Mac([0xff; 6]).is_multicast());
        assert!(!Mac([0x02, 0, 0, 0, 0, 1]).is_multicast());
        assert!(Mac([0; 6]).is_zero());
        assert!(!Mac([0, 0, 0, 0, 0, 1]).is_zero());
    }
}
