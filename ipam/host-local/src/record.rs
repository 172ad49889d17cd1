//! Owner records: what was known when an owner got its leases. The target text of a dangling symlink that is named
//! after the owner, since the reference reads every file of the directory and passes over what it cannot read. A record
//! is a note beside the leases: it is believed only as far as the lease files bear it out.

use std::fmt::{self, Write};
use std::fs::Metadata;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::lease::{self, Owner};

const VERSION: &str = "underlay:1";
/// What the records of all releases begin with.
const OURS: &str = "underlay:";
/// The shortest limit of a file system in use, that of XFS.
const MAX_TEXT: usize = 1023;
const MAX_NAME: usize = 255;

/// What makes a lease file itself, and not another one of the same name: a later one may have smaller numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) struct Identity {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Identity {
    pub(crate) fn of(file: &Metadata) -> Self {
        Self { inode: file.ino(), seconds: file.mtime(), nanoseconds: file.mtime_nsec() }
    }
}

/// A network namespace, by its place on nsfs and a path that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Netns {
    pub(crate) dev: u64,
    pub(crate) inode: u64,
    pub(crate) path: PathBuf,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The boot in which the leases were made or first seen.
    pub(crate) boot: Option<String>,
    pub(crate) netns: Option<Netns>,
    pub(crate) leases: Vec<(IpAddr, Identity)>,
}

/// The name of an owner's record. An address it cannot be: those have no colon, or at least two. `None` where no file
/// can have that name.
pub(crate) fn name(owner: &Owner<'_>) -> Option<String> {
    let name = format!("{}:{}", owner.container_id, owner.ifname);
    (name.len() <= MAX_NAME).then_some(name)
}

/// The owner whose record has this name.
pub(crate) fn owner(name: &str) -> Option<Owner<'_>> {
    let (container_id, ifname) = name.split_once(':')?;
    (!ifname.contains(':')).then_some(Owner { container_id, ifname })
}

/// Whether this is a record, readable or not.
pub(crate) fn is_ours(text: &str) -> bool {
    text.starts_with(OURS)
}

impl Record {
    pub(crate) fn holds(&self, ip: IpAddr, identity: Identity) -> bool {
        self.leases.contains(&(ip, identity))
    }

    /// Whether the leases are from before the boot `now`.
    pub(crate) fn is_past(&self, now: Option<&str>) -> bool {
        matches!((&self.boot, now), (Some(then), Some(now)) if then != now)
    }

    /// `None` where it is longer than a link can be.
    pub(crate) fn text(&self) -> Option<String> {
        let mut text = format!("{VERSION} {} ", self.boot.as_deref().unwrap_or("-"));
        let path = self.netns.as_ref().and_then(|netns| netns.path.to_str());
        let _ = match (&self.netns, path) {
            (Some(netns), Some(_)) => write!(text, "{}:{}", netns.dev, netns.inode),
            _ => write!(text, "-"),
        };
        for (at, (ip, Identity { inode, seconds, nanoseconds })) in self.leases.iter().enumerate() {
            let separator = if at == 0 { ' ' } else { ',' };
            let _ = write!(text, "{separator}{}={inode}.{seconds}.{nanoseconds}", lease::file_name(*ip));
        }
        if let Some(path) = path {
            let _ = write!(text, " {path}");
        }
        (text.len() <= MAX_TEXT).then_some(text)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(5, ' ');
        if fields.next()? != VERSION {
            return None;
        }
        let boot = Some(fields.next()?).filter(|boot| *boot != "-").map(str::to_owned);
        let netns = fields.next()?;
        let leases = fields.next()?.split(',').map(|entry| {
            let (ip, identity) = entry.split_once('=')?;
            let mut numbers = identity.splitn(3, '.');
            let inode = numbers.next()?.parse().ok()?;
            let seconds = numbers.next()?.parse().ok()?;
            let nanoseconds = numbers.next()?.parse().ok()?;
            Some((lease::address(ip)?, Identity { inode, seconds, nanoseconds }))
        });
        let leases = leases.collect::<Option<_>>()?;
        let netns = match netns.split_once(':') {
            None => None,
            Some((dev, inode)) => {
                let path = Path::new(fields.next()?).to_owned();
                Some(Netns { dev: dev.parse().ok()?, inode: inode.parse().ok()?, path })
            }
        };
        Some(Self { boot, netns, leases })
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.path.display(), self.dev, self.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let identity = |inode| Identity { inode, seconds: -1, nanoseconds: 5 };
        Record {
            boot: Some("b".into()),
            netns: Some(Netns { dev: 4, inode: 9, path: "/run/netns/with a space".into() }),
            leases: vec![("10.0.0.2".parse().unwrap(), identity(7)), ("fd00::2".parse().unwrap(), identity(8))],
        }
    }

    #[test]
    fn text_reads_back() {
        for record in [record(), Record { netns: None, ..record() }, Record { boot: None, ..record() }] {
            assert_eq!(Record::parse(&record.text().unwrap()), Some(record));
        }
        let text = "underlay:1 b 4:9 10.0.0.2=7.-1.5,fd00::2=8.-1.5 /run/netns/with a space";
        assert_eq!(record().text().as_deref(), Some(text));
    }

    #[test]
    fn what_is_not_whole_is_no_record() {
        let text = "underlay:1 b 4:9 10.0.0.2=7.1.5 /n";
        assert!(Record::parse(text).is_some());
        for cut in
            ["underlay:1 b 4:9 10.0.0.2=7.1.5", "underlay:1 b 4:9 10.0.0.2=7.1", "underlay:1 b 4:9", "underlay:1", ""]
        {
            assert_eq!(Record::parse(cut), None, "{cut}");
        }
        assert_eq!(Record::parse(&text.replace("underlay:1", "underlay:2")), None);
        assert_eq!(Record::parse(&text.replace("10.0.0.2", "10.0.0.02")), None);
        let mut long = record();
        long.leases = long.leases.repeat(50);
        assert_eq!(long.text(), None);
    }

    #[test]
    fn names_are_owners_and_never_addresses() {
        let owner_ = Owner { container_id: "c1", ifname: "eth0" };
        assert_eq!(name(&owner_).as_deref(), Some("c1:eth0"));
        assert_eq!(owner("c1:eth0"), Some(owner_));
        for other in ["lock", "10.0.0.2", "fd00::2", "1:2:3:4:5:6:7:8"] {
            assert_eq!(owner(other), None, "{other}");
        }
        let id = "c".repeat(MAX_NAME);
        assert_eq!(name(&Owner { container_id: &id, ifname: "eth0" }), None);
    }

    #[test]
    fn only_two_boots_that_are_known_and_differ_make_a_past() {
        assert!(record().is_past(Some("c")));
        assert!(!record().is_past(Some("b")) && !record().is_past(None));
        assert!(!Record { boot: None, ..record() }.is_past(Some("c")));
    }
}
