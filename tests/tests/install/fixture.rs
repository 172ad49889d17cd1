//! A directory with the plugins of a distribution, and runs of the program on it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub(crate) const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The directory for the earlier files.
pub(crate) const PREVIOUS: &str = ".underlay-previous";
/// Some of the names of the program.
const SOME_NAMES: [&str; 3] = ["underlay", "macvlan", "host-local"];

/// The program that `make build` has built.
pub(crate) fn built() -> PathBuf {
    let program = Path::new(REPOSITORY).join("bin/underlay");
    assert!(program.is_file(), "there is no {}: `make build` makes it", program.display());
    program
}

/// The program that is a file of its own, and is installed together with the plugins.
pub(crate) const COMPANION: &str = "lan-pool";

/// The companion next to a program.
pub(crate) fn companion_of(program: &Path) -> PathBuf {
    program.with_file_name(COMPANION)
}

/// The names after an installation: those of the program and of its plugins, and the companion.
pub(crate) fn installed_names() -> Vec<String> {
    assert!(companion_of(&built()).is_file(), "there is no {COMPANION}: `make build` makes it");
    let mut names = expected_names();
    names.push(COMPANION.to_owned());
    names.sort();
    names
}

/// The names of the program and of its plugins, as the program prints them.
pub(crate) fn expected_names() -> Vec<String> {
    let output = Command::new(built()).arg("--plugins").output().expect("start the program");
    let mut names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    names.push("underlay".to_owned());
    names.sort();
    assert!(SOME_NAMES.iter().all(|name| names.iter().any(|its| its == name)), "{names:?}");
    names
}

/// All names in a directory, with hidden files, sorted.
pub(crate) fn list(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("read {}: {e}", directory.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("read a directory").file_name();
    let mut names: Vec<String> = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(crate) fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).ino()
}

/// A temporary directory of plugins.
pub(crate) struct Plugins {
    directory: TempDir,
}

impl Plugins {
    pub(crate) fn none() -> Self {
        let directory = tempfile::Builder::new().prefix("underlay-install.").tempdir().expect("make a directory");
        Self { directory }
    }

    /// With the plugins of a distribution. Two of the names are also ours.
    pub(crate) fn of_a_distribution() -> Self {
        let plugins = Self::none();
        for name in ["macvlan", "host-local", "bridge"] {
            plugins.write(name, &distributed(name));
        }
        plugins
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a foreign plugin as a package manager does: a new file that is renamed.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.at(&format!("{name}.dpkg-new"));
        fs::write(&new, text).expect("write a plugin");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("set a plugin's mode");
        fs::rename(new, self.at(name)).expect("rename a plugin");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap_or_else(|e| panic!("read {name}: {e}"))
    }

    /// Calls a program to install itself here.
    pub(crate) fn install_of(&self, program: &Path) -> Output {
        run(Command::new(program).args(["install", "--to"]).arg(self.path()))
    }

    #[track_caller]
    pub(crate) fn install(&self) -> String {
        done(&self.install_of(&built()))
    }

    #[track_caller]
    pub(crate) fn uninstall(&self) -> String {
        done(&run(Command::new(built()).args(["uninstall", "--from"]).arg(self.path())))
    }

    /// The directory has the plugins of the distribution and nothing else.
    #[track_caller]
    pub(crate) fn assert_of_a_distribution(&self) {
        assert_eq!(list(self.path()), ["bridge", "host-local", "macvlan"]);
        for name in ["macvlan", "host-local", "bridge"] {
            assert_eq!(String::from_utf8_lossy(&self.read(name)), distributed(name));
        }
    }

    /// Each name is one program, with these bytes. The companion is that next to the program.
    #[track_caller]
    pub(crate) fn assert_all_are(&self, program: &Path) {
        let bytes = fs::read(program).expect("read the program");
        assert!(self.read("underlay") == bytes, "underlay is not what was installed");
        for name in expected_names() {
            assert_eq!(inode(&self.at(&name)), inode(&self.at("underlay")), "{name} is another file");
        }
        self.assert_companion_is(program);
    }

    /// The companion is that next to the program.
    #[track_caller]
    pub(crate) fn assert_companion_is(&self, program: &Path) {
        let bytes = fs::read(companion_of(program)).expect("read the companion");
        assert!(self.read(COMPANION) == bytes, "{COMPANION} is not what was installed");
    }
}

/// The content of a distribution's plugin of that name.
pub(crate) fn distributed(name: &str) -> String {
    format!("the distribution's {name}")
}

/// Another release of the program and of its companion, in a new directory. Both have one more byte at their end.
pub(crate) fn other_release() -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("underlay-release.").tempdir().expect("make a directory");
    let program = directory.path().join("underlay");
    // Another process writes it: see `write_script`.
    let script = "cp \"$0\" \"$1\" && printf x >> \"$1\"";
    for (from, to) in [(built(), program.clone()), (companion_of(&built()), companion_of(&program))] {
        let status = Command::new("sh").args(["-c", script]).arg(from).arg(to).status().expect("start sh");
        assert!(status.success(), "make another release");
    }
    (directory, program)
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.env_remove("CNI_COMMAND").output().unwrap_or_else(|e| panic!("start {command:?}: {e}"))
}

/// Asserts success without messages, and returns the stdout.
#[track_caller]
pub(crate) fn done(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    assert!(stderr.is_empty(), "printed on stderr: {stderr}");
    stdout.into_owned()
}

/// Asserts failure with that exit code, and returns the stderr.
#[track_caller]
pub(crate) fn failed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
