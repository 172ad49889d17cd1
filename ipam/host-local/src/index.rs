//! The index of a lease directory: the leased addresses, and those that were released lately. It is the content of
//! the file `lock`, which the reference never reads. It is a cache: if it is missing, old or broken, one scan of the
//! directory rebuilds it.
//!
//! The file has four parts: a head, the addresses that `kept` stores, released addresses, blocks of leased addresses.
//!
//! The index is valid until another program creates or removes an entry of the directory. That changes the
//! modification time of the directory to the present. Each of our calls sets it to a whole second in the past and
//! stores this second (the stamp). After a reboot the index is not used.

use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::FileExt;

use crate::kept;
use ranges::{Set, Span};

const MAGIC: &[u8; 8] = b"underly2";
/// Magic, stamp, boot id, flags, number of blocks, number of releases.
const HEAD: usize = 72;
/// The number of slots of `kept` that were used so far, in 8 bytes. It is no part of the head: it stays if the head
/// becomes invalid. A file of an earlier release has 0 here.
pub(crate) const KEPT_COUNT_AT: u64 = HEAD as u64;
const FRONT: usize = HEAD + 8;
/// The slots of `kept`. A multiple of the length of a slot, so that no slot is in two pages.
pub(crate) const KEPT_AT: u64 = 128;
/// The released addresses.
const RESTS_AT: u64 = KEPT_AT + (kept::SLOTS * kept::SLOT) as u64;
const BOOT: usize = 40;
/// Bytes of one released address: 16 for the address, 8 for the second of the release.
const REST: usize = 24;
/// The number of released addresses that are stored. If more are released within `reuseDelay`, the oldest are
/// forgotten.
const RESTS: u64 = 1024;
const BLOCKS_AT: u64 = RESTS_AT + RESTS * REST as u64;
/// A key and 256 bits.
const BLOCK: usize = 48;
/// 200 KB: more than a million consecutive addresses. Leases beyond are found by trying.
const MAX_BLOCKS: usize = 4096;

/// 256 consecutive addresses. A bit is 1 if the address is leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    key: u128,
    bits: [u64; 4],
}

impl Block {
    /// The first zero bit at or after `from`.
    fn first_free(&self, from: usize) -> Option<usize> {
        let free = |(word, bits): (usize, &u64)| {
            let before = match from.saturating_sub(word * 64) {
                skip if skip < 64 => (1 << skip) - 1,
                _ => u64::MAX,
            };
            let taken = bits | before;
            (taken != u64::MAX).then(|| word * 64 + taken.trailing_ones() as usize)
        };
        self.bits.iter().enumerate().find_map(free)
    }
}

/// Bitmap of leased addresses. 1: surely leased. 0: probably free, try it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Sorted by key.
    blocks: Vec<Block>,
    /// The first block that must be written with all that follow.
    unwritten: Option<usize>,
    /// Keys of changed blocks before it.
    changed: Vec<u128>,
    /// True if some leases have no record.
    pub(crate) unrecorded: bool,
}

/// The head of the file. The rest is read only if the head is valid.
#[derive(Debug, Default, Clone)]
pub(crate) struct Head {
    /// The modification time of the directory for which the index is valid, in seconds.
    pub(crate) stamp: i64,
    boot: String,
    unrecorded: bool,
    blocks: u32,
    /// The number of releases so far. The last ones are in the file.
    rests: u64,
}

pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// The first bytes of the file: the head, and the number of slots of `kept`.
#[derive(Debug)]
pub(crate) struct Front([u8; FRONT]);

impl Default for Front {
    fn default() -> Self {
        Self([0; FRONT])
    }
}

impl Front {
    /// Reads the bytes with one system call. If the file is too short, they are zero.
    pub(crate) fn read(file: &File) -> Self {
        let mut bytes = [0; FRONT];
        let is_read = file.read_exact_at(&mut bytes, 0).is_ok();
        if is_read { Self(bytes) } else { Self::default() }
    }

