//! The companion `lan-pool`: a program of its own, which `install` takes from the directory of the running program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::fixture::{
    COMPANION, PREVIOUS, Plugins, built, companion_of, distributed, done, failed, inode, installed_names, list,
    other_release, run,
};

const LEFT: &str =
    "  lan-pool    is left as it is: there is no lan-pool in the directory of the program that installs\n";

/// The most bytes of the companion.
const BUDGET: u64 = 3_500_000;

#[test]
fn the_companion_stays_in_its_budget_of_bytes() {
    let size = fs::metadata(companion_of(&built())).expect("look at the companion").len();
    assert!(size <= BUDGET, "{COMPANION}: {size} bytes, over the budget of {BUDGET}");
}

#[test]
fn the_installed_companion_is_its_plugin() {
    let plugins = Plugins::none();
    plugins.install();
    let output = Command::new(plugins.at(COMPANION)).env_clear().env("CNI_COMMAND", "VERSION").output();
    assert!(done(&output.expect("start the companion")).contains("supportedVersions"));
}

#[test]
fn a_foreign_file_with_its_name_is_kept_and_restored() {
    let plugins = Plugins::of_a_distribution();
    plugins.write(COMPANION, &distributed(COMPANION));
    let before = inode(&plugins.at(COMPANION));
    let (_other, other) = other_release();
    for release in [built(), other] {
        done(&plugins.install_of(&release));
        plugins.assert_all_are(&release);
        assert_eq!(inode(&plugins.at(PREVIOUS).join(COMPANION)), before);
    }
    plugins.uninstall();
    assert_eq!(inode(&plugins.at(COMPANION)), before);
    assert_eq!(String::from_utf8_lossy(&plugins.read(COMPANION)), distributed(COMPANION));
}

/// Only the companion differs from the files of the program that installs.
#[test]
fn a_companion_with_other_bytes_or_another_mode_is_renewed() {
    let plugins = Plugins::none();
    let (_other, other) = other_release();
    done(&plugins.install_of(&other));
    plugins.install();
    let mut copy = Command::new("cp");
    copy.arg("--remove-destination").arg(companion_of(&other)).arg(plugins.at(COMPANION));
    assert!(copy.status().expect("start cp").success());
    let said = plugins.install();
    assert!(said.contains("  lan-pool    renewed\n"), "{said}");
    plugins.assert_all_are(&built());
    fs::set_permissions(plugins.at(COMPANION), fs::Permissions::from_mode(0o700)).expect("set a mode");
    assert!(!plugins.install().contains("already"));
    assert!(plugins.install().ends_with(" is already installed\n"));
}

/// An operator has copied only the program `underlay` to the node.
#[test]
fn a_program_without_its_companion_leaves_an_installed_one_and_says_so() {
    let plugins = Plugins::of_a_distribution();
    let (_other, other) = other_release();
    fs::remove_file(companion_of(&other)).expect("remove the companion");
    // None was installed.
    let said = done(&plugins.install_of(&other));
    assert!(!said.contains(COMPANION) && !plugins.at(COMPANION).exists(), "{said}");

    plugins.install();
    let before = inode(&plugins.at(COMPANION));
    let said = done(&plugins.install_of(&other));
    assert!(said.ends_with(LEFT), "{said}");
    assert!(done(&plugins.install_of(&other)).ends_with(&format!(" is already installed\n{LEFT}")));
    assert_eq!(inode(&plugins.at(COMPANION)), before);
    plugins.assert_companion_is(&built());

    // Its uninstall removes it.
    done(&run(Command::new(&other).args(["uninstall", "--from"]).arg(plugins.path())));
    plugins.assert_of_a_distribution();
}

/// Neither is it installed, nor is the foreign file in the directory of plugins touched.
#[test]
fn a_foreign_file_next_to_the_program_is_not_a_companion() {
    let plugins = Plugins::none();
    plugins.write(COMPANION, &distributed(COMPANION));
    let (_other, other) = other_release();
    fs::write(companion_of(&other), "another program").expect("write a file");
    let said = done(&plugins.install_of(&other));
    assert!(!said.contains(COMPANION), "{said}");
    assert_eq!(String::from_utf8_lossy(&plugins.read(COMPANION)), distributed(COMPANION));
    assert!(!plugins.at(PREVIOUS).exists());
}

/// The disk has room for the companion and not for the program: the next run completes the installation.
#[test]
fn the_installation_can_be_repeated_after_the_disk_was_full_between_both_programs() {
    let size = fs::metadata(companion_of(&built())).expect("look at the companion").len() / 1024 + 512;
    let plugins = Plugins::none();
    let script = format!(
        "mount -t tmpfs -o size={size}k none \"$1\" && ! \"$0\" install --to \"$1\" 2>&1 >/dev/null && \
         cmp \"$1/{COMPANION}\" \"$2\" && mount -o remount,size=100m \"$1\" && \"$0\" install --to \"$1\" && ls -A \"$1\""
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(built()).arg(plugins.path()).arg(companion_of(&built()));
    let said = done(&run(&mut command));
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.ends_with(&format!("{}\n", installed_names().join("\n"))), "{said}");
}

#[test]
fn a_directory_with_its_name_is_an_error_and_nothing_is_changed() {
    let plugins = Plugins::of_a_distribution();
    fs::create_dir(plugins.at(COMPANION)).expect("make a directory");
    let said = failed(&plugins.install_of(&built()), 1);
    assert!(said.contains("lan-pool: it is a directory"), "{said}");
    fs::remove_dir(plugins.at(COMPANION)).expect("remove a directory");
    plugins.assert_of_a_distribution();
    assert_eq!(list(plugins.path()).len(), 3);
}
