//! The programs of a distribution that the runtime lane runs, and what to install for them.

use std::env;
use std::path::PathBuf;

/// Debian's own for root. The caller's may lack the directories for administration.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What `ctr run` needs, and the Debian package that each is in.
pub(crate) const CONTAINERD: [(&str, &str); 4] =
    [("containerd", "containerd"), ("ctr", "containerd"), ("containerd-shim-runc-v2", "containerd"), ("runc", "runc")];

/// The path of a program. Panics with the package's name when it is not installed: a test that
/// does not run is a failure.
pub(crate) fn find(name: &str, package: &str) -> PathBuf {
    search(PATH, name).unwrap_or_else(|| panic!("there is no {name} in {PATH}: install Debian's package {package}"))
}

fn search(path: &str, name: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|directory| directory.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "there is no no-such-runtime in /usr/local/sbin:")]
    fn a_missing_program_is_named() {
        find("no-such-runtime", "no-such-package");
    }

    #[test]
    #[should_panic(expected = "install Debian's package no-such-package")]
    fn a_missing_program_is_named_with_its_package() {
        find("no-such-runtime", "no-such-package");
    }
}
