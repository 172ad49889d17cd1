//! The step that creates the link with its mark. The link is the lock of the attachment, and DEL searches for it.

use std::hash::{BuildHasher, RandomState};

use cni::AddResult;
use linux::{Errno, Link, LinkInfo, LinkKind, Mac, MacvlanMode, NewLink, Rtnl};

use super::{Checking, Making, Step, Undoing, Undone, Why, vlan};
use crate::error::{Error, Result, unless_gone};
use crate::mark::Mark;
use crate::{Attachment, Wish, host_side, parent, result};

/// The state of the link.
#[derive(Default)]
pub(crate) enum TheLink {
    /// No link was created.
    #[default]
    None,
    /// The kernel was asked for a link with this name, and its answer is not known.
    Asked(String),
    /// The link with this ifindex was created.
    Made(u32),
}

impl<'a> Step<'a> for TheLink {
    /// Creates the link in the container's namespace with its final name and its mark. The link is down.
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        self.make_in_place_of_the_stale(making)?;
        // From now on, the link keeps its VLAN link.
        making.host_lock = None;
        Ok(())
    }

    /// Checks the link a last time. A parallel DEL marks the link before it releases the lease. Then this ADD fails,
    /// and releases what it leased after that.
    fn finish(&mut self, making: &mut Making<'a>) -> Result<()> {
        let ifindex = making.ifindex();
        match stays(&mut making.inside, ifindex, &making.task.attachment)? {
            true => Ok(()),
            false => Err(Error::LinkGone(operation(making))),
        }
    }

    fn verify(&self, checking: &mut Checking<'_>) -> Result<()> {
        let ifname = checking.task.attachment.ifname;
        let link = match checking.rtnl.link(ifname)? {
            Some(link) => link,
            None => {
                let mark = Mark::of(&checking.task.attachment);
                let renamed = checking.rtnl.links()?.into_iter().find(|link| mark.is_on(link));
                return Err(match renamed {
                    Some(link) => checking.differs(format!("was renamed to \"{}\"", link.name)),
                    None => Error::NoLink { ifname: ifname.to_owned() },
                });
            }
        };
        if link.kind.as_deref() != Some(checking.wished.link.name()) {
            return Err(checking.differs(format!("is {}, not {}", describe(&link), checking.wished.link.name())));
        }
        if let Some(difference) = other_mode(&link, checking.wished.link) {
            return Err(checking.differs(difference));
        }
        let Some(interface) = result::own_interface(checking.expected, ifname) else {
            return Err(checking.differs("prevResult has no interface of this name with a sandbox".into()));
        };
        let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        match interface.mac.as_deref() {
            // If the link uses the parent's MAC, it changes with the parent's.
            Some(expected) if !shares_mac(&link) && !expected.eq_ignore_ascii_case(&mac) => {
                return Err(checking.differs(format!("has the MAC {mac}, prevResult says {expected}")));
            }
            _ => {}
        }
        if let Some(difference) = other_parent(checking, &link) {
            return Err(checking.differs(difference));
        }
        // Do not compare the MTU: the plugin tuning, later in a chain, changes it without changing the result.
        checking.link = Some(link);
        Ok(())
    }

    fn find(&mut self, undoing: &mut Undoing<'a, '_>) -> Result<()> {
        let why = undoing.why;
        let Some(inside) = undoing.inside.as_deref_mut() else { return Ok(()) };
        undoing.links = match (why, &*self) {
            (Why::Failed, Self::None) => Vec::new(),
            (Why::Failed, Self::Made(ifindex)) => vec![*ifindex],
            // The name was free just before. A link with this name that is up was created by another ADD.
            (Why::Failed, Self::Asked(name)) => {
                inside.link(name)?.filter(|link| !link.up).map(|link| link.ifindex).into_iter().collect()
            }
            (Why::Del { kind, previous }, _) => return find_for_del(undoing, kind, previous),
        };
        Ok(())
    }

    /// Marks the links, so that a running ADD sees that a DEL has begun.
    fn begin_undo(&mut self, undoing: &mut Undoing<'a, '_>) -> Result<()> {
        let group = Mark::of(&undoing.task.attachment).begun();
        let Some(inside) = undoing.inside.as_deref_mut() else { return Ok(()) };
        undoing.links.iter().try_for_each(|ifindex| unless_gone(inside.set_group(*ifindex, group)))
    }

    fn undo(&mut self, undoing: &mut Undoing<'a, '_>) -> Result<Undone> {
        let Some(inside) = undoing.inside.as_deref_mut() else { return Ok(Undone::Whole) };
        let mut failed = None;
        undoing.links.retain(|ifindex| match unless_gone(inside.del_link(*ifindex)) {
            Ok(()) => false,
            Err(error) => {
                failed.get_or_insert(error);
                true
            }
        });
        failed.map_or(Ok(Undone::Whole), Err)
    }
}

