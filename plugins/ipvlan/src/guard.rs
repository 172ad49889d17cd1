//! The guard of the parent's mode.
//!
//! Mode and flag of ipvlan belong to the parent, and the last writer wins: one ADD in mode l3 would turn every l2
//! container on that parent into l3 with NOARP, silently. (drivers/net/ipvlan/ipvlan_main.c, `ipvlan_link_new`) So an
//! ADD that would change them is refused while anybody uses them.
//!
//! Who uses them cannot be listed from the host: the slaves are in other namespaces. But any one slave shows the mode
//! and flag of the parent, so one is enough, whoever made it; and where none is found, the kernel itself says whether
//! there are any: a parent with ipvlan slaves takes no macvlan. Nothing is written down, so nothing can be stale.

use std::time::Duration;

use attach::{Guard, Permit, Site};
use cni::{Code, Error};
use linux::{Holder, Link, LinkInfo, LinkKind, Netns, NetnsSearch, Patience, Rtnl};

/// How long other ADDs of ipvlan on this host may take to get their links made.
const LOCKED_WITHIN: Duration = Duration::from_secs(10);

/// How long the kernel may take to clear away the namespace of a container that has ended.
const GOES_WITHIN: Duration = Duration::from_secs(5);

/// Refuses a link that would change the mode of live slaves.
pub(crate) struct OneMode;

impl Guard for OneMode {
    /// The permit holds a lock until the link is made, so that two ADDs on a parent without slaves cannot both find it free.
    fn permit(&self, link: &LinkKind, site: &mut Site<'_>) -> Result<Permit, Error> {
        let lock = attach::lock("ipvlan", LOCKED_WITHIN)?;
        // On a slave as parent the kernel puts the new one beside it, on the same parent.
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

/// Any one ipvlan slave of the parent, in whichever namespace it is found first; `None` when there is none. That there
/// is one which cannot be found is an error: its mode is not known, so nothing may change it.
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
        // Nothing leads any more to the namespace of a container that has just ended, and its links are still there.
        if !patience.pause() {
            break;
        }
    }
    let cause = "it carries ipvlan interfaces in a network namespace that cannot be looked into, so their mode and flag \
                 are not known, and an ADD could switch them";
    Err(Error::new(Code::INVALID_NETWORK_CONFIG, format!("master \"{}\": {cause}", site.parent.name)))
}

/// Whether something takes all frames of the parent that is no bridge or bond: ipvlan slaves, in any namespace. `None` where
/// the kernel does not say. A bridge port or a bond slave is left to it: making the link will say so.
fn may_have_slaves(site: &mut Site<'_>) -> Option<bool> {
    match site.beside_parent.is_taken_from_macvlan(site.parent.ifindex) {
        Ok(true) if site.parent.master.is_some() => None,
        Ok(is_taken) => Some(is_taken),
        Err(_) => None,
    }
}

/// A slave beside the parent itself, where there is no number for its namespace, or where these hold a namespace.
fn search(site: &mut Site<'_>, holders: &[Holder]) -> Result<Option<Link>, Error> {
    let beside = site.beside_parent.links().map_err(attach::error::Error::from)?;
    if let Some(slave) = beside.into_iter().find(|link| is_slave(link, site.parent, None)) {
        return Ok(Some(slave));
    }
    let mut search = NetnsSearch::default();
    // A namespace that we may not enter shows nothing; the probe still tells.
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
