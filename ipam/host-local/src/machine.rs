//! The boot ID of this machine, and its network namespaces: evidence that a container still exists.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use linux::{Holder, Netns, NetnsSearch, Rtnl};

/// The index has room for so many characters. A boot ID has 36.
const MAX_BOOT: usize = 40;

/// The file in which this machine notes its boots, on a local disk.
const BOOTS: &str = "/var/lib/underlay/boots";

/// A machine, known by its /proc.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) proc: PathBuf,
    /// The file in which it notes its boots.
    pub(crate) boots: PathBuf,
}

impl Machine {
    /// The machine that we run on.
    pub(crate) fn this() -> Self {
        Self { proc: "/proc".into(), boots: BOOTS.into() }
    }

    /// The boot ID: another one after each reboot.
    pub(crate) fn boot(&self) -> Option<String> {
        let mut text = [0; 64];
        let length = File::open(self.proc.join("sys/kernel/random/boot_id")).ok()?.read(&mut text).ok()?;
        let boot = std::str::from_utf8(&text[..length]).ok()?.trim();
        let plain = !boot.is_empty() && boot.len() <= MAX_BOOT && boot.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| boot.to_owned())
    }

    /// Seconds since the boot, with the time in suspend. Changes of the clock do not matter.
    pub(crate) fn uptime(&self) -> Option<u64> {
        let text = fs::read_to_string(self.proc.join("uptime")).ok()?;
        text.split(['.', ' ']).next()?.parse().ok()
    }
}

/// The addresses in the network namespace with this inode. `None` if it is not found or cannot be asked.
pub(crate) fn addresses_in(inode: u64) -> Option<Vec<IpAddr>> {
    let mut search = NetnsSearch::default();
    let mut ask = |netns: &Netns| {
        let is_it = netns.id().inode() == inode;
        let list = || Rtnl::open_in(netns)?.all_addresses();
        is_it.then(|| Some(list().ok()?.iter().map(|its| its.address.addr()).collect()))
    };
    Holder::EVERY.iter().find_map(|place| search.find(*place, &mut ask)).flatten()
}
