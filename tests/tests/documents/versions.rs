//! The documents name the versions of other programs that the tests run.

use std::fs;
use std::path::Path;

/// The version of a module that tests/peers pins, without the `v`.
fn pinned(peers: &str, module: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(peers).join("go.mod");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let words = text.lines().map(|line| line.trim_start().trim_start_matches("require "));
    let mut versions = words.filter_map(|line| line.strip_prefix(module)?.strip_prefix(" v"));
    let version = versions.next().unwrap_or_else(|| panic!("{} does not require {module}", path.display()));
    version.split(' ').next().expect("a word").to_owned()
}

#[test]
fn the_documents_name_the_versions_that_the_tests_run() {
    let containerd = format!("containerd {}", pinned("containerd", "github.com/containerd/containerd/v2"));
    let runc = format!("runc {}", pinned("containerd", "github.com/opencontainers/runc"));
    let kubernetes = format!("Kubernetes {}", pinned("kubernetes", "k8s.io/kubernetes"));
    let reference = format!("plugins {}", pinned("reference", "github.com/containernetworking/plugins"));
    for (document, names) in [
        ("README.md", &[&containerd, &runc, &kubernetes, &reference][..]),
        ("conf-examples/containerd.toml", &[&containerd]),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        // A line may end between the words of a name.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for name in names {
            assert!(text.contains(name.as_str()), "{document} does not name {name}");
        }
    }
}
