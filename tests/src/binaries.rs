//! The directories of the programs that the tests run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Names the directory of the built program. Without it, that is `bin` in the repository.
pub const BIN_VARIABLE: &str = "UNDERLAY_BIN";

/// Names the directory of the reference plugins. Without it, they are those that `make peers` builds.
pub const REFERENCE_VARIABLE: &str = "UNDERLAY_REFERENCE_BIN";

/// Names the directory of other programs that the tests run, with one directory for each module of tests/peers. `make
/// peers` fills it. Without the variable, it is `peers` in cargo's target directory.
pub const PEERS_VARIABLE: &str = "UNDERLAY_PEERS";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binaries {
    /// All names are one file, as after `make build`. IPAM is then called in the same process.
    HardLinks,
    /// Each name is a separate file, as after an installer that copies. IPAM is then executed.
    PlainCopies,
    Reference,
}

/// The names that a directory of copies has.
const NAMES: [&str; 5] = ["macvlan", "host-local", "ipvlan", "loopback", "static"];

/// The program that is always a file of its own.
const COMPANION: &str = "lan-pool";

impl Binaries {
    /// The directory of these programs. Copies are made in `scratch`.
    pub fn directory(self, scratch: &Path) -> PathBuf {
        match self {
            Self::HardLinks => {
                let directory = built();
                let names = NAMES.join(" and ");
                assert!(one_file(&directory), "{names} are not one file in {}: run `make build`", directory.display());
                directory
            }
            Self::PlainCopies => {
                let (from, to) = (built(), scratch.join("bin"));
                fs::create_dir(&to).expect("make a directory for copies");
                for name in NAMES.into_iter().chain([COMPANION]) {
                    copy(&from.join(name), &to.join(name));
                }
                assert!(!one_file(&to), "the copies are one file");
                to
            }
            Self::Reference => {
                let Some(directory) = env::var_os(REFERENCE_VARIABLE).map(PathBuf::from) else {
                    return peers("reference");
                };
                let is_there = directory.join(NAMES[0]).is_file();
                assert!(is_there, "the reference is not in {}: change {REFERENCE_VARIABLE}", directory.display());
                fs::canonicalize(&directory).unwrap_or(directory)
            }
        }
    }
}

/// The directory of the programs that one module of tests/peers builds, such as `reference` or `containerd`.
pub fn peers(module: &str) -> PathBuf {
    find_peers(module).unwrap_or_else(|e| panic!("{e}"))
}

/// As [`peers`], with an error if the directory does not exist.
pub fn find_peers(module: &str) -> Result<PathBuf, String> {
    let directory = env::var_os(PEERS_VARIABLE).map_or_else(|| target().join("peers"), PathBuf::from).join(module);
    if directory.join(".version").is_file() {
        return Ok(fs::canonicalize(&directory).unwrap_or(directory));
    }
    Err(format!(
        "the programs of tests/peers/{module} are not in {}: run `make peers`, or set {PEERS_VARIABLE}",
        directory.display()
    ))
}

/// The static program `floor`, which makes only the kernel operations of a plugin. `make floor` builds it.
pub fn floor() -> PathBuf {
    let target = target();
    // Each target has a directory with its static programs. Those in debug/ and release/ are not static.
    let programs = fs::read_dir(&target).into_iter().flatten();
    let programs = programs.filter_map(|entry| Some(entry.ok()?.path().join("release/floor")));
    let newest = programs.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).max();
    newest.unwrap_or_else(|| panic!("there is no floor in {}: run `make floor`", target.display())).1
}

fn built() -> PathBuf {
    let directory = directory_from(BIN_VARIABLE, concat!(env!("CARGO_MANIFEST_DIR"), "/../bin"));
    let program = directory.join(NAMES[0]);
    for program in [program, directory.join(COMPANION)] {
        assert!(program.is_file(), "there is no {}: run `make build`, or set {BIN_VARIABLE}", program.display());
    }
    directory
}

fn target() -> PathBuf {
    directory_from("CARGO_TARGET_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/../target"))
}

fn directory_from(variable: &str, otherwise: &str) -> PathBuf {
    let directory = env::var_os(variable).map_or_else(|| PathBuf::from(otherwise), PathBuf::from);
    fs::canonicalize(&directory).unwrap_or(directory)
}

fn one_file(directory: &Path) -> bool {
    let identity = |name: &str| {
        fs::metadata(directory.join(name))
            .map(|metadata| (metadata.dev(), metadata.ino()))
            .unwrap_or_else(|e| panic!("{}: {e}", directory.join(name).display()))
    };
    identity(NAMES[0]) == identity(NAMES[1])
}

/// Copies in another process. If this process wrote the file while another thread forks, the child would hold it open,
/// and the kernel would not execute it (ETXTBSY).
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args([from, to]).status().expect("start cp");
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}
