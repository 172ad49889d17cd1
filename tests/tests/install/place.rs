//! `install` into a directory.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::fixture::{
    COMPANION, PREVIOUS, Plugins, REPOSITORY, built, companion_of, distributed, done, expected_names, failed, inode,
    installed_names, list, other_release, run,
};

/// Installs the program that `make build` has built.
fn make_install(bindir: &Path) -> Output {
    let mut make = Command::new("make");
    make.args(["--silent", "-C", REPOSITORY, "-o", "build", "install"]).arg(format!("BINDIR={}", bindir.display()));
    // These may come from the make that runs the tests.
    run(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"))
}

#[test]
fn every_name_is_a_hard_link_to_one_program_with_mode_0755() {
    let plugins = Plugins::none();
    // install creates the directory.
    let bindir = plugins.at("cni/bin");
    done(&make_install(&bindir));
    let names = expected_names();
    // No temporary file is left.
    assert_eq!(list(&bindir), installed_names());
    let companion = fs::symlink_metadata(bindir.join(COMPANION)).expect("look at the companion");
    assert!(companion.is_file() && companion.nlink() == 1, "{companion:?}");
    assert_eq!(companion.permissions().mode() & 0o7777, 0o755);
    assert!(fs::read(bindir.join("macvlan")).expect("read a plugin") == fs::read(built()).expect("read the program"));
    for name in &names {
        let metadata = fs::symlink_metadata(bindir.join(name)).expect("look at a plugin");
        assert!(metadata.is_file(), "{name} is no plain file");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o755, "{name}");
        assert_eq!(metadata.ino(), inode(&bindir.join("underlay")), "{name} is another file");
        assert_eq!(metadata.nlink(), names.len() as u64, "{name}");
    }
}

#[test]
fn an_installed_plugin_runs_by_its_name() {
    let plugins = Plugins::none();
    plugins.install();
    let output = Command::new(plugins.at("macvlan"))
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .output()
        .expect("start an installed plugin");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("supportedVersions"), "{output:?}");
}

/// With CNI_COMMAND set, the program is a plugin.
#[test]
fn a_plugin_does_not_install() {
    let plugins = Plugins::of_a_distribution();
    let as_plugin = built().with_file_name("macvlan");
    let output = run(Command::new(as_plugin).args(["install", "--to"]).arg(plugins.path()));
    assert!(failed(&output, 2).starts_with("macvlan: unexpected argument \"install\""), "{output:?}");
    let to = plugins.path().to_str().expect("a path that is text");
    let mut call = Command::new(built());
    let output = call.args(["install", "--to", to]).env("CNI_COMMAND", "VERSION").output().expect("start the program");
    assert!(done(&output).contains("supportedVersions"));
    plugins.assert_of_a_distribution();
}

#[test]
fn install_and_uninstall_print_a_line_for_each_name() {
    let plugins = Plugins::of_a_distribution();
    plugins.write("underlay", "a foreign program");
    let said = plugins.install();
    let lines: Vec<String> = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(lines[0].starts_with(&format!("{}: underlay ", plugins.path().display())), "{said}");
    for line in [
        "host-local new; the earlier file is kept as .underlay-previous/host-local",
        "ipvlan new",
        "macvlan new; the earlier file is kept as .underlay-previous/macvlan",
    ] {
        assert!(lines.iter().any(|its| its == line), "{line} is not in\n{said}");
    }
    assert_eq!(lines.len(), 1 + installed_names().len(), "{said}");
    let said = plugins.uninstall();
    assert!(said.lines().any(|line| line.trim_start() == "macvlan     the earlier file is back"), "{said}");
}

#[test]
fn other_plugins_and_files_of_the_directory_stay_as_they_are() {
    let plugins = Plugins::none();
    let others = [("bridge", 0o755), ("portmap", 0o700), (".hidden", 0o600), ("macvlan.conf", 0o644)];
    let stat = |name: &str| {
        let metadata = fs::metadata(plugins.at(name)).expect("look at a file");
        (metadata.ino(), metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec())
    };
    for (name, mode) in others {
        plugins.write(name, &distributed(name));
        fs::set_permissions(plugins.at(name), fs::Permissions::from_mode(mode)).expect("set a mode");
    }
    let before = others.map(|(name, _)| stat(name));
    plugins.install();
    plugins.uninstall();
    assert_eq!(others.map(|(name, _)| stat(name)), before);
    for (name, _) in others {
        assert_eq!(String::from_utf8_lossy(&plugins.read(name)), distributed(name));
    }
}

