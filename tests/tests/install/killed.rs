//! Runs that are killed at each system call.

use std::fs;

use e2e::plugin::write_script;
use e2e::{Namespace, Plugin};

use crate::fixture::{PREVIOUS, Plugins, built, distributed, expected_names, list};

/// More system calls than any run makes.
const MANY: usize = 5000;

/// Runs the program with these words, and kills it at each of its system calls in turn. After each, every name is a
/// whole program, and `then` is called. Ends with the first run that comes to its own end; `least` must not.
fn killed_at_every_step(least: usize, words: [&str; 2], prepare: impl Fn(&Plugins), then: impl Fn(&Plugins, &str)) {
    let host = Namespace::new();
    let scratch = Plugins::none();
    let script = scratch.at("script");
    // The tracer is in place when the line comes.
    write_script(&script, "read line\nexec \"$PROGRAM\" \"$COMMAND\" \"$OPTION\" \"$DIRECTORY\"");
    let program = Plugin::new(&host, script);
    for (step, stop) in (1..MANY).step_by(2).enumerate() {
        let plugins = Plugins::of_a_distribution();
        prepare(&plugins);
        let call = program.bare().stdin("go\n").env("PROGRAM", built()).env("DIRECTORY", plugins.path());
        let outcome = call.env("COMMAND", words[0]).env("OPTION", words[1]).run_killed_at(stop);
        let when = format!("killed at step {step}");
        assert_whole(&plugins, &when);
        if outcome.status.success() {
            assert!(step >= least, "only {step} steps were killed");
            return;
        }
        then(&plugins, &when);
    }
    panic!("it never comes to its end");
}

/// The names that the distribution had are there, and every name is its program or ours, whole. What the distribution
/// had is in one of the two places.
fn assert_whole(plugins: &Plugins, when: &str) {
    let ours = fs::read(built()).expect("read the program");
    let there = list(plugins.path());
    for name in expected_names() {
        let had = ["macvlan", "host-local"].contains(&name.as_str());
        if !there.contains(&name) {
            assert!(!had, "{when}: {name} is missing");
            continue;
        }
        let bytes = plugins.read(&name);
        let theirs = bytes == distributed(&name).as_bytes();
        assert!(theirs || bytes == ours, "{when}: {name} is neither program");
        let kept = fs::read(plugins.at(PREVIOUS).join(&name)).unwrap_or_default();
        assert!(!had || theirs || kept == distributed(&name).as_bytes(), "{when}: the old {name} is lost");
    }
    assert_eq!(String::from_utf8_lossy(&plugins.read("bridge")), distributed("bridge"), "{when}");
}

#[test]
fn an_installation_killed_at_any_step_can_be_made_again_and_taken_back() {
    killed_at_every_step(
        80,
        ["install", "--to"],
        |_| {},
        |plugins, when| {
            plugins.install();
            plugins.assert_all_are(&built());
            let expected: Vec<String> =
                [PREVIOUS.to_owned(), "bridge".to_owned()].into_iter().chain(expected_names()).collect();
            let mut there = list(plugins.path());
            there.sort();
            let mut expected = expected;
            expected.sort();
            assert_eq!(there, expected, "{when}");
            plugins.uninstall();
            plugins.assert_of_a_distribution();
        },
    );
}

#[test]
fn an_installation_killed_at_any_step_can_be_taken_back_at_once() {
    killed_at_every_step(
        80,
        ["install", "--to"],
        |_| {},
        |plugins, _| {
            plugins.uninstall();
            plugins.assert_of_a_distribution();
        },
    );
}

#[test]
fn a_way_back_killed_at_any_step_can_be_gone_again() {
    let prepare = |plugins: &Plugins| drop(plugins.install());
    killed_at_every_step(60, ["uninstall", "--from"], prepare, |plugins, _| {
        plugins.uninstall();
        plugins.assert_of_a_distribution();
    });
}
