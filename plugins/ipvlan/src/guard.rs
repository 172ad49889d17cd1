//! Refuses an ADD that would change the ipvlan mode of running containers.
//!
//! All ipvlan links ("slaves") of one parent have the same mode and flag: those that were set last. One ADD in mode l3
//! would switch all l2 containers of the parent to l3, and they would no longer answer ARP.
//! (drivers/net/ipvlan/ipvlan_main.c, `ipvlan_link_new`)
//!
//! The slaves are in other namespaces, and the kernel has no list of them. But each slave shows the mode and flag of
//! the parent, so it is enough to find one. If none is found, the kernel is asked if there are any: a parent with
//! ipvlan slaves accepts no macvlan. The guard stores nothing, so it cannot use old data.

use std::time::Duration;

use attach::{Guard, Permit, Site};
use cni::{Code, Error};
use linux::{Holder, Link, LinkInfo, LinkKind, Netns, NetnsSearch, Patience, Rtnl};

/// The longest wait for the lock while other ipvlan ADDs on this host create their links.
const LOCKED_WITHIN: Duration = Duration::from_secs(10);

/// The longest wait until the kernel has deleted the namespace of a container that has ended.
const GOES_WITHIN: Duration = Duration::from_secs(5);

/// Refuses a link that would change the mode or flag of existing slaves.
pub(crate) struct OneMode;

impl Guard for OneMode {
    /// The permit holds a lock until the link is created. Otherwise two ADDs with different modes could both find a
    /// parent without slaves.
    fn permit(&self, link: &LinkKind, site: &mut Site<'_>) -> Result<Permit, Error> {
        let lock = attach::lock("ipvlan", LOCKED_WITHIN)?;
        // If the parent is a slave itself, the kernel puts the new slave on the parent of that slave.
        let slave = match site.parent.info {
            LinkInfo::Ipvlan { .. } => Some(site.parent.clone()),
            _ => find_slave(site)?,
        };
        if let Some(slave) = slave {
            compare(link, site.parent, &slave)?;
        }
        Ok(Permit::holding(lock))
    }
}

fn compare(wanted: &LinkKind, parent: &Link, slave: &Link) -> Result<(), Error> {
    let LinkInfo::Ipvlan { mode, flag } = slave.info else { return Ok(()) };
    let LinkKind::Ipvlan { mode: wanted_mode, flag: wanted_flag } = *wanted else { return Ok(()) };
    if (mode, flag) == (wanted_mode, wanted_flag) {
        return Ok(());
    }
    let (key, value) =
        if mode != wanted_mode { ("mode", wanted_mode.as_str()) } else { ("flag", wanted_flag.as_str()) };
    let cause = format!(
        "{} carries ipvlan interfaces in mode {mode} with flag {flag}, and the kernel would switch all of them to mode \
         {wanted_mode} with flag {wanted_flag}; use the same mode and flag, or another parent",
        parent.name
    );
    Err(Error::config(key, format_args!("\"{value}\""), cause))
}

/// Finds one ipvlan slave of the parent in any namespace. Returns `None` if the parent has no slave.
///
/// # Errors
///
/// Code 7 if a slave exists and cannot be found. Its mode is not known, so no ADD may change it.
fn find_slave(site: &mut Site<'_>) -> Result<Option<Link>, Error> {
    let mut patience = Patience::new(GOES_WITHIN);
    loop {
        if let Some(slave) = search(site, &[Holder::Mounts, Holder::Processes])? {
            return Ok(Some(slave));
        }
        let taken = match may_have_slaves(site) {
            Some(false) => return Ok(None),
            Some(true) => true,
            None => false,
        };
        let found = search(site, &Holder::ALL)?;
        if found.is_some() || !taken {
            return Ok(found);
        }
        // A container may have just ended: no holder leads to its namespace, and the kernel has not deleted its links
        // yet.
        if !patience.pause() {
            break;
        }
    }
    let cause = "it carries ipvlan interfaces in a network namespace that the plugin cannot enter, so their mode and \
                 flag are not known, and this ADD could change them";
    Err(Error::new(Code::INVALID_NETWORK_CONFIG, format!("master \"{}\": {cause}", site.parent.name)))
}

/// Returns true if the parent has ipvlan slaves in any namespace. Returns `None` if that is not known: the kernel's
/// error is unexpected, or the parent is a port of a bridge or bond. Such a parent is refused when the link is created.
fn may_have_slaves(site: &mut Site<'_>) -> Option<bool> {
    match site.beside_parent.is_taken_from_macvlan(site.parent.ifindex) {
        Ok(true) if site.parent.master.is_some() => None,
        Ok(is_taken) => Some(is_taken),
        Err(_) => None,
    }
}

/// Searches a slave in the parent's namespace, and then in the namespaces of these holders.
fn search(site: &mut Site<'_>, holders: &[Holder]) -> Result<Option<Link>, Error> {
    let beside = site.beside_parent.links().map_err(attach::error::Error::from)?;
    if let Some(slave) = beside.into_iter().find(|link| is_slave(link, site.parent, None)) {
        return Ok(Some(slave));
    }
    let mut search = NetnsSearch::default();
    // Skip a namespace that cannot be entered. `may_have_slaves` still notices a slave there.
    let mut look = |netns: &Netns| slave_in(netns, site).ok().flatten();
    Ok(holders.iter().find_map(|holder| search.find(*holder, &mut look)))
}

fn is_slave(link: &Link, parent: &Link, nsid: Option<i32>) -> bool {
    matches!(link.info, LinkInfo::Ipvlan { .. }) && link.parent == Some(parent.ifindex) && link.parent_netnsid == nsid
}

fn slave_in(netns: &Netns, site: &Site<'_>) -> linux::Result<Option<Link>> {
    if netns.id() == site.parent_netns.id() {
        return Ok(None);
    }
    let mut rtnl = Rtnl::open_in(netns)?;
    let Some(nsid) = rtnl.nsid(site.parent_netns)? else { return Ok(None) };
    Ok(rtnl.links()?.into_iter().find(|link| is_slave(link, site.parent, Some(nsid))))
}
