//! Others write into our files, and make links to them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::fixture::{
    PREVIOUS, Plugins, built, distributed, done, expected_names, failed, inode, installed_names, list, other_release,
    run,
};

/// A foreign program that `cp` writes into our file.
const WRITTEN: &str = "another loopback";

fn said_of(said: &str, end: &str) -> Vec<String> {
    let names = said.lines().filter(|line| line.ends_with(end)).filter_map(|line| line.split_whitespace().next());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names
}

/// All names are one file, so one `cp` replaces all plugins.
fn written_into() -> Plugins {
    let plugins = Plugins::of_a_distribution();
    plugins.install();
    fs::write(plugins.at("loopback"), WRITTEN).expect("write into a plugin");
    assert_eq!(String::from_utf8_lossy(&plugins.read("macvlan")), WRITTEN);
    plugins
}

#[test]
fn a_program_written_into_our_file_does_not_replace_the_earlier_files() {
    let plugins = written_into();
    let said = plugins.install();
    assert_eq!(
        said_of(&said, "renewed; another program had been written into underlay's file"),
        expected_names(),
        "{said}"
    );
    plugins.assert_all_are(&built());
    assert_eq!(list(&plugins.at(PREVIOUS)), ["host-local", "macvlan"]);
    plugins.uninstall();
    plugins.assert_of_a_distribution();
}

#[test]
fn uninstall_removes_a_program_that_was_written_into_our_file() {
    let plugins = written_into();
    let said = plugins.uninstall();
    assert_eq!(
        said_of(&said, "the earlier file is back; another program had been written into underlay's file"),
        ["host-local", "macvlan"],
        "{said}"
    );
    assert_eq!(
        said_of(&said, "removed; another program had been written into underlay's file").len(),
        expected_names().len() - 2,
        "{said}"
    );
    plugins.assert_of_a_distribution();
}

/// Only the file `underlay` was replaced, so the file of the plugins no longer has the name `underlay`.
#[test]
fn the_earlier_files_are_kept_if_underlay_is_another_file_than_the_plugins() {
    for again in [true, false] {
        let plugins = Plugins::of_a_distribution();
        plugins.install();
        let copied = Command::new("cp").arg("--remove-destination").arg(built()).arg(plugins.at("underlay")).status();
        assert!(copied.expect("start cp").success());
        fs::write(plugins.at("loopback"), WRITTEN).expect("write into a plugin");
        if again {
            plugins.install();
            plugins.assert_all_are(&built());
        }
        plugins.uninstall();
        for name in ["macvlan", "host-local"] {
            assert_eq!(String::from_utf8_lossy(&plugins.read(name)), distributed(name));
        }
        assert!(!plugins.at(PREVIOUS).exists());
    }
}

/// Another multi-call program. `kept`: after an installation that was killed.
#[test]
fn a_foreign_multi_call_program_is_kept_and_restored() {
    for (kept, again) in [(false, true), (true, true), (true, false)] {
        let plugins = Plugins::none();
        plugins.write("bridge", "many plugins");
        let before = inode(&plugins.at("bridge"));
        let names = ["bridge", "host-local", "ipvlan", "macvlan"];
        for name in &names[1..] {
            fs::hard_link(plugins.at("bridge"), plugins.at(name)).expect("link a plugin");
        }
        if kept {
            fs::create_dir(plugins.at(PREVIOUS)).expect("make a directory");
            fs::hard_link(plugins.at("macvlan"), plugins.at(PREVIOUS).join("macvlan")).expect("link a plugin");
        }
        if again {
            plugins.install();
            plugins.assert_all_are(&built());
            assert_eq!(list(&plugins.at(PREVIOUS)), names[1..]);
        }
        plugins.uninstall();
        assert_eq!(list(plugins.path()), names);
        assert_eq!(names.map(|name| inode(&plugins.at(name))), [before; 4]);
    }
}

