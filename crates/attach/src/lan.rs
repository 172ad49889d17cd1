//! The care for other machines on the LAN: the settings, and the addresses that others have.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use cni::Conflict;
use linux::Mac;

/// The care for other machines on the LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lan {
    /// True if no address is used before it is known that no other machine has it.
    pub detects: bool,
    /// The time in which another machine can answer that it has an IPv4 address. For IPv6, the kernel asks, and this time
    /// is not used.
    pub detect_within: Duration,
    /// The number of announcements of each address, at least 1. The further ones are sent by a process that outlives
    /// the ADD.
    pub announcements: u32,
    /// The time between two announcements.
    pub announce_every: Duration,
    /// The consequence for the ADD if a gateway does not answer.
    pub gateway: GatewayCheck,
}

impl Default for Lan {
    fn default() -> Self {
        Self {
            detects: false,
            detect_within: Duration::from_millis(200),
            announcements: 1,
            announce_every: Duration::from_secs(1),
            gateway: GatewayCheck::Off,
        }
    }
}

/// The consequence for the ADD if a gateway does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayCheck {
    /// No gateway is asked.
    Off,
    /// The ADD succeeds with a remark.
    Warn,
    /// The ADD fails.
    Refuse,
}

/// The addresses that IPAM gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// After [`crate::Ipam::reject`], the next ADD gives other addresses.
    Others,
    /// An ADD always gives the same address, because it was asked for.
    Fixed,
    /// It is not known which addresses an ADD gives.
    Unknown,
}

/// A leased address that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub(crate) address: IpAddr,
    pub(crate) holder: Holder,
}

/// The machine that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A machine with this MAC.
    Machine(Mac),
    /// A machine that has not told its MAC.
    Unknown,
    /// A machine with this MAC that asks for the address at the same time, as before a use. (RFC 5227, section 2.1.1)
    Asker(Mac),
    /// This host itself.
    Host,
    /// The container itself, on another interface.
    Container,
    /// Another container on the same parent.
    Sibling,
}

impl Found {
    /// Returns the text for IPAM. `None` if no machine has the address yet: it need not be kept from others.
    pub(crate) fn for_ipam(self) -> Option<Conflict> {
        let mac = match self.holder {
            Holder::Machine(mac) => Some(mac.to_string()),
            Holder::Host | Holder::Container | Holder::Sibling => None,
            // A machine that has the address tells its MAC.
            Holder::Asker(_) | Holder::Unknown => return None,
        };
        Some(Conflict { address: self.address, mac })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match self.holder {
            Holder::Machine(mac) => write!(f, "{mac} has {address}"),
            Holder::Unknown => write!(f, "another machine has {address}"),
            Holder::Asker(mac) => write!(f, "{mac} is about to use {address}"),
            Holder::Host => write!(f, "this host has {address}"),
            Holder::Container => write!(f, "another interface of the container has {address}"),
            Holder::Sibling => write!(f, "another container of this host has {address}"),
        }
    }
}

/// Lists the addresses.
pub(crate) fn list(found: &[Found]) -> String {
    found.iter().map(|found| found.address.to_string()).collect::<Vec<_>>().join(", ")
}

/// Describes addresses that cannot be used, with their holders.
pub(crate) fn describe(found: &[Found]) -> String {
    let mut text = found.iter().map(Found::to_string).collect::<Vec<_>>().join(", ");
    if let Some((mac, claims)) = claims_most(found).filter(|(_, claims)| *claims > 2) {
        text.push_str(&format!(
            "; {mac} answers for {claims} of them, so it may be a router that answers for every address (proxy ARP)"
        ));
    }
    text
}

/// Returns the MAC that has the most of these addresses, and their number.
fn claims_most(found: &[Found]) -> Option<(Mac, usize)> {
    let mac = |found: &Found| match found.holder {
        Holder::Machine(mac) => Some(mac),
        _ => None,
    };
    let claims = |its: Mac| (its, found.iter().filter(|found| mac(found) == Some(its)).count());
    found.iter().filter_map(mac).map(claims).max_by_key(|(_, claims)| *claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(last: u8, holder: Holder) -> Found {
        Found { address: IpAddr::from([10, 0, 0, last]), holder }
    }

    #[test]
    fn one_machine_that_has_many_addresses_is_named_as_a_router() {
        let (one, other) = (Mac::from([2, 0, 0, 0, 0, 1]), Mac::from([2, 0, 0, 0, 0, 2]));
        let mut list = vec![found(1, Holder::Machine(one)), found(2, Holder::Machine(other))];
        list.push(found(3, Holder::Machine(one)));
        assert_eq!(
            describe(&list),
            "02:00:00:00:00:01 has 10.0.0.1, 02:00:00:00:00:02 has 10.0.0.2, 02:00:00:00:00:01 has 10.0.0.3"
        );
        list.push(found(4, Holder::Machine(one)));
        let text = describe(&list);
        assert!(text.ends_with("02:00:00:00:00:01 answers for 3 of them, so it may be a router that answers for every address (proxy ARP)"), "{text}");
    }

    #[test]
    fn an_address_that_another_machine_only_asks_for_is_not_kept_from_others() {
        assert_eq!(found(1, Holder::Asker(Mac::from([2, 0, 0, 0, 0, 1]))).for_ipam(), None);
        let kept = found(1, Holder::Host).for_ipam();
        assert_eq!(kept, Some(Conflict { address: IpAddr::from([10, 0, 0, 1]), mac: None }));
    }
}
