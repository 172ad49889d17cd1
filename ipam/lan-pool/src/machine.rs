//! This node, in this boot.

use std::fs;

use crate::error::Error;
use crate::lease::Node;

/// The boot id. Another one after each reboot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The identity of the machine. The first one that can be read counts: a clone of a disk has the same machine-id, but not
/// the same product_uuid.
const IDENTITIES: [&str; 2] = ["/sys/class/dmi/id/product_uuid", "/etc/machine-id"];

/// The node with this name.
///
/// # Errors
///
/// The boot id cannot be read.
pub(crate) fn this(name: String) -> Result<Node, Error> {
    let boot = fs::read_to_string(BOOT).map_err(Error::io("read", BOOT.as_ref()))?.trim().to_owned();
    let machine = IDENTITIES.iter().find_map(|path| read(path)).unwrap_or_else(|| "unknown".into());
    Ok(Node { name, boot, machine })
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?.trim().to_ascii_lowercase();
    (!text.is_empty()).then_some(text)
}

/// The host name, as a kubelet makes the name of its node of it. (pkg/util/node, GetHostname)
pub(crate) fn host_name() -> Option<String> {
    read("/proc/sys/kernel/hostname")
}
