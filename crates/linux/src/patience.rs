//! Waiting for something of which no event tells.

use std::thread;
use std::time::{Duration, Instant};

/// The first pause between two attempts.
const FIRST: Duration = Duration::from_millis(1);

/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_millis(50);

/// The time until something is given up. Attempts are made more and more seldom.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    deadline: Instant,
    next: Duration,
}

impl Patience {
    /// From now on for so long.
    pub fn new(within: Duration) -> Self {
        Self { deadline: Instant::now() + within, next: FIRST }
    }

    /// Sleeps until it is time for another attempt. Returns false at once if the time is over.
    pub fn pause(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        thread::sleep(self.next);
        self.next = (self.next * 2).min(LONGEST);
        true
    }
}