/// The difference if the link is not on the VLAN of the configuration, or if the properties of the configuration choose
/// another parent now.
fn other_parent(checking: &mut Checking<'_>, link: &Link) -> Option<String> {
    let wished = checking.wished;
    let chooses = matches!(wished.parent, Wish::With(_));
    if !chooses && wished.vlan.is_none() {
        return None;
    }
    let mut host;
    // The number of the parent is in the namespace of the parent.
    let beside_parent = if link.parent_netnsid.is_some() {
        host = Rtnl::open().ok()?;
        &mut host
    } else {
        &mut checking.rtnl
    };
    let own = link.parent.and_then(|ifindex| beside_parent.link_by_index(ifindex).ok().flatten());
    let below = match own.as_ref().map(|own| vlan::below(own, wished.vlan)) {
        Some(Err(difference)) => return Some(difference),
        Some(Ok(below)) => Some(below),
        None => link.parent,
    };
    if !chooses {
        return None;
    }
    let chosen = parent::find(beside_parent, Rtnl::open, wished.parent, wished.link.name()).ok()?;
    // In a container of LXC, the chosen link can be on a parent that is not visible, and then the new link is too.
    if chosen.kind.as_deref() == Some(wished.link.name()) || below == Some(chosen.ifindex) {
        return None;
    }
    let own = own.map_or_else(|| "another interface".to_owned(), |link| link.name);
    Some(format!("is on {own}, and parent chooses {}", chosen.name))
}

/// Returns false if the link of an attachment is gone, or if a DEL has begun.
pub(crate) fn stays(inside: &mut Rtnl, ifindex: u32, attachment: &Attachment<'_>) -> Result<bool> {
    let link = inside.link_by_index(ifindex)?;
    Ok(link.is_some_and(|link| !Mark::of(attachment).has_begun(&link)))
}

impl TheLink {
    fn make_in_place_of_the_stale(&mut self, making: &mut Making<'_>) -> Result<()> {
        let refused = match self.make(making) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        // A host's link of another kind or mode may be all that is in the way.
        let may_be_blocked = match &refused {
            Error::Explained { error, .. } => error.errno() == Some(Errno::EBUSY),
            Error::Other(_) => true,
            _ => false,
        };
        if !may_be_blocked || !matches!(self, Self::None) || making.settings.link_in_container {
            return Err(refused);
        }
        let (parent, remark) = (making.parent.ifindex, making.task.remark);
        match host_side::remove_stale(&mut making.host_lock, &mut making.host, parent, remark) {
            Ok(true) => self.make(making),
            _ => Err(refused),
        }
    }

    fn make(&mut self, making: &mut Making<'_>) -> Result<()> {
        let ifname = making.task.attachment.ifname;
        // The kernel refuses a name that is taken. But if its answer is lost, the undo must not mistake an earlier link
        // for ours. So check the name first.
        see_name_is_free(making)?;
        let settings = making.settings;
        let permit = settings.guard.map(|guard| guard.permit(&settings.link, &mut making.site())).transpose()?;
        let refused = match self.ask_for(ifname, making) {
            Ok(()) => return self.see(making),
            Err(error) => error,
        };
        if matches!(self, Self::Asked(_)) {
            return Err(refused.during(operation(making)).into());
        }
        if refused.errno() != Some(Errno::EEXIST) {
            return Err(explain(making, refused));
        }
        see_name_is_free(making)?;
        let made = self.make_in_two_steps(making);
        drop(permit);
        made
    }

