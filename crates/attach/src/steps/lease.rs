//! The step that asks IPAM for addresses.

use cni::{AddResult, Conflict, GiveBack, Leased};

use super::{Checking, Making, Step, Undoing, Undone, Why, link};
use crate::error::{Error, Result};
use crate::lan::Found;
use crate::mark::Mark;

/// The state of the lease.
#[derive(Default)]
pub(crate) enum TheLease<'a> {
    /// Nothing was leased.
    #[default]
    None,
    /// Addresses may be leased. IPAM's DEL releases all addresses of the attachment.
    Perhaps,
    /// Addresses are leased, and this function releases exactly these.
    Held(GiveBack<'a>),
}

impl<'a> Step<'a> for TheLease<'a> {
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        making.leased = Some(match making.task.ipam {
            None => making.settings.leased.clone().unwrap_or_default(),
            Some(ipam) => {
                // Set before the call, because an IPAM plugin that fails or is killed may have leased addresses.
                *self = Self::Perhaps;
                let Leased { result, give_back } = ipam.add()?;
                if let Some(give_back) = give_back {
                    *self = Self::Held(give_back);
                }
                // An IPAM result has no interfaces (CNI specification, section 4). If it has some, ignore them.
                AddResult { interfaces: Vec::new(), ..result }
            }
        });
        Ok(())
    }

    /// Releases the addresses, and tells IPAM which of them other machines have. Then this step begins again.
    fn take_back(&mut self, making: &mut Making<'a>, found: &[Found]) -> Result<bool> {
        let Some(ipam) = making.task.ipam else { return Ok(false) };
        // A later ADD may have leased for the same attachment, if the link was deleted in the meantime.
        let ifindex = making.ifindex();
        if !link::stays(&mut making.inside, ifindex, &making.task.attachment)? {
            let ifname = making.task.attachment.ifname;
            return Err(Error::LinkGone(format!("create {ifname}")));
        }
        *self = Self::Perhaps;
        ipam.reject(&conflicts(found))?;
        *self = Self::None;
        making.leased = None;
        making.named = making.found.len();
        Ok(true)
    }

    fn verify(&self, checking: &mut Checking<'_>) -> Result<()> {
        checking.task.ipam.map_or(Ok(()), |ipam| Ok(ipam.check()?))
    }

    fn find(&mut self, undoing: &mut Undoing<'a, '_>) -> Result<()> {
        if matches!(undoing.why, Why::Del { .. }) {
            *self = Self::Perhaps;
        }
        Ok(())
    }

    fn begin_undo(&mut self, undoing: &mut Undoing<'a, '_>) -> Result<()> {
        let ipam = undoing.task.ipam.filter(|_| !matches!(self, Self::None));
        undoing.needs_address_for_release = ipam.is_some_and(|ipam| ipam.releases_from_its_address());
        Ok(())
    }

    /// Releases the addresses after no link answers for them, so that another container does not get one too early. If
    /// IPAM sends from its address, it releases first. The link is then deleted also if the release fails, because a
    /// lease without a container does no harm to other machines.
    fn undo(&mut self, undoing: &mut Undoing<'a, '_>) -> Result<Undone> {
        let Some(ipam) = undoing.task.ipam.filter(|_| !matches!(self, Self::None)) else { return Ok(Undone::Whole) };
        let may_be_answered_for = undoing.is_in_doubt && !undoing.links.is_empty();
        if may_be_answered_for && !undoing.needs_address_for_release {
            return Ok(Undone::Later);
        }
        undoing.needs_address_for_release = false;
        // If IPAM panics, do not call it again.
        let lease = std::mem::take(self);
        if matches!(undoing.why, Why::Failed) && has_successor(undoing)? {
            return Ok(Undone::Whole);
        }
        match (lease, conflicts(undoing.found)) {
            (_, conflicts) if !conflicts.is_empty() => ipam.reject(&conflicts)?,
            (Self::Held(give_back), _) => give_back()?,
            _ => ipam.del()?,
        }
        Ok(Undone::Whole)
    }
}

/// Returns the addresses that IPAM must not give to other containers.
fn conflicts(found: &[Found]) -> Vec<Conflict> {
    found.iter().filter_map(|found| found.for_ipam()).collect()
}

/// Returns true if a later ADD for the same attachment has created its link, which is possible after our link was
/// deleted. IPAM cannot tell its lease from ours, so the release is left to the later DEL.
fn has_successor(undoing: &mut Undoing<'_, '_>) -> Result<bool> {
    let attachment = &undoing.task.attachment;
    let Some(inside) = undoing.inside.as_deref_mut() else { return Ok(false) };
    let named = inside.link(attachment.ifname).map_err(Error::from)?;
    Ok(named.is_some_and(|link| Mark::of(attachment).is_on(&link) && !undoing.links.contains(&link.ifindex)))
}
