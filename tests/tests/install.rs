//! `make install`: the names are there at every moment, each of them the old program or the new one, and nothing else
//! in the directory is touched.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The name of the whole, and those of plugins. The program may have more.
const SOME_NAMES: [&str; 3] = ["underlay", "macvlan", "host-local"];

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("underlay-install.").tempdir().expect("make a directory")
}

/// Installs what `make build` has left. The build itself is not run again.
fn make_install(bindir: &Path) -> Output {
    Command::new("make")
        .args(["--silent", "-C", REPOSITORY, "-o", "build", "install"])
        .arg(format!("BINDIR={}", bindir.display()))
        // Of a make that runs the tests.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()
        .expect("start make")
}

#[track_caller]
fn install(bindir: &Path) {
    let output = make_install(bindir);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "make install: {}\n{stdout}{stderr}", output.status);
}

/// What the program says that it is called: its own name, and those of its plugins.
fn expected_names() -> Vec<String> {
    let program = Path::new(REPOSITORY).join("bin/underlay");
    let output = Command::new(&program).arg("--plugins").output();
    let output = output.unwrap_or_else(|e| panic!("start {}: {e}; `make build` makes it", program.display()));
    let mut names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    names.push("underlay".to_owned());
    names.sort();
    assert!(SOME_NAMES.iter().all(|name| names.iter().any(|its| its == name)), "{names:?}");
    names
}

/// All of a directory, hidden files too, sorted.
fn list(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("read a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("read a directory").file_name();
    let mut names: Vec<String> = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).ino()
}

#[test]
fn every_name_is_a_hard_link_to_one_program_that_all_may_execute() {
    let directory = directory();
    // It need not be there before.
    let bindir = directory.path().join("cni/bin");
    install(&bindir);
    let names = expected_names();
    // And nothing besides: no temporary file is left.
    assert_eq!(list(&bindir), names);
    let built = fs::read(Path::new(REPOSITORY).join("bin/underlay")).expect("read the program");
    assert!(fs::read(bindir.join("macvlan")).expect("read a plugin") == built, "not what was built");
    for name in &names {
        let metadata = fs::symlink_metadata(bindir.join(name)).expect("look at a plugin");
        assert!(metadata.is_file(), "{name} is no plain file");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o755, "{name}");
        assert_eq!(metadata.ino(), inode(&bindir.join("underlay")), "{name} is another file");
        assert_eq!(metadata.nlink(), names.len() as u64, "{name}");
    }
}

#[test]
fn what_is_installed_knows_itself_by_the_name_it_is_called_by() {
    let directory = directory();
    install(directory.path());
    let output = Command::new(directory.path().join("macvlan"))
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .output()
        .expect("start an installed plugin");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("supportedVersions"), "{output:?}");
}

/// A container engine's own plugins live there too.
#[test]
fn other_plugins_and_files_of_the_directory_stay_as_they_are() {
    let directory = directory();
    let others = [("bridge", 0o755), ("portmap", 0o700), (".hidden", 0o600), ("macvlan.conf", 0o644)];
    let stat = |name: &str| {
        let metadata = fs::metadata(directory.path().join(name)).expect("look at a file");
        (metadata.ino(), metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec())
    };
    for (name, mode) in others {
        let path = directory.path().join(name);
        fs::write(&path, format!("this is {name}")).expect("write a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set a mode");
    }
    let before = others.map(|(name, _)| stat(name));
    install(directory.path());
    assert_eq!(others.map(|(name, _)| stat(name)), before);
    for (name, _) in others {
        let text = fs::read_to_string(directory.path().join(name)).expect("read a file");
        assert_eq!(text, format!("this is {name}"));
    }
}

/// The plugins that ours replace, as a distribution's package has left them: each a file of its own. One of them runs.
#[test]
fn older_plugins_are_replaced_and_who_holds_one_holds_it_whole() {
    let directory = directory();
    // A program that runs until its input ends.
    let whole = fs::read("/bin/cat").expect("read a program");
    let names = ["macvlan", "host-local"];
    let held = names.map(|name| {
        let path = directory.path().join(name);
        let copied = Command::new("cp").arg("/bin/cat").arg(&path).status().expect("start cp");
        assert!(copied.success());
        (File::open(&path).expect("open an old plugin"), inode(&path))
    });
    let mut running = Command::new(directory.path().join("macvlan"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("start an old plugin");
    install(directory.path());
    for (name, (mut file, before)) in names.into_iter().zip(held) {
        assert_ne!(inode(&directory.path().join(name)), before, "{name} was written into");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("read an old plugin");
        assert!(bytes == whole, "the old {name} is not what it was");
    }
    // Closes its input.
    drop(running.stdin.take());
    assert!(running.wait().expect("wait for an old plugin").success());
    assert_eq!(list(directory.path()), expected_names());
}

/// Who executes a plugin while it is being replaced gets one of the two.
#[test]
fn at_every_moment_of_twenty_installations_every_name_is_a_whole_program() {
    let directory = directory();
    install(directory.path());
    let names = expected_names();
    let size = fs::metadata(directory.path().join("underlay")).expect("look at the program").len();
    let over = AtomicBool::new(false);
    let (looks, inodes) = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut looks, mut inodes) = (0_u32, std::collections::HashSet::new());
            while !over.load(Ordering::Relaxed) {
                for name in &names {
                    match fs::symlink_metadata(directory.path().join(name)) {
                        Ok(metadata) => {
                            let mode = metadata.permissions().mode() & 0o7777;
                            assert_eq!((metadata.len(), mode), (size, 0o755), "{name} is half a program");
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
        let installed: Vec<Output> = (0..20).map(|_| make_install(directory.path())).collect();
        over.store(true, Ordering::Relaxed);
        for output in installed {
            assert!(output.status.success(), "{output:?}");
        }
        watch.join().expect("every name is there at every moment")
    });
    // It did look, and while programs were replaced.
    assert!(looks > 1000, "{looks} looks");
    assert!(inodes.len() > 1, "no program was replaced");
    assert_eq!(list(directory.path()), names);
}

#[test]
fn a_directory_that_cannot_be_is_an_error() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").expect("write a file");
    let output = make_install(&file.join("bin"));
    assert!(!output.status.success(), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("Not a directory"), "{stderr}");
    assert_eq!(list(directory.path()), ["file"]);
}
