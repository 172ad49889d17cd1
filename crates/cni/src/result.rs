//! The result of an ADD: one model, equal to spec 1.1.0 "ADD Success". Its JSON shapes are in [`crate::wire`].

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::error::Error;
use crate::object::Object;

/// The leases of an IPAM plugin.
pub struct Leased<'a> {
    /// The addresses, with their routes.
    pub result: AddResult,
    /// Releases only these leases. `None` if the plugin can only release all leases of the attachment.
    pub give_back: Option<GiveBack<'a>>,
}

/// Releases one lease.
pub type GiveBack<'a> = Box<dyn FnOnce() -> Result<(), Error> + 'a>;

/// The result of an ADD, or of an IPAM plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddResult {
    /// The links, also those of the host. Empty in the result of an IPAM plugin.
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
    /// The path of its netns. `None` for a link of the host.
    pub sandbox: Option<String>,
    /// Its socket, for user-space networking. (from 1.1.0 on)
    pub socket_path: Option<String>,
    /// Its PCI device. (from 1.1.0 on)
    pub pci_id: Option<String>,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// Index into [`AddResult::interfaces`].
    pub interface: Option<usize>,
    /// The address with its host bits and prefix length.
    pub address: IpNet,
    /// The subnet's gateway.
    pub gateway: Option<IpAddr>,
}

/// A route. All but `dst` and `gw` is from spec 1.1.0. `None` means the kernel's default.
///
/// The JSON is the same in configurations and results of all versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop. `None`: the gateway of the addresses of this family, or on-link if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes (`RTAX_MTU`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Maximal segment size to advertise, in bytes (`RTAX_ADVMSS`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Metric: lower is preferred (`RTA_PRIORITY`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Routing table (`RTA_TABLE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope, as in rtnetlink(7): 0 universe, 253 link, 254 host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Route {
    /// A route with nothing but a destination and a next hop.
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }

    /// Reads one, from a result or from a configuration.
    pub fn read(keys: &Object<'_>) -> Result<Self, Error> {
        const SCOPES: &str = "is not a scope: a number from 0 to 255";
        let dst = keys.network("dst", "a network such as 10.0.0.0/8")?;
        let scope = keys.number("scope")?.map(|scope| u8::try_from(scope).map_err(|_| keys.refuse("scope", SCOPES)));
        Ok(Self {
            dst: dst.ok_or_else(|| keys.refuse("dst", "is missing"))?,
            gw: keys.parsed("gw", "an IP address")?,
            mtu: keys.non_zero("mtu")?,
            advmss: keys.non_zero("advmss")?,
            priority: keys.non_zero("priority")?,
            table: keys.non_zero("table")?,
            scope: scope.transpose()?,
        })
    }

    /// Reads the list that a key holds.
    pub fn read_list(keys: &Object<'_>, key: &'static str) -> Result<Vec<Self>, Error> {
        keys.objects(key)?.iter().map(Self::read).collect()
    }

    /// Refuses IPv4 destinations with host bits in the list of a configuration, which [`Route::read_list`] has read from
    /// `key`. The kernel would refuse them later, when the link exists.
    ///
    /// # Errors
    ///
    /// Code 7.
    pub fn judge_list(list: &[Self], keys: &Object<'_>, key: &str) -> Result<(), Error> {
        for (at, Self { dst, .. }) in list.iter().enumerate() {
            if dst.addr().is_ipv4() && dst.trunc() != *dst {
                let cause = format!("has host bits set; the network is {}", dst.trunc());
                return Err(Error::config(&format!("{}[{at}].dst", keys.path(key)), dst, cause));
            }
        }
        Ok(())
    }
}

/// Resolver settings of a container. Also the key `dns` of a network configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// Name servers in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains to search, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Returns true if nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the object of a key. Empty if it is not set.
    pub fn read(keys: &Object<'_>, key: &'static str) -> Result<Self, Error> {
        let keys = keys.object(key)?;
        Ok(Self {
            nameservers: keys.texts("nameservers")?,
            domain: keys.text("domain")?.map(str::to_owned),
            search: keys.texts("search")?,
            options: keys.texts("options")?,
        })
    }
}
