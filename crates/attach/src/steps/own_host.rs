//! The step that refuses addresses that this host has itself. No question to the LAN shows them: the host does not hear
//! the probes of its containers, and ipvlan even takes the parent's address without an error.

use super::{Making, Step, probe};
use crate::error::Result;
use crate::lan::{Found, Holder};

#[derive(Default)]
pub(crate) struct OwnHost;

impl<'a> Step<'a> for OwnHost {
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        if !making.settings.lan.detects {
            return Ok(());
        }
        let present = making.addresses_beside_parent()?;
        let holder = if making.settings.link_in_container { Holder::Container } else { Holder::Host };
        let own = making.leased_addresses().filter(|address| present.contains(address));
        let found: Vec<Found> = own.map(|address| Found { address, holder }).collect();
        if !found.is_empty() {
            return Err(making.refuse(found));
        }
        // Before the kernel asks for the IPv6 addresses, so that the answer is heard.
        probe::listen_for_v6(making);
        Ok(())
    }
}
