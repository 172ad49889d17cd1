//! `install` and `uninstall` are killed at each system call.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::plugin::write_script;
use e2e::{Namespace, Plugin};

use crate::fixture::{
    COMPANION, PREVIOUS, Plugins, built, companion_of, distributed, done, installed_names, list, other_release,
};

/// More system calls than any run makes.
const MANY: usize = 5000;

/// The distribution's plugins that have one of our names.
const THEIRS: [&str; 3] = ["macvlan", "host-local", COMPANION];

/// Kills the program at each of its system calls, each in a separate run. `prepare` gets the other release. After each run, every name is a complete
/// program, and `then` is called. The first run that is not killed is the last one. At least `least` runs must be
/// killed.
fn killed_at_every_step(
    least: usize,
    words: [&str; 2],
    prepare: impl Fn(&Plugins, &Path),
    then: impl Fn(&Plugins, &str),
) {
    let host = Namespace::new();
    let scratch = Plugins::none();
    let script = scratch.at("script");
    // The tracer is attached before the script gets the line.
    write_script(&script, "read line\nexec \"$PROGRAM\" \"$COMMAND\" \"$OPTION\" \"$DIRECTORY\"");
    let program = Plugin::new(&host, script);
    let (_other, other) = other_release();
    let releases = [built(), other];
    for (step, stop) in (1..MANY).step_by(2).enumerate() {
        let plugins = Plugins::of_a_distribution();
        plugins.write(COMPANION, &distributed(COMPANION));
        prepare(&plugins, &releases[1]);
        let call = program.bare().stdin("go\n").env("PROGRAM", built()).env("DIRECTORY", plugins.path());
        let outcome = call.env("COMMAND", words[0]).env("OPTION", words[1]).run_killed_at(stop);
        let when = format!("killed at step {step}");
        assert_complete(&plugins, &releases, &when);
        if outcome.status.success() {
            assert!(step >= least, "only {step} steps were killed");
            return;
        }
        then(&plugins, &when);
    }
    panic!("it never ends");
}

/// All names of the distribution are there, and every name is the complete program of the distribution or of one of our releases. The
/// files of the distribution are in one of the two directories.
fn assert_complete(plugins: &Plugins, releases: &[PathBuf], when: &str) {
    let read = |path: &Path| fs::read(path).expect("read a program");
    let programs: Vec<_> = releases.iter().map(|release| read(release)).collect();
    let companions: Vec<_> = releases.iter().map(|release| read(&companion_of(release))).collect();
    let there = list(plugins.path());
    for name in installed_names() {
        let ours = if name == COMPANION { &companions } else { &programs };
        let had = THEIRS.contains(&name.as_str());
        if !there.contains(&name) {
            assert!(!had, "{when}: {name} is missing");
            continue;
        }
        let bytes = plugins.read(&name);
        let theirs = bytes == distributed(&name).as_bytes();
        assert!(theirs || ours.contains(&bytes), "{when}: {name} is neither program");
        let kept = fs::read(plugins.at(PREVIOUS).join(&name)).unwrap_or_default();
        assert!(!had || theirs || kept == distributed(&name).as_bytes(), "{when}: the old {name} is lost");
    }
    assert_eq!(String::from_utf8_lossy(&plugins.read("bridge")), distributed("bridge"), "{when}");
}

/// The directory has the plugins of the distribution, with its own lan-pool, and nothing else.
#[track_caller]
fn assert_as_before(plugins: &Plugins) {
    assert_eq!(String::from_utf8_lossy(&plugins.read(COMPANION)), distributed(COMPANION));
    fs::remove_file(plugins.at(COMPANION)).expect("remove a plugin");
    plugins.assert_of_a_distribution();
}

#[test]
fn an_installation_killed_at_any_step_can_be_repeated_and_undone() {
    killed_at_every_step(
        80,
        ["install", "--to"],
        |_, _| {},
        |plugins, when| {
            plugins.install();
            plugins.assert_all_are(&built());
            let mut expected = installed_names();
            expected.extend([PREVIOUS.to_owned(), "bridge".to_owned()]);
            expected.sort();
            assert_eq!(list(plugins.path()), expected, "{when}");
            plugins.uninstall();
            assert_as_before(plugins);
        },
    );
}

#[test]
fn an_installation_killed_at_any_step_can_be_undone_at_once() {
    killed_at_every_step(
        80,
        ["install", "--to"],
        |_, _| {},
        |plugins, _| {
            plugins.uninstall();
            assert_as_before(plugins);
        },
    );
}

/// The companion is then of the one release, and the plugins may be of the other.
#[test]
fn an_upgrade_killed_at_any_step_can_be_repeated_and_undone() {
    killed_at_every_step(
        80,
        ["install", "--to"],
        |plugins, other| drop(done(&plugins.install_of(other))),
        |plugins, _| {
            plugins.install();
            plugins.assert_all_are(&built());
            plugins.uninstall();
            assert_as_before(plugins);
        },
    );
}

#[test]
fn an_uninstallation_killed_at_any_step_can_be_repeated() {
    let prepare = |plugins: &Plugins, _: &Path| drop(plugins.install());
    killed_at_every_step(60, ["uninstall", "--from"], prepare, |plugins, _| {
        plugins.uninstall();
        assert_as_before(plugins);
    });
}
