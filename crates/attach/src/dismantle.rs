//! Taking an attachment apart: DEL, and what a failed ADD had made.

use cni::{AddResult, Attachment, Call, Ipam};
use ipnet::IpNet;
use linux::{Link, LinkInfo, Mac, MacvlanMode, Rtnl};

use crate::container;
use crate::error::{self, Error, Result};

/// The group of a link that a DEL has begun to take apart, so that an ADD which is still at it sees that. ("ul", as in
/// [`temporary_name`])
pub(crate) const LEAVING: u32 = 0x756c;

/// DEL. Needs neither parent nor prevResult, and touches no link that may be somebody else's.
pub fn del(call: &Call<'_>, attachment: &Attachment, kind: &str) -> std::result::Result<(), cni::Error> {
    let ipam = Ipam::find(call);
    let netns = container::open_if_there(call, attachment)?;
    let mut inside = netns.as_ref().map(Rtnl::open_in).transpose().map_err(Error::from)?;
    let look = |rtnl: &mut Rtnl| own_link(call, attachment, kind, ipam.as_ref().ok().and_then(Option::as_ref), rtnl);
    let release = || match &ipam {
        Ok(Some(ipam)) => ipam.del(attachment),
        Ok(None) => Ok(()),
        Err(error) => Err(error.clone()),
    };
    let order = Order::of(ipam.as_ref().ok().and_then(Option::as_ref));
    let mut failures = match &mut inside {
        None => dismantle(None, order, release),
        Some(rtnl) => match look(rtnl)? {
            Found::Own(link) => dismantle(Some((rtnl, link.ifindex)), order, release),
            Found::Foreign => dismantle(None, order, release),
            Found::Nothing => {
                let mut failures = dismantle(None, order, release);
                // An ADD beside us may have made its link after we looked, and have leased before we released: its
                // link would live on with an address that is anybody's.
                if let Found::Own(late) = look(rtnl)? {
                    failures.extend(dismantle(Some((rtnl, late.ifindex)), order, release));
                }
                failures
            }
        },
    }
    .into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => Err(failures.fold(first, cni::Error::with_detail)),
    }
}

/// The time at which the addresses are released.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// After they are off the link, so that no address is given to another container while this one still answers for it.
    OffTheLinkFirst,
    /// Before that: the IPAM plugin sends from them. ([`Ipam::releases_from_its_address`])
    ReleaseFirst,
}

impl Order {
    pub(crate) fn of(ipam: Option<&Ipam<'_>>) -> Self {
        match ipam.is_some_and(Ipam::releases_from_its_address) {
            true => Self::ReleaseFirst,
            false => Self::OffTheLinkFirst,
        }
    }
}

/// Marks the link, takes the addresses off it, releases them, and deletes the link. Goes on after a failure, and returns
/// all failures.
pub(crate) fn dismantle(
    link: Option<(&mut Rtnl, u32)>,
    order: Order,
    release: impl FnOnce() -> std::result::Result<(), cni::Error>,
) -> Vec<cni::Error> {
    let Some((rtnl, ifindex)) = link else { return release().err().into_iter().collect() };
    let marked = mark(rtnl, ifindex);
    if order == Order::ReleaseFirst {
        // The link goes also when the release has failed: a lease without a user harms no other machine.
        let released = release();
        let silenced = silence(rtnl, ifindex);
        let deleted = delete(rtnl, ifindex);
        let kernel = [marked, silenced, deleted].into_iter().filter_map(Result::err).map(cni::Error::from);
        return released.err().into_iter().chain(kernel).collect();
    }
    let silenced = marked.and_then(|()| silence(rtnl, ifindex));
    if silenced.is_ok() {
        let released = release();
        let deleted = delete(rtnl, ifindex);
        return [released.err(), deleted.err().map(cni::Error::from)].into_iter().flatten().collect();
    }
    // It may still answer for its addresses, so they stay leased for as long as it stays.
    let deleted = delete(rtnl, ifindex);
    let released = if deleted.is_ok() { release() } else { Ok(()) };
    let kernel = silenced.err().into_iter().chain(deleted.err()).map(cni::Error::from);
    kernel.chain(released.err()).collect()
}

/// Marks the link as leaving. An ADD that is still running sees it.
fn mark(rtnl: &mut Rtnl, ifindex: u32) -> Result<()> {
    unless_gone(rtnl.set_group(ifindex, LEAVING))
}

/// Takes all addresses off the link. A link that is gone has none.
fn silence(rtnl: &mut Rtnl, ifindex: u32) -> Result<()> {
    let addresses = match rtnl.addresses(ifindex) {
        Err(error) if error::is_gone(&error) => return Ok(()),
        addresses => addresses?,
    };
    // One may be gone with its primary address, or with the link.
    addresses.iter().try_for_each(|address| unless_gone(rtnl.del_address(address)))
}

fn delete(rtnl: &mut Rtnl, ifindex: u32) -> Result<()> {
    unless_gone(rtnl.del_link(ifindex))
}

