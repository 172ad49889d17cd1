//! The step that puts the attachment on a VLAN of the parent: it finds or creates the VLAN link, which then is the parent.

use linux::{Link, LinkInfo, Rtnl, VlanTag};

use super::link::see_name_is_free;
use super::{Making, Step, Undoing, Undone, Why};
use crate::error::Result;
use crate::host_side::{self, HostSide};
use crate::mark::Mark;
use crate::parent;
use crate::record::{Home, Vlan};

/// The state of the step.
#[derive(Default)]
pub(crate) struct OnVlan {
    /// True if this ADD has written a record, or has begun to do so.
    is_recorded: bool,
}

impl<'a> Step<'a> for OnVlan {
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        let Some(tag) = making.settings.vlan else { return Ok(()) };
        let lock = host_side::lock()?;
        // Under the lock, so that a second ADD does not replace the record of the first.
        see_name_is_free(making)?;
        making.vlan = Some(Vlan::new(&making.parent, tag));
        let record = making.record(None)?;
        let mut side = HostSide::locked(lock, record.home, &mut making.host, making.task.remark);
        // An ADD that was killed may have left another one.
        side.release_of(&making.task.attachment)?;
        // Set before the call, because a panic may come after the write.
        self.is_recorded = true;
        record.write()?;
        side.look_at_some(making.parent.ifindex, &making.task.attachment);
        making.parent = side.have_vlan(&making.parent, tag, &making.settings.link)?;
        making.host_lock = Some(side.into_lock());
        parent::judge_mtu(&making.parent, making.settings.mtu)
    }

    fn undo(&mut self, undoing: &mut Undoing<'a, '_>) -> Result<Undone> {
        let may_exist = match undoing.why {
            Why::Failed => self.is_recorded,
            Why::Del { .. } => undoing.has_record != Some(false),
        };
        if !may_exist {
            return Ok(Undone::Whole);
        }
        let lock = host_side::lock()?;
        let attachment = &undoing.task.attachment;
        let mark = Mark::of(attachment);
        // The link of another ADD for the same attachment needs the record. So does one that could not be deleted.
        if let Some(inside) = undoing.inside.as_deref_mut()
            && inside.links()?.iter().any(|link| mark.is_on(link))
        {
            return Ok(Undone::Whole);
        }
        let mut host = Rtnl::open()?;
        let mut side = HostSide::locked(lock, Home::here(&host)?, &mut host, undoing.task.remark);
        if let Some(vlan) = side.release_of(attachment)?.and_then(|record| record.vlan) {
            side.look_at_some(vlan.parent, attachment);
        }
        Ok(Undone::Whole)
    }
}

/// Returns the ifindex of the parent that the configuration names, for a link on `parent`: that of the VLAN link, or
/// `parent` itself. Returns the difference if `parent` is not the VLAN of the configuration.
pub(super) fn below(parent: &Link, vlan: Option<VlanTag>) -> std::result::Result<u32, String> {
    let Some(tag) = vlan else { return Ok(parent.ifindex) };
    match (&parent.info, parent.parent) {
        (LinkInfo::Vlan(its), Some(below)) if *its == tag => Ok(below),
        _ => Err(format!("is on {}, which is not VLAN {} ({})", parent.name, tag.id, tag.protocol)),
    }
}
