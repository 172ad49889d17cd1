//! The keys of the configuration that every kind of sub-interface has.

use std::net::IpAddr;
use std::time::Duration;

use attach::{DefaultRoute, HostAccess, Lan, Properties, Wish};
use cni::object::Item;
use cni::{AddResult, Call, Dns, Error, Object};
use ipnet::IpNet;
use linux::{VlanProtocol, VlanTag};

use crate::lan;

/// Stands for the name of the link in the keys of `sysctl`.
const IFNAME: &str = "IFNAME";

/// The values of the keys. `null`, `""` and 0 mean that a key is not set.
#[derive(Debug)]
pub struct Keys {
    /// `master` or `parent`: the parent.
    pub parent: Wish,
    /// `vlan` and `vlanProtocol`: the VLAN of the parent on which the link stands.
    pub vlan: Option<VlanTag>,
    /// `mtu` in bytes. `None` is the parent's MTU.
    pub mtu: Option<u32>,
    /// `linkInContainer`: true if the parent is in the container's network namespace.
    pub link_in_container: bool,
    /// `hostAccess`: lets the host and the container reach each other.
    pub host_access: Option<HostAccess>,
    /// `defaultRoute`: what happens to the default routes of IPAM.
    pub default_route: DefaultRoute,
    /// `acceptRA` and `sysctl`: sysctls of the link, with their values.
    pub sysctls: Vec<(String, String)>,
    /// `slaacTimeout` in milliseconds: the longest wait for an address from a router advertisement.
    pub slaac_timeout: Option<Duration>,
    /// `detectIPConflict`, `detectTimeout`, `announce` and `detectGateway`: the care for other machines on the LAN.
    pub lan: Lan,
    /// `dns`: replaces that of IPAM in the result, unless it is empty.
    pub dns: Dns,
}

impl Keys {
    /// Reads the keys of a call. `ifname` is the name of the link. STATUS has none.
    pub fn read(call: &Call<'_>, ifname: Option<&str>) -> Result<Self, Error> {
        let keys = call.keys();
        let ifname = ifname.unwrap_or(IFNAME);
        let accepts = accepts_router(keys)?;
        let sysctls = sysctls(keys, ifname, accepts)?;
        let slaac_timeout = slaac_timeout(keys)?;
        if let (Some(_), Some(cause)) = (slaac_timeout, why_no_router(&sysctls, ifname, accepts)) {
            return Err(keys.refuse("slaacTimeout", &format!("cannot be met, because {cause}")));
        }
        Ok(Self {
            parent: parent(keys)?,
            vlan: vlan(keys)?,
            mtu: keys.non_zero("mtu")?,
            link_in_container: keys.flag("linkInContainer")?,
            host_access: host_access(keys)?,
            default_route: default_route(keys)?,
            sysctls,
            slaac_timeout,
            lan: lan::read(keys)?,
            dns: Dns::read(keys, "dns")?,
        })
    }

    /// Returns true if neither `master` nor `parent` is set.
    pub(crate) fn has_no_parent(&self) -> bool {
        self.parent == Wish::DefaultRoute
    }

    /// If no parent is set and an earlier plugin of a chain has created one interface, takes that as parent.
    pub(crate) fn take_parent(&mut self, previous: &AddResult) -> Result<(), Error> {
        if !self.has_no_parent() || previous.interfaces.is_empty() {
            return Ok(());
        }
        let [interface] = previous.interfaces.as_slice() else {
            let names =
                previous.interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>().join(", ");
            let cause = format!("prevResult has several interfaces, {names}; set master to one of them");
            return Err(Error::config("master", "is not set", cause));
        };
        self.parent = Wish::Named(vec![interface.name.clone()]);
        Ok(())
    }
}

/// Reads `vlan` and `vlanProtocol`.
pub(crate) fn vlan(keys: &Object<'_>) -> Result<Option<VlanTag>, Error> {
    const LAST: u32 = 4094;
    let number = keys.non_zero("vlan")?;
    let protocol = match keys.text("vlanProtocol")? {
        None => VlanProtocol::Dot1Q,
        Some(_) if number.is_none() => return Err(keys.refuse("vlanProtocol", "is set without vlan")),
        Some(text) => *VlanProtocol::ALL
            .iter()
            .find(|its| its.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| keys.refuse("vlanProtocol", "is neither 802.1Q nor 802.1ad"))?,
    };
    let Some(number) = number else { return Ok(None) };
    if keys.flag("linkInContainer")? {
        return Err(keys.refuse("vlan", "needs the parent on the host, and linkInContainer puts it into the container"));
    }
    match u16::try_from(number) {
        Ok(id) if number <= LAST => Ok(Some(VlanTag { protocol, id })),
        _ => Err(keys.refuse("vlan", "is not the number of a VLAN; they are 1 to 4094")),
    }
}