fn unless_gone(outcome: linux::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error::is_gone(&error) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// What there is in a container of an attachment.
enum Found {
    Own(Link),
    /// A link of its name that is somebody else's.
    Foreign,
    Nothing,
}

/// The link of this attachment, or what a killed ADD has left of it.
fn own_link(
    call: &Call<'_>,
    attachment: &Attachment,
    kind: &str,
    ipam: Option<&Ipam<'_>>,
    rtnl: &mut Rtnl,
) -> Result<Found> {
    let ifname = &attachment.ifname;
    let mut otherwise = Found::Nothing;
    if let Some(link) = rtnl.link(ifname)? {
        // A DEL that was killed has begun with it, so it has been judged, and may have no address left to know it by.
        let begun = link.group == LEAVING;
        let foreign = if begun {
            None
        } else if link.kind.as_deref() == Some(kind) {
            let expected = call.prev_result().unwrap_or_else(|error| {
                call.warn(format_args!("DEL: goes on without it: {error}"));
                None
            });
            match expected {
                Some(expected) => {
                    let still_leased = || ipam.is_some_and(|ipam| ipam.check(attachment).is_ok());
                    refuse_foreign(rtnl, &link, ifname, &expected, still_leased)?
                }
                None => None,
            }
        } else {
            Some(format!("it is {}, not {kind}", describe(&link)))
        };
        match foreign {
            None => return Ok(Found::Own(link)),
            Some(what) => {
                otherwise = Found::Foreign;
                call.warn(format_args!("DEL: {ifname} is not what was attached ({what}): it is left as it is"));
            }
        }
    }
    // Whatever its kind: the name follows from the attachment, so nobody else has it.
    Ok(rtnl.link(&temporary_name(attachment))?.map_or(otherwise, Found::Own))
}

/// Why a link of our kind is somebody else's, in a netns that has been given to another container; `None`: it is ours.
///
/// Its own MAC tells, and nobody else can have it. A MAC that it shares with its parent tells nothing, and changes with
/// the parent's: there the addresses tell. A container that has changed its own MAC is known by an address that is still
/// leased to it.
fn refuse_foreign(
    rtnl: &mut Rtnl,
    link: &Link,
    ifname: &str,
    expected: &AddResult,
    still_leased: impl FnOnce() -> bool,
) -> Result<Option<String>> {
    let mac = own_interface(expected, ifname).and_then(|interface| interface.mac.as_deref()?.parse::<Mac>().ok());
    let other_mac = match (link.mac, mac) {
        (Some(actual), Some(expected)) if actual != expected => Some(format!("its MAC is {actual}, not {expected}")),
        _ => None,
    };
    let addresses = own_addresses(expected, ifname);
    if (!shares_mac(link) && other_mac.is_none()) || addresses.is_empty() {
        return Ok(other_mac);
    }
    let carries_one = rtnl.addresses(link.ifindex)?.iter().any(|its| addresses.contains(&its.address));
    Ok(match (carries_one, shares_mac(link)) {
        (true, true) => None,
        (true, false) if still_leased() => None,
        (true, false) => other_mac,
        (false, _) => Some(other_mac.unwrap_or_else(|| "it has none of its addresses".to_owned())),
    })
}

/// Whether the link has no MAC of its own.
pub(crate) fn shares_mac(link: &Link) -> bool {
    matches!(link.info, LinkInfo::Ipvlan { .. } | LinkInfo::Macvlan { mode: MacvlanMode::Passthru, .. })
}

/// The addresses of this attachment in a result that other plugins may have added theirs to.
pub(crate) fn own_addresses(result: &AddResult, ifname: &str) -> Vec<IpNet> {
    let is_ours = |index: usize| result.interfaces.get(index).is_none_or(|interface| interface.name == ifname);
    let own = result.ips.iter().filter(|ip| ip.interface.is_none_or(is_ours));
    own.map(|ip| ip.address).collect()
}

/// The interface of this attachment in a result that other plugins may have added theirs to.
pub(crate) fn own_interface<'a>(result: &'a AddResult, ifname: &str) -> Option<&'a cni::Interface> {
    result.interfaces.iter().find(|interface| interface.name == ifname && interface.sandbox.is_some())
}

/// Deletes what a killed call has left under the temporary name.
pub(crate) fn delete_temporary(rtnl: &mut Rtnl, name: &str) -> Result<()> {
    match rtnl.link(name)? {
        Some(link) => delete(rtnl, link.ifindex),
        None => Ok(()),
    }
}

/// A link in a few words.
pub(crate) fn describe(link: &Link) -> String {
    let kind = link.kind.as_deref().unwrap_or("a device without a kind");
    match link.mac {
        Some(mac) => format!("{kind} {mac}"),
        None => kind.to_owned(),
    }
}

/// The name that a link has between creation and renaming, where the kernel makes us take two steps. It follows from
/// the attachment, so that DEL finds what a killed ADD left: "ul" and 48 bits of FNV-1a.
pub(crate) fn temporary_name(attachment: &Attachment) -> String {
    let text = attachment.container_id.bytes().chain([0]).chain(attachment.ifname.bytes());
    let hash =
        text.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("ul{:012x}", hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_name_follows_from_the_attachment_and_fits_the_kernel() {
        let name = |container_id: &str, ifname: &str| {
            let args = Ok(cni::Args::default());
            temporary_name(&Attachment { container_id: container_id.into(), ifname: ifname.into(), netns: None, args })
        };
        assert_eq!(name("c", "eth0"), name("c", "eth0"));
        assert_ne!(name("c", "eth0"), name("c", "eth1"));
        assert_ne!(name("ce", "th0"), name("c", "eth0"));
        assert_eq!(name("c", "eth0").len(), 14);
    }
}
