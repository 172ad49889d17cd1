//! The host's link of a parent: a link in the host's namespace, of the same kind and on the same parent as the links of
//! the containers. The kernel passes frames between sub-interfaces, and never between a sub-interface and its parent.
//! So the host and its containers reach each other through this link.
//!
//! - Private address: an address of the host's link. It exists only inside of the node, and is the source of the packets
//!   that the host sends to its containers.
//!
//! All containers of a parent share the link. The first creates it, and the last removes it. Its users are counted by
//! the kernel: each has a route on the link with [`PROTOCOL`]. The [`Record`]s only tell whose the routes are.

use std::collections::HashSet;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use fnv::FnvHasher;
use ipnet::IpNet;
use linux::{Errno, Link, LinkKind, Mac, NewLink, Route, Rtnl, sysctl};

use crate::error::{Error, Result};
use crate::host_side::{HostSide, NAME, NAMES, name_of};
use crate::record::{self, Access, Content, Presence, Record};
use crate::steps::routes::PRIORITY_OF_V6;
use crate::{HostAccess, parent};

/// The origin of our routes on the host and in containers: 117 is the letter u. No program in the list of iproute2 has
/// this number. (`RTPROT_*`)
pub(crate) const PROTOCOL: u8 = 117;

/// The group of the link: the letters `ulho`. Links of containers never have it, because their bit 30 and this one's
/// lower bits are a hash only by chance, and they are in other namespaces.
const GROUP: u32 = 0x756c_686f;

/// Before the earlier value in the alias of the link.
const RP_FILTER_WAS: &str = "; rp_filter was ";

/// Before the value in the alias that this crate has set.
const RP_FILTER_NOW: &str = ", and is ";

/// The host's link, when it is ready.
pub(crate) struct Ready {
    pub(crate) ifindex: u32,
    pub(crate) mac: Mac,
    /// The private addresses.
    pub(crate) private: Vec<IpAddr>,
}

impl Ready {
    /// The private address of the family of `address`.
    pub(crate) fn private_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.private.iter().copied().find(|private| private.is_ipv4() == address.is_ipv4())
    }
}