fn accepts_router(keys: &Object<'_>) -> Result<Option<bool>, Error> {
    let read = |item: Item<'_>| item.flag().ok_or_else(|| item.refuse("is neither true nor false"));
    keys.item("acceptRA").map(read).transpose()
}

fn slaac_timeout(keys: &Object<'_>) -> Result<Option<Duration>, Error> {
    const MOST: u32 = 60_000;
    match keys.non_zero("slaacTimeout")? {
        Some(milliseconds) if milliseconds > MOST => {
            Err(keys.refuse("slaacTimeout", "is more than 60000 milliseconds; runtimes do not wait so long"))
        }
        milliseconds => Ok(milliseconds.map(|milliseconds| Duration::from_millis(milliseconds.into()))),
    }
}

/// The reason why no router can give the link an address. `None` if the configuration has none.
fn why_no_router(sysctls: &[(String, String)], ifname: &str, accepts: Option<bool>) -> Option<String> {
    if accepts == Some(false) {
        return Some("acceptRA is false".to_owned());
    }
    let value = |key: &str| {
        let path = format!("net/ipv6/conf/{ifname}/{key}");
        sysctls.iter().find(|(its, _)| *its == path).map(|(_, value)| value.trim())
    };
    let is = |key: &str, value: &str| format!("sysctl net.ipv6.conf.IFNAME.{key} is {value}");
    let off = ["accept_ra", "accept_ra_pinfo", "autoconf"].into_iter().find(|key| value(key) == Some("0"));
    if let Some(key) = off {
        return Some(is(key, "0"));
    }
    let on = |key| value(key).filter(|value| *value != "0");
    if let Some(value) = on("disable_ipv6") {
        return Some(is("disable_ipv6", value));
    }
    let forwarding = on("forwarding").filter(|_| value("accept_ra") != Some("2"))?;
    Some(format!("{}, and acceptRA is not true", is("forwarding", forwarding)))
}

/// Reads `sysctl`, and adds the one of `acceptRA`. The keys have the form of the plugin tuning of the reference:
/// `net.ipv6.conf.IFNAME.autoconf`, or with slashes.
fn sysctls(keys: &Object<'_>, ifname: &str, accepts: Option<bool>) -> Result<Vec<(String, String)>, Error> {
    let of = |folder: &str, key: &str| format!("net/{folder}/{ifname}/{key}");
    let mut sysctls = Vec::new();
    for (name, item) in keys.object("sysctl")?.entries() {
        let separator = if name.contains('/') { '/' } else { '.' };
        let parts: Vec<&str> = name.split(separator).collect();
        let ["net", family @ ("ipv4" | "ipv6"), folder @ ("conf" | "neigh"), IFNAME, key] = parts[..] else {
            let cause = "is not a sysctl of the container's interface, such as net.ipv6.conf.IFNAME.autoconf; for \
                         others, use the plugin tuning of the reference";
            return Err(item.refuse(cause));
        };
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if key.is_empty() || !key.bytes().all(is_word) {
            return Err(item.refuse("is not the name of a sysctl"));
        }
        let (key, value) = (of(&format!("{family}/{folder}"), key), item.text()?);
        if value.trim().is_empty() {
            return Err(item.refuse("is empty; the kernel would ignore it"));
        }
        if sysctls.iter().any(|(other, _)| *other == key) {
            return Err(item.refuse("is the same sysctl as another key; remove one of them"));
        }
        sysctls.push((key, value.to_owned()));
    }
    if let Some(accepts) = accepts {
        let key = of("ipv6/conf", "accept_ra");
        if sysctls.iter().any(|(named, _)| *named == key) {
            return Err(keys.refuse("acceptRA", "sets a sysctl that sysctl sets too; remove one of them"));
        }
        // 2 also counts if the container forwards. (Documentation/networking/ip-sysctl.rst)
        sysctls.push((key, if accepts { "2" } else { "0" }.to_owned()));
    }
    Ok(sysctls)
}

