//! The network namespaces that exist: the evidence that a container may still run.

use std::path::Path;

use crate::{Holder, NetnsId, NetnsSearch};

/// The inode of the network namespace at a path. `None` for our own namespace: it exists without any container.
pub fn of_container(path: &Path) -> Option<u64> {
    let own = NetnsId::current().ok()?;
    let id = NetnsId::at(path).ok()?;
    // All namespaces are on one device. A namespace of another type is never found as a network namespace.
    (id.dev() == own.dev() && id != own).then(|| id.inode())
}

/// The network namespaces that a mount, process, thread or descriptor keeps open. The cheapest place is searched
/// first, and the search ends as soon as possible.
#[derive(Debug, Default)]
pub struct Living {
    search: NetnsSearch,
    places: usize,
    found: Vec<u64>,
}

impl Living {
    /// Returns true if the namespace exists, or if this cannot be decided.
    pub fn has(&mut self, inode: u64) -> bool {
        while !self.found.contains(&inode) {
            let Some(place) = Holder::EVERY.get(self.places) else { return self.is_incomplete() };
            let found = self.search.find(*place, |netns| {
                self.found.push(netns.id().inode());
                (netns.id().inode() == inode).then_some(())
            });
            self.places += usize::from(found.is_none());
        }
        true
    }

    /// Returns true if a namespace that was not found may exist.
    pub fn is_incomplete(&self) -> bool {
        self.search.is_incomplete()
    }
}
