//! The sub-interface and its mark. It is the attachment's lock, and what DEL looks for.

use std::hash::{BuildHasher, RandomState};

use cni::AddResult;
use linux::{Errno, Link, LinkInfo, LinkKind, Mac, MacvlanMode, NewLink};

use super::{Making, Seeing, Step, Taking, Undone, Why};
use crate::error::{Error, Result, unless_gone};
use crate::mark::Mark;
use crate::{parent, result};

/// The link, as far as an ADD has come with it.
#[derive(Default)]
pub(crate) enum TheLink {
    /// Nothing was made.
    #[default]
    None,
    /// The kernel was asked for a link of this name, and its answer is not known.
    Unheard(String),
    /// It was made.
    Made(u32),
}

impl<'a> Step<'a> for TheLink {
    /// Makes the link in the container's namespace at once, down, marked, and with its final name.
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        let ifname = making.task.attachment.ifname;
        // The kernel would say so as well. But where its answer is lost, what has the name could be taken for ours.
        see_name_is_free(making)?;
        let settings = making.settings;
        let permit = settings.guard.map(|guard| guard.permit(&settings.link, &mut making.site())).transpose()?;
        let refused = match self.ask_for(ifname, making) {
            Ok(()) => return self.see(making),
            Err(error) => error,
        };
        if matches!(self, Self::Unheard(_)) {
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

    /// The last look. A DEL that came meanwhile has marked the link before it released anything: what was leased after
    /// that is released here.
    fn finish(&mut self, making: &mut Making<'a>) -> Result<()> {
        let mark = Mark::of(&making.task.attachment);
        match making.inside.link_by_index(making.ifindex())? {
            Some(link) if !mark.has_begun(&link) => Ok(()),
            _ => Err(Error::LinkGone(operation(making))),
        }
    }

    fn verify(&self, seeing: &mut Seeing<'_>) -> Result<()> {
        let ifname = seeing.task.attachment.ifname;
        let link = match seeing.rtnl.link(ifname)? {
            Some(link) => link,
            None => {
                let mark = Mark::of(&seeing.task.attachment);
                let renamed = seeing.rtnl.links()?.into_iter().find(|link| mark.is_on(link));
                return Err(match renamed {
                    Some(link) => seeing.differs(format!("is called \"{}\" now", link.name)),
                    None => Error::NoLink { ifname: ifname.to_owned() },
                });
            }
        };
        if link.kind.as_deref() != Some(seeing.kind.name()) {
            return Err(seeing.differs(format!("is {}, not {}", describe(&link), seeing.kind.name())));
        }
        if let Some(difference) = other_mode(&link, seeing.kind) {
            return Err(seeing.differs(difference));
        }
        let Some(interface) = result::own_interface(seeing.expected, ifname) else {
            return Err(seeing.differs("prevResult has no such interface in a sandbox".into()));
        };
        let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        match interface.mac.as_deref() {
            // A MAC shared with the parent changes with the parent's.
            Some(expected) if !shares_mac(&link) && !expected.eq_ignore_ascii_case(&mac) => {
                return Err(seeing.differs(format!("has the MAC {mac}, prevResult says {expected}")));
            }
            _ => {}
        }
        // The MTU may differ: the reference's tuning, next in a chain, sets it and leaves the result as it was.
        seeing.link = Some(link);
        Ok(())
    }

    fn find(&mut self, taking: &mut Taking<'a, '_>) -> Result<()> {
        let why = taking.why;
        let Some(inside) = taking.inside.as_deref_mut() else { return Ok(()) };
        taking.links = match (why, &*self) {
            (Why::Failed, Self::None) => Vec::new(),
            (Why::Failed, Self::Made(ifindex)) => vec![*ifindex],
            // Nothing had the name a moment ago, but another ADD may have made it since. One that is up is that one's.
            (Why::Failed, Self::Unheard(name)) => {
                inside.link(name)?.filter(|link| !link.up).map(|link| link.ifindex).into_iter().collect()
            }
            (Why::Del { kind, previous }, _) => return find_for_del(taking, kind, previous),
        };
        Ok(())
    }

    /// Marks the links as leaving. An ADD that is still at it sees that.
    fn begin_undo(&mut self, taking: &mut Taking<'a, '_>) -> Result<()> {
        let group = Mark::of(&taking.task.attachment).begun();
        let Some(inside) = taking.inside.as_deref_mut() else { return Ok(()) };
        taking.links.iter().try_for_each(|ifindex| unless_gone(inside.set_group(*ifindex, group)))
    }

    fn undo(&mut self, taking: &mut Taking<'a, '_>) -> Result<Undone> {
        let Some(inside) = taking.inside.as_deref_mut() else { return Ok(Undone::Whole) };
        let mut failed = None;
        taking.links.retain(|ifindex| match unless_gone(inside.del_link(*ifindex)) {
            Ok(()) => false,
            Err(error) => {
                failed.get_or_insert(error);
                true
            }
        });
        failed.map_or(Ok(Undone::Whole), Err)
    }
}

impl TheLink {
    fn ask_for(&mut self, name: &str, making: &mut Making<'_>) -> linux::Result<()> {
        // A panic is no answer either.
        *self = Self::Unheard(name.to_owned());
        let asked = new_link(making, name);
        if asked.as_ref().is_err_and(is_verdict) {
            *self = Self::None;
        }
        asked
    }

