//! Waiting for a condition that a cluster reaches by itself.

use std::thread;
use std::time::{Duration, Instant};

/// Asks again until the condition holds, and returns what it says. After the time it panics with the last reason.
#[track_caller]
pub fn await_within<T>(patience: Duration, what: &str, mut is_so: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match is_so() {
            Ok(value) => return value,
            Err(why_not) => assert!(Instant::now() < deadline, "still not after {patience:?}: {what}: {why_not}"),
        }
        thread::park_timeout(Duration::from_millis(50));
    }
}
