//! The processes of this machine, and the network namespaces that they use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Namespace;

/// The processes that are in one of these namespaces, or that keep one open. The calling process and its children are left
/// out: a child of another test has all descriptors of the tests until its exec is done, also after it has its new program.
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
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    pids.filter(|pid| *pid != own && parent(*pid).is_some_and(|parent| parent != own)).filter(uses).collect()
}

/// The parent of a process. `None` if it has ended. (proc_pid_stat(5))
fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name of the program, in parentheses, can have any characters.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The targets of all open descriptors of a process.
pub fn descriptors(pid: u32) -> Vec<String> {
    let open = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string())).collect()
}

fn inode(netns: &Namespace) -> u64 {
    netns.file().metadata().expect("an open namespace").ino()
}
