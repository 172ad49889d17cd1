//! The guard of the parent's mode.
//!
//! Mode and flag of ipvlan belong to the parent, and the last writer wins: one ADD in mode l3 would turn every l2
//! container on that parent into l3 with NOARP, silently. (drivers/net/ipvlan/ipvlan_main.c, `ipvlan_link_new`) So an
//! ADD that would change them is refused while anybody uses them.
//!
//! Who uses them cannot be listed from the host: the slaves are in other namespaces. But any one slave shows the mode
//! and flag of the parent, so one is enough, whoever made it; and where none is found, the kernel itself says whether
//! there are any: a parent with ipvlan slaves takes no macvlan. Nothing is written down, so nothing can be stale.

use std::thread;
use std::time::{Duration, Instant};

use attach::{Choice, Permit, Place};
use cni::{Code, Error};
use linux::{Errno, Link, LinkInfo, LinkKind, MacvlanMode, Netns, NetnsSearch, NewLink, Rtnl};

/// How long other ADDs on parents of this namespace may take to get their links made.
const LOCKED_WITHIN: Duration = Duration::from_secs(10);

/// How long the kernel may take to clear away the namespace of a container that has ended.
const GOES_WITHIN: Duration = Duration::from_secs(5);

/// Refuses a choice that would change the mode of live slaves. The permit holds a lock until the link is made, so that
/// two ADDs on a parent without slaves cannot both find it free.
pub(crate) fn permit(choice: &Choice, place: &mut Place<'_>) -> Result<Permit, Error> {
    let lock = place.parent_netns.lock(LOCKED_WITHIN).map_err(attach::error::Error::from)?;
    // On a slave as parent the kernel puts the new one beside it, on the same parent.
    let slave = match place.parent.info {
        LinkInfo::Ipvlan { .. } => Some(place.parent.clone()),
        _ => find_slave(place)?,
    };
    if let Some(slave) = slave {
        compare(choice, place.parent, &slave)?;
    }
    Ok(Permit::holding(lock))
}

fn compare(choice: &Choice, parent: &Link, slave: &Link) -> Result<(), Error> {
    let LinkInfo::Ipvlan { mode, flag } = slave.info else { return Ok(()) };
    let LinkKind::Ipvlan { mode: wanted_mode, flag: wanted_flag } = choice.link else { return Ok(()) };
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
fn find_slave(place: &mut Place<'_>) -> Result<Option<Link>, Error> {
    let deadline = Instant::now() + GOES_WITHIN;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(slave) = search(place, &[linux::Place::Mounts, linux::Place::Processes])? {
            return Ok(Some(slave));
        }
        let taken = match probe(place)? {
            Probe::Free => return Ok(None),
            Probe::Taken => true,
            Probe::Unknown => false,
        };
        match search(place, &linux::Place::ALL)? {
            None if taken && Instant::now() < deadline => {}
            None if taken => break,
            other => return Ok(other),
        }
        // Nothing leads any more to the namespace of a container that has just ended, and its links are still there.
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    let cause = "it carries ipvlan interfaces in a network namespace that cannot be looked into, so their mode and flag \
                 are not known, and an ADD could switch them";
    Err(Error::new(Code::INVALID_NETWORK_CONFIG, format!("master \"{}\": {cause}", place.parent.name)))
}

/// A slave beside the parent itself, where there is no number for its namespace, or in one of these places.
fn search(place: &mut Place<'_>, places: &[linux::Place]) -> Result<Option<Link>, Error> {
    let beside = place.beside_parent.links().map_err(attach::error::Error::from)?;
    if let Some(slave) = beside.into_iter().find(|link| is_slave(link, place.parent, None)) {
        return Ok(Some(slave));
    }
    let mut search = NetnsSearch::default();
    // A namespace that we may not enter shows nothing; the probe still tells.
    let mut look = |netns: &Netns| slave_in(netns, place).ok().flatten();
    Ok(places.iter().find_map(|where_| search.find(*where_, &mut look)))
}

fn is_slave(link: &Link, parent: &Link, nsid: Option<i32>) -> bool {
    matches!(link.info, LinkInfo::Ipvlan { .. }) && link.parent == Some(parent.ifindex) && link.parent_netnsid == nsid
}

fn slave_in(netns: &Netns, place: &Place<'_>) -> linux::Result<Option<Link>> {
    if netns.id() == place.parent_netns.id() {
        return Ok(None);
    }
    let mut rtnl = Rtnl::open_in(netns)?;
    let Some(nsid) = rtnl.nsid(place.parent_netns)? else { return Ok(None) };
    Ok(rtnl.links()?.into_iter().find(|link| is_slave(link, place.parent, Some(nsid))))
}

enum Probe {
    /// No ipvlan slave, in any namespace.
    Free,
    /// Something that takes all frames of the parent, and it is no bridge or bond: ipvlan.
    Taken,
    /// The kernel did not say.
    Unknown,
}

/// Asks the kernel whether the parent has ipvlan slaves at all: it takes no macvlan then. The macvlan is made in the
/// container, down and for an instant, under the name by which DEL would find it after a crash.
fn probe(place: &mut Place<'_>) -> Result<Probe, Error> {
    let link = NewLink {
        name: &place.temporary_name,
        kind: LinkKind::Macvlan { mode: MacvlanMode::Private, bcqueuelen: None },
        parent: place.parent.ifindex,
        mtu: None,
        mac: None,
        netns: Some(place.netns),
    };
    let mut made = place.beside_parent.new_link(&link);
    if made.as_ref().is_err_and(|error| error.errno() == Some(Errno::EEXIST)) {
        place.delete_temporary()?;
        made = place.beside_parent.new_link(&link);
    }
    match made {
        Ok(()) => place.delete_temporary().map(|()| Probe::Free).map_err(Error::from),
        // A bridge port or a bond slave is busy too; making the link will say so.
        Err(error) if error.errno() == Some(Errno::EBUSY) && place.parent.master.is_none() => Ok(Probe::Taken),
        // A macvlan in passthru mode has the parent alone, so no ipvlan has it.
        Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(Probe::Free),
        // It may have been made all the same.
        Err(_) => place.delete_temporary().map(|()| Probe::Unknown).map_err(Error::from),
    }
}
