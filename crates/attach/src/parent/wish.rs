//! The wish for a parent, and the search for the link that fulfils it.

use std::fmt::Write;

use ipnet::IpNet;
use linux::{Driver, Link, Mac, Rtnl};

use super::ARPHRD_ETHER;
use crate::error::{Error, Result};

/// A message names at most so many links.
const SHOWN: usize = 12;

/// The wish for a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The interface of the default route.
    DefaultRoute,
    /// The first of these names or alternative names that exists. There is at least one.
    Named(Vec<String>),
    /// The only interface that has all of these properties.
    With(Properties),
}

/// The properties of a parent. `None` means that it does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Its MAC.
    pub mac: Option<Mac>,
    /// One of its alternative names. (`ip link property add`)
    pub altname: Option<String>,
    /// Its alias. (`ip link set ... alias`)
    pub alias: Option<String>,
    /// A network in which it has an address.
    pub subnet: Option<IpNet>,
    /// The name of its driver, as `ethtool -i` shows it.
    pub driver: Option<String>,
    /// The place of the device on its bus, as `ethtool -i` shows it in `bus-info`.
    pub pci_address: Option<String>,
}

impl Properties {
    /// Returns true if no property is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A link that may be the parent, with what tells it apart.
struct Candidate {
    link: Link,
    addresses: Vec<IpNet>,
}

/// Finds the first link of a list of names.
pub(super) fn first(rtnl: &mut Rtnl, names: &[String]) -> Result<Link> {
    for name in names {
        if let Some(link) = rtnl.link_by_any_name(name)? {
            return Ok(link);
        }
    }
    let (value, cause) = match names {
        [name] => (format!("\"{name}\""), "there is no such interface"),
        _ => (format!("{names:?}"), "none of these interfaces exists"),
    };
    Err(Error::Config { key: "master", value, cause: cause.to_owned() })
}

/// Finds the only link with these properties.
pub(super) fn only(rtnl: &mut Rtnl, wanted: &Properties) -> Result<Link> {
    let all = candidates(rtnl)?;
    let found: Vec<&Candidate> = all.iter().filter(|candidate| candidate.has(wanted, rtnl)).collect();
    // A VLAN has the MAC of the NIC below it, and a port that of its bond.
    let is_found = |ifindex: u32| found.iter().any(|candidate| candidate.link.ifindex == ifindex);
    let is_part = |link: &Link| {
        // The kernel names the other end of a pair as parent too.
        let has_parent = link.parent_netnsid.is_none() && !matches!(link.kind.as_deref(), Some("veth" | "netkit"));
        (has_parent && link.parent.is_some_and(is_found)) || link.master.is_some_and(is_found)
    };
    let whole: Vec<&Candidate> = found.iter().copied().filter(|candidate| !is_part(&candidate.link)).collect();
    let refuse = |cause: String| Err(Error::Config { key: "parent", value: wanted.to_string(), cause });
    match whole.as_slice() {
        [one] => Ok(one.link.clone()),
        [] => {
            let all: Vec<&Candidate> = all.iter().collect();
            refuse(format!("no interface has all of this; there are {}", described(&all, rtnl)))
        }
        several => refuse(format!(
            "several interfaces have all of this; add a key that tells them apart: {}",
            described(several, rtnl)
        )),
    }
}

/// All links that can have sub-interfaces.
fn candidates(rtnl: &mut Rtnl) -> Result<Vec<Candidate>> {
    let addresses = rtnl.all_addresses()?;
    let links = rtnl.links()?.into_iter().filter(|link| link.arphrd == ARPHRD_ETHER && !link.loopback);
    let candidate = |link: Link| {
        let its = addresses.iter().filter(|address| address.ifindex == link.ifindex);
        Candidate { addresses: its.map(|address| address.address).collect(), link }
    };
    Ok(links.map(candidate).collect())
}

impl Candidate {
    /// The driver is asked last, and only if it matters: each link costs a system call, and a driver may be slow.
    fn has(&self, wanted: &Properties, rtnl: &Rtnl) -> bool {
        let link = &self.link;
        wanted.mac.is_none_or(|mac| link.mac == Some(mac))
            && wanted.altname.as_ref().is_none_or(|name| link.alternative_names.contains(name))
            && wanted.alias.as_ref().is_none_or(|alias| link.alias == *alias)
            && wanted.subnet.is_none_or(|net| self.addresses.iter().any(|address| net.contains(&address.addr())))
            && ((wanted.driver.is_none() && wanted.pci_address.is_none())
                || self.driver(rtnl).is_some_and(|driver| {
                    wanted.driver.as_ref().is_none_or(|name| driver.name == *name)
                        && wanted.pci_address.as_ref().is_none_or(|place| driver.bus_info == *place)
                }))
    }

    /// The driver. A driver that does not answer counts as none: it may be of a NIC that does not matter.
    fn driver(&self, rtnl: &Rtnl) -> Option<Driver> {
        rtnl.driver(&self.link.name).ok().flatten()
    }

    fn describe(&self, text: &mut String, rtnl: &Rtnl) {
        let link = &self.link;
        let driver = self.driver(rtnl);
        let mut about = Vec::new();
        about.extend(link.mac.map(|mac| format!("mac {mac}")));
        about.extend(self.addresses.iter().map(|address| format!("address {address}")));
        about.extend(driver.iter().map(|driver| format!("driver {}", driver.name)));
        let place = driver.iter().map(|driver| driver.bus_info.as_str()).filter(|place| !place.is_empty());
        about.extend(place.map(|place| format!("pciAddress {place}")));
        about.extend(link.alternative_names.iter().map(|name| format!("altname {name}")));
        about.extend(Some(&link.alias).filter(|alias| !alias.is_empty()).map(|alias| format!("alias {alias:?}")));
        let _ = write!(text, "{} ({})", link.name, about.join(", "));
    }
}

fn described(candidates: &[&Candidate], rtnl: &Rtnl) -> String {
    if candidates.is_empty() {
        return "none".to_owned();
    }
    let mut text = String::new();
    for (at, candidate) in candidates.iter().take(SHOWN).enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        candidate.describe(&mut text, rtnl);
    }
    if candidates.len() > SHOWN {
        let _ = write!(text, ", and {} more", candidates.len() - SHOWN);
    }
    text
}

impl std::fmt::Display for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words = Vec::new();
        words.extend(self.mac.map(|mac| format!("mac {mac}")));
        words.extend(self.altname.iter().map(|name| format!("altname \"{name}\"")));
        words.extend(self.alias.iter().map(|alias| format!("alias \"{alias}\"")));
        words.extend(self.subnet.map(|net| format!("subnet {net}")));
        words.extend(self.driver.iter().map(|name| format!("driver \"{name}\"")));
        words.extend(self.pci_address.iter().map(|place| format!("pciAddress \"{place}\"")));
        write!(f, "({})", words.join(", "))
    }
}
