//! Waits for a condition that becomes true without an event, such as the end of a namespace.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that comes by itself may take, on a loaded machine too.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again until it is so, or the time is over.
#[track_caller]
pub fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}
