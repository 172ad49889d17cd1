//! Kernel parameters under `/proc/sys`, in a given network namespace. A key is spelled
//! with slashes (`net/ipv4/conf/eth0.100/arp_notify`): interface names may hold dots.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use crate::{Error, Netns, Result};

/// Sets one parameter.
///
/// # Errors
///
/// `Error::Io` naming the file. `/proc/sys` is mounted read-only in some containers
/// (`EROFS`): whether that matters is for the caller to say.
pub fn write(netns: &Netns, key: &str, value: &str) -> Result<()> {
    netns.enter(|| set(key, value).map(drop))?
}

/// Sets several parameters in one visit to the namespace. Every one is tried: the
/// results stand in the order of the settings.
pub fn write_all(netns: &Netns, settings: &[(&str, &str)]) -> Vec<Result<()>> {
    let visit = netns.enter(|| settings.iter().map(|(key, value)| set(key, value).map(drop)).collect());
    match visit {
        Ok(results) => results,
        Err(error) => vec![Err(error)],
    }
}

/// Sets several parameters in one visit to the namespace, and tells what they were before. One that cannot be read or
/// written stays as it is, and is left out of the list.
pub fn replace_all(netns: &Netns, settings: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
    let replace = |(key, value): &(&str, &str)| Some(((*key).to_owned(), set(key, value).ok()?));
    netns.enter(|| settings.iter().filter_map(replace).collect())
}

/// The value of one parameter, without the newline at its end.
///
/// # Errors
///
/// `Error::Io` naming the file.
pub fn read(netns: &Netns, key: &str) -> Result<String> {
    netns.enter(|| get(key))?
}

// /proc/sys/net shows the namespace of the thread that opens a file in it: these two
// run inside Netns::enter.

/// Sets a parameter that has another value, and tells the value that it had. Looking first is cheaper than it seems:
/// a write of `disable_ipv6` spins for as long as anybody on the machine changes links (`restart_syscall` in
/// net/ipv6/addrconf.c), and what is right already needs no writable /proc/sys.
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
        let length = file.read_at(&mut buffer, 0)?;
        let before = String::from_utf8_lossy(&buffer[..length]).trim_end_matches('\n').to_owned();
        if before != value {
            // From the beginning again: a sysctl takes no write elsewhere. (kernel.sysctl_writes_strict)
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

/// A key must stay below `/proc/sys`, whatever interface name was built into it.
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
    fn a_key_cannot_leave_proc_sys() {
        for key in ["net/../../self/mem", "", "/net", "net//ipv4", "net/ipv4/."] {
            let error = path(key).unwrap_err();
            assert_eq!(error.to_string(), format!("open /proc/sys/{key}: not a sysctl key"));
        }
        assert_eq!(path("net/ipv4/conf/eth0.100/arp_notify").unwrap(), "/proc/sys/net/ipv4/conf/eth0.100/arp_notify");
    }
}
