//! Everything that a call may change, read before and after it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::kernel::{Link, Route};
use crate::{Container, Lab, Namespace};

/// The directories of the sysctls that plugins write.
const SYSCTLS: [&str; 2] = ["net/ipv4/conf", "net/ipv6/conf"];

/// The state of the host, of some containers, and of the leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    namespaces: Vec<NamespaceState>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NamespaceState {
    links: Vec<Link>,
    addresses: Vec<String>,
    routes: Vec<Route>,
    sysctls: BTreeMap<PathBuf, String>,
}

impl Lab {
    /// What there is now, on the host, in these containers, and on disk.
    pub fn snapshot(&self, containers: &[&Container]) -> Snapshot {
        let mut namespaces = vec![NamespaceState::of(&self.host)];
        namespaces.extend(containers.iter().map(|container| NamespaceState::of(container)));
        let mut files = BTreeMap::new();
        read_files(&self.data_dir(), &mut files);
        Snapshot { namespaces, files }
    }

    /// Does something that must not change anything, and asserts that it did not.
    pub fn unchanged<T>(&self, containers: &[&Container], deed: impl FnOnce() -> T) -> T {
        let before = self.snapshot(containers);
        let value = deed();
        assert_eq!(before, self.snapshot(containers), "something was changed");
        value
    }
}

impl NamespaceState {
    fn of(netns: &Namespace) -> Self {
        let links = netns.links();
        let mut addresses: Vec<String> = netns
            .all_addresses()
            .into_iter()
            // The kernel makes the link-local ones itself, in its own time.
            .filter(|address| !address.link_local())
            .map(|address| format!("{} on {} {:?}", address.net, address.ifindex, address.flags))
            .collect();
        addresses.sort();
        let mut routes = netns.routes();
        routes.retain(|route| !route.dst.to_string().starts_with("fe80:"));
        routes.sort_by_key(|route| format!("{route:?}"));
        let sysctls = netns.run(|| {
            let mut sysctls = BTreeMap::new();
            for directory in SYSCTLS {
                read_sysctls(&Path::new("/proc/sys").join(directory), &mut sysctls);
            }
            sysctls
        });
        Self { links, addresses, routes, sysctls }
    }
}

fn read_sysctls(directory: &Path, sysctls: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).expect("read a directory of /proc/sys") {
        let path = entry.expect("read a directory of /proc/sys").path();
        if path.is_dir() {
            read_sysctls(&path, sysctls);
        } else if let Ok(text) = fs::read_to_string(&path) {
            // Some keys can only be written, and stable_secret not be read until it is set.
            sysctls.insert(path, text);
        }
    }
}

/// All files below a directory that may not be there. The lock says nothing by its presence.
fn read_files(directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("read a directory").path();
        if path.is_dir() {
            read_files(&path, files);
        } else if path.file_name().is_some_and(|name| name != "lock") {
            let content = fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
            files.insert(path, content);
        }
    }
}