    /// The number of slots that may have an address. 0 for a number that cannot be right.
    pub(crate) fn kept(&self) -> usize {
        let count = u64::from_le_bytes(field(&self.0, HEAD));
        usize::try_from(count).ok().filter(|count| *count <= kept::SLOTS).unwrap_or_default()
    }
}

impl Head {
    /// Reads the head. `None` if it is not of this boot.
    pub(crate) fn read(front: &Front, boot: Option<&str>) -> Option<Self> {
        let bytes = &front.0;
        let text = bytes[16..16 + BOOT].split(|byte| *byte == 0).next()?;
        let head = Self {
            stamp: i64::from_le_bytes(field(bytes, 8)),
            boot: std::str::from_utf8(text).ok()?.to_owned(),
            unrecorded: bytes[56] != 0,
            blocks: u32::from_le_bytes(field(bytes, 60)),
            rests: u64::from_le_bytes(field(bytes, 64)),
        };
        // A counter this large cannot be real, and would overflow later.
        let counts = head.blocks as usize <= MAX_BLOCKS && head.rests <= u64::MAX / 2;
        (bytes.starts_with(MAGIC) && boot? == head.boot && counts).then_some(head)
    }

    fn write(&self, file: &File) -> std::io::Result<()> {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.stamp.to_le_bytes());
        bytes[16..16 + self.boot.len()].copy_from_slice(self.boot.as_bytes());
        bytes[56] = self.unrecorded.into();
        bytes[60..64].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.rests.to_le_bytes());
        file.write_all_at(&bytes, 0)
    }

    /// Makes the index invalid, whatever the modification time of the directory.
    pub(crate) fn erase(file: &File) -> std::io::Result<()> {
        file.write_all_at(&[0; 8], 0)
    }

    /// Returns the addresses that were released within `delay` seconds before second `now` of this boot, the oldest
    /// first.
    pub(crate) fn resting(&self, file: &File, now: u64, delay: u64) -> Vec<IpAddr> {
        let known = self.rests.min(RESTS);
        let mut bytes = vec![0; known as usize * REST];
        if file.read_exact_at(&mut bytes, RESTS_AT).is_err() {
            return Vec::new();
        }
        let entry = |number: u64| &bytes[(number % RESTS) as usize * REST..][..REST];
        let entries = (self.rests - known..self.rests).map(entry);
        let mut resting: Vec<IpAddr> = Vec::new();
        for entry in entries.filter(|entry| u64::from_le_bytes(field(entry, 16)).saturating_add(delay) > now) {
            let ip = Ipv6Addr::from(field::<16>(entry, 0)).to_canonical();
            resting.retain(|other| *other != ip);
            resting.push(ip);
        }
        resting
    }
}

