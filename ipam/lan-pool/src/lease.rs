//! A lease: the address of one owner on one LAN.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The name of one creation of a lease. The store chooses it, and never gives it twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub String);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One interface of one container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.container_id, self.ifname)
    }
}

/// The node that leases an address, while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// The name of the node, as the store knows it.
    pub name: String,
    /// The boot id. (/proc/sys/kernel/random/boot_id)
    pub boot: String,
    /// The identity of the machine. A clone of its disk has another one.
    pub machine: String,
}

/// The owner of a lease, or the reason why the address has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// A container has the address.
    Container {
        /// The container, with the interface.
        owner: Owner,
        /// The inode of its network namespace, if it is known. The number is from the boot of the lease.
        netns: Option<u64>,
        /// The pod, as `NAMESPACE/NAME`, if the runtime names it.
        pod: Option<String>,
    },
    /// Another machine on the LAN has the address. The lease keeps it from containers for a time.
    Machine {
        /// The MAC of that machine, if it is known.
        mac: Option<String>,
    },
}

/// A lease, as it is written into the store. It is never changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    /// The name of the LAN. An address is leased at most once on one LAN.
    pub lan: String,
    /// The address.
    pub address: IpAddr,
    /// The node that has made the lease.
    pub node: Node,
    /// Who has the address.
    pub holder: Holder,
}

/// A lease that the store has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// The uid of its creation.
    pub uid: Uid,
    /// The age in seconds, by the clock of the store. 0 if it is not known.
    pub age: u64,
}

impl Lease {
    /// The name of the lease in the store: one spelling for each address, such as `office.10.77.0.200` or
    /// `office.fd77-0000-0000-0000-0000-0000-0000-0200`.
    pub fn name(&self) -> String {
        name(&self.lan, self.address)
    }

    /// The owner, if a container has the address.
    pub fn owner(&self) -> Option<&Owner> {
        match &self.holder {
            Holder::Container { owner, .. } => Some(owner),
            Holder::Machine { .. } => None,
        }
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node.name;
        match &self.holder {
            Holder::Container { pod: Some(pod), .. } => write!(f, "pod {pod} on node {node}"),
            Holder::Container { owner, .. } => write!(f, "container {owner} on node {node}"),
            Holder::Machine { mac: Some(mac) } => write!(f, "another machine on the LAN ({mac}), seen by node {node}"),
            Holder::Machine { mac: None } => write!(f, "another machine on the LAN, seen by node {node}"),
        }
    }
}

/// The name of the lease of an address.
pub fn name(lan: &str, address: IpAddr) -> String {
    format!("{lan}.{}", label(address))
}

/// The addresses that one list request covers: a /24 of IPv4, or a /120 of IPv6. Its name is the LAN with the first
/// address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block(IpAddr);

impl Block {
    /// The number of addresses in a block.
    pub const SIZE: u128 = 256;

    /// The block with this address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & !0xff).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !0xff).into(),
        })
    }

    /// The first address.
    pub fn first(self) -> IpAddr {
        self.0
    }

    /// All its addresses.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let address = move |offset: u32| match self.0 {
            IpAddr::V4(first) => IpAddr::from(Ipv4Addr::from_bits(first.to_bits() | offset)),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() | u128::from(offset)).into(),
        };
        (0..Self::SIZE as u32).map(address)
    }

    /// The name of the block on a LAN, which each of its leases has.
    pub fn name(self, lan: &str) -> String {
        name(lan, self.0)
    }
}

/// IPv6 with all digits, because a name of Kubernetes has no colon and must be unique.
fn label(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => ip.segments().map(|group| format!("{group:04x}")).join("-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_one_name() {
        let names =
            |text: &str| (name("office", text.parse().unwrap()), Block::of(text.parse().unwrap()).name("office"));
        assert_eq!(names("10.77.0.200"), ("office.10.77.0.200".into(), "office.10.77.0.0".into()));
        let (name, block) = names("fd77::1:200");
        assert_eq!(name, "office.fd77-0000-0000-0000-0000-0000-0001-0200");
        assert_eq!(block, "office.fd77-0000-0000-0000-0000-0000-0001-0200");
    }
}
