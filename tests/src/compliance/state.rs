//! The state after a call, as keys and values that can be compared: the kernel's state of the host and of the
//! containers, and the lease directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::kernel;
use crate::{Container, Lab, Namespace};

/// Things such as a link, a route or a file, each with its attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(pub(super) BTreeMap<String, BTreeMap<String, String>>);

impl Facts {
    pub(super) fn add(&mut self, thing: &str, key: &str, value: String) {
        self.0.entry(thing.to_owned()).or_default().insert(key.to_owned(), value);
    }

    /// Changes every text.
    pub(super) fn map(self, change: impl Fn(String) -> String) -> Self {
        let pair = |(key, value): (String, String)| (change(key), change(value));
        let thing = |(thing, facts): (String, BTreeMap<_, _>)| (change(thing), facts.into_iter().map(pair).collect());
        Self(self.0.into_iter().map(thing).collect())
    }
}

/// The sysctls of a container.
const ALL: &[&str] = &["net"];
/// The sysctls of the host. There are many, and a guest reads slowly, so only those of its interfaces.
const OF_LINKS: &[&str] = &["net/ipv4/conf", "net/ipv6/conf"];
/// Sysctls that change by themselves or belong to the whole machine.
const RESTLESS: [&str; 8] = [
    "net/netfilter/",
    "net/nf_conntrack",
    "net/core/",
    "net/unix/",
    "net/ipv4/tcp_fastopen_key",
    "net/ipv4/tcp_mem",
    "net/ipv4/udp_mem",
    "net/ipv4/tcp_available",
];

pub(super) fn describe<'a>(lab: &Lab, containers: impl Iterator<Item = &'a Container>, facts: &mut Facts) {
    let host = kernel::names(&lab.host);
    kernel::describe("host", &lab.host, &host, facts);
    describe_sysctls("host", &lab.host, OF_LINKS, facts);
    for container in containers {
        kernel::describe(&container.id, container, &host, facts);
        describe_sysctls(&container.id, container, ALL, facts);
    }
    describe_files(&lab.data_dir(), "leases", facts);
}

/// The sysctls of a link are attributes of the link.
fn describe_sysctls(whose: &str, netns: &Namespace, folders: &[&str], facts: &mut Facts) {
    let links = netns.link_names();
    let sysctls = netns.run(|| {
        let mut sysctls = Vec::new();
        folders.iter().for_each(|folder| read_sysctls(&Path::new("/proc/sys").join(folder), &mut sysctls));
        sysctls
    });
    for (key, value) in sysctls {
        let path: Vec<&str> = key.split('/').collect();
        let link = path.iter().position(|part| links.iter().any(|link| link == part));
        match link {
            Some(at) => {
                let rest: Vec<&str> = [&path[..at], &path[at + 1..]].concat();
                facts.add(&format!("{whose} link {}", path[at]), &rest.join("/"), value);
            }
            None => facts.add(&format!("{whose} sysctl"), &key, value),
        }
    }
}

fn read_sysctls(directory: &Path, sysctls: &mut Vec<(String, String)>) {
    // The directory of a link goes with the link.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let key = path.strip_prefix("/proc/sys").unwrap_or(&path).display().to_string();
        if RESTLESS.iter().any(|restless| key.starts_with(restless)) {
            continue;
        }
        if path.is_dir() {
            read_sysctls(&path, sysctls);
        } else if let Ok(text) = fs::read_to_string(&path) {
            // Some keys can only be written.
            sysctls.push((key, text.trim_end().to_owned()));
        }
    }
}

/// A directory, if it exists, and everything below it: kind, mode, owner, and content.
fn describe_files(path: &Path, name: &str, facts: &mut Facts) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let kind = metadata.file_type();
    let thing = format!("file {name}");
    facts.add(&thing, "owner", format!("{}:{}", metadata.uid(), metadata.gid()));
    if kind.is_symlink() {
        let target = fs::read_link(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        facts.add(&thing, "target", target.display().to_string());
        return;
    }
    facts.add(&thing, "mode", format!("{:o}", metadata.permissions().mode() & 0o7777));
    if kind.is_dir() {
        facts.add(&thing, "kind", "directory".to_owned());
        for entry in fs::read_dir(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display())) {
            let entry = entry.unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
            describe_files(&entry.path(), &format!("{name}/{}", entry.file_name().to_string_lossy()), facts);
        }
    } else if kind.is_file() {
        let content = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        facts.add(&thing, "content", format!("\"{}\"", content.escape_ascii()));
    } else {
        facts.add(&thing, "kind", "neither file nor directory".to_owned());
    }
}
