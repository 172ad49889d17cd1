//! The step that sets the link up.

use super::held::{self, retry};
use super::{Checking, Making, Step};
use crate::error::Result;
use crate::parent;

#[derive(Default)]
pub(crate) struct Up;

impl<'a> Step<'a> for Up {
    /// Sets the link up. Only now the kernel refuses a MAC that another container has.
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        let ifindex = making.ifindex();
        // An IPAM plugin may have set it up, as dhcp does.
        if making.task.ipam.is_some_and(|ipam| ipam.may_set_up()) {
            making.was_up_without_v4 = making.inside.link_by_index(ifindex)?.is_some_and(|link| link.up);
        }
        retry(|| making.inside.set_up(ifindex)).map_err(|error| {
            let mac = making.settings.mac.map(|mac| mac.to_string()).unwrap_or_default();
            let error = error.during(format!("set {} up", making.task.attachment.ifname));
            held::explain(making, error, &format!("the MAC {mac}"))
        })
    }

    fn finish(&mut self, making: &mut Making<'a>) -> Result<()> {
        let obstacle = parent::obstacle(&making.parent);
        let doubt = parent::doubt(&making.parent, &making.settings.link);
        let unreachable = parent::unreachable(making);
        [obstacle, doubt, unreachable]
            .into_iter()
            .flatten()
            .for_each(|text| (making.task.remark)(format_args!("{text}")));
        Ok(())
    }

    fn verify(&self, checking: &mut Checking<'_>) -> Result<()> {
        match checking.link.as_ref().is_some_and(|link| link.up) {
            true => Ok(()),
            false => Err(checking.differs("is down".into())),
        }
    }
}
