//! Where the programs under test come from, and how their files lie on disk.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Names the directory of the built program; `bin` in the repository without it.
pub const BIN_VARIABLE: &str = "UNDERLAY_BIN";

/// Names the directory of the reference plugins. Without it, they are those that `make peers` builds.
pub const REFERENCE_VARIABLE: &str = "UNDERLAY_REFERENCE_BIN";

/// Names the directory of the programs of others that the tests run, as `make peers` leaves them: one directory for
/// each module of tests/peers. Without it, the directory is `peers` in cargo's target directory.
pub const PEERS_VARIABLE: &str = "UNDERLAY_PEERS";

/// Which programs a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binaries {
    /// All names are one file, as `make build` leaves them: IPAM is called in the process.
    HardLinks,
    /// Each name is a file of its own, as a copying installer leaves them: IPAM is executed.
    PlainCopies,
    Reference,
}

/// The names that `CNI_PATH` offers.
const NAMES: [&str; 4] = ["macvlan", "host-local", "ipvlan", "loopback"];

impl Binaries {
    /// A directory with these programs under their names; `scratch` is there for copies.
    pub fn directory(self, scratch: &Path) -> PathBuf {
        match self {
            Self::HardLinks => {
                let directory = built();
                assert!(
                    one_file(&directory),
                    "{} are not one file in {}: `make build` makes hard links",
                    NAMES.join(" and "),
                    directory.display()
                );
                directory
            }
            Self::PlainCopies => {
                let (from, to) = (built(), scratch.join("bin"));
                fs::create_dir(&to).expect("make a directory for copies");
                for name in NAMES {
                    copy(&from.join(name), &to.join(name));
                }
                assert!(!one_file(&to), "the copies are one file");
                to
            }
            Self::Reference => {
                let Some(directory) = env::var_os(REFERENCE_VARIABLE).map(PathBuf::from) else {
                    return peers("reference");
                };
                assert!(
                    directory.join(NAMES[0]).is_file(),
                    "the reference plugins are not in {}, which {REFERENCE_VARIABLE} names",
                    directory.display()
                );
                fs::canonicalize(&directory).unwrap_or(directory)
            }
        }
    }
}

/// The directory of the programs that one module of tests/peers builds, such as `reference` or `containerd`.
pub fn peers(module: &str) -> PathBuf {
    find_peers(module).unwrap_or_else(|e| panic!("{e}"))
}

/// As [`peers`], with an error if it is not there.
pub fn find_peers(module: &str) -> Result<PathBuf, String> {
    let directory = env::var_os(PEERS_VARIABLE).map_or_else(|| target().join("peers"), PathBuf::from).join(module);
    if directory.join(".version").is_file() {
        return Ok(fs::canonicalize(&directory).unwrap_or(directory));
    }
    Err(format!(
        "the programs of tests/peers/{module} are not in {}: run `make peers`, or say in {PEERS_VARIABLE} where they are",
        directory.display()
    ))
}

/// The program that does the bare kernel operations, static, as `make floor` leaves it.
pub fn floor() -> PathBuf {
    let target = target();
    // One folder for each target; debug/ and release/ beside them hold what is not static.
    let programs = fs::read_dir(&target).into_iter().flatten();
    let programs = programs.filter_map(|entry| Some(entry.ok()?.path().join("release/floor")));
    let newest = programs.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).max();
    newest.unwrap_or_else(|| panic!("there is no floor in {}: `make floor` builds it", target.display())).1
}

fn built() -> PathBuf {
    let directory = directory_from(BIN_VARIABLE, concat!(env!("CARGO_MANIFEST_DIR"), "/../bin"));
    let program = directory.join(NAMES[0]);
    assert!(
        program.is_file(),
        "there is no {}: run `make build`, or say in {BIN_VARIABLE} where the programs are",
        program.display()
    );
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

/// Copies in another process: a file that this process has open for writing while another
/// thread forks could not be executed until that child is gone (ETXTBSY).
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args([from, to]).status().expect("start cp");
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}