#[test]
fn hard_links_that_an_operator_has_made_to_our_file_stay() {
    let plugins = Plugins::of_a_distribution();
    let (_other, other) = other_release();
    plugins.install();
    fs::hard_link(plugins.at("macvlan"), plugins.at("macvlan.bak")).expect("link a plugin");
    done(&plugins.install_of(&other));
    assert!(plugins.read("macvlan.bak") == fs::read(built()).expect("read the program"));
    fs::hard_link(plugins.at("macvlan"), plugins.at("notes.txt")).expect("link a plugin");
    let said = plugins.uninstall();
    assert_eq!(
        said_of(&said, " is a hard link to the same file, and not a name of underlay: left as it is"),
        ["notes.txt"],
        "{said}"
    );
    assert_eq!(list(plugins.path()), ["bridge", "host-local", "macvlan", "macvlan.bak", "notes.txt"]);
    assert!(plugins.read("notes.txt") == fs::read(&other).expect("read the program"));
}

/// A link in /opt/cni/bin leads to /usr/lib/cni, where a package has installed Underlay.
#[test]
fn a_symbolic_link_to_an_underlay_elsewhere_is_restored() {
    let (package, plugins) = (Plugins::none(), Plugins::none());
    package.install();
    symlink(package.at("macvlan"), plugins.at("macvlan")).expect("link a plugin");
    plugins.install();
    plugins.assert_all_are(&built());
    plugins.uninstall();
    assert_eq!(list(plugins.path()), ["macvlan"]);
    assert_eq!(fs::read_link(plugins.at("macvlan")).expect("a link"), package.at("macvlan"));
    // Without an installation, the link does not count as ours.
    assert!(plugins.uninstall().contains("no files of underlay"));
    assert_eq!(list(plugins.path()), ["macvlan"]);
    assert_eq!(list(package.path()), installed_names());
}

/// The link may be another name of a multi-call program.
#[test]
fn a_foreign_link_to_a_plugin_that_is_replaced_is_named() {
    let plugins = Plugins::of_a_distribution();
    symlink("host-local", plugins.at("whereabouts")).expect("link a plugin");
    symlink("bridge", plugins.at("ptp")).expect("link a plugin");
    let said = plugins.install();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("is a symbolic link")).collect();
    assert_eq!(lines, ["  whereabouts is a symbolic link to host-local, which is underlay now"]);
    plugins.uninstall();
    assert_eq!(String::from_utf8_lossy(&plugins.read("whereabouts")), distributed("host-local"));
}

#[test]
fn if_the_directory_for_earlier_files_is_a_link_nothing_is_changed() {
    let (elsewhere, plugins) = (Plugins::none(), Plugins::of_a_distribution());
    symlink(elsewhere.path(), plugins.at(PREVIOUS)).expect("link a directory");
    let install = plugins.install_of(&built());
    let uninstall = run(Command::new(built()).args(["uninstall", "--from"]).arg(plugins.path()));
    for (command, output) in [("install", install), ("uninstall", uninstall)] {
        let cause = "it must be a directory on the same file system, because replaced files are kept in it";
        let expected = format!("underlay {command}: {}: {cause}\n", plugins.at(PREVIOUS).display());
        assert_eq!(failed(&output, 1), expected);
    }
    assert_eq!(list(elsewhere.path()), Vec::<String>::new());
    fs::remove_file(plugins.at(PREVIOUS)).expect("remove a link");
    plugins.assert_of_a_distribution();
}

#[test]
fn if_the_directory_for_earlier_files_is_another_file_system_nothing_is_changed() {
    let plugins = Plugins::of_a_distribution();
    fs::create_dir(plugins.at(PREVIOUS)).expect("make a directory");
    let script = "mount -t tmpfs none \"$1/.underlay-previous\" && exec \"$0\" install --to \"$1\"";
    let output = run(Command::new("unshare").args(["--mount", "sh", "-c", script]).arg(built()).arg(plugins.path()));
    assert!(failed(&output, 1).contains("it must be a directory on the same file system"), "{output:?}");
    fs::remove_dir(plugins.at(PREVIOUS)).expect("it is empty");
    plugins.assert_of_a_distribution();
}

#[test]
fn a_directory_among_the_earlier_files_is_not_an_earlier_file() {
    let plugins = Plugins::of_a_distribution();
    plugins.install();
    for name in ["ipvlan", "old"] {
        fs::create_dir(plugins.at(PREVIOUS).join(name)).expect("make a directory");
    }
    plugins.uninstall();
    assert_eq!(list(plugins.path()), [PREVIOUS, "bridge", "host-local", "macvlan"]);
    assert_eq!(list(&plugins.at(PREVIOUS)), ["ipvlan", "old"]);
    assert!(Path::is_file(&plugins.at("macvlan")));
}
