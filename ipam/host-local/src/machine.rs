//! What this machine says about itself and about its network namespaces: evidence on who may still be alive.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use linux::{Holder, Netns, NetnsId, NetnsSearch, Rtnl};

/// As much as the index has room for; a boot id has 36.
const MAX_BOOT: usize = 40;

/// In which file this machine notes its boots: on a disk of its own.
const BOOTS: &str = "/var/lib/underlay/boots";

/// A machine, known by its /proc.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) proc: PathBuf,
    /// The file in which it notes its boots.
    pub(crate) boots: PathBuf,
}

impl Machine {
    /// The one that we run on.
    pub(crate) fn this() -> Self {
        Self { proc: "/proc".into(), boots: BOOTS.into() }
    }

    /// What is different after a reboot.
    pub(crate) fn boot(&self) -> Option<String> {
        // One read sees all of it.
        let mut text = [0; 64];
        let length = File::open(self.proc.join("sys/kernel/random/boot_id")).ok()?.read(&mut text).ok()?;
        let boot = std::str::from_utf8(&text[..length]).ok()?.trim();
        let plain = !boot.is_empty() && boot.len() <= MAX_BOOT && boot.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| boot.to_owned())
    }

    /// Seconds since the boot, time in suspend included. No clock that anybody sets.
    pub(crate) fn uptime(&self) -> Option<u64> {
        let text = fs::read_to_string(self.proc.join("uptime")).ok()?;
        text.split(['.', ' ']).next()?.parse().ok()
    }
}

/// The inode of the namespace at a path, as evidence about what lives in it. None for our own: it is there whatever
/// becomes of a container.
pub(crate) fn netns(path: &Path) -> Option<u64> {
    let own = NetnsId::current().ok()?;
    let id = NetnsId::at(path).ok()?;
    // Namespaces of all kinds are on one device. That of another kind never lives as a network, which is as good as none.
    (id.dev() == own.dev() && id != own).then(|| id.inode())
}

/// The addresses in the network namespace with that inode, as far as it is found and can be asked.
pub(crate) fn addresses_in(inode: u64) -> Option<Vec<IpAddr>> {
    let mut search = NetnsSearch::default();
    let mut ask = |netns: &Netns| {
        let is_it = netns.id().inode() == inode;
        is_it.then(|| Rtnl::open_in(netns).and_then(|mut rtnl| rtnl.all_addresses()).ok())
    };
    Holder::EVERY.iter().find_map(|place| search.find(*place, &mut ask)).flatten()
}

/// The network namespaces that something holds: a mount, a process, a thread or a descriptor. Looked for in the
/// cheapest place first, and no farther than needed.
#[derive(Debug, Default)]
pub(crate) struct Living {
    search: NetnsSearch,
    places: usize,
    found: Vec<u64>,
}

impl Living {
    /// Also where it cannot be told, as nothing is freed on mere doubt.
    pub(crate) fn has(&mut self, inode: u64) -> bool {
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

    /// Whether one that was not found may exist.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.search.is_incomplete()
    }
}
