//! Tests of features that do not exist yet. When such a test passes, the build fails, so that the mark is removed.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a test that is known to fail. The failure must say `how`; any other failure fails, and so does success.
/// `reason` says what is missing.
#[track_caller]
pub fn expected_to_fail(reason: &str, how: &str, test: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(test)) else {
        panic!("this works now: take the mark `expected_to_fail` off this test ({reason})");
    };
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without a text");
    assert!(text.contains(how), "this fails in another way than expected ({reason}): {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_failure_passes() {
        expected_to_fail("later", "no answer", || panic!("still no answer"));
    }

    #[test]
    #[should_panic(expected = "this works now")]
    fn success_fails() {
        expected_to_fail("later", "no answer", || {});
    }

    #[test]
    #[should_panic(expected = "in another way than expected (later): no cluster")]
    fn another_failure_fails() {
        expected_to_fail("later", "no answer", || panic!("no cluster"));
    }
}
