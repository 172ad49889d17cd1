//! The result of an ADD: one model, equal to spec 1.1.0 "ADD Success". Its JSON shapes are in [`crate::wire`].

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What an ADD made, or, from an IPAM plugin, what it leased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddResult {
    /// The links, those outside of a sandbox too. Empty in an IPAM plugin's result.
    pub interfaces: Vec<Interface>,
    /// The addresses.
    pub ips: Vec<Ip>,
    /// The routes.
    pub routes: Vec<Route>,
    /// The name servers.
    pub dns: Dns,
}

/// A link that the plugin made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, as text.
    pub mac: Option<String>,
    /// Its MTU in bytes. (from 1.1.0 on)
    pub mtu: Option<u32>,
    /// The netns path that it is in; none for a link of the host.
    pub sandbox: Option<String>,
    /// A socket of it, for user-space networking. (from 1.1.0 on)
    pub socket_path: Option<String>,
    /// The PCI device that it is. (from 1.1.0 on)
    pub pci_id: Option<String>,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// Index into [`AddResult::interfaces`].
    pub interface: Option<usize>,
    /// The address, host bits kept, with its prefix length.
    pub address: IpNet,
    /// The subnet's gateway.
    pub gateway: Option<IpAddr>,
}

/// A route. Everything but `dst` and `gw` is from spec 1.1.0, and absent means the kernel's default.
///
/// In a network configuration the JSON is the same as in a result, in every version, so this type is both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    #[serde(deserialize_with = "crate::wire::network")]
    pub dst: IpNet,
    /// Next hop; none means the gateway of the addresses of that family, or, where there is none, the link itself.
    #[serde(default, deserialize_with = "crate::wire::optional_ip", skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes (`RTAX_MTU`).
    #[serde(default, deserialize_with = "crate::wire::non_zero", skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Maximal segment size to advertise, in bytes (`RTAX_ADVMSS`).
    #[serde(default, deserialize_with = "crate::wire::non_zero", skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Metric: lower is preferred (`RTA_PRIORITY`).
    #[serde(default, deserialize_with = "crate::wire::non_zero", skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Routing table (`RTA_TABLE`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope, as in rtnetlink(7): 0 universe, 253 link, 254 host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Route {
    /// A route with nothing but a destination and a next hop.
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

/// What a container's resolver should use. Also the `dns` key of a network configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers in order of preference.
    #[serde(default, deserialize_with = "crate::wire::nullable", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, deserialize_with = "crate::wire::non_empty", skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains to search, in order.
    #[serde(default, deserialize_with = "crate::wire::nullable", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(default, deserialize_with = "crate::wire::nullable", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
