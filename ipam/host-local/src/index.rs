//! The index: which addresses of a lease directory are taken, which were released lately, and how to see that it is
//! still right. It lies in the content of the file `lock`, of which the reference uses nothing but its existence. It is
//! a cache: where it is missing, old or broken, one walk over the directory makes it anew.
//!
//! It is right as long as nobody else has made or removed an entry of the directory. Whoever does that moves the
//! directory's modification time to the present; we put it back to a whole second in the past when we are done, and
//! note which. What a reboot did to the files, nobody knows, so the index is of one boot.

use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::FileExt;

use crate::range::{Set, Span};

const MAGIC: &[u8; 8] = b"underly1";
/// Magic, stamp, boot id, flags, number of blocks, number of releases.
const HEADER: usize = 80;
const BOOT: usize = 40;
/// One for each released address: its 16 bytes and the second of its release.
const REST: usize = 24;
/// How many released addresses are remembered. More of them within one `reuseDelay` rest less.
const RESTS: u64 = 1024;
const BLOCKS_AT: u64 = HEADER as u64 + RESTS * REST as u64;
/// A key and 256 bits.
const BLOCK: usize = 48;
/// 200 KB, and more than a million addresses side by side. What is beyond is found by trying.
const MAX_BLOCKS: usize = 4096;

/// 256 consecutive addresses, those that are taken as ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    key: u128,
    bits: [u64; 4],
}

impl Block {
    /// The first zero at or behind bit `from`.
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

/// What is taken. Never more than is: a one means taken, a zero that it is worth trying.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// In the order of their keys.
    blocks: Vec<Block>,
    /// The first block that is not in the file as it is here.
    unwritten: Option<usize>,
    /// Blocks in the file that differ, before the first unwritten one.
    changed: Vec<u128>,
    /// Whether some leases have no record of their owner.
    pub(crate) unrecorded: bool,
}

/// The head of the file, of which the rest is worth reading only where it fits.
#[derive(Debug, Default, Clone)]
pub(crate) struct Head {
    /// The directory's modification time at which the index is right, in seconds.
    pub(crate) stamp: i64,
    boot: String,
    unrecorded: bool,
    blocks: u32,
    /// How many releases were ever noted, of which the last are in the file.
    rests: u64,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

impl Head {
    /// Reads the head; `None` where it is not one of this boot.
    pub(crate) fn read(file: &File, boot: Option<&str>) -> Option<Self> {
        let mut bytes = [0; HEADER];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let text = bytes[16..16 + BOOT].split(|byte| *byte == 0).next()?;
        let head = Self {
            stamp: i64::from_le_bytes(field(&bytes, 8)),
            boot: std::str::from_utf8(text).ok()?.to_owned(),
            unrecorded: bytes[56] != 0,
            blocks: u32::from_le_bytes(field(&bytes, 60)),
            rests: u64::from_le_bytes(field(&bytes, 64)),
        };
        // No machine counts so far, so it is not ours, and going on from there would run over.
        let counts = head.blocks as usize <= MAX_BLOCKS && head.rests <= u64::MAX / 2;
        (bytes.starts_with(MAGIC) && boot? == head.boot && counts).then_some(head)
    }

    fn write(&self, file: &File) -> std::io::Result<()> {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.stamp.to_le_bytes());
        bytes[16..16 + self.boot.len()].copy_from_slice(self.boot.as_bytes());
        bytes[56] = self.unrecorded.into();
        bytes[60..64].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.rests.to_le_bytes());
        file.write_all_at(&bytes, 0)
    }

    /// Notes that the index is not right, whatever the directory's modification time.
    pub(crate) fn erase(file: &File) -> std::io::Result<()> {
        file.write_all_at(&[0; 8], 0)
    }

    /// The addresses released within `delay` seconds before second `now` of this boot, the oldest first.
    pub(crate) fn resting(&self, file: &File, now: u64, delay: u64) -> Vec<IpAddr> {
        let known = self.rests.min(RESTS);
        let mut bytes = vec![0; known as usize * REST];
        if file.read_exact_at(&mut bytes, HEADER as u64).is_err() {
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
fn place(ip: IpAddr) -> u128 {
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

    /// One that is in no file yet.
    pub(crate) fn empty() -> Self {
        Self { unwritten: Some(0), ..Self::default() }
    }

    /// Writes what changed, the head last. `released` are addresses with the second of their release.
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
            file.write_all_at(&bytes, HEADER as u64 + number % RESTS * REST as u64)?;
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
            // The file must be long enough to be read.
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

    /// Forgets the blocks with the fewest addresses: there, trying costs least.
    fn thin_out(&mut self) {
        let mut least = 0;
        while self.blocks.len() > MAX_BLOCKS / 2 {
            least += 1;
            self.blocks.retain(|block| block.bits.iter().map(|word| word.count_ones()).sum::<u32>() > least);
        }
        self.unwritten = Some(0);
    }

    /// The first address of a part of a set that is not known to be taken.
    pub(crate) fn first_free(&self, set: &Set, span: Span) -> Option<IpAddr> {
        // Where the numbers of the family begin among all.
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
