//! The mark of a link: the group number with which it is created. (`IFLA_GROUP`)
//!
//! It is computed from the container ID and the interface name. So every later call finds the link of its attachment,
//! also if the link has another name or another MAC now. `ip -d link` shows the mark as `group`.

use std::hash::Hasher;

use fnv::FnvHasher;
use linux::Link;

use crate::Attachment;

/// The bits of the mark that are a hash.
const HASH: u32 = (1 << 30) - 1;

/// This bit is set when a DEL has begun. Bit 31 is always 0, because iproute2 does not support it in a group.
const BEGUN: u32 = 1 << 30;

/// A group up to this number may be set by a user. Of all marks, one in 16,000 is as small.
const SMALL: u32 = 0xffff;

/// The group that earlier releases set when a DEL had begun.
const BEGUN_FORMERLY: u32 = 0x756c;

/// The mark of one attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u32);

impl Mark {
    /// Computes the mark of an attachment.
    pub fn of(attachment: &Attachment<'_>) -> Self {
        let mut hasher = FnvHasher::default();
        hasher.write(attachment.container_id.as_bytes());
        hasher.write(&[0]);
        hasher.write(attachment.ifname.as_bytes());
        let folded = hasher.finish() ^ (hasher.finish() >> 30);
        match u32::try_from(folded & u64::from(HASH)) {
            // 0 is the default group of links.
            Ok(0 | BEGUN_FORMERLY) | Err(_) => Self(HASH),
            Ok(hash) => Self(hash),
        }
    }

    /// Returns the group of a new link.
    pub fn group(self) -> u32 {
        self.0
    }

    /// Returns the group of a link with which a DEL has begun.
    pub fn begun(self) -> u32 {
        self.0 | BEGUN
    }

    /// Returns true if the link has this mark.
    pub fn is_on(self, link: &Link) -> bool {
        link.group & !BEGUN == self.0
    }

    /// Returns true if the link seems to have the mark of another attachment. A small number may be a user's group.
    pub fn is_of_another(self, link: &Link) -> bool {
        link.group & !BEGUN > SMALL && !self.is_on(link)
    }

    /// Returns true if a DEL has begun with the link. The link must have the name of this attachment.
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

    /// Links keep their marks during an upgrade, so an attachment must have the same mark in all releases.
    #[test]
    fn a_mark_depends_on_the_attachment_only() {
        assert_eq!(mark("c", "eth0"), mark("c", "eth0"));
        assert_ne!(mark("c", "eth0"), mark("c", "eth1"));
        assert_ne!(mark("ce", "th0"), mark("c", "eth0"));
        assert_eq!(mark("container-1", "eth0").group(), 143_451_878);
    }

    #[test]
    fn iproute2_can_show_a_mark_and_no_mark_has_another_meaning() {
        for number in 0..10_000 {
            let mark = mark(&format!("c{number}"), "eth0");
            for group in [mark.group(), mark.begun()] {
                assert!(!matches!(group, 0 | BEGUN_FORMERLY) && group >> 31 == 0, "{group:#x}");
            }
            assert_ne!(mark.group(), mark.begun());
        }
    }
}
