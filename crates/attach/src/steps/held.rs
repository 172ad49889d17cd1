//! What another container still holds: a static MAC or address, while the container that had it is just ending.

use std::time::Duration;

use linux::{Errno, Patience};

use super::Making;
use crate::error::Error;

/// How long the other one may take to go.
pub(crate) const GOES_WITHIN: Duration = Duration::from_secs(5);

/// Tries again for as long as the kernel says that somebody else has it. (`EADDRINUSE`) The other one is in another
/// namespace, so no event tells when it goes.
pub(crate) fn retry(mut attempt: impl FnMut() -> linux::Result<()>) -> linux::Result<()> {
    let mut patience = Patience::new(GOES_WITHIN);
    loop {
        match attempt() {
            Err(error) if error.errno() == Some(Errno::EADDRINUSE) && patience.pause() => {}
            outcome => return outcome,
        }
    }
}

/// Says that another interface has something, where that was the cause.
pub(crate) fn explain(making: &Making<'_>, error: linux::Error, what: &str) -> Error {
    if error.errno() != Some(Errno::EADDRINUSE) {
        return error.into();
    }
    let (parent, after) = (&making.parent.name, GOES_WITHIN);
    Error::Explained {
        error,
        why: format!("another interface on {parent} has {what}, and still had it after {after:?}"),
    }
}
