//! Ethernet hardware addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address of 48 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

/// The text is not an Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a hardware address such as 02:00:5e:10:00:01")]
pub struct ParseMacError {
    /// The text.
    pub text: String,
}

impl Mac {
    /// Returns the six octets in the order in which they are sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Returns true for a group address, such as broadcast. No interface can have one.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Returns true for `00:00:00:00:00:00`. No interface can have it.
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

    /// Reads six pairs of hexadecimal digits, separated by `:` or by `-`, or three groups of four, separated by `.`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseMacError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Mac> {
    let (separator, digits) = match text {
        _ if text.contains('.') => ('.', 4),
        _ if text.contains('-') => ('-', 2),
        _ => (':', 2),
    };
    let groups: Vec<&str> = text.split(separator).collect();
    // from_str_radix accepts a sign, which is wrong here.
    let is_group = |group: &&str| group.len() == digits && group.bytes().all(|digit| digit.is_ascii_hexdigit());
    if groups.len() * digits != 12 || !groups.iter().all(is_group) {
        return None;
    }
    let number = u64::from_str_radix(&groups.concat(), 16).ok()?;
    let [_, _, octets @ ..] = number.to_be_bytes();
    Some(Mac(octets))
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mac_is_read_with_any_separator_and_written_with_colons() {
        for text in ["02:AB:cd:00:01:ff", "02-ab-CD-00-01-ff", "02ab.Cd00.01ff"] {
            let mac: Mac = text.parse().unwrap();
            assert_eq!(mac.octets(), [0x02, 0xab, 0xcd, 0x00, 0x01, 0xff]);
            assert_eq!(mac.to_string(), "02:ab:cd:00:01:ff");
        }
    }

    #[test]
    fn the_error_names_a_text_that_is_not_a_mac() {
        for text in [
            "",
            "02:ab",
            "02:ab:cd:00:01:ff:00",
            "02:ab:cd:00:01:ff:",
            "02:ab:cd:00:01:fg",
            "2:ab:cd:0:1:ff",
            "02:ab:cd-00-01-ff",
            "+2:ab:cd:00:01:ff",
            "02ab.cd00.01f",
            "02ab.cd00:01ff",
            "02.ab.cd.00.01.ff",
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

    proptest! {
        #[test]
        fn a_mac_reads_back(octets in any::<[u8; 6]>()) {
            prop_assert_eq!(Mac(octets).to_string().parse(), Ok(Mac(octets)));
        }
    }
}
