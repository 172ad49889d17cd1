//! The processes of this machine, and the network namespaces that they use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Namespace;

/// The processes that are in one of these namespaces, or that keep one open. The calling process is left out, and also
/// its copies: between fork and exec, the child of another test has all descriptors of the tests.
pub fn using(namespaces: &[&Namespace]) -> Vec<u32> {
    let wanted: Vec<String> = namespaces.iter().map(|netns| format!("net:[{}]", inode(netns))).collect();
    let names = |link: &Path| {
        let target = fs::read_link(link).unwrap_or_default();
        wanted.iter().any(|wanted| target.as_os_str() == wanted.as_str())
    };
    let uses = |pid: &u32| {
        let process = Path::new("/proc").join(pid.to_string());
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        names(&process.join("ns/net")) || open.into_iter().any(|entry| names(&entry.path()))
    };
    let executable = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("exe")).ok();
    let own = executable("self");
    let is_copy = |pid: &u32| own.is_some() && executable(&pid.to_string()) == own;
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| !is_copy(pid)).filter(uses).collect()
}

/// The targets of all open descriptors of a process.
pub fn descriptors(pid: u32) -> Vec<String> {
    let open = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string())).collect()
}

fn inode(netns: &Namespace) -> u64 {
    netns.file().metadata().expect("an open namespace").ino()
}
