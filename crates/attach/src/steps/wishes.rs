//! The step that writes the sysctls of the configuration, while the link is down and has no address.

use super::{Making, Step};
use crate::error::Result;

#[derive(Default)]
pub(crate) struct Wishes;

impl<'a> Step<'a> for Wishes {
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        let settings = making.settings.sysctls;
        if settings.is_empty() {
            return Ok(());
        }
        let pairs: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        linux::sysctl::write_all(&making.netns, &pairs).into_iter().try_for_each(|written| Ok(written?))
    }
}
