//! 0.3.0 to 1.1.0: one shape that has changed twice. Until 0.4.0 an address names its family. 1.1.0 has more keys for
//! a link.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::error::Error;
use crate::object::Object;
use crate::result::{AddResult, Dns, Interface, Ip, Route};
use crate::version::Version;

#[derive(Serialize)]
pub(super) struct Shape<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Link<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<Address>,
    #[serde(skip_serializing_if = "<[Route]>::is_empty")]
    routes: &'a [Route],
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<&'a Dns>,
}

#[derive(Serialize)]
struct Link<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    #[serde(rename = "socketPath", skip_serializing_if = "Option::is_none")]
    socket_path: Option<&'a str>,
    #[serde(rename = "pciID", skip_serializing_if = "Option::is_none")]
    pci_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Address {
    /// "4" or "6" until 0.4.0. It is written and never read, because the address shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

impl<'a> Shape<'a> {
    pub(super) fn new(result: &'a AddResult, version: Version) -> Self {
        Self {
            cni_version: version.as_str(),
            interfaces: result.interfaces.iter().map(|link| Link::new(link, version)).collect(),
            ips: result.ips.iter().map(|ip| Address::new(ip, version)).collect(),
            routes: &result.routes,
            // Readers of the older versions expect the key.
            dns: Some(&result.dns).filter(|dns| version < Version::V1_0_0 || !dns.is_empty()),
        }
    }
}

impl<'a> Link<'a> {
    fn new(link: &'a Interface, version: Version) -> Self {
        let newest = version >= Version::V1_1_0;
        Self {
            name: &link.name,
            mac: link.mac.as_deref(),
            mtu: link.mtu.filter(|_| newest),
            sandbox: link.sandbox.as_deref(),
            socket_path: link.socket_path.as_deref().filter(|_| newest),
            pci_id: link.pci_id.as_deref().filter(|_| newest),
        }
    }
}

impl Address {
    fn new(ip: &Ip, version: Version) -> Self {
        let family = if ip.address.addr().is_ipv4() { "4" } else { "6" };
        let version = (version < Version::V1_0_0).then_some(family);
        Self { version, interface: ip.interface, address: ip.address, gateway: ip.gateway }
    }
}

pub(super) fn read(keys: &Object<'_>) -> Result<AddResult, Error> {
    Ok(AddResult {
        interfaces: keys.objects("interfaces")?.iter().map(read_interface).collect::<Result<_, _>>()?,
        ips: keys.objects("ips")?.iter().map(read_ip).collect::<Result<_, _>>()?,
        routes: Route::read_list(keys, "routes")?,
        dns: Dns::read(keys, "dns")?,
    })
}

fn read_interface(keys: &Object<'_>) -> Result<Interface, Error> {
    let text = |key| Ok(keys.text(key)?.map(str::to_owned));
    Ok(Interface {
        name: text("name")?.unwrap_or_default(),
        mac: text("mac")?,
        mtu: keys.non_zero("mtu")?,
        sandbox: text("sandbox")?,
        socket_path: text("socketPath")?,
        pci_id: text("pciID")?,
    })
}

fn read_ip(keys: &Object<'_>) -> Result<Ip, Error> {
    // Some plugins write a negative index for "none".
    let interface = keys.item("interface").map(|item| item.signed()).transpose()?;
    Ok(Ip {
        interface: interface.and_then(|index| index.try_into().ok()),
        address: super::address(keys, "address")?,
        gateway: keys.parsed("gateway", "an IP address")?,
    })
}
