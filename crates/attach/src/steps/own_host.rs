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
        let present = making.beside_parent().all_addresses()?;
        let is_own = |address| present.iter().any(|its| its.address.addr() == address);
        let found: Vec<Found> = making
            .leased_addresses()
            .filter(|address| is_own(*address))
            .map(|address| Found { address, holder: Holder::Host })
            .collect();
        match found.is_empty() {
            // Opened before the kernel asks for the IPv6 addresses, so that the answer is heard.
            true => probe::listen_for_v6(making),
            false => Err(making.refuse(found)),
        }
    }
}
