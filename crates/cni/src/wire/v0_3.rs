//! 0.3.0 to 1.1.0: one shape that changed twice. Until 0.4.0 an address names its family; 1.1.0 says more of a link.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::result::{AddResult, Dns, Interface, Ip, Route};
use crate::version::Version;

#[derive(Serialize, Deserialize)]
pub(super) struct Shape {
    #[serde(rename = "cniVersion", default)]
    cni_version: String,
    #[serde(default, deserialize_with = "super::nullable", skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Link>,
    #[serde(default, deserialize_with = "super::nullable", skip_serializing_if = "Vec::is_empty")]
    ips: Vec<Address>,
    #[serde(default, deserialize_with = "super::nullable", skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(default, deserialize_with = "super::nullable")]
    dns: Dns,
}

#[derive(Serialize, Deserialize)]
struct Link {
    name: String,
    #[serde(default, deserialize_with = "super::non_empty", skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default, deserialize_with = "super::non_zero", skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, deserialize_with = "super::non_empty", skip_serializing_if = "Option::is_none")]
    sandbox: Option<String>,
    #[serde(
        rename = "socketPath",
        default,
        deserialize_with = "super::non_empty",
        skip_serializing_if = "Option::is_none"
    )]
    socket_path: Option<String>,
    #[serde(rename = "pciID", default, deserialize_with = "super::non_empty", skip_serializing_if = "Option::is_none")]
    pci_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Address {
    /// "4" or "6" until 0.4.0. The address says it too, so it is written and never read.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface: Option<i64>,
    #[serde(deserialize_with = "super::interface_address")]
    address: IpNet,
    #[serde(default, deserialize_with = "super::optional_ip", skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

impl Shape {
    pub(super) fn new(result: &AddResult, version: Version) -> Self {
        Self {
            cni_version: version.to_string(),
            interfaces: result.interfaces.iter().map(|link| Link::new(link, version)).collect(),
            ips: result.ips.iter().map(|ip| Address::new(ip, version)).collect(),
            routes: result.routes.clone(),
            dns: result.dns.clone(),
        }
    }

    pub(super) fn into_result(self) -> AddResult {
        AddResult {
            interfaces: self.interfaces.into_iter().map(Link::into_interface).collect(),
            ips: self.ips.into_iter().map(Address::into_ip).collect(),
            routes: self.routes,
            dns: self.dns,
        }
    }
}

impl Link {
    fn new(link: &Interface, version: Version) -> Self {
        let newest = version >= Version::V1_1_0;
        Self {
            name: link.name.clone(),
            mac: link.mac.clone(),
            mtu: link.mtu.filter(|_| newest),
            sandbox: link.sandbox.clone(),
            socket_path: link.socket_path.clone().filter(|_| newest),
            pci_id: link.pci_id.clone().filter(|_| newest),
        }
    }

    fn into_interface(self) -> Interface {
        let Self { name, mac, mtu, sandbox, socket_path, pci_id } = self;
        Interface { name, mac, mtu, sandbox, socket_path, pci_id }
    }
}

impl Address {
    fn new(ip: &Ip, version: Version) -> Self {
        let family = if ip.address.addr().is_ipv4() { "4" } else { "6" };
        Self {
            version: (version < Version::V1_0_0).then_some(family),
            interface: ip.interface.and_then(|index| index.try_into().ok()),
            address: ip.address,
            gateway: ip.gateway,
        }
    }

    fn into_ip(self) -> Ip {
        // A negative index is how some writers say "none".
        let interface = self.interface.and_then(|index| index.try_into().ok());
        Ip { interface, address: self.address, gateway: self.gateway }
    }
}
