//! The control groups of one node. In the node, they look like the whole tree of the machine.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::patience::{PATIENCE, await_within};
use nix::mount::{MsFlags, mount};

/// The mount point of all hierarchies.
const TREE: &str = "/sys/fs/cgroup";

#[derive(Debug)]
struct Hierarchy {
    mount_point: PathBuf,
    /// As /proc/self/cgroup names them. Empty for version 2.
    controllers: String,
}

/// Groups with the same name, one in each hierarchy of the machine.
#[derive(Debug)]
pub(crate) struct Group {
    name: String,
    hierarchies: Vec<Hierarchy>,
}

impl Group {
    /// Finds the hierarchies. [`Group::enter`] creates the groups.
    pub(crate) fn new(name: &str) -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("read {path}: {e}"));
        let (own, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
        let mut hierarchies = Vec::new();
        for line in own.lines() {
            let controllers = line.split(':').nth(1).unwrap_or_default().to_owned();
            if let Some(mount_point) = find(&mounts, &controllers) {
                hierarchies.push(Hierarchy { mount_point, controllers });
            }
        }
        if hierarchies.is_empty() {
            return Err(format!("no control groups are mounted below {TREE}"));
        }
        Ok(Self { name: name.to_owned(), hierarchies })
    }

    /// Creates the groups and moves this process into them.
    pub(crate) fn enter(&self) -> Result<(), String> {
        for hierarchy in &self.hierarchies {
            let group = hierarchy.mount_point.join(&self.name);
            make(&hierarchy.mount_point, &group)?;
            write(&group.join("cgroup.procs"), &std::process::id().to_string())?;
        }
        Ok(())
    }

    /// Mounts the groups over the tree of the machine. This process must have its own mount namespace and its own
    /// cgroup namespace, and it must have entered the groups before it created the cgroup namespace.
    pub(crate) fn mount(&self) -> Result<(), String> {
        let tree = Path::new(TREE);
        if self.hierarchies.iter().all(|hierarchy| hierarchy.mount_point != tree) {
            mount(Some("tmpfs"), tree, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
                .map_err(|e| format!("mount {TREE}: {e}"))?;
        }
        for Hierarchy { mount_point, controllers } in &self.hierarchies {
            fs::create_dir_all(mount_point).map_err(|e| format!("make {}: {e}", mount_point.display()))?;
            let is_version_2 = controllers.is_empty();
            let (kind, data) = if is_version_2 { ("cgroup2", None) } else { ("cgroup", Some(controllers.as_str())) };
            mount(Some("cgroup"), mount_point, Some(kind), MsFlags::empty(), data)
                .map_err(|e| format!("mount {}: {e}", mount_point.display()))?;
            if is_version_2 {
                // In version 2, a group with processes cannot enable controllers for its children.
                let leaf = mount_point.join("init");
                make(mount_point, &leaf)?;
                write(&leaf.join("cgroup.procs"), &std::process::id().to_string())?;
            }
        }
        Ok(())
    }

    /// Removes the groups with their children. Their processes must have ended, or must be about to end.
    pub(crate) fn remove(&self) {
        for hierarchy in &self.hierarchies {
            let group = hierarchy.mount_point.join(&self.name);
            await_within(PATIENCE, "the control groups are removed", || remove_below(&group));
        }
    }
}

/// The mount point of the hierarchy with these controllers. (proc_pid_mountinfo(5))
fn find(mounts: &str, controllers: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mount_point = left.split(' ').nth(4)?;
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let is_it = match kind {
            "cgroup2" => controllers.is_empty(),
            "cgroup" => {
                !controllers.is_empty()
                    && controllers.split(',').all(|word| options.split(',').any(|option| option == word))
            }
            _ => false,
        };
        (is_it && mount_point.starts_with(TREE)).then(|| PathBuf::from(mount_point))
    })
}

fn make(parent: &Path, group: &Path) -> Result<(), String> {
    if !group.is_dir() {
        fs::create_dir(group).map_err(|e| format!("make {}: {e}", group.display()))?;
    }
    // In version 1, a new group accepts no process until it has processors and memory.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = group.join(file);
        if let Ok(text) = fs::read_to_string(&own)
            && text.trim().is_empty()
            && let Ok(text) = fs::read_to_string(parent.join(file))
            && !text.trim().is_empty()
        {
            write(&own, text.trim())?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("write {text} to {}: {e}", path.display()))
}

/// Children first. The kernel does not remove a group that has a process.
fn remove_below(group: &Path) -> Result<(), String> {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("remove {}: {e}", group.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
42 31 0:38 / /mnt/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn the_mount_point_of_a_hierarchy_is_found_by_its_controllers() {
        assert_eq!(find(MOUNTS, "cpu"), Some("/sys/fs/cgroup/cpu".into()));
        assert_eq!(find(MOUNTS, "name=systemd"), Some("/sys/fs/cgroup/systemd".into()));
        assert_eq!(find(MOUNTS, ""), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find(MOUNTS, "memory"), None);
    }
}
