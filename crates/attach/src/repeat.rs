//! Repeats the announcements of a new attachment. This runs in a process of its own, after the ADD has returned.
//!
//! The process holds no file, no lock and no namespace while it waits. Before each announcement it looks whether the
//! attachment is still there. So a DEL silences it without any knowledge of it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use linux::{Arp, ArpSocket, Mac, NdpSocket, Netns, NetnsFile, Rtnl};

use crate::error;
use crate::steps::probe::{self, Place, Question};

/// The longest wait for the carrier of the parent.
const CARRIER_WITHIN: Duration = Duration::from_secs(120);

/// The time between two looks at the carrier.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The announcements that are left to send.
#[derive(Debug)]
pub(crate) struct Repetition {
    /// The path of the container's namespace.
    pub(crate) netns: PathBuf,
    /// The file at this path, as the ADD has opened it.
    pub(crate) seen: NetnsFile,
    /// The link.
    pub(crate) ifindex: u32,
    /// The group of the link. A DEL changes it before anything else.
    pub(crate) group: u32,
    /// The MAC of the link.
    pub(crate) mac: Mac,
    pub(crate) addresses: Vec<IpAddr>,
    /// The number of announcements.
    pub(crate) times: u32,
    pub(crate) every: Duration,
    /// The ifindex of the parent on the host. `None` if the parent is in the container.
    pub(crate) parent: Option<u32>,
    /// True if the parent had no carrier during the ADD. Then the first announcement was lost.
    pub(crate) waits_for_carrier: bool,
    /// With this, the LAN is asked for the IPv4 addresses after such a wait: from where, and for how long. The ADD could not
    /// do that.
    pub(crate) asks: Option<(Place, Duration)>,
}

impl Repetition {
    /// Sends the announcements. Ends early if the attachment is gone, or after an error, which has no reader.
    pub(crate) fn run(self) {
        let mut last = Instant::now();
        if self.waits_for_carrier {
            match self.wait_for_carrier() {
                Ok(true) if self.is_free().unwrap_or(false) => {}
                _ => return,
            }
            match self.announce() {
                Ok(Some(sent)) => last = sent,
                Ok(None) | Err(_) => return,
            }
        }
        for _ in 0..self.times {
            thread::sleep((last + self.every).saturating_duration_since(Instant::now()));
            match self.announce() {
                Ok(Some(sent)) => last = sent,
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Waits until the parent has a carrier. Returns false if the attachment is gone, or the time is over. The carrier is
    /// the parent's, so no socket is kept in the container.
    fn wait_for_carrier(&self) -> linux::Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < CARRIER_WITHIN {
            let Some((netns, mut inside)) = self.enter()? else { return Ok(false) };
            let link = match self.parent {
                Some(parent) => Rtnl::open()?.link_by_index(parent)?,
                None => inside.link_by_index(self.ifindex)?,
            };
            drop((netns, inside));
            match link {
                None => return Ok(false),
                Some(link) if link.up && link.carrier => return Ok(true),
                Some(_) => thread::sleep(LOOK_EVERY),
            }
        }
        Ok(false)
    }

    /// Asks the LAN for the IPv4 addresses. Returns false if another machine has one. Then no machine may be told that the
    /// container has it.
    fn is_free(&self) -> error::Result<bool> {
        let Some((place, within)) = self.asks else { return Ok(true) };
        let wanted: Vec<Ipv4Addr> = self.addresses.iter().copied().filter_map(probe::v4).collect();
        if wanted.is_empty() {
            return Ok(true);
        }
        let Some((netns, inside)) = self.enter()? else { return Ok(false) };
        drop(inside);
        let mut socket = match place {
            Place::Link => ArpSocket::open_in(&netns, self.ifindex)?,
            Place::ParentInContainer(parent) => ArpSocket::open_in(&netns, parent)?,
            Place::Parent(parent) => ArpSocket::open(parent)?,
        };
        socket.hear_only(&wanted)?;
        let mut question = Question { socket: &mut socket, mac: self.mac, wanted: &wanted, was_down: false };
        Ok(question.ask(within)?.is_none())
    }

    /// Opens the container's namespace. Returns `None` if it is another one now, or if the attachment is gone.
    fn enter(&self) -> linux::Result<Option<(Netns, Rtnl)>> {
        let netns = match Netns::open(&self.netns) {
            Err(linux::Error::NetnsMissing { .. } | linux::Error::NotNetns { .. }) => return Ok(None),
            opened => opened?,
        };
        if netns.seen() != self.seen {
            return Ok(None);
        }
        let mut inside = Rtnl::open_in(&netns)?;
        let is_there = self.is_there(&mut inside)?;
        Ok(is_there.then_some((netns, inside)))
    }

    /// Returns true if the link is still that of the ADD, and no DEL has begun.
    fn is_there(&self, inside: &mut Rtnl) -> linux::Result<bool> {
        let link = inside.link_by_index(self.ifindex)?;
        Ok(link.is_some_and(|link| link.group == self.group && link.mac == Some(self.mac)))
    }

    /// Announces each address once. Returns the time after that, or `None` if the attachment is gone. The sockets are slow
    /// to close, so the time is not that of the return.
    fn announce(&self) -> linux::Result<Option<Instant>> {
        let Some((netns, mut inside)) = self.enter()? else { return Ok(None) };
        let has = |is_v4| self.addresses.iter().any(|address| address.is_ipv4() == is_v4);
        let arp = has(true).then(|| ArpSocket::open_in(&netns, self.ifindex)).transpose()?;
        let ndp = has(false).then(|| NdpSocket::open_in(&netns, self.ifindex)).transpose()?;
        for address in &self.addresses {
            // As late as possible: a DEL first changes the group, then removes the addresses, and then deletes the link,
            // on which these sockets can send nothing any more.
            if !self.is_there(&mut inside)? {
                return Ok(None);
            }
            if !self.is_usable(&mut inside, *address)? {
                continue;
            }
            match (address, &arp, &ndp) {
                (IpAddr::V4(address), Some(arp), _) => arp.send(&Arp::announcement(self.mac, *address))?,
                (IpAddr::V6(address), _, Some(ndp)) => ndp.advertise(*address, self.mac)?,
                _ => {}
            }
        }
        Ok(Some(Instant::now()))
    }

    /// Returns true if the link has the address. IPv6 addresses must have passed duplicate address detection.
    fn is_usable(&self, inside: &mut Rtnl, address: IpAddr) -> linux::Result<bool> {
        let present = inside.addresses(self.ifindex)?;
        let its = present.iter().find(|its| its.address.addr() == address);
        Ok(its.is_some_and(|its| !its.tentative() && !its.dad_failed()))
    }
}
