//! Waits for a change for which the kernel sends no event.

use std::thread;
use std::time::{Duration, Instant};

/// The first pause between two attempts.
const FIRST: Duration = Duration::from_millis(1);

/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_millis(50);

/// A deadline for repeated attempts. The pauses between the attempts get longer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    deadline: Instant,
    next: Duration,
}

impl Patience {
    /// Starts now and lasts for `within`.
    pub fn new(within: Duration) -> Self {
        Self { deadline: Instant::now() + within, next: FIRST }
    }

    /// Sleeps until the next attempt. Returns false at once after the deadline.
    pub fn pause(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        thread::sleep(self.next);
        self.next = (self.next * 2).min(LONGEST);
        true
    }
}
