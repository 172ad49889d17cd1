//! The step that writes the sysctls of the configuration, while the link is down and has no address.

use linux::Errno;

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
        let written = linux::sysctl::write_all(&making.netns, &pairs);
        for (outcome, (key, value)) in written.into_iter().zip(settings) {
            // A kernel without IPv6, or a link with an MTU that is too small for it, has no such sysctl. Then there are
            // no advertisements either.
            let is_needless = key.ends_with("/accept_ra") && value.trim() == "0";
            match outcome {
                Err(error) if is_needless && error.errno() == Some(Errno::ENOENT) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }
}
