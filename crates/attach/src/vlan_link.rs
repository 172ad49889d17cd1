//! The VLAN link of a parent: the parent of all containers that are on this VLAN.
//!
//! The first container creates it, and the last removes it. If the kernel deletes a VLAN link, it deletes all
//! sub-interfaces on it too, in every namespace, without a word. So it is removed only if nothing can be on it:
//!
//! - Calls that take the lock of the host's side agree by their [`Record`]s. An ADD holds the lock until its link exists.
//! - For all others the kernel is asked. A macvlan in mode passthru reserves the link: it cannot be created on a link
//!   with sub-interfaces, and then no sub-interface can be created. It goes with the link.
//! - A link with an address, a route, a master or another link on it is kept. So is one that this crate did not create.

use linux::{
    Errno, Holder, Link, LinkInfo, LinkKind, MacvlanMode, Netns, NetnsSearch, NewLink, Patience, Route, Rtnl, VlanTag,
    sysctl,
};

use crate::error::{Error, Result, unless_gone};
use crate::host_link::find as find_host_link;
use crate::host_side::{HostSide, NAME, NAMES, name_of};
use crate::record::{self, Content, Presence, Record, Vlan};

/// The group of the VLAN links that this crate has created: the letters `ulvl`.
const GROUP: u32 = 0x756c_766c;

/// The beginning of the alias of a complete link.
const ALIAS: &str = "Underlay: VLAN";

/// The bytes of the longest name of a link.
const LONGEST_NAME: usize = 15;

impl Vlan {
    pub(crate) fn new(parent: &Link, tag: VlanTag) -> Self {
        Self { parent: parent.ifindex, id: tag.id, protocol: tag.protocol }
    }

    fn tag(self) -> VlanTag {
        VlanTag { protocol: self.protocol, id: self.id }
    }
}