    fn ask_for(&mut self, name: &str, making: &mut Making<'_>) -> linux::Result<()> {
        // Set before the call, because a panic leaves the answer unknown too.
        *self = Self::Asked(name.to_owned());
        let asked = new_link(making, name);
        if asked.as_ref().is_err_and(is_verdict) {
            *self = Self::None;
        }
        asked
    }

    /// Reads the new link: the kernel has chosen its ifindex, and perhaps its MAC and MTU.
    fn see(&mut self, making: &mut Making<'_>) -> Result<()> {
        let Self::Asked(name) = self else { return Ok(()) };
        let link = making.inside.link(name)?.ok_or_else(|| Error::LinkGone(operation(making)))?;
        *self = Self::Made(link.ifindex);
        making.link = Some(link);
        Ok(())
    }

    /// Creates the link with a random name, and then renames it. Older kernels (6.1) need this if a link on the host
    /// has the final name. The rename fails if the name is taken in the container.
    fn make_in_two_steps(&mut self, making: &mut Making<'_>) -> Result<()> {
        let ifname = making.task.attachment.ifname;
        if let Err(error) = self.ask_for(&temporary_name(), making) {
            return match self {
                Self::Asked(_) => Err(error.during(operation(making)).into()),
                _ => Err(explain(making, error)),
            };
        }
        self.see(making)?;
        match making.inside.rename(making.ifindex(), ifname) {
            Ok(()) => Ok(()),
            Err(error) => {
                see_name_is_free(making)?;
                Err(error.during(operation(making)).into())
            }
        }
    }
}

fn operation(making: &Making<'_>) -> String {
    let Making { task, settings, parent, .. } = making;
    format!("create {} {} on {}", settings.link.name(), task.attachment.ifname, parent.name)
}

pub(super) fn see_name_is_free(making: &mut Making<'_>) -> Result<()> {
    let ifname = making.task.attachment.ifname;
    match making.inside.link(ifname)? {
        Some(link) => Err(Error::NameTaken { ifname: ifname.to_owned(), what: describe(&link) }),
        None => Ok(()),
    }
}

fn explain(making: &mut Making<'_>, refused: linux::Error) -> Error {
    let refused = refused.during(operation(making));
    let (parent, kind) = (making.parent.clone(), making.settings.link);
    parent::explain(making.beside_parent(), &parent, &kind, refused)
}

fn new_link(making: &mut Making<'_>, name: &str) -> linux::Result<()> {
    let settings = making.settings;
    let link = NewLink {
        name,
        kind: settings.link,
        parent: making.parent.ifindex,
        mtu: settings.mtu,
        mac: settings.mac,
        group: Mark::of(&making.task.attachment).group(),
        arp: true,
        netns: None,
    };
    match settings.link_in_container {
        true => making.inside.new_link(&link),
        false => making.new_link_from_host(&link),
    }
}

/// Returns true if the kernel refused or was not asked. After any other error, a link may have been created.
fn is_verdict(error: &linux::Error) -> bool {
    matches!(error, linux::Error::Kernel { .. } | linux::Error::InterfaceName { .. })
}

/// Returns a name for a link until it is renamed: "ul" and 48 random bits.
fn temporary_name() -> String {
    format!("ul{:012x}", RandomState::new().hash_one(std::process::id()) >> 16)
}

