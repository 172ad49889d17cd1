//! The mark of a link: the group that it is made with. (`IFLA_GROUP`)
//!
//! It follows from container ID and interface name, so whoever is called for an attachment knows its link by it, under
//! whatever name and with whatever hardware address. `ip -d link` shows it as `group`.

use std::hash::Hasher;

use fnv::FnvHasher;
use linux::Link;

use crate::Attachment;

/// The bits of the hash.
const HASH: u32 = (1 << 30) - 1;

/// A DEL has begun with the link. Bit 31 stays 0: iproute2 neither shows nor takes a group that has it.
const BEGUN: u32 = 1 << 30;

/// Up to here groups may be somebody's who gives them to links by hand. Of all marks, one in 16,000 is as small.
const SMALL: u32 = 0xffff;

/// What releases until 0.1 set when a DEL had begun.
const BEGUN_FORMERLY: u32 = 0x756c;

/// The mark of one attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u32);

impl Mark {
    /// The mark of an attachment.
    pub fn of(attachment: &Attachment<'_>) -> Self {
        let mut hasher = FnvHasher::default();
        hasher.write(attachment.container_id.as_bytes());
        hasher.write(&[0]);
        hasher.write(attachment.ifname.as_bytes());
        let folded = hasher.finish() ^ (hasher.finish() >> 30);
        match u32::try_from(folded & u64::from(HASH)) {
            // 0 is the group of every link that nobody has put into another one.
            Ok(0 | BEGUN_FORMERLY) | Err(_) => Self(HASH),
            Ok(hash) => Self(hash),
        }
    }

    /// The group of a link of this attachment.
    pub fn group(self) -> u32 {
        self.0
    }

    /// The group from the moment that a DEL has begun with it.
    pub fn begun(self) -> u32 {
        self.0 | BEGUN
    }

    /// Returns true if the link is of this attachment.
    pub fn is_on(self, link: &Link) -> bool {
        link.group & !BEGUN == self.0
    }

    /// Returns true if the link seems to have the mark of another attachment. People choose small numbers for their groups.
    pub fn is_of_another(self, link: &Link) -> bool {
        link.group & !BEGUN > SMALL && !self.is_on(link)
    }

    /// Returns true if a DEL has begun with the link, which has the name of this attachment's.
    pub fn has_begun(self, link: &Link) -> bool {
        link.group == self.begun() || link.group == BEGUN_FORMERLY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(container_id: &str, ifname: &str) -> Mark {
        Mark::of(&Attachment { container_id, ifname, netns: None, may_be_home: false })
    }

    /// Marks are on links that outlive an upgrade, so none may ever change.
    #[test]
    fn a_mark_follows_from_the_attachment_alone() {
        assert_eq!(mark("c", "eth0"), mark("c", "eth0"));
        assert_ne!(mark("c", "eth0"), mark("c", "eth1"));
        assert_ne!(mark("ce", "th0"), mark("c", "eth0"));
        assert_eq!(mark("container-1", "eth0").group(), 143_451_878);
    }

    #[test]
    fn a_mark_fits_what_iproute2_shows_and_is_no_group_that_means_something_else() {
        for number in 0..10_000 {
            let mark = mark(&format!("c{number}"), "eth0");
            for group in [mark.group(), mark.begun()] {
                assert!(!matches!(group, 0 | BEGUN_FORMERLY) && group >> 31 == 0, "{group:#x}");
            }
            assert_ne!(mark.group(), mark.begun());
        }
    }
}
