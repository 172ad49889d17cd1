//! The keys of the configuration that every kind of sub-interface has.

use std::net::IpAddr;

use attach::HostAccess;
use cni::object::Item;
use cni::{AddResult, Call, Dns, Error, Object};
use ipnet::IpNet;

/// The values of the keys. `null`, `""` and 0 mean that a key is not set.
#[derive(Debug)]
pub struct Keys {
    /// `master`: the name or an alternative name of the parent. `None` is the interface of the default route.
    pub master: Option<String>,
    /// `mtu` in bytes. `None` is the parent's MTU.
    pub mtu: Option<u32>,
    /// `linkInContainer`: true if the parent is in the container's network namespace.
    pub link_in_container: bool,
    /// `hostAccess`: lets the host and the container reach each other.
    pub host_access: Option<HostAccess>,
    /// `dns`: replaces that of IPAM in the result, unless it is empty.
    pub dns: Dns,
}

impl Keys {
    /// Reads the keys of a call.
    pub fn read(call: &Call<'_>) -> Result<Self, Error> {
        let keys = call.keys();
        let master = keys.text("master")?;
        if let Some(cause) = master.and_then(cni::env::why_no_name_of_interface) {
            return Err(keys.refuse("master", cause));
        }
        Ok(Self {
            master: master.map(str::to_owned),
            mtu: keys.non_zero("mtu")?,
            link_in_container: keys.flag("linkInContainer")?,
            host_access: host_access(keys)?,
            dns: Dns::read(keys, "dns")?,
        })
    }

    /// If `master` is not set and an earlier plugin of a chain has created one interface, takes that as `master`.
    pub(crate) fn take_master(&mut self, previous: &AddResult) -> Result<(), Error> {
        if self.master.is_some() || previous.interfaces.is_empty() {
            return Ok(());
        }
        let [interface] = previous.interfaces.as_slice() else {
            let names =
                previous.interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>().join(", ");
            let cause = format!("prevResult has several interfaces, {names}; set master to one of them");
            return Err(Error::config("master", "is not set", cause));
        };
        self.master = Some(interface.name.clone());
        Ok(())
    }
}

/// Reads `hostAccess`: true, false, or an object.
fn host_access(keys: &Object<'_>) -> Result<Option<HostAccess>, Error> {
    const KEY: &str = "hostAccess";
    let Some(item) = keys.item(KEY) else { return Ok(None) };
    if let Some(is_wanted) = item.flag() {
        return Ok(is_wanted.then(HostAccess::default));
    }
    let object = item.object().map_err(|_| item.refuse("is neither true, nor false, nor an object"))?;
    let services = object.items("services")?.iter().map(service).collect::<Result<_, _>>()?;
    let addresses = object.items("addresses")?.iter().map(address).collect::<Result<_, _>>()?;
    let private_addresses: Vec<IpAddr> =
        object.items("privateAddresses")?.iter().map(address).collect::<Result<_, _>>()?;
    for is_v4 in [true, false] {
        if private_addresses.iter().filter(|address| address.is_ipv4() == is_v4).count() > 1 {
            return Err(object.refuse("privateAddresses", "has two addresses of one family, and one is used"));
        }
    }
    Ok(Some(HostAccess { services, addresses, private_addresses }))
}

fn service(item: &Item<'_>) -> Result<IpNet, Error> {
    let text = item.text()?;
    let net: IpNet = text.parse().map_err(|_| item.refuse("is not a network such as 10.96.0.0/12"))?;
    if net.prefix_len() == 0 {
        return Err(item.refuse("is a default route; use routes in ipam for that"));
    }
    if net.addr() != net.network() {
        return Err(item.refuse(&format!("has host bits set; the network is {}", net.trunc())));
    }
    Ok(net)
}

fn address(item: &Item<'_>) -> Result<IpAddr, Error> {
    let address: IpAddr = item.text()?.parse().map_err(|_| item.refuse("is not an address without a prefix length"))?;
    match address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        true => Err(item.refuse("is not an address of one machine")),
        false => Ok(address),
    }
}