    /// Reads what the kernel has chosen for the link that it has just made.
    fn see(&mut self, making: &mut Making<'_>) -> Result<()> {
        let Self::Unheard(name) = self else { return Ok(()) };
        let link = making.inside.link(name)?.ok_or_else(|| Error::LinkGone(operation(making)))?;
        *self = Self::Made(link.ifindex);
        making.link = Some(link);
        Ok(())
    }

    /// An older kernel (6.1) minds a link of the final name on the host, where this one will never be. So the link is made
    /// under a name that no other call has, and then renamed: there the final name is taken once.
    fn make_in_two_steps(&mut self, making: &mut Making<'_>) -> Result<()> {
        let ifname = making.task.attachment.ifname;
        if let Err(error) = self.ask_for(&temporary_name(), making) {
            return match self {
                Self::Unheard(_) => Err(error.during(operation(making)).into()),
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

fn see_name_is_free(making: &mut Making<'_>) -> Result<()> {
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
        netns: None,
    };
    match settings.link_in_container {
        true => making.inside.new_link(&link),
        false => making.new_link_from_host(&link),
    }
}

/// Whether the kernel itself answered no, or was not even asked. Any other failure leaves open what it did.
fn is_verdict(error: &linux::Error) -> bool {
    matches!(error, linux::Error::Kernel { .. } | linux::Error::InterfaceName { .. })
}

/// The name of a link between its making and its renaming: "ul" and 48 random bits.
fn temporary_name() -> String {
    format!("ul{:012x}", RandomState::new().hash_one(std::process::id()) >> 16)
}

/// The links of an attachment: those with its mark, under whatever name. Without any, a link under its name that has no
/// mark, and that is not known to be somebody else's.
fn find_for_del(taking: &mut Taking<'_, '_>, kind: &str, previous: &dyn Fn() -> Option<AddResult>) -> Result<()> {
    let Some(inside) = taking.inside.as_deref_mut() else { return Ok(()) };
    let attachment = &taking.task.attachment;
    let mark = Mark::of(attachment);
    let named = inside.link(attachment.ifname)?;
    match &named {
        Some(link) if mark.is_on(link) => taking.links = vec![link.ifindex],
        _ => {
            let marked = inside.links()?.into_iter().filter(|link| mark.is_on(link));
            taking.links = marked.map(|link| link.ifindex).collect();
        }
    }
    taking.has_seen_link = named.is_some() || !taking.links.is_empty();
    let Some(link) = named.filter(|_| taking.links.is_empty()) else { return Ok(()) };
    // A DEL that was killed has begun with it, so it has been judged, and may have no address left to know it by.
    let foreign = if mark.has_begun(&link) { None } else { why_foreign(taking, &link, kind, previous)? };
    match foreign {
        None => taking.links.push(link.ifindex),
        Some(why) => {
            let ifname = taking.task.attachment.ifname;
            (taking.task.remark)(format_args!("{ifname} is not what was attached ({why}): it is left as it is"));
        }
    }
    Ok(())
}

/// Why a link without our mark is somebody else's, in a namespace that has been given to another container; `None`: it is
/// ours. The reference and earlier releases make links without a mark.
///
/// Its own MAC tells, and nobody else can have it. A MAC that it shares with its parent tells nothing, and changes with
/// the parent's: there the addresses tell. A container that has changed its own MAC is known by an address that is still
/// leased to it.
fn why_foreign(
    taking: &mut Taking<'_, '_>,
    link: &Link,
    kind: &str,
    previous: &dyn Fn() -> Option<AddResult>,
) -> Result<Option<String>> {
    let Taking { task, inside: Some(inside), .. } = taking else { return Ok(None) };
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
    // Where IPAM must not be asked, the address on the link tells, unless the link was made for another attachment.
    let is_anothers = Mark::of(&task.attachment).is_of_another(link);
    let is_held = || task.ipam.is_some_and(|ipam| ipam.is_held().unwrap_or(!is_anothers));
    Ok(match (carries_one, shares_mac(link)) {
        (true, true) => None,
        (true, false) if is_held() => None,
        (true, false) => other_mac,
        (false, _) => Some(other_mac.unwrap_or_else(|| "it has none of its addresses".to_owned())),
    })
}

/// Whether the link has no MAC of its own.
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

/// A link in a few words.
fn describe(link: &Link) -> String {
    let kind = link.kind.as_deref().unwrap_or("a device without a kind");
    match link.mac {
        Some(mac) => format!("{kind} {mac}"),
        None => kind.to_owned(),
    }
}