impl HostSide<'_> {
    /// Finds the host's link of a parent, and removes from it the routes to addresses of the new attachment. They must be
    /// of attachments that are gone. Called before the attachment has a record: so no record names the route of another.
    pub(crate) fn claim(&mut self, record: &Record, access: &Access) -> Result<Option<Link>> {
        let Some(link) = find(self.rtnl, access.parent, &access.kind)? else { return Ok(None) };
        let mut has_made_way = false;
        for address in &access.addresses {
            if self.rtnl.permanent_neighbour(link.ifindex, *address)?.is_some() {
                self.make_way(*address, record)?;
                has_made_way = true;
            }
        }
        // It goes with its last user.
        if has_made_way { find(self.rtnl, access.parent, &access.kind) } else { Ok(Some(link)) }
    }

    /// Creates the host's link of a parent if it does not exist, and gives it a private address of each family that
    /// the container has.
    pub(crate) fn prepare(
        &mut self,
        existing: Option<Link>,
        on: &Link,
        kind: &LinkKind,
        access: &HostAccess,
        addresses: &[IpAddr],
    ) -> Result<Ready> {
        let link = match existing {
            Some(link) => link,
            None => self.create(on, kind)?,
        };
        self.in_use = Some(link.ifindex);
        self.configure(&link, on, kind, addresses)?;
        let present = self.rtnl.addresses(link.ifindex)?;
        let mut private: Vec<IpAddr> =
            present.iter().map(|its| its.address.addr()).filter(|its| !is_link_local(its)).collect();
        for is_v4 in [true, false] {
            if addresses.iter().any(|address| address.is_ipv4() == is_v4) {
                self.have_private(&link, is_v4, access, &mut private)?;
            }
        }
        let mac = link.mac.ok_or_else(|| Error::LinkGone(format!("create {}", link.name)))?;
        Ok(Ready { ifindex: link.ifindex, mac, private })
    }

    fn create(&mut self, on: &Link, kind: &LinkKind) -> Result<Link> {
        // On ipvlan, the kernel needs ARP to learn the parent's MAC again after it has changed.
        let is_macvlan = matches!(kind, LinkKind::Macvlan { .. });
        for attempt in 0..NAMES {
            let name = link_name(on, attempt);
            let link = NewLink {
                name: &name,
                kind: *kind,
                parent: on.ifindex,
                mtu: None,
                mac: on.mac.filter(|_| is_macvlan).map(link_mac),
                group: GROUP,
                arp: !is_macvlan,
                netns: None,
            };
            let operation = format!("create the host's link {name} on {}", on.name);
            match self.rtnl.new_link(&link) {
                Ok(()) => return self.rtnl.link(&name)?.ok_or(Error::LinkGone(operation)),
                Err(error) if error.errno() == Some(Errno::EEXIST) && attempt + 1 < NAMES => {}
                Err(error) => return Err(parent::explain(self.rtnl, on, kind, error.during(operation))),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Configures the link, and sets it up at the end. So a link that is up is complete. Another program may have changed
    /// the sysctls of a link that is up (systemd's 50-default.conf sets `rp_filter` of each new link), so they are set
    /// again.
    fn configure(&mut self, link: &Link, on: &Link, kind: &LinkKind, addresses: &[IpAddr]) -> Result<()> {
        let set = |family: &str, key: &str, value: &str| {
            sysctl::write_here(&format!("net/{family}/conf/{}/{key}", link.name), value)
        };
        // Frames from the LAN to this link are dropped: the parent leads to their senders. And the LAN gets its answers
        // from the parent only.
        for (key, value) in [("rp_filter", "1"), ("arp_ignore", "8")] {
            if let Err(error) = set("ipv4", key, value) {
                (self.remark)(format_args!("{error}"));
            }
        }
        if !link.up {
            // IPv6 is off until a container needs it, because it makes the kernel send multicast listener reports. 1 is
            // `IN6_ADDR_GEN_MODE_NONE`: no link-local address. A kernel without IPv6 does not have these.
            for key in ["disable_ipv6", "addr_gen_mode"] {
                drop(set("ipv6", key, "1"));
            }
        }
        if !link.up || addresses.iter().any(IpAddr::is_ipv6) {
            // At a bond's failover, each host announces its private address. Without the second, the others would log it.
            for (key, value) in [("accept_ra", "0"), ("drop_unsolicited_na", "1")] {
                drop(set("ipv6", key, value));
            }
        }
        self.loosen_filter(link, on, kind)?;
        if link.up {
            return Ok(());
        }
        // Another link may have the name, and older kernels have no alternative names.
        let _ = self.rtnl.add_alternative_name(link.ifindex, &format!("{NAME}-{}", on.name));
        self.rtnl
            .set_up(link.ifindex)
            .map_err(|error| error.during(format!("set the host's link {} up", link.name)))?;
        let is_1 = |name: &str| sysctl_of(&format!("net/ipv4/conf/{name}/proxy_arp")).as_deref() == Some("1");
        if is_1("all") || is_1(&on.name) {
            (self.remark)(format_args!(
                "proxy_arp of {} is 1: the host also answers the LAN for the addresses of its containers",
                on.name
            ));
        }
        if sysctl_of("net/ipv4/conf/all/rp_filter").as_deref() == Some("2") {
            (self.remark)(format_args!(
                "all.rp_filter is 2: machines of the LAN can reach the host through {} too, past firewall rules that \
                 name {}; see docs/security.md",
                link.name, on.name
            ));
        }
        Ok(())
    }

    /// Gives the link its alias. On ipvlan, also loosens the `rp_filter` of the parent if the kernel would drop packets
    /// that arrive there from containers. The alias keeps the first value that the parent had: a call may have been
    /// killed, or another program may have made it strict again.
    fn loosen_filter(&mut self, link: &Link, on: &Link, kind: &LinkKind) -> Result<()> {
        let is_ipvlan = matches!(kind, LinkKind::Ipvlan { .. });
        let changed = if is_ipvlan { self.looser_filter(link, on)? } else { None };
        if link.up && changed.is_none() {
            return Ok(());
        }
        let mut alias = format!("Underlay: the host's access to its containers on {}", on.name);
        let kept = match (Filter::of(link), changed.clone()) {
            (Some(before), Some(changed)) => Some(Filter { was: before.was, ..changed }),
            (before, changed) => before.or(changed),
        };
        if let Some(Filter { was, now }) = kept {
            alias.push_str(&format!("{RP_FILTER_WAS}{was}{RP_FILTER_NOW}{now}"));
        }
        if alias != link.alias {
            self.rtnl.set_alias(link.ifindex, &alias)?;
        }
        if let Some(Filter { was, now }) = changed {
            sysctl::write_here(&rp_filter(&on.name), &now)?;
            (self.remark)(format_args!(
                "set rp_filter of {} from {was} to {now} as long as the host's link {} exists: packets of containers to \
                 the host arrive on {}",
                on.name, link.name, on.name
            ));
        }
        Ok(())
    }

    /// Returns the `rp_filter` that a parent needs, if it has another one. The kernel uses the larger one of the link and
    /// of `all`. With 2, it passes packets only if the link has an address of its own. (net/ipv4/fib_frontend.c,
    /// `__fib_validate_source`)
    fn looser_filter(&mut self, link: &Link, on: &Link) -> Result<Option<Filter>> {
        let (Some(all), Some(was)) = (sysctl_of("net/ipv4/conf/all/rp_filter"), sysctl_of(&rp_filter(&on.name))) else {
            return Ok(None);
        };
        let effective = all.as_str().max(was.as_str());
        if effective == "0" {
            return Ok(None);
        }
        let has_address = self.rtnl.addresses(on.ifindex)?.iter().any(|its| its.address.addr().is_ipv4());
        if has_address {
            return Ok((effective == "1").then(|| Filter { was, now: "2".to_owned() }));
        }
        if all == "0" {
            return Ok(Some(Filter { was, now: "0".to_owned() }));
        }
        if !link.up {
            (self.remark)(format_args!(
                "all.rp_filter is {all}, and {} has no IPv4 address: the kernel drops IPv4 packets of containers to the \
                 host; give {} an address, or set net.ipv4.conf.all.rp_filter to 0",
                on.name, on.name
            ));
        }
        Ok(None)
    }

    /// Gives the link a private address of a family, if it has none.
    fn have_private(&mut self, link: &Link, is_v4: bool, access: &HostAccess, private: &mut Vec<IpAddr>) -> Result<()> {
        const KEY: &str = "hostAccess.privateAddresses";
        let refused =
            |address: IpAddr, cause: String| Error::Config { key: KEY, value: format!("\"{address}\""), cause };
        let wished = access.private_addresses.iter().copied().find(|address| address.is_ipv4() == is_v4);
        match (private.iter().find(|its| its.is_ipv4() == is_v4), wished) {
            (Some(has), Some(wished)) if *has != wished => {
                let cause =
                    format!("the host's link {} has {has} already; all networks of a parent share its link", link.name);
                return Err(refused(wished, cause));
            }
            (Some(_), _) => return Ok(()),
            (None, _) => {}
        }
        let taken: Vec<IpAddr> = self.rtnl.all_addresses()?.iter().map(|its| its.address.addr()).collect();
        let address = match wished {
            Some(wished) if taken.contains(&wished) => {
                return Err(refused(wished, "another interface of the host has it".to_owned()));
            }
            Some(wished) => wished,
            None => (1..=254)
                .map(|number| usual_private(is_v4, number))
                .find(|address| !taken.contains(address))
                .ok_or_else(|| Error::Config {
                    key: KEY,
                    value: "is not set".to_owned(),
                    cause: "the host has all of the usual addresses already".to_owned(),
                })?,
        };
        let given = if is_v4 {
            self.rtnl.new_address(link.ifindex, IpNet::from(address))
        } else {
            let key = format!("net/ipv6/conf/{}/disable_ipv6", link.name);
            sysctl::write_here(&key, "0")?;
            self.rtnl.new_address_unseen(link.ifindex, IpNet::from(address))
        };
        given.map_err(|error| error.during(format!("give the host's link {} the address {address}", link.name)))?;
        if !is_v4 {
            (self.remark)(format_args!(
                "IPv6 has no rp_filter: machines of the LAN can reach the host through {} too, past firewall rules \
                 that name the parent; see docs/security.md",
                link.name
            ));
        }
        private.push(address);
        Ok(())
    }

    /// Adds the routes and neighbours of a container.
    pub(crate) fn lead_to(&mut self, record: &mut Record, mac: Mac, ready: &Ready) -> Result<()> {
        for (at, address) in record.addresses().to_vec().into_iter().enumerate() {
            let led = self.lead_to_one(address, record, mac, ready);
            if let Err(Error::HostRoute { .. }) = &led {
                // The route is that of another attachment. So an undo must not find it in the record.
                ignore_missing(self.rtnl.del_neighbour(ready.ifindex, address))?;
                if let Some(access) = &mut record.access {
                    access.addresses.truncate(at);
                }
                record.write()?;
            }
            led?;
        }
        Ok(())
    }

    fn lead_to_one(&mut self, address: IpAddr, record: &Record, mac: Mac, ready: &Ready) -> Result<()> {
        // With the neighbour first, the kernel never asks the LAN for it.
        self.rtnl.set_neighbour(ready.ifindex, address, mac)?;
        let route = Route {
            // For IPv6 the kernel would prefer a global address of another interface.
            source: ready.private_for(address).filter(IpAddr::is_ipv6),
            ..route(address, ready.ifindex)
        };
        let outcome = match self.rtnl.new_route(&route) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                self.make_way(address, record)?;
                // It was also that of the earlier route.
                self.rtnl.set_neighbour(ready.ifindex, address, mac)?;
                self.rtnl.new_route(&route)
            }
            outcome => outcome,
        };
        Ok(outcome.map_err(|error| error.during(format!("add the host's route to {address}")))?)
    }

    /// Removes the route of an attachment that is gone, if it is in the way of another one.
    fn make_way(&mut self, address: IpAddr, record: &Record) -> Result<()> {
        let refused = |cause: String| Err(Error::HostRoute { address, cause });
        let mut unread: Option<PathBuf> = None;
        for path in record::paths()? {
            let other = match record::read(&path) {
                Ok(Some(Content::Whole(other))) => other,
                Ok(Some(Content::OtherSchema)) | Err(_) => {
                    unread = Some(path);
                    continue;
                }
                Ok(None | Some(Content::Incomplete)) => continue,
            };
            let is_record = (&other.container_id, &other.ifname) == (&record.container_id, &record.ifname);
            let has_it = other.access.as_ref().is_some_and(|access| access.addresses.contains(&address));
            if is_record || other.home != self.home || !has_it {
                continue;
            }
            if !is_gone(&other) {
                return refused(format!(
                    "interface {} of container {} has this address; the host cannot reach two containers by one \
                     address",
                    other.ifname, other.container_id
                ));
            }
            self.release(&other)?;
        }
        let priority = if address.is_ipv4() { 0 } else { PRIORITY_OF_V6 };
        let mut routes = self.rtnl.routes()?;
        routes.retain(|its| its.dst == IpNet::from(address) && its.priority.unwrap_or(0) == priority);
        let (ours, others): (Vec<_>, Vec<_>) = routes.into_iter().partition(|its| its.protocol == Some(PROTOCOL));
        if !others.is_empty() {
            return refused("the host has another route to it; remove that route".to_owned());
        }
        if let Some(path) = unread.filter(|_| !ours.is_empty()) {
            return refused(format!(
                "it may belong to the attachment of {}, a record that this release cannot read; remove that attachment, \
                 or the file",
                path.display()
            ));
        }
        // Without a record, a route of ours is the rest of an attachment.
        for link in self.rtnl.links()?.iter().filter(|link| is_host_link(link)) {
            if ours.iter().any(|route| route.oif == Some(link.ifindex)) {
                ignore_missing(self.rtnl.del_route(&route(address, link.ifindex)))?;
            }
            ignore_missing(self.rtnl.del_neighbour(link.ifindex, address))?;
            self.remove_if_unused(link)?;
        }
        Ok(())
    }

    /// Removes the host's routes to one attachment, and names them no more in its record.
    pub(crate) fn release_access(&mut self, record: &Record) -> Result<()> {
        let Some(access) = &record.access else { return Ok(()) };
        if let Some(link) = find(self.rtnl, access.parent, &access.kind)? {
            for address in &access.addresses {
                ignore_missing(self.rtnl.del_route(&route(*address, link.ifindex)))?;
                ignore_missing(self.rtnl.del_neighbour(link.ifindex, *address))?;
            }
            self.remove_if_unused(&link)?;
        }
        // Without a VLAN, the record is about to go.
        if record.vlan.is_some() { Record { access: None, ..record.clone() }.write() } else { Ok(()) }
    }

    /// Removes the host's link, unless a container has a route on it.
    pub(crate) fn remove_if_unused(&mut self, link: &Link) -> Result<()> {
        if self.in_use == Some(link.ifindex) || !self.rtnl.routes_on(Some(PROTOCOL), link.ifindex)?.is_empty() {
            return Ok(());
        }
        let parent = match link.parent {
            Some(parent) => self.rtnl.link_by_index(parent)?,
            None => None,
        };
        if let (Some(filter), Some(parent)) = (Filter::of(link), parent) {
            let key = rp_filter(&parent.name);
            // An operator may have changed it meanwhile.
            if sysctl_of(&key).as_ref() == Some(&filter.now) {
                sysctl::write_here(&key, &filter.was)?;
            }
        }
        ignore_missing(self.rtnl.del_link(link.ifindex))
    }
}