/// One of the old plugins runs during the installation.
#[test]
fn older_plugins_are_replaced_and_open_files_of_them_stay_complete() {
    let plugins = Plugins::none();
    // A program that runs until its input ends.
    let whole = fs::read("/bin/cat").expect("read a program");
    let names = ["macvlan", "host-local"];
    let held = names.map(|name| {
        let copied = Command::new("cp").arg("/bin/cat").arg(plugins.at(name)).status().expect("start cp");
        assert!(copied.success());
        (File::open(plugins.at(name)).expect("open an old plugin"), inode(&plugins.at(name)))
    });
    let mut running = Command::new(plugins.at("macvlan"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("start an old plugin");
    plugins.install();
    for (name, (mut file, before)) in names.into_iter().zip(held) {
        assert_ne!(inode(&plugins.at(name)), before, "{name} was written into");
        assert_eq!(inode(&plugins.at(PREVIOUS).join(name)), before, "{name} was copied");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("read an old plugin");
        assert!(bytes == whole, "the old {name} has changed");
    }
    // It ends with its input.
    drop(running.stdin.take());
    assert!(running.wait().expect("wait for an old plugin").success());
    let mut names = installed_names();
    names.insert(0, PREVIOUS.to_owned());
    assert_eq!(list(plugins.path()), names);
}

/// A DaemonSet installs each time its pod starts.
#[test]
fn a_second_installation_changes_nothing() {
    let plugins = Plugins::of_a_distribution();
    plugins.install();
    let stat = |name: &String| {
        let metadata = fs::metadata(plugins.at(name)).expect("look at a plugin");
        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    };
    let names = installed_names();
    let before: Vec<_> = names.iter().map(stat).collect();
    assert!(plugins.install().ends_with(" is already installed\n"));
    assert_eq!(names.iter().map(stat).collect::<Vec<_>>(), before);
    // If one name has another mode, the installation is repeated.
    fs::set_permissions(plugins.at("ipvlan"), fs::Permissions::from_mode(0o700)).expect("set a mode");
    assert!(!plugins.install().contains("already"));
    assert_ne!(names.iter().map(stat).collect::<Vec<_>>(), before);
}

#[test]
fn during_twenty_installations_every_name_is_always_a_complete_program() {
    let plugins = Plugins::none();
    plugins.install();
    let names = installed_names();
    let (_other, other) = other_release();
    let releases = [built(), other];
    let size = |path: &Path| fs::metadata(path).expect("look at a program").len();
    let sizes = releases.each_ref().map(|program| size(program));
    let companions = releases.each_ref().map(|program| size(&companion_of(program)));
    let over = AtomicBool::new(false);
    let (looks, inodes) = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut looks, mut inodes) = (0_u32, std::collections::HashSet::new());
            while !over.load(Ordering::Relaxed) {
                for name in &names {
                    match fs::symlink_metadata(plugins.at(name)) {
                        Ok(metadata) => {
                            let whole = if name == COMPANION { &companions } else { &sizes };
                            assert!(whole.contains(&metadata.len()), "{name} is half a program");
                            assert_eq!(metadata.permissions().mode() & 0o7777, 0o755, "{name}");
                            inodes.insert(metadata.ino());
                        }
                        Err(e) if e.kind() == ErrorKind::NotFound => panic!("{name} was not there"),
                        Err(e) => panic!("{name}: {e}"),
                    }
                    looks += 1;
                }
            }
            (looks, inodes)
        });
        let installed: Vec<Output> = (0..20).map(|i| plugins.install_of(&releases[(i + 1) % 2])).collect();
        over.store(true, Ordering::Relaxed);
        for output in installed {
            done(&output);
        }
        watch.join().expect("every name is complete")
    });
    // The thread has looked while programs were replaced.
    assert!(looks > 1000, "{looks} looks");
    assert!(inodes.len() > 1, "no program was replaced");
    assert_eq!(list(plugins.path()), names);
}

#[test]
fn a_directory_that_cannot_be_created_is_an_error() {
    let plugins = Plugins::none();
    plugins.write("file", "");
    let output = make_install(&plugins.at("file/bin"));
    assert!(!output.status.success(), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let expected = format!("underlay install: create {}/file/bin: Not a directory", plugins.path().display());
    assert!(stderr.contains(&expected), "{stderr}");
    assert_eq!(list(plugins.path()), ["file"]);
}

#[test]
fn if_a_plugins_name_is_a_directory_nothing_is_changed() {
    let plugins = Plugins::of_a_distribution();
    fs::create_dir(plugins.at("ipvlan")).expect("make a directory");
    let said = failed(&plugins.install_of(&built()), 1);
    let expected = format!("underlay install: {}: it is a directory", plugins.at("ipvlan").display());
    assert!(said.starts_with(&expected), "{said}");
    fs::remove_dir(plugins.at("ipvlan")).expect("remove a directory");
    plugins.assert_of_a_distribution();
}

#[test]
fn on_a_full_disk_nothing_is_replaced() {
    let plugins = Plugins::none();
    let script = "mount -t tmpfs -o size=1m none \"$1\" && echo theirs > \"$1/macvlan\" && \
                  ! \"$0\" install --to \"$1\" && ls -A \"$1\" && cat \"$1/macvlan\"";
    let output = run(Command::new("unshare").args(["--mount", "sh", "-c", script]).arg(built()).arg(plugins.path()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let expected = format!(
        "underlay install: write {}: No space left on device (os error 28)\n",
        plugins.at(".underlay.new").display()
    );
    assert_eq!(stderr, expected);
    // The incomplete file stays until the next run.
    assert_eq!(String::from_utf8_lossy(&output.stdout), ".underlay.new\nmacvlan\ntheirs\n");
}

#[test]
fn unknown_words_are_an_error_and_change_nothing() {
    let plugins = Plugins::of_a_distribution();
    let output = run(Command::new(built()).args(["install", "--into"]).arg(plugins.path()));
    let said = failed(&output, 2);
    assert!(said.starts_with("underlay install: unexpected argument \"--into\"\nusage: underlay install"), "{said}");
    plugins.assert_of_a_distribution();
}