fn default_route(keys: &Object<'_>) -> Result<DefaultRoute, Error> {
    match keys.text("defaultRoute")? {
        None => Ok(DefaultRoute::Usual),
        Some("keep") => Ok(DefaultRoute::Keep),
        Some("take") => Ok(DefaultRoute::Take),
        Some("none") => Ok(DefaultRoute::None),
        Some(_) => Err(keys.refuse("defaultRoute", "is neither keep, nor take, nor none")),
    }
}

/// Reads `master`, a name or a list of names, and `parent`, an object with properties.
pub(crate) fn parent(keys: &Object<'_>) -> Result<Wish, Error> {
    let properties =
        keys.item("parent").map(|item| item.object()).transpose()?.map(|keys| properties(&keys)).transpose()?;
    let names = keys.item("master").map(|item| names(&item)).transpose()?.unwrap_or_default();
    match (names.is_empty(), properties) {
        (true, None) => Ok(Wish::DefaultRoute),
        (false, None) => Ok(Wish::Named(names)),
        (false, Some(_)) => Err(keys.refuse("parent", "is set beside master; both choose the parent, so remove one")),
        (true, Some(properties)) if properties.is_empty() => {
            let cause = "chooses nothing; write mac, altname, alias, subnet, driver or pciAddress into it";
            Err(keys.refuse("parent", cause))
        }
        (true, Some(properties)) => Ok(Wish::With(properties)),
    }
}

fn names(item: &Item<'_>) -> Result<Vec<String>, Error> {
    let items = match item.items() {
        Ok(items) if items.is_empty() => return Err(item.refuse("is an empty list")),
        Ok(items) => items,
        Err(_) => {
            // An empty text means that the key is not set.
            let name =
                item.text().map_err(|_| item.refuse("is neither the name of an interface nor a list of names"))?;
            return Ok(if name.is_empty() { Vec::new() } else { vec![name_of_interface(item)?] });
        }
    };
    items.iter().map(name_of_interface).collect()
}

fn name_of_interface(item: &Item<'_>) -> Result<String, Error> {
    let name = item.text()?;
    match cni::env::why_no_name_of_interface(name) {
        Some(cause) => Err(item.refuse(cause)),
        None => Ok(name.to_owned()),
    }
}

fn properties(keys: &Object<'_>) -> Result<Properties, Error> {
    let text = |key| Ok::<_, Error>(keys.text(key)?.map(str::to_owned));
    let subnet = keys.network("subnet", "a network such as 192.168.50.0/24")?;
    if let Some(net) = subnet.filter(|net| net.trunc() != *net) {
        return Err(keys.refuse("subnet", &format!("has host bits set; the network is {}", net.trunc())));
    }
    Ok(Properties {
        mac: keys.parsed("mac", "a MAC such as 52:54:00:12:34:56")?,
        altname: text("altname")?,
        alias: text("alias")?,
        subnet,
        driver: text("driver")?,
        pci_address: keys.text("pciAddress")?.map(as_bus_info),
    })
}

/// Returns a PCI address as `ethtool -i` shows it, with the domain and in small letters. `lspci` leaves out the domain 0.
/// Any other text stays as it is, because devices of other buses have other forms.
fn as_bus_info(text: &str) -> String {
    let small = text.to_ascii_lowercase();
    let is_hex = |part: &str, digits| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_slot =
        |text: &str| text.split_once('.').is_some_and(|(slot, function)| is_hex(slot, 2) && is_hex(function, 1));
    match small.split(':').collect::<Vec<_>>()[..] {
        [bus, slot] if is_hex(bus, 2) && is_slot(slot) => format!("0000:{small}"),
        [domain, bus, slot] if is_hex(domain, 4) && is_hex(bus, 2) && is_slot(slot) => small,
        _ => text.to_owned(),
    }
}

/// Reads `hostAccess`: true, false, or an object.
pub(crate) fn host_access(keys: &Object<'_>) -> Result<Option<HostAccess>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_may_have_the_form_of_lspci() {
        for (given, expected) in [
            ("03:00.0", "0000:03:00.0"),
            ("0000:03:00.0", "0000:03:00.0"),
            ("0000:AF:1F.7", "0000:af:1f.7"),
            ("AF:1f.7", "0000:af:1f.7"),
            ("usb-0000:00:14.0-1", "usb-0000:00:14.0-1"),
            ("3:00.0", "3:00.0"),
            ("03:00", "03:00"),
            ("Vmbus", "Vmbus"),
        ] {
            assert_eq!(as_bus_info(given), expected);
        }
    }
}
