//! Networks and addresses with a prefix length, as the reference reads them (Go's `net.ParseCIDR`).

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// An address with a prefix length. `IpNet` reads 010.0.0.0/24 as 10.0.0.0/24, and some programs read it as
/// 8.0.0.0/24 (octal). So leading zeros are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// The text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseNetworkError;

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let (address, length) = text.split_once('/').ok_or(ParseNetworkError)?;
        let address: IpAddr = address.parse().map_err(|_| ParseNetworkError)?;
        // The standard library accepts a sign. Zeros before the length are harmless.
        let length = Some(length).filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()));
        let length = length.and_then(|length| length.parse().ok()).ok_or(ParseNetworkError)?;
        IpNet::new(address, length).map(Self).map_err(|_| ParseNetworkError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_those_that_go_accepts() {
        for (text, read) in [
            ("10.0.0.0/24", "10.0.0.0/24"),
            ("10.0.0.7/24", "10.0.0.7/24"),
            ("10.0.0.0/024", "10.0.0.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("FD00::/64", "fd00::/64"),
            ("0fd0::/64", "fd0::/64"),
        ] {
            assert_eq!(text.parse(), Ok(Network(read.parse().unwrap())), "{text}");
        }
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "/24",
            "010.0.0.0/24",
            "10.0.0.010/24",
            "10.0.0.00/24",
            "00fd0::/64",
            "::ffff:010.0.0.0/120",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/+24",
            "10.0.0.0/ 24",
            " 10.0.0.0/24",
            "10.0.0.0/24/8",
            "fe80::1%eth0/64",
            "10.0.0/24",
            "10.0.0.0/255.255.255.0",
        ] {
            assert_eq!(text.parse::<Network>(), Err(ParseNetworkError), "{text}");
        }
    }
}
