//! Leases in the form of the reference's host-local.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::Result;
use crate::address::Address;

pub(crate) fn take(directory: &Path, owner: &str, addresses: &[Address]) -> Result<()> {
    let _lock = lock(directory)?;
    for (range, Address { ip, .. }) in addresses.iter().enumerate() {
        let mut file = OpenOptions::new().write(true).create_new(true).open(directory.join(ip.to_string()))?;
        file.write_all(owner.as_bytes())?;
        fs::write(directory.join(format!("last_reserved_ip.{range}")), ip.to_string())?;
    }
    Ok(())
}

pub(crate) fn release(directory: &Path, addresses: &[Address]) -> Result<()> {
    let _lock = lock(directory)?;
    addresses.iter().try_for_each(|address| Ok(fs::remove_file(directory.join(address.ip.to_string()))?))
}

fn lock(directory: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(directory.join("lock"))?;
    file.lock()?;
    Ok(file)
}
