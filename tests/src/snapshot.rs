//! The state that a call can change, as lines of text that can be compared.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{Container, Lab, Namespace};

/// The records of host access. A host without its own /run shares it with the machine, which has none.
const RECORDS: &str = "/run/underlay/attachments";

const SYSCTLS: [&str; 2] = ["net/ipv4/conf", "net/ipv6/conf"];

/// The state of the host, of some containers, and of the leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let gone = self.0.difference(&later.0).map(|line| format!("- {line}"));
        let new = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }
}

impl Lab {
    pub fn snapshot(&self, containers: &[&Container]) -> Snapshot {
        let mut lines = BTreeSet::new();
        describe("host", &self.host, &mut lines);
        for container in containers {
            describe(&container.id, container, &mut lines);
        }
        describe_files(&self.data_dir(), &mut lines);
        self.host.run(|| describe_files(Path::new(RECORDS), &mut lines));
        Snapshot(lines)
    }

    /// Asserts that `deed` changes nothing.
    #[track_caller]
    pub fn unchanged<T>(&self, containers: &[&Container], deed: impl FnOnce() -> T) -> T {
        let before = self.snapshot(containers);
        let value = deed();
        let difference = before.difference(&self.snapshot(containers));
        assert!(difference.is_empty(), "something was changed:\n{}", difference.join("\n"));
        value
    }
}

fn describe(whose: &str, netns: &Namespace, lines: &mut BTreeSet<String>) {
    lines.extend(netns.links().iter().map(|link| format!("{whose} {link:?}")));
    for address in netns.all_addresses() {
        // The kernel adds link-local addresses itself, at any time.
        if !address.link_local() {
            lines.insert(format!("{whose} {address:?}"));
        }
    }
    for route in netns.routes() {
        if !route.dst.to_string().starts_with("fe80:") {
            lines.insert(format!("{whose} {route:?}"));
        }
    }
    let sysctls = netns.run(|| {
        let mut sysctls = Vec::new();
        for directory in SYSCTLS {
            read_sysctls(&Path::new("/proc/sys").join(directory), &mut sysctls);
        }
        sysctls
    });
    lines.extend(sysctls.iter().map(|sysctl| format!("{whose} {sysctl}")));
}

fn read_sysctls(directory: &Path, sysctls: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("read a directory of /proc/sys") {
        let path = entry.expect("read a directory of /proc/sys").path();
        if path.is_dir() {
            read_sysctls(&path, sysctls);
        } else if let Ok(text) = fs::read_to_string(&path) {
            // Some sysctls cannot be read, and stable_secret cannot be read before it is set.
            sysctls.push(format!("{} = {}", path.display(), text.trim_end()));
        }
    }
}

/// Adds all files below a directory, which may not exist. The lock is left out, because an empty lock file means
/// nothing.
fn describe_files(directory: &Path, lines: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("read a directory").path();
        if path.is_dir() {
            describe_files(&path, lines);
        } else if path.file_name().is_some_and(|name| name != "lock") {
            let content = match fs::read_link(&path) {
                // Such as an owner's record, which leads nowhere.
                Ok(target) => target.into_os_string().into_encoded_bytes(),
                Err(_) => fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display())),
            };
            lines.insert(format!("file {} = {:?}", path.display(), String::from_utf8_lossy(&content)));
        }
    }
}