/// Returns true if the container of a record is certainly gone. The path of its namespace may be valid only in another
/// mount namespace. Then all network namespaces of the machine are searched.
fn is_gone(record: &Record) -> bool {
    match record.presence() {
        Presence::There => false,
        Presence::Gone => true,
        Presence::Unknown => {
            let mut inode = HashSet::from([record.container.inode()]);
            linux::retain_gone(&mut inode).is_ok() && !inode.is_empty()
        }
    }
}

/// The `rp_filter` of a parent that the host's link has changed. It is kept in the alias of the link.
#[derive(Clone)]
struct Filter {
    was: String,
    now: String,
}

impl Filter {
    fn of(link: &Link) -> Option<Self> {
        let (was, now) = link.alias.rsplit_once(RP_FILTER_WAS)?.1.split_once(RP_FILTER_NOW)?;
        Some(Self { was: was.to_owned(), now: now.to_owned() })
    }
}

fn sysctl_of(key: &str) -> Option<String> {
    sysctl::read_here(key).ok()
}

/// Finds the host's link of a parent.
pub(crate) fn find(host: &mut Rtnl, parent: u32, kind: &str) -> Result<Option<Link>> {
    let is_it = |link: &Link| link.parent == Some(parent) && is_host_link(link);
    Ok(host.links_of_kind(kind)?.into_iter().find(is_it))
}

