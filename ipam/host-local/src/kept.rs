//! Released addresses that another machine on the LAN has. Each is kept from every ADD until its time is over. They are
//! stored in the file `lock`, in slots of their own, with a count in the head of the file.
//!
//! The index may become invalid, and releases may push out other releases: both change nothing here. Each slot stores
//! the boot for which its time counts, so a reboot ends the time. If machines share the directory, each of them knows
//! only its own addresses.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::FileExt;

use linux::Mac;

use crate::index::{Front, KEPT_AT, KEPT_COUNT_AT, field, place};

/// The number of slots. If all are in use, the address whose time ends first gives way.
pub(crate) const SLOTS: usize = 256;
/// Bytes of a slot: address, second, boot, 1 if the MAC is known, MAC, zeros. No slot is in two pages, so a write is
/// complete or not there, even if the call is killed.
pub(crate) const SLOT: usize = 64;
/// The stored part of a boot ID.
const BOOT: usize = 24;

/// An address that is kept, as an ADD sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) ip: IpAddr,
    /// The MAC of the other machine, if it is known.
    pub(crate) mac: Option<Mac>,
    /// The seconds until the address is free again.
    pub(crate) seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    ip: IpAddr,
    mac: Option<Mac>,
    /// The second of the boot at which the time is over.
    until: u64,
    boot: [u8; BOOT],
}

impl Slot {
    fn read(bytes: &[u8]) -> Self {
        Self {
            ip: Ipv6Addr::from(field::<16>(bytes, 0)).to_canonical(),
            mac: (bytes[48] == 1).then(|| Mac::from(field::<6>(bytes, 49))),
            until: u64::from_le_bytes(field(bytes, 16)),
            boot: field(bytes, 24),
        }
    }

    fn bytes(&self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..16].copy_from_slice(&place(self.ip).to_be_bytes());
        bytes[16..24].copy_from_slice(&self.until.to_le_bytes());
        bytes[24..48].copy_from_slice(&self.boot);
        if let Some(mac) = self.mac {
            bytes[48] = 1;
            bytes[49..55].copy_from_slice(&mac.octets());
        }
        bytes
    }
}

/// The slots that were ever used, at one moment.
pub(crate) struct Slots {
    slots: Vec<Slot>,
    boot: [u8; BOOT],
    now: u64,
}

impl Slots {
    /// Reads the slots. `boot` is the running boot, `now` its second. Slots that cannot be read are empty.
    pub(crate) fn read(file: &File, front: &Front, boot: &str, now: u64) -> Self {
        let mut bytes = vec![0; front.kept() * SLOT];
        let is_read = file.read_exact_at(&mut bytes, KEPT_AT).is_ok();
        let slots = if is_read { bytes.chunks_exact(SLOT).map(Slot::read).collect() } else { Vec::new() };
        Self { slots, boot: prefix(boot), now }
    }

    fn is_live(&self, slot: &Slot) -> bool {
        slot.boot == self.boot && slot.until > self.now
    }

    /// The addresses whose time is not over.
    pub(crate) fn live(&self) -> Vec<Kept> {
        let live = self.slots.iter().filter(|slot| self.is_live(slot));
        live.map(|slot| Kept { ip: slot.ip, mac: slot.mac, seconds: slot.until - self.now }).collect()
    }

    /// Returns true if a slot is of another boot: of this machine, or of one that shares the directory.
    pub(crate) fn has_foreign(&self) -> bool {
        self.slots.iter().any(|slot| slot.boot != self.boot)
    }

    /// Stores addresses. If the call is killed, some of them are stored and the others are not.
    pub(crate) fn keep(&mut self, file: &File, kept: &[Kept]) -> io::Result<()> {
        for Kept { ip, mac, seconds } in kept {
            let slot = Slot { ip: *ip, mac: *mac, until: self.now.saturating_add(*seconds), boot: self.boot };
            let at = self.place_for(*ip);
            file.write_all_at(&slot.bytes(), KEPT_AT + (at * SLOT) as u64)?;
            if at < self.slots.len() {
                self.slots[at] = slot;
            } else {
                self.slots.push(slot);
                write_count(file, self.slots.len())?;
            }
        }
        Ok(())
    }

    /// The slot for an address: the one that has it, one whose time is over, a new one, one of another boot, the one
    /// whose time ends first.
    fn place_for(&self, ip: IpAddr) -> usize {
        let rank = |slot: &Slot| match (slot.boot == self.boot, slot.until > self.now) {
            (true, _) if slot.ip == ip => (0, 0),
            (true, false) => (1, 0),
            (false, _) => (3, 0),
            (true, true) => (4, slot.until),
        };
        let best = self.slots.iter().map(rank).enumerate().min_by_key(|(_, rank)| *rank);
        match best {
            Some((at, (0 | 1, _))) => at,
            Some((at, _)) if self.slots.len() == SLOTS => at,
            _ => self.slots.len(),
        }
    }
}

/// Forgets all addresses, so that later calls do not read the slots.
pub(crate) fn clear(file: &File) -> io::Result<()> {
    write_count(file, 0)
}

fn write_count(file: &File, count: usize) -> io::Result<()> {
    file.write_all_at(&(count as u64).to_le_bytes(), KEPT_COUNT_AT)
}

fn prefix(boot: &str) -> [u8; BOOT] {
    let mut prefix = [0; BOOT];
    let length = boot.len().min(BOOT);
    prefix[..length].copy_from_slice(&boot.as_bytes()[..length]);
    prefix
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
