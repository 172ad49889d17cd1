//! Records of owners: boot ID, network namespace and leases. A record is the target text of a dangling symlink with
//! the name of the owner: the reference skips files that it cannot read. A record counts only as far as the lease
//! files agree.

use std::fmt::Write;
use std::fs::Metadata;
use std::hash::Hasher;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use fnv::FnvHasher;

use crate::lease::{self, Owner};

/// The text is short, because ext4 keeps up to 59 bytes in the inode. A record with one IPv4 address fits.
const VERSION: &str = "u:1";
/// As [`VERSION`], of a machine that sees the directory on a file system that machines can share.
const SHARED: &str = "u:2";
/// The beginning of the records of all releases.
const OURS: &str = "u:";
/// The number of characters of a boot ID that are stored.
const BOOT: usize = 12;
/// The limit of XFS, which is the smallest.
const MAX_TEXT: usize = 1023;
const MAX_NAME: usize = 255;

/// Identifies a lease file among others of the same name: a hash of inode and modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) struct Identity(u64);

impl Identity {
    pub(crate) fn of(file: &Metadata) -> Self {
        let numbers = [file.ino(), file.mtime().cast_unsigned(), file.mtime_nsec().cast_unsigned()];
        // A collision gives no advantage: a user who can create files here can create leases.
        let mut hasher = FnvHasher::default();
        numbers.iter().for_each(|number| hasher.write(&number.to_le_bytes()));
        Self(hasher.finish())
    }
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The first characters of the id of the boot in which the leases were made or first seen.
    pub(crate) boot: Option<String>,
    /// True if its writer saw the directory on a file system that other machines may share.
    pub(crate) is_shared: bool,
    /// The owner's network namespace, by its inode: within a boot all are on one device.
    pub(crate) netns: Option<u64>,
    pub(crate) leases: Vec<(IpAddr, Identity)>,
}

fn prefix(boot: &str) -> &str {
    boot.get(..BOOT).unwrap_or(boot)
}

/// Returns true if `written` is what a record of this boot holds.
pub(crate) fn is_prefix(written: &str, boot: &str) -> bool {
    written == prefix(boot)
}

/// The file name of an owner's record. It has exactly one colon, so it is never an address. `None` if it is too long.
pub(crate) fn name(owner: &Owner<'_>) -> Option<String> {
    let name = format!("{}:{}", owner.container_id, owner.ifname);
    (name.len() <= MAX_NAME).then_some(name)
}

/// The owner whose record has this name.
pub(crate) fn owner(name: &str) -> Option<Owner<'_>> {
    let (container_id, ifname) = name.split_once(':')?;
    (!ifname.contains(':')).then_some(Owner { container_id, ifname })
}

/// Returns true if this is a record, even one that cannot be read.
pub(crate) fn is_ours(text: &str) -> bool {
    text.starts_with(OURS)
}

impl Record {
    /// Returns true if the record contains this lease file.
    pub(crate) fn holds(&self, ip: IpAddr, identity: Identity) -> bool {
        self.leases.contains(&(ip, identity))
    }

    /// A record of leases of this boot.
    pub(crate) fn new(
        boot: Option<&str>,
        is_shared: bool,
        netns: Option<u64>,
        leases: Vec<(IpAddr, Identity)>,
    ) -> Self {
        Self { boot: boot.map(|boot| prefix(boot).to_owned()), is_shared, netns, leases }
    }

