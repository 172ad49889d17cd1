//! A guest that hangs is killed. A guest that works is not.

use std::process::{Command, Output, Stdio};

/// Runs a shell script in a guest that may hang for five seconds.
fn run(script: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lanes"))
        .args(["--run", "/bin/sh", "-c", script])
        .env("UNDERLAY_GUEST_PATIENCE", "5")
        .stdin(Stdio::null())
        .output()
        .expect("start lanes")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_guest_that_hangs_is_killed() {
    let output = run("echo before; exec sleep 1000");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(text(&output.stdout), "before\n");
    let expected = "lanes: the guest has said nothing and used no processor for 5 s, and was killed\n";
    assert!(stderr.contains(expected), "{stderr}");
}

/// It runs twice as long as a guest may hang.
#[test]
fn a_guest_that_works_is_not_killed() {
    let output = run("for second in 1 2 3 4 5 6 7 8 9 10; do sleep 1; echo $second; done");
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Its kernel also prints a line at the end.
    let said = text(&output.stdout);
    let seconds: Vec<u32> = said.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(seconds, (1..=10).collect::<Vec<_>>(), "{said}");
}
