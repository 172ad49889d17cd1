//! Waits for a MAC or an address that a container which is just ending still has.

use std::time::Duration;

use linux::{Errno, Patience};

use super::Making;
use crate::error::Error;

/// The longest wait for the end of the other container.
pub(crate) const GOES_WITHIN: Duration = Duration::from_secs(5);

/// Tries again while the kernel answers `EADDRINUSE`. The kernel sends no event for the other link, which is in another
/// namespace.
pub(crate) fn retry(mut attempt: impl FnMut() -> linux::Result<()>) -> linux::Result<()> {
    let mut patience = Patience::new(GOES_WITHIN);
    loop {
        match attempt() {
            Err(error) if error.errno() == Some(Errno::EADDRINUSE) && patience.pause() => {}
            outcome => return outcome,
        }
    }
}

/// Adds the reason to an error if another interface has the MAC or the address.
pub(crate) fn explain(making: &Making<'_>, error: linux::Error, what: &str) -> Error {
    if error.errno() != Some(Errno::EADDRINUSE) {
        return error.into();
    }
    let (parent, after) = (&making.parent.name, GOES_WITHIN);
    Error::Explained { error, why: format!("another interface on {parent} still has {what} after {after:?}") }
}