    /// The text. `None` if it is too long for a symbolic link.
    pub(crate) fn text(&self) -> Option<String> {
        let version = if self.is_shared { SHARED } else { VERSION };
        let mut text = format!("{version} {} ", self.boot.as_deref().unwrap_or("-"));
        let _ = match self.netns {
            Some(inode) => write!(text, "{inode:x}"),
            None => write!(text, "-"),
        };
        for (at, (ip, Identity(identity))) in self.leases.iter().enumerate() {
            let separator = if at == 0 { ' ' } else { ',' };
            let _ = write!(text, "{separator}{}={identity:x}", lease::file_name(*ip));
        }
        (text.len() <= MAX_TEXT).then_some(text)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let is_shared = match fields.next()? {
            VERSION => false,
            SHARED => true,
            _ => return None,
        };
        let boot = Some(fields.next()?).filter(|boot| *boot != "-").map(str::to_owned);
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
        let netns = match fields.next()? {
            "-" => None,
            inode => Some(hexadecimal(inode)?),
        };
        let leases = fields.next()?.split(',').map(|entry| {
            let (ip, identity) = entry.split_once('=')?;
            Some((lease::address(ip)?, Identity(hexadecimal(identity)?)))
        });
        Some(Self { boot, is_shared, netns, leases: leases.collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOOT_ID: &str = "0b3c1d2e-4f5a-6b7c-8d9e-0f1a2b3c4d5e";

    fn record() -> Record {
        let leases = vec![("10.0.0.2".parse().unwrap(), Identity(7)), ("fd00::2".parse().unwrap(), Identity(0xff))];
        Record::new(Some(BOOT_ID), false, Some(0xf000_0abc), leases)
    }

    #[test]
    fn text_reads_back() {
        for record in [
            record(),
            Record { netns: None, ..record() },
            Record { boot: None, ..record() },
            Record { is_shared: true, ..record() },
        ] {
            assert_eq!(Record::parse(&record.text().unwrap()), Some(record));
        }
        assert_eq!(record().text().as_deref(), Some("u:1 0b3c1d2e-4f5 f0000abc 10.0.0.2=7,fd00::2=ff"));
    }

    #[test]
    fn one_ipv4_address_fits_into_an_inode() {
        let leases = vec![("255.255.255.254".parse().unwrap(), Identity(u64::MAX))];
        let text = Record::new(Some(BOOT_ID), true, Some(u32::MAX.into()), leases).text().unwrap();
        assert!(text.len() <= 59, "{text}");
    }

    #[test]
    fn what_is_not_whole_is_no_record() {
        let text = "u:1 b f 10.0.0.2=7";
        assert!(Record::parse(text).is_some() && is_ours(text));
        for cut in ["u:1 b f 10.0.0.2=", "u:1 b f 10.0.0.2", "u:1 b f", "u:1 b x 10.0.0.2=7", "u:1", ""] {
            assert_eq!(Record::parse(cut), None, "{cut}");
        }
        assert_eq!(Record::parse(&text.replace("u:1", "u:3")), None);
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

    proptest! {
        /// Property: every record with leases reads back, with the first twelve characters of the boot ID.
        #[test]
        fn every_record_reads_back(
            boot in prop::option::of("[0-9a-f]{1,8}-[0-9a-f-]{1,28}"), is_shared: bool, netns in any::<Option<u64>>(),
            leases in prop::collection::vec((any::<IpAddr>(), any::<u64>()), 1..12),
        ) {
            let leases = leases.into_iter().map(|(ip, identity)| (ip.to_canonical(), Identity(identity))).collect();
            let record = Record::new(boot.as_deref(), is_shared, netns, leases);
            prop_assert!(boot.is_none_or(|boot| is_prefix(record.boot.as_deref().unwrap(), &boot)));
            let text = record.text().unwrap();
            prop_assert!(is_ours(&text));
            prop_assert_eq!(Record::parse(&text), Some(record));
        }

        /// Nothing is lost, and no record has a lease's name, nor a lease a record's: they lie side by side.
        #[test]
        fn every_owner_reads_back_from_the_name_of_its_record(
            id in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,70}", ifname in "[^/:%\\s]{1,15}", ip in any::<IpAddr>(),
        ) {
            let its = Owner { container_id: &id, ifname: &ifname };
            let name = name(&its).unwrap();
            prop_assert_eq!(owner(&name), Some(its));
            prop_assert_eq!(lease::address(&name), None);
            prop_assert!(owner(&lease::file_name(ip)).is_none());
        }
    }
}
