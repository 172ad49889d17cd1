//! Waits for a condition that becomes true without an event, such as the end of a namespace.

use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;

/// The longest time that a test waits for such a condition. It is enough for a machine under load.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again until the answer is `Ok`. After the time it panics with the last error.
#[track_caller]
pub fn await_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match ask() {
            Ok(value) => return value,
            Err(why_not) => assert!(Instant::now() < deadline, "still not after {patience:?}: {what}: {why_not}"),
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// Asks again until the condition is true. After [`PATIENCE`] it panics.
#[track_caller]
pub fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    await_within(PATIENCE, what, || if is_so() { Ok(()) } else { Err(String::new()) });
}

/// Makes a call again until it succeeds. `judge` looks at each outcome that is a failure.
#[track_caller]
pub fn await_success(mut call: impl FnMut() -> Outcome, mut judge: impl FnMut(&Outcome)) -> Outcome {
    await_within(PATIENCE, "a call that succeeds", || {
        let outcome = call();
        if outcome.status.success() {
            return Ok(outcome);
        }
        judge(&outcome);
        Err(outcome.text())
    })
}