pub(crate) fn is_host_link(link: &Link) -> bool {
    link.group == GROUP && link.parent_netnsid.is_none()
}

/// The route to an address of a container.
pub(crate) fn route(address: IpAddr, ifindex: u32) -> Route {
    Route { oif: Some(ifindex), protocol: Some(PROTOCOL), ..Route::to(IpNet::from(address)) }
}

fn rp_filter(name: &str) -> String {
    format!("net/ipv4/conf/{name}/rp_filter")
}

/// Returns an address that no other machine or program uses. RFC 3927 (section 2.1) keeps 169.254.255.0/24 from
/// machines that choose a link-local address by themselves. The IPv6 prefix is a unique local one. (RFC 4193)
fn usual_private(is_v4: bool, number: u8) -> IpAddr {
    match is_v4 {
        true => Ipv4Addr::new(169, 254, 255, number).into(),
        false => Ipv6Addr::new(0xfd00, 0x75, 0x6c, 0, 0, 0, 0, number.into()).into(),
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The MAC of the host's link on macvlan. It follows from the parent's MAC, which is unique on the LAN.
fn link_mac(parent: Mac) -> Mac {
    let mut hasher = FnvHasher::default();
    hasher.write(NAME.as_bytes());
    hasher.write(&parent.octets());
    let [mut first, b, c, d, e, f, ..] = hasher.finish().to_be_bytes();
    // It is locally administered, and not a multicast address.
    first = (first & 0xfc) | 0x02;
    Mac::from([first, b, c, d, e, f])
}

/// The name of the host's link. The parent's name is a part of the hash, because a VLAN has the MAC of its own parent.
fn link_name(parent: &Link, attempt: u8) -> String {
    name_of(&[&parent.mac.map_or([0; 6], Mac::octets), parent.name.as_bytes(), &[attempt]])
}

fn ignore_missing(outcome: linux::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
        outcome => crate::error::unless_gone(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_those_that_no_other_machine_uses() {
        assert_eq!(usual_private(true, 1).to_string(), "169.254.255.1");
        assert_eq!(usual_private(false, 254).to_string(), "fd00:75:6c::fe");
    }

    #[test]
    fn each_parent_has_its_own_mac_and_each_is_locally_administered() {
        let mac = |last| link_mac(Mac::from([0x52, 0x54, 0, 0x12, 0x34, last]));
        assert_eq!(mac(1), mac(1));
        assert_ne!(mac(1), mac(2));
        for last in 0..=255 {
            assert_eq!(mac(last).octets()[0] & 3, 2);
        }
    }
}
