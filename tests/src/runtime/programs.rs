//! The programs that runtimes need: from tests/peers, or from Debian with the name of the package.

use std::env;
use std::path::PathBuf;

use crate::binaries;

/// Debian's PATH of root.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The programs of the module `containerd` of tests/peers come first in this search path. Debian's containerd and runc,
/// if they are installed, come after them.
pub(crate) fn path_with_containerd() -> String {
    let peers = binaries::peers("containerd");
    let peers = peers.to_str().expect("a path that is text");
    assert!(!peers.contains(':'), "{peers} has a colon and cannot be in PATH: set {} ", binaries::PEERS_VARIABLE);
    format!("{peers}:{PATH}")
}

/// The path of a program. Panics with the name of the package if it is not installed.
pub(crate) fn find(name: &str, package: &str) -> PathBuf {
    let programs = env::split_paths(PATH).map(|directory| directory.join(name));
    let program = programs.into_iter().find(|program| program.is_file());
    program.unwrap_or_else(|| panic!("there is no {name} in {PATH}: install Debian's package {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "/sbin:/bin: install Debian's package no-such-package")]
    fn a_missing_program_is_named_with_its_package() {
        find("no-such-runtime", "no-such-package");
    }
}