/// The number of an address among all of both families: those of IPv4 as IPv6 maps them.
pub(crate) fn place(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl Index {
    /// Reads what `head` says is there; `None` where it is not.
    pub(crate) fn read(file: &File, head: &Head) -> Option<Self> {
        let mut bytes = vec![0; head.blocks as usize * BLOCK];
        file.read_exact_at(&mut bytes, BLOCKS_AT).ok()?;
        let block = |bytes: &[u8]| Block {
            key: u128::from_le_bytes(field(bytes, 0)),
            bits: [16, 24, 32, 40].map(|at| u64::from_le_bytes(field(bytes, at))),
        };
        let blocks: Vec<Block> = bytes.chunks_exact(BLOCK).map(block).collect();
        let in_order = blocks.is_sorted_by(|one, next| one.key < next.key);
        in_order.then_some(Self { blocks, unwritten: None, changed: Vec::new(), unrecorded: head.unrecorded })
    }

    /// A new index that is in no file yet.
    pub(crate) fn empty() -> Self {
        Self { unwritten: Some(0), ..Self::default() }
    }

    /// Writes the changes, the head last. `released` has addresses with the second of their release.
    pub(crate) fn write(
        &mut self,
        file: &File,
        old: &Head,
        stamp: i64,
        boot: &str,
        released: &[(IpAddr, u64)],
    ) -> std::io::Result<Head> {
        for (number, (ip, second)) in (old.rests..).zip(released) {
            let mut bytes = [0; REST];
            bytes[..16].copy_from_slice(&place(*ip).to_be_bytes());
            bytes[16..].copy_from_slice(&second.to_le_bytes());
            file.write_all_at(&bytes, RESTS_AT + number % RESTS * REST as u64)?;
        }
        let first = self.unwritten.unwrap_or(self.blocks.len());
        for key in self.changed.drain(..) {
            if let Ok(at) = self.blocks.binary_search_by_key(&key, |block| block.key)
                && at < first
            {
                file.write_all_at(&bytes(&self.blocks[at..=at]), BLOCKS_AT + (at * BLOCK) as u64)?;
            }
        }
        if first < self.blocks.len() {
            file.write_all_at(&bytes(&self.blocks[first..]), BLOCKS_AT + (first * BLOCK) as u64)?;
        } else if first == 0 {
            file.set_len(BLOCKS_AT)?;
        }
        self.unwritten = None;
        let head = Head {
            stamp,
            boot: boot.to_owned(),
            unrecorded: self.unrecorded,
            blocks: self.blocks.len() as u32,
            rests: old.rests + released.len() as u64,
        };
        head.write(file)?;
        Ok(head)
    }

    pub(crate) fn mark(&mut self, ip: IpAddr) {
        let (key, bit) = (place(ip) >> 8, place(ip) as usize & 255);
        let at = match self.blocks.binary_search_by_key(&key, |block| block.key) {
            Ok(at) => at,
            Err(_) if self.blocks.len() == MAX_BLOCKS => {
                self.thin_out();
                return self.mark(ip);
            }
            Err(at) => {
                self.blocks.insert(at, Block { key, bits: [0; 4] });
                self.unwritten = Some(self.unwritten.map_or(at, |first| first.min(at)));
                at
            }
        };
        self.blocks[at].bits[bit / 64] |= 1 << (bit % 64);
        self.changed(key);
    }

    pub(crate) fn clear(&mut self, ip: IpAddr) {
        let (key, bit) = (place(ip) >> 8, place(ip) as usize & 255);
        if let Ok(at) = self.blocks.binary_search_by_key(&key, |block| block.key) {
            self.blocks[at].bits[bit / 64] &= !(1 << (bit % 64));
            self.changed(key);
        }
    }

    fn changed(&mut self, key: u128) {
        if self.unwritten != Some(0) && !self.changed.contains(&key) {
            self.changed.push(key);
        }
    }

    /// Forgets the blocks with the fewest leased addresses.
    fn thin_out(&mut self) {
        let mut least = 0;
        while self.blocks.len() > MAX_BLOCKS / 2 {
            least += 1;
            self.blocks.retain(|block| block.bits.iter().map(|word| word.count_ones()).sum::<u32>() > least);
        }
        self.unwritten = Some(0);
    }

    /// The first address of the span that is not known to be leased.
    pub(crate) fn first_free(&self, set: &Set, span: Span) -> Option<IpAddr> {
        // The offset of this family among all numbers.
        let base = place(set.address(span.first)) - span.first;
        let (mut at, last) = (base + span.first, base + span.last);
        while let Ok(block) = self.blocks.binary_search_by_key(&(at >> 8), |block| block.key) {
            match self.blocks[block].first_free(at as usize & 255) {
                Some(bit) => {
                    at = (at & !255) + bit as u128;
                    break;
                }
                None if at | 255 >= last => return None,
                None => at = (at | 255) + 1,
            }
        }
        (at <= last).then(|| set.address(at - base))
    }
}

fn bytes(blocks: &[Block]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks.len() * BLOCK);
    for block in blocks {
        bytes.extend_from_slice(&block.key.to_le_bytes());
        block.bits.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    }
    bytes
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
