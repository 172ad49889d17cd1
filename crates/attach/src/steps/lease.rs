//! The lease of addresses: the call to IPAM.

use cni::{AddResult, GiveBack, Leased};

use super::{Making, Seeing, Step, Taking, Undone, Why};
use crate::error::{Error, Result};
use crate::mark::Mark;

/// The lease, as far as an ADD has come with it.
#[derive(Default)]
pub(crate) enum TheLease<'a> {
    /// Nothing was leased.
    #[default]
    None,
    /// Something may be leased, and IPAM can only release all that the attachment has.
    Perhaps,
    /// This is leased.
    Held(GiveBack<'a>),
}

impl<'a> Step<'a> for TheLease<'a> {
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        making.leased = Some(match making.task.ipam {
            None => making.settings.leased.clone().unwrap_or_default(),
            Some(ipam) => {
                // Also when it fails: a plugin that was killed half way may have leased something.
                *self = Self::Perhaps;
                let Leased { result, give_back } = ipam.add()?;
                if let Some(give_back) = give_back {
                    *self = Self::Held(give_back);
                }
                // Its result has no interfaces, by the specification (section 4); what it has is none of ours.
                AddResult { interfaces: Vec::new(), ..result }
            }
        });
        Ok(())
    }

    fn verify(&self, seeing: &mut Seeing<'_>) -> Result<()> {
        seeing.task.ipam.map_or(Ok(()), |ipam| Ok(ipam.check()?))
    }

    fn find(&mut self, taking: &mut Taking<'a, '_>) -> Result<()> {
        if matches!(taking.why, Why::Del { .. }) {
            *self = Self::Perhaps;
        }
        Ok(())
    }

    fn begin_undo(&mut self, taking: &mut Taking<'a, '_>) -> Result<()> {
        let ipam = taking.task.ipam.filter(|_| !matches!(self, Self::None));
        taking.needs_address_for_release = ipam.is_some_and(|ipam| ipam.releases_from_its_address());
        Ok(())
    }

    /// Releases the addresses when no link answers for them any more, so that no address is given to another container
    /// before that. IPAM that sends from its address comes first: the link goes then also when the release has failed, since
    /// a lease without a user harms no other machine.
    fn undo(&mut self, taking: &mut Taking<'a, '_>) -> Result<Undone> {
        let Some(ipam) = taking.task.ipam.filter(|_| !matches!(self, Self::None)) else { return Ok(Undone::Whole) };
        let may_be_answered_for = taking.is_in_doubt && !taking.links.is_empty();
        if may_be_answered_for && !taking.needs_address_for_release {
            return Ok(Undone::Later);
        }
        taking.needs_address_for_release = false;
        // A panic in IPAM is no reason to call it again.
        let lease = std::mem::take(self);
        if matches!(taking.why, Why::Failed) && has_successor(taking)? {
            return Ok(Undone::Whole);
        }
        match lease {
            Self::Held(give_back) => give_back()?,
            _ => ipam.del()?,
        }
        Ok(Undone::Whole)
    }
}

/// Returns true if a later ADD for the same attachment has made its link, which it can when somebody has deleted ours. Its
/// lease may be the very one that IPAM knows by the same owner, so the release is left to its DEL.
fn has_successor(taking: &mut Taking<'_, '_>) -> Result<bool> {
    let attachment = &taking.task.attachment;
    let Some(inside) = taking.inside.as_deref_mut() else { return Ok(false) };
    let named = inside.link(attachment.ifname).map_err(Error::from)?;
    Ok(named.is_some_and(|link| Mark::of(attachment).is_on(&link) && !taking.links.contains(&link.ifindex)))
}
