//! The control groups of the containers of one Lab. A runtime in a jail creates them outside, in the tree of the
//! machine.

use std::fs;
use std::path::{Path, PathBuf};

const TREE: &str = "/sys/fs/cgroup";

/// A group that all containers of one runtime are below. Its name is the Lab's, so that it is
/// nobody else's.
#[derive(Debug)]
pub(crate) struct Cgroups {
    name: String,
}

impl Cgroups {
    /// The group of that name, which nobody has made yet.
    pub(crate) fn new(name: String) -> Self {
        assert!(!name.is_empty() && !name.contains('/'), "not a name of a group: {name:?}");
        Self { name }
    }

    /// The group, as a runtime is told it.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// The group of one container, as a runtime is told it.
    pub(crate) fn of(&self, container: &str) -> String {
        format!("{}/{container}", self.path())
    }

    /// The directories of the group that there are: one in the second version of the tree, one
    /// per controller in the first.
    fn directories(&self) -> Vec<PathBuf> {
        let controllers = fs::read_dir(TREE).into_iter().flatten().flatten().map(|entry| entry.path());
        let trees = controllers.chain([PathBuf::from(TREE)]);
        trees.map(|tree| tree.join(&self.name)).filter(|group| group.is_dir()).collect()
    }

    /// Removes what the runtime has left: always the parent, and after a violent end the
    /// containers' own. All processes must be gone. Returns what would not go.
    fn remove(&self) -> Vec<String> {
        let mut left = Vec::new();
        for group in self.directories() {
            remove_below(&group, &mut left);
        }
        left
    }
}

/// Depth first, and only by rmdir: a group that is in use refuses it.
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