impl HostSide<'_> {
    /// Finds the VLAN link of a parent for a link of this kind, or creates it. One that exists is used as it is.
    pub(crate) fn have_vlan(&mut self, on: &Link, tag: VlanTag, kind: &LinkKind) -> Result<Link> {
        let vlan = Vlan::new(on, tag);
        let link = match find(self.rtnl, vlan)? {
            Some(link) => {
                // A DEL that was killed may have left it.
                self.remove_reservation(&link)?;
                link
            }
            None => self.create_vlan(on, vlan)?,
        };
        if link.group != GROUP {
            return Ok(link);
        }
        let link = if is_complete(&link) { link } else { self.configure_vlan(&link, on, tag)? };
        let link = if link.up { link } else { self.set_vlan_up(&link)? };
        if matches!(kind, LinkKind::Ipvlan { .. }) {
            // The parent of ipvlan receives packets for the host, and in mode l3s all packets.
            drop(sysctl::write_here(&format!("net/ipv6/conf/{}/disable_ipv6", link.name), "0"));
        }
        Ok(link)
    }

    fn create_vlan(&mut self, on: &Link, vlan: Vlan) -> Result<Link> {
        let refused = |cause: String| Error::Config { key: "vlan", value: vlan.id.to_string(), cause };
        for attempt in 0..NAMES {
            let name = first_name(on, vlan, attempt);
            let operation = format!("create VLAN link {name} on {}", on.name);
            match self.rtnl.new_vlan(&name, on.ifindex, vlan.tag(), GROUP) {
                Ok(()) => return self.rtnl.link(&name)?.ok_or(Error::LinkGone(operation)),
                Err(error) if error.errno() == Some(Errno::EEXIST) => {}
                Err(error) => return Err(explain(on, error.during(operation))),
            }
            // Another program may have created it just now.
            if let Some(link) = find(self.rtnl, vlan)? {
                return Ok(link);
            }
            if self.rtnl.link(&name)?.is_none() {
                let cause = format!(
                    "the link of this VLAN of {} is in another network namespace, and the kernel creates no second one",
                    on.name
                );
                return Err(refused(cause));
            }
        }
        Err(refused(format!("other links have all the names that a VLAN link of {} can get", on.name)))
    }

    /// Configures a link. Its alias comes last. So a link with an alias is complete, also if the kernel has set it up
    /// together with its parent. The host itself does not take part in the VLAN.
    fn configure_vlan(&mut self, link: &Link, on: &Link, tag: VlanTag) -> Result<Link> {
        // Another link may have the name, and older kernels have no alternative names.
        let _ = self.rtnl.add_alternative_name(link.ifindex, &alternative_name(on, tag));
        let mut name = link.name.clone();
        let usual = format!("{}.{}", on.name, tag.id);
        if name.starts_with(NAME) && usual.len() <= LONGEST_NAME {
            match self.rtnl.rename(link.ifindex, &usual) {
                // Another link has the name, or before Linux 6.2 the link is up.
                Err(error) if matches!(error.errno(), Some(Errno::EEXIST | Errno::EBUSY)) => {}
                outcome => {
                    outcome?;
                    name = usual;
                }
            }
        }
        // The host answers no requests for its addresses on other links, and drops frames to this one: another link leads
        // to their senders. A kernel without IPv6 does not have the last three. 1 is `IN6_ADDR_GEN_MODE_NONE`.
        for (family, key, value) in [
            ("ipv4", "arp_ignore", "1"),
            ("ipv4", "rp_filter", "1"),
            ("ipv6", "disable_ipv6", "1"),
            ("ipv6", "accept_ra", "0"),
            ("ipv6", "addr_gen_mode", "1"),
        ] {
            let outcome = sysctl::write_here(&format!("net/{family}/conf/{name}/{key}"), value);
            if let (Err(error), "ipv4") = (outcome, family) {
                (self.remark)(format_args!("{error}"));
            }
        }
        self.rtnl.set_alias(link.ifindex, &format!("{ALIAS} {} of {}", tag.id, on.name))?;
        self.again(link)
    }

    fn set_vlan_up(&mut self, link: &Link) -> Result<Link> {
        match self.rtnl.set_up(link.ifindex) {
            // The parent is down. The kernel sets its VLAN links up together with it.
            Err(error) if error.errno() == Some(Errno::ENETDOWN) => {}
            outcome => outcome.map_err(|error| error.during(format!("set VLAN link {} up", link.name)))?,
        }
        self.again(link)
    }

    /// Reads a link again.
    fn again(&mut self, link: &Link) -> Result<Link> {
        let gone = || Error::LinkGone(format!("create VLAN link {}", link.name));
        self.rtnl.link_by_index(link.ifindex)?.ok_or_else(gone)
    }

    /// Removes the VLAN link of an attachment, unless it is in use. Errors about other attachments are remarks.
    pub(crate) fn release_vlan(&mut self, vlan: Vlan, own: &Record) -> Result<()> {
        let Some(link) = find(self.rtnl, vlan)?.filter(|link| link.group == GROUP) else { return Ok(()) };
        // The kernel may still be deleting the links of a container that has ended.
        let mut ends = own.presence() != Presence::There;
        for path in record::paths()? {
            let other = match record::read(&path) {
                Ok(Some(Content::Whole(other))) => other,
                Ok(None | Some(Content::Incomplete)) => continue,
                Ok(Some(Content::OtherSchema)) | Err(_) => {
                    self.keep(&link, &format!("{} cannot be read, and may be of a container on it", path.display()));
                    return Ok(());
                }
            };
            let is_own = (&other.container_id, &other.ifname) == (&own.container_id, &own.ifname);
            if is_own || other.home != self.home || other.vlan != Some(vlan) {
                continue;
            }
            if other.presence() != Presence::Gone {
                return Ok(());
            }
            if let Err(error) = self.release_access(&other).and_then(|()| other.remove()) {
                (self.remark)(format_args!("{error}"));
                return Ok(());
            }
            ends = true;
        }
        self.remove_vlan(&link, ends)
    }

    fn keep(&self, link: &Link, reason: &str) {
        (self.remark)(format_args!("VLAN link {} is kept: {reason}", link.name));
    }

    /// Removes the VLAN links that no record names. A call could not remove them, because they were in use. Returns the
    /// first error, after all were tried.
    pub(crate) fn remove_unused_vlans(&mut self) -> Result<()> {
        let mut links = self.rtnl.links_of_kind("vlan")?;
        links.retain(|link| link.group == GROUP && link.parent_netnsid.is_none());
        if links.is_empty() {
            return Ok(());
        }
        let mut named = Vec::new();
        for path in record::paths()? {
            match record::read(&path) {
                Ok(Some(Content::Whole(record))) if record.home == self.home => named.extend(record.vlan),
                Ok(Some(Content::OtherSchema)) | Err(_) => return Ok(()),
                _ => {}
            }
        }
        let mut outcome = Ok(());
        // A link on another one was created later.
        links.sort_unstable_by_key(|link| std::cmp::Reverse(link.ifindex));
        for link in &links {
            let (LinkInfo::Vlan(tag), Some(parent)) = (&link.info, link.parent) else { continue };
            if !named.contains(&Vlan { parent, id: tag.id, protocol: tag.protocol }) {
                outcome = outcome.and(self.remove_vlan(link, false));
            }
        }
        outcome
    }

    /// Removes a VLAN link, unless something uses it. `ends` tells that containers on it have just ended.
    fn remove_vlan(&mut self, link: &Link, ends: bool) -> Result<()> {
        // The host's link is a user that goes with the last container.
        for kind in ["macvlan", "ipvlan"] {
            if let Some(its) = find_host_link(self.rtnl, link.ifindex, kind)? {
                self.remove_if_unused(&its)?;
            }
        }
        self.remove_reservation(link)?;
        if let Some(reason) = self.use_here(link)? {
            self.keep(link, &reason);
            return Ok(());
        }
        let reservation = match self.reserve(link, ends)? {
            Reserved::As(ifindex) => ifindex,
            Reserved::Gone => return Ok(()),
            Reserved::No(reason) => {
                self.keep(link, reason);
                return Ok(());
            }
        };
        let outcome = self.remove_reserved(link, reservation);
        // It has gone with the link.
        unless_gone(self.rtnl.del_link(reservation)).and(outcome)
    }

    /// Removes a link on which the kernel refuses all sub-interfaces, unless something else uses it.
    fn remove_reserved(&mut self, link: &Link, reservation: u32) -> Result<()> {
        if let Some(reason) = self.use_of(link)? {
            self.keep(link, &reason);
            return Ok(());
        }
        // A call without our lock, such as one with another /run, may have removed it.
        match self.rtnl.link_by_index(reservation)? {
            Some(its) if its.parent == Some(link.ifindex) => unless_gone(self.rtnl.del_link(link.ifindex)),
            _ => {
                self.keep(link, "another call uses it");
                Ok(())
            }
        }
    }

    /// Lets the kernel refuse all sub-interfaces on a link. (drivers/net/macvlan.c, `macvlan_common_newlink`)
    fn reserve(&mut self, link: &Link, ends: bool) -> Result<Reserved> {
        let name = reservation_name(link);
        let reservation = NewLink {
            name: &name,
            kind: LinkKind::Macvlan { mode: MacvlanMode::Passthru, bcqueuelen: None },
            parent: link.ifindex,
            mtu: None,
            mac: None,
            group: GROUP,
            arp: true,
            netns: None,
        };
        loop {
            let Err(error) = self.rtnl.new_link(&reservation) else {
                let made = self.rtnl.link(&name)?;
                return Ok(made.map_or(Reserved::Gone, |made| Reserved::As(made.ifindex)));
            };
            match error.errno() {
                Some(Errno::EINVAL | Errno::EBUSY) if ends && self.ends_by.as_mut().is_some_and(Patience::pause) => {}
                Some(Errno::EINVAL | Errno::EBUSY) => {
                    return Ok(Reserved::No("a macvlan or ipvlan interface without a record is on it"));
                }
                Some(Errno::EOPNOTSUPP) => {
                    return Ok(Reserved::No("this kernel has no macvlan, so it is not known if an interface is on it"));
                }
                Some(Errno::ENODEV) => return Ok(Reserved::Gone),
                _ => return Err(error.during(format!("reserve VLAN link {}", link.name)).into()),
            }
        }
    }

    fn remove_reservation(&mut self, link: &Link) -> Result<()> {
        let found = self.rtnl.link(&reservation_name(link))?;
        let is_it = |its: &Link| its.group == GROUP && its.parent == Some(link.ifindex);
        found.filter(is_it).map_or(Ok(()), |its| unless_gone(self.rtnl.del_link(its.ifindex)))
    }

    /// Returns the reason why a reserved link is in use, or may be.
    fn use_of(&mut self, link: &Link) -> Result<Option<String>> {
        match self.use_here(link)? {
            None => self.use_elsewhere(link),
            used => Ok(used),
        }
    }

    /// Returns the reason why a link is in use in the home namespace.
    fn use_here(&mut self, link: &Link) -> Result<Option<String>> {
        let ifindex = link.ifindex;
        if let Some(address) = self.rtnl.addresses(ifindex)?.first() {
            return Ok(Some(format!("it has the address {}", address.address)));
        }
        let links = self.rtnl.links()?;
        if links.iter().any(|its| its.ifindex == ifindex && its.master.is_some()) {
            return Ok(Some("it is a port of another interface".to_owned()));
        }
        let own = reservation_name(link);
        let is_on = |its: &&Link| its.parent == Some(ifindex) && its.parent_netnsid.is_none() && its.name != own;
        if let Some(its) = links.iter().find(is_on) {
            return Ok(Some(format!("interface {} is on it", its.name)));
        }
        // Before Linux 5.11, the kernel's route to multicast addresses has another origin.
        let is_added = |route: &&Route| !route.is_of_kernel() && !route.dst.addr().is_multicast();
        if let Some(route) = self.rtnl.routes_on(None, ifindex)?.iter().find(is_added) {
            return Ok(Some(format!("the route to {} leads through it", route.dst)));
        }
        Ok(None)
    }

    /// Searches links of other kinds on a link, such as VLANs, in other namespaces.
    fn use_elsewhere(&mut self, link: &Link) -> Result<Option<String>> {
        let home = Netns::current()?;
        let mut search = NetnsSearch::default();
        for holder in [Holder::Mounts, Holder::Processes] {
            let found = search.find(holder, |netns| match stands_in(netns, &home, link) {
                Ok(None) => None,
                Ok(Some(name)) => Some(Ok(format!("interface {name} in another network namespace is on it"))),
                Err(error) if error.errno() == Some(Errno::EPERM) => Some(Ok(format!(
                    "network namespace \"{}\" cannot be entered, so it is not known if one of its interfaces is on it",
                    netns.path().display()
                ))),
                Err(error) => Some(Err(error)),
            });
            if let Some(found) = found {
                return Ok(Some(found?));
            }
        }
        let unknown = |error| format!("it is not known if an interface in another network namespace is on it: {error}");
        Ok(search.doubt().map(unknown))
    }
}

