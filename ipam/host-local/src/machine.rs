//! What this machine says about itself and about its network namespaces: evidence on who may still be alive.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use linux::{NetnsSearch, Place};

use crate::record::Netns;

/// As much as the index has room for; a boot id has 36.
const MAX_BOOT: usize = 40;

/// A machine, known by its /proc.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) proc: PathBuf,
}

impl Machine {
    /// The one that we run on.
    pub(crate) fn this() -> Self {
        Self { proc: "/proc".into() }
    }

    /// What is different after a reboot.
    pub(crate) fn boot(&self) -> Option<String> {
        let text = fs::read_to_string(self.proc.join("sys/kernel/random/boot_id")).ok()?;
        let boot = text.trim();
        let plain = !boot.is_empty() && boot.len() <= MAX_BOOT && boot.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| boot.to_owned())
    }

    /// Seconds since the boot, time in suspend included. No clock that anybody sets.
    pub(crate) fn uptime(&self) -> Option<u64> {
        let text = fs::read_to_string(self.proc.join("uptime")).ok()?;
        text.split(['.', ' ']).next()?.parse().ok()
    }
}

/// The namespace at a path, as evidence about what lives in it. None for our own: it is there whatever becomes of a
/// container.
pub(crate) fn netns(path: &Path) -> Option<Netns> {
    let id = linux::Netns::open(path).ok()?.id();
    let own = linux::Netns::current().ok()?.id();
    (id != own).then(|| Netns { dev: id.dev(), inode: id.inode(), path: path.to_owned() })
}

/// The network namespaces that something holds.
#[derive(Debug, Default)]
pub(crate) struct Living {
    found: Option<Vec<(u64, u64)>>,
}

impl Living {
    pub(crate) fn has(&mut self, netns: &Netns) -> bool {
        let its = (netns.dev, netns.inode);
        let at_path = linux::Netns::open(&netns.path).map(|there| (there.id().dev(), there.id().inode()));
        // The search costs a look at every process: only where the path tells nothing.
        at_path.is_ok_and(|there| there == its) || self.found.get_or_insert_with(search).contains(&its)
    }
}

fn search() -> Vec<(u64, u64)> {
    let mut search = NetnsSearch::default();
    let paths = Place::ALL.into_iter().flat_map(|place| search.paths(place));
    paths.filter_map(|path| fs::metadata(path).ok()).map(|file| (file.dev(), file.ino())).collect()
}
