//! `underlay uninstall` restores the earlier files, whatever happened in between.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fixture::{PREVIOUS, Plugins, built, distributed, done, failed, inode, list, other_release, run};
use e2e::patience::PATIENCE;

#[test]
fn uninstall_restores_the_earlier_files_and_removes_the_others() {
    let plugins = Plugins::of_a_distribution();
    let before = ["macvlan", "host-local", "bridge"].map(|name| inode(&plugins.at(name)));
    plugins.install();
    plugins.assert_all_are(&built());
    plugins.uninstall();
    plugins.assert_of_a_distribution();
    assert_eq!(["macvlan", "host-local", "bridge"].map(|name| inode(&plugins.at(name))), before);
    assert!(plugins.uninstall().contains("no files of underlay"));
    plugins.assert_of_a_distribution();
}

/// The second installation must not keep the first one instead of the file of the distribution.
#[test]
fn after_three_releases_uninstall_restores_the_plugins_of_the_distribution() {
    let plugins = Plugins::of_a_distribution();
    let (_other, other) = other_release();
    for release in [built(), other, built()] {
        done(&plugins.install_of(&release));
        plugins.assert_all_are(&release);
        assert_eq!(list(&plugins.at(PREVIOUS)), ["host-local", "macvlan"]);
    }
    plugins.uninstall();
    plugins.assert_of_a_distribution();
}

/// On some nodes, each plugin in /opt/cni/bin is a link to /usr/lib/cni.
#[test]
fn symbolic_links_are_restored_as_symbolic_links() {
    let plugins = Plugins::of_a_distribution();
    fs::rename(plugins.at("macvlan"), plugins.at("macvlan.real")).expect("rename a plugin");
    symlink("macvlan.real", plugins.at("macvlan")).expect("link a plugin");
    symlink("nowhere", plugins.at("ipvlan")).expect("link a plugin");
    plugins.install();
    plugins.assert_all_are(&built());
    assert_eq!(String::from_utf8_lossy(&plugins.read("macvlan.real")), distributed("macvlan"));
    plugins.uninstall();
    assert_eq!(fs::read_link(plugins.at("macvlan")).expect("a link"), Path::new("macvlan.real"));
    assert_eq!(fs::read_link(plugins.at("ipvlan")).expect("a link"), Path::new("nowhere"));
}

/// An operator may have made them.
#[test]
fn a_symbolic_link_to_our_program_and_a_copy_of_it_count_as_ours() {
    let plugins = Plugins::none();
    plugins.install();
    for name in ["macvlan", "ipvlan"] {
        fs::remove_file(plugins.at(name)).expect("remove a plugin");
    }
    symlink("underlay", plugins.at("macvlan")).expect("link a plugin");
    let copied = Command::new("cp").arg(built()).arg(plugins.at("ipvlan")).status().expect("start cp");
    assert!(copied.success());
    plugins.install();
    plugins.assert_all_are(&built());
    assert!(!plugins.at(PREVIOUS).exists(), "one of our files was kept");
    plugins.uninstall();
    assert_eq!(list(plugins.path()), Vec::<String>::new());
}

/// The distribution has upgraded its package.
#[test]
fn a_foreign_plugin_that_replaced_ours_stays_and_the_next_installation_keeps_it() {
    let plugins = Plugins::of_a_distribution();
    plugins.install();
    plugins.write("macvlan", "a newer macvlan");
    let said = plugins.uninstall();
    assert!(
        said.contains("is another plugin now: left as it is; the earlier file is still .underlay-previous/macvlan"),
        "{said}"
    );
    assert_eq!(String::from_utf8_lossy(&plugins.read("macvlan")), "a newer macvlan");
    assert_eq!(String::from_utf8_lossy(&plugins.read("host-local")), distributed("host-local"));
    plugins.install();
    plugins.uninstall();
    assert_eq!(String::from_utf8_lossy(&plugins.read("macvlan")), "a newer macvlan");
    assert_eq!(list(plugins.path()), ["bridge", "host-local", "macvlan"]);
}

/// A name with an earlier file was ours, also if the new release has no plugin of that name.
#[test]
fn a_name_that_a_later_release_does_not_have_is_restored_too() {
    let plugins = Plugins::of_a_distribution();
    let (_other, other) = other_release();
    let as_before = || {
        fs::hard_link(plugins.at("underlay"), plugins.at("vlan")).expect("link a plugin");
        fs::write(plugins.at(PREVIOUS).join("vlan"), distributed("vlan")).expect("write a predecessor");
    };
    plugins.install();
    as_before();
    done(&plugins.install_of(&other));
    assert_eq!(String::from_utf8_lossy(&plugins.read("vlan")), distributed("vlan"));
    plugins.assert_all_are(&other);

    fs::remove_file(plugins.at("vlan")).expect("remove a plugin");
    as_before();
    plugins.uninstall();
    assert_eq!(list(plugins.path()), ["bridge", "host-local", "macvlan", "vlan"]);
    assert_eq!(String::from_utf8_lossy(&plugins.read("vlan")), distributed("vlan"));
}

/// As in a pod with `capabilities: drop: [ALL]`. Such a root may not make hard links to files of other users
/// (fs.protected_hardlinks), so these files are copied.
#[test]
fn root_without_any_capability_can_install_and_uninstall() {
    let plugins = Plugins::of_a_distribution();
    chown(plugins.at("macvlan"), Some(1000), Some(1000)).expect("change the owner of a plugin: this test needs root");
    let before = inode(&plugins.at("macvlan"));
    let without = |words: [&str; 2]| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]).arg(built());
        done(&run(command.args(words).arg(plugins.path())))
    };
    without(["install", "--to"]);
    plugins.assert_all_are(&built());
    let kept = fs::metadata(plugins.at(PREVIOUS).join("macvlan")).expect("look at a predecessor");
    assert_eq!((kept.mode() & 0o7777, kept.ino() == before), (0o755, false));
    without(["uninstall", "--from"]);
    plugins.assert_of_a_distribution();
}

#[test]
fn with_wait_it_runs_until_sigterm_and_then_succeeds() {
    let plugins = Plugins::of_a_distribution();
    for words in [["install", "--wait", "--to"], ["uninstall", "--wait", "--from"]] {
        let mut child = Command::new(built())
            .args(words)
            .arg(plugins.path())
            .env_remove("CNI_COMMAND")
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the program");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        while lines.recv_timeout(PATIENCE).expect("a line in time") != "waiting for SIGTERM" {}
        assert_eq!(child.try_wait().expect("look at the program"), None, "it did not wait");
        match words[0] {
            "install" => plugins.assert_all_are(&built()),
            _ => plugins.assert_of_a_distribution(),
        }
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("end the program");
        // Its stdout ends with it.
        assert_eq!(lines.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
        assert!(child.wait().expect("wait for the program").success());
        reader.join().expect("read lines").expect("send lines");
    }
}

#[test]
fn a_missing_directory_is_an_error() {
    let plugins = Plugins::none();
    let output = run(Command::new(built()).args(["uninstall", "--from"]).arg(plugins.at("bin")));
    let expected =
        format!("underlay uninstall: open {}: No such file or directory (os error 2)\n", plugins.at("bin").display());
    assert_eq!(failed(&output, 1), expected);
    assert_eq!(list(plugins.path()), Vec::<String>::new());
}
