//! Sysctls of a network namespace. A key has slashes, because an interface name may have dots:
//! `net/ipv4/conf/eth0.100/arp_notify`.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

use crate::{Error, Netns, Result};

/// Sets one sysctl.
///
/// # Errors
///
/// `Error::Io` with the path. In some containers `/proc/sys` is read-only (`EROFS`): that is an error only if the value
/// must change.
pub fn write(netns: &Netns, key: &str, value: &str) -> Result<()> {
    netns.enter(|| set(key, value).map(drop))?
}

/// Tries to set all sysctls, and enters the namespace only once. The results have the order of the settings.
pub fn write_all(netns: &Netns, settings: &[(&str, &str)]) -> Vec<Result<()>> {
    let visit = netns.enter(|| settings.iter().map(|(key, value)| set(key, value).map(drop)).collect());
    match visit {
        Ok(results) => results,
        Err(error) => vec![Err(error)],
    }
}

/// Tries to set all sysctls, and enters the namespace only once. Returns the earlier values of those that were set.
pub fn replace_all(netns: &Netns, settings: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
    let replace = |(key, value): &(&str, &str)| Some(((*key).to_owned(), set(key, value).ok()?));
    netns.enter(|| settings.iter().filter_map(replace).collect())
}

/// Reads a sysctl, without the newline at its end.
///
/// # Errors
///
/// `Error::Io` with the path.
pub fn read(netns: &Netns, key: &str) -> Result<String> {
    netns.enter(|| get(key))?
}

/// Sets one sysctl of the namespace of the calling thread.
///
/// # Errors
///
/// As [`write()`].
pub fn write_here(key: &str, value: &str) -> Result<()> {
    set(key, value).map(drop)
}

/// Reads a sysctl of the namespace of the calling thread, without the newline at its end.
///
/// # Errors
///
/// `Error::Io` with the path.
pub fn read_here(key: &str) -> Result<String> {
    get(key)
}

// /proc/sys/net shows the namespace of the thread that opens a file there. So the next functions run inside
// Netns::enter.

/// Sets a sysctl if it has another value, and returns the earlier value. A write of `disable_ipv6` waits while any
/// process changes links (`restart_syscall` in net/ipv6/addrconf.c), so reading first saves time. It also allows a
/// read-only /proc/sys if the value is already right.
fn set(key: &str, value: &str) -> Result<String> {
    let path = path(key)?;
    let exchange = || {
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem) => {
                return unless_equal(error, key, value);
            }
            file => file?,
        };
        let mut buffer = [0; 64];
        let length = match file.read_at(&mut buffer, 0) {
            // `stable_secret` cannot be read before it is set. (net/ipv6/addrconf.c)
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => 0,
            length => length?,
        };
        let before = String::from_utf8_lossy(&buffer[..length]).trim_end_matches('\n').to_owned();
        if before != value {
            // A sysctl must be written at offset 0. (kernel.sysctl_writes_strict)
            file.write_all_at(value.as_bytes(), 0)?;
        }
        Ok(before)
    };
    exchange().map_err(|source| Error::Io { operation: format!("write {path}"), source })
}

fn unless_equal(refused: io::Error, key: &str, value: &str) -> io::Result<String> {
    match get(key) {
        Ok(before) if before == value => Ok(before),
        _ => Err(refused),
    }
}

fn get(key: &str) -> Result<String> {
    let path = path(key)?;
    let mut value =
        fs::read_to_string(&path).map_err(|source| Error::Io { operation: format!("read {path}"), source })?;
    value.truncate(value.trim_end_matches('\n').len());
    Ok(value)
}

/// Refuses a key that leads out of `/proc/sys` because of the interface name in it.
fn path(key: &str) -> Result<String> {
    let path = format!("/proc/sys/{key}");
    let strays = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if key.split('/').any(strays) {
        return Err(Error::Io {
            operation: format!("open {path}"),
            source: io::Error::new(io::ErrorKind::InvalidInput, "not a sysctl key"),
        });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_lead_out_of_proc_sys() {
        for key in ["net/../../self/mem", "", "/net", "net//ipv4", "net/ipv4/."] {
            let error = path(key).unwrap_err();
            assert_eq!(error.to_string(), format!("open /proc/sys/{key}: not a sysctl key"));
        }
        assert_eq!(path("net/ipv4/conf/eth0.100/arp_notify").unwrap(), "/proc/sys/net/ipv4/conf/eth0.100/arp_notify");
    }
}