/// The outcome of a reservation.
enum Reserved {
    /// By the link with this ifindex.
    As(u32),
    /// The link does not exist any more.
    Gone,
    /// For this reason.
    No(&'static str),
}

/// The name of a link in another namespace that stands on a link of the home namespace.
fn stands_in(netns: &Netns, home: &Netns, link: &Link) -> linux::Result<Option<String>> {
    if netns.id() == home.id() {
        return Ok(None);
    }
    let mut rtnl = Rtnl::open_in(netns)?;
    let Some(nsid) = rtnl.nsid(home)? else { return Ok(None) };
    let is_on = |its: &Link| its.parent == Some(link.ifindex) && its.parent_netnsid == Some(nsid);
    Ok(rtnl.links()?.into_iter().find(is_on).map(|its| its.name))
}

/// An operator may have replaced the alias.
fn is_complete(link: &Link) -> bool {
    !link.alias.is_empty()
}

/// Finds the VLAN link of a parent. The kernel has at most one for each tag.
fn find(host: &mut Rtnl, vlan: Vlan) -> Result<Option<Link>> {
    let is_it = |link: &Link| {
        link.parent == Some(vlan.parent) && link.parent_netnsid.is_none() && link.info == LinkInfo::Vlan(vlan.tag())
    };
    Ok(host.links_of_kind("vlan")?.into_iter().find(is_it))
}

fn explain(on: &Link, error: linux::Error) -> Error {
    let text = if let linux::Error::Kernel { ext_ack, .. } = &error { ext_ack.as_deref() } else { None };
    let why = match error.errno() {
        // With another text, the parent does not support VLANs.
        Some(Errno::EOPNOTSUPP) if matches!(text, None | Some("Unknown device type")) => {
            "this kernel has no VLANs: load the module 8021q, or use a kernel with CONFIG_VLAN_8021Q".to_owned()
        }
        Some(Errno::EPERM) => "the plugin needs CAP_NET_ADMIN on the host".to_owned(),
        Some(Errno::ENODEV) => format!("{} has just been deleted", on.name),
        _ => return error.into(),
    };
    Error::Explained { error, why }
}

/// The name of a new VLAN link, which it keeps if it cannot get the usual one. Until it has its alternative name, other
/// programs know by this name that the link is not theirs.
fn first_name(on: &Link, vlan: Vlan, attempt: u8) -> String {
    name_of(&[on.name.as_bytes(), vlan.protocol.as_str().as_bytes(), &vlan.id.to_be_bytes(), &[attempt]])
}

/// The name that tells the parent and the VLAN, also if the primary name does not.
fn alternative_name(on: &Link, tag: VlanTag) -> String {
    let protocol = match tag.protocol {
        linux::VlanProtocol::Dot1Q => "",
        linux::VlanProtocol::Dot1Ad => "-802.1ad",
    };
    format!("{NAME}-{}-vlan{}{protocol}", on.name, tag.id)
}

fn reservation_name(link: &Link) -> String {
    format!("{NAME}h{:x}", link.ifindex & 0xff_ffff)
}

#[cfg(test)]
mod tests {
    use linux::VlanProtocol;

    use super::*;

    #[test]
    fn every_name_fits_and_those_of_two_parents_or_vlans_differ() {
        let parent = |name: &str| Link { name: name.to_owned(), ..Link::default() };
        let name = |on: &str, id, protocol, attempt| first_name(&parent(on), Vlan { parent: 2, id, protocol }, attempt);
        let names = [
            name("ens3", 5, VlanProtocol::Dot1Q, 0),
            name("ens4", 5, VlanProtocol::Dot1Q, 0),
            name("ens3", 6, VlanProtocol::Dot1Q, 0),
            name("ens3", 5, VlanProtocol::Dot1Ad, 0),
            name("ens3", 5, VlanProtocol::Dot1Q, 1),
        ];
        assert!(names.iter().all(|name| name.len() <= LONGEST_NAME));
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), names.len());
        let last = Link { ifindex: u32::MAX, ..Link::default() };
        assert!(reservation_name(&last).len() <= LONGEST_NAME);
    }
}
