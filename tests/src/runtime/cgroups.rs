//! The control groups of the containers of one Lab. A runtime in a jail creates them in the tree of the machine.

use std::fs;
use std::path::{Path, PathBuf};

const TREE: &str = "/sys/fs/cgroup";

/// The parent group of all containers of one runtime. It has the name of the Lab, which is unique.
#[derive(Debug)]
pub(crate) struct Cgroups {
    name: String,
}

impl Cgroups {
    pub(crate) fn new(name: String) -> Self {
        assert!(!name.is_empty() && !name.contains('/'), "not a name of a group: {name:?}");
        Self { name }
    }

    /// The group, in the notation of a runtime.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    pub(crate) fn of(&self, container: &str) -> String {
        format!("{}/{container}", self.path())
    }

    /// The directories of the group: one in version 2 of the tree, one for each controller in version 1.
    fn directories(&self) -> Vec<PathBuf> {
        let controllers = fs::read_dir(TREE).into_iter().flatten().flatten().map(|entry| entry.path());
        let trees = controllers.chain([PathBuf::from(TREE)]);
        trees.map(|tree| tree.join(&self.name)).filter(|group| group.is_dir()).collect()
    }

    /// Removes the group, and groups of containers that a killed runtime has left. All processes must have ended.
    /// Returns the groups that could not be removed.
    fn remove(&self) -> Vec<String> {
        let mut left = Vec::new();
        for group in self.directories() {
            remove_below(&group, &mut left);
        }
        left
    }
}

/// rmdir fails for a group that is in use.
fn remove_below(group: &Path, left: &mut Vec<String>) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path(), left);
        }
    }
    if let Err(e) = fs::remove_dir(group) {
        left.push(format!("{}: {e}", group.display()));
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let left = self.remove();
        assert!(left.is_empty() || std::thread::panicking(), "control groups are left: {left:?}");
    }
}
