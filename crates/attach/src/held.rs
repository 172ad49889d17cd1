//! What another container still holds: a static MAC or address, while the container that had it is just ending.

use std::thread;
use std::time::{Duration, Instant};

use linux::Errno;

/// How long the other one may take to go.
pub(crate) const GOES_WITHIN: Duration = Duration::from_secs(5);

/// Tries again for as long as the kernel says that somebody else has it. (`EADDRINUSE`)
pub(crate) fn retry(mut attempt: impl FnMut() -> linux::Result<()>) -> linux::Result<()> {
    let deadline = Instant::now() + GOES_WITHIN;
    let mut pause = Duration::from_millis(5);
    loop {
        match attempt() {
            Err(error) if error.errno() == Some(Errno::EADDRINUSE) && Instant::now() < deadline => {
                // It is in another netns, so no event tells us when it goes.
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            outcome => return outcome,
        }
    }
}
