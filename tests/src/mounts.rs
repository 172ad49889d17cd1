//! Mounts that only the calling thread, and the processes that it starts, can see.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Gives the calling thread its own mount namespace. Call it in a thread that ends soon, as in
/// [`crate::Namespace::run`].
pub fn own() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of our own");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make the mounts private");
}

/// Mounts a new file system of that kind.
#[track_caller]
pub fn file_system(kind: &str, at: &Path, options: &str) {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
        .unwrap_or_else(|e| panic!("mount {kind} on {}: {e}", at.display()));
}

/// Mounts a file or directory over another one.
#[track_caller]
pub fn bind(from: &Path, at: &Path) {
    mount(Some(from), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap_or_else(|e| panic!("mount {} on {}: {e}", from.display(), at.display()));
}