/// Finds the links of an attachment: those with its mark, under any name. If there is none, a link without a mark
/// counts, if it has the name of the attachment and is not foreign.
fn find_for_del(undoing: &mut Undoing<'_, '_>, kind: &str, previous: &dyn Fn() -> Option<AddResult>) -> Result<()> {
    let Some(inside) = undoing.inside.as_deref_mut() else { return Ok(()) };
    let attachment = &undoing.task.attachment;
    let mark = Mark::of(attachment);
    let named = inside.link(attachment.ifname)?;
    match &named {
        Some(link) if mark.is_on(link) => undoing.links = vec![link.ifindex],
        _ => {
            let marked = inside.links()?.into_iter().filter(|link| mark.is_on(link));
            undoing.links = marked.map(|link| link.ifindex).collect();
        }
    }
    undoing.has_seen_link = named.is_some() || !undoing.links.is_empty();
    let Some(link) = named.filter(|_| undoing.links.is_empty()) else { return Ok(()) };
    // An earlier DEL that was killed has begun with this link. It has checked that the link is not foreign. The
    // addresses may be gone, so do not check again.
    let foreign = if mark.has_begun(&link) { None } else { why_foreign(undoing, &link, kind, previous)? };
    match foreign {
        None => undoing.links.push(link.ifindex),
        Some(why) => {
            let ifname = undoing.task.attachment.ifname;
            (undoing.task.remark)(format_args!(
                "{ifname} is not the interface that ADD created ({why}): it is left as it is"
            ));
        }
    }
    Ok(())
}

/// Returns the reason why a link without our mark is foreign. Returns `None` if it is ours. The namespace may belong to
/// another container now. The reference plugins and earlier releases create links without a mark.
///
/// A MAC of its own identifies the link. If the link uses the parent's MAC, its addresses identify it. If the container
/// has changed its own MAC, an address that is still leased to it identifies the link.
fn why_foreign(
    undoing: &mut Undoing<'_, '_>,
    link: &Link,
    kind: &str,
    previous: &dyn Fn() -> Option<AddResult>,
) -> Result<Option<String>> {
    let Undoing { task, inside: Some(inside), .. } = undoing else { return Ok(None) };
    let ifname = task.attachment.ifname;
    if link.kind.as_deref() != Some(kind) {
        return Ok(Some(format!("it is {}, not {kind}", describe(link))));
    }
    let Some(expected) = previous() else { return Ok(None) };
    let interface = result::own_interface(&expected, ifname);
    let mac = interface.and_then(|interface| interface.mac.as_deref()?.parse::<Mac>().ok());
    let other_mac = match (link.mac, mac) {
        (Some(actual), Some(expected)) if actual != expected => Some(format!("its MAC is {actual}, not {expected}")),
        _ => None,
    };
    let addresses = result::own_addresses(&expected, ifname);
    if (!shares_mac(link) && other_mac.is_none()) || addresses.is_empty() {
        return Ok(other_mac);
    }
    let carries_one = inside.addresses(link.ifindex)?.iter().any(|its| addresses.contains(&its.address));
    // If IPAM cannot be asked, the address on the link decides, unless the link has the mark of another attachment.
    let is_anothers = Mark::of(&task.attachment).is_of_another(link);
    let is_held = || task.ipam.is_some_and(|ipam| ipam.is_held().unwrap_or(!is_anothers));
    Ok(match (carries_one, shares_mac(link)) {
        (true, true) => None,
        (true, false) if is_held() => None,
        (true, false) => other_mac,
        (false, _) => Some(other_mac.unwrap_or_else(|| "it has none of the addresses in prevResult".to_owned())),
    })
}

/// Returns true if the link uses the parent's MAC.
fn shares_mac(link: &Link) -> bool {
    matches!(link.info, LinkInfo::Ipvlan { .. } | LinkInfo::Macvlan { mode: MacvlanMode::Passthru, .. })
}

fn other_mode(link: &Link, kind: &LinkKind) -> Option<String> {
    let (actual, expected) = match (&link.info, kind) {
        (LinkInfo::Macvlan { mode: actual, .. }, LinkKind::Macvlan { mode: expected, .. }) => {
            (actual.to_string(), expected.to_string())
        }
        (LinkInfo::Ipvlan { mode: actual, .. }, LinkKind::Ipvlan { mode: expected, .. }) => {
            (actual.to_string(), expected.to_string())
        }
        _ => return None,
    };
    (actual != expected).then(|| format!("is in mode {actual}, not {expected}"))
}

/// Describes a link in a few words.
fn describe(link: &Link) -> String {
    let kind = link.kind.as_deref().unwrap_or("a device without a kind");
    match link.mac {
        Some(mac) => format!("{kind} {mac}"),
        None => kind.to_owned(),
    }
}
