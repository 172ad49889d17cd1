//! The step that asks the LAN whether another machine has a leased address, before the container uses it.
//!
//! For IPv4, it sends probes and listens (RFC 5227, section 2.1), and assigns the addresses after that. For IPv6, the
//! kernel asks at the same time (RFC 4862, section 5.4), and this step waits for its verdict.
//!
//! Probes leave from the container's link. Only with ipvlan, they leave from the parent: there the link does not get the
//! answers, because it does not have the address yet to which they are sent. (drivers/net/ipvlan/ipvlan_core.c)

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use linux::{Arp, ArpOperation, ArpSocket, Errno, HeardArp, IpvlanMode, LinkKind, Mac, NdpSocket};

use super::{Making, Step, addresses, detection, held};
use crate::Settings;
use crate::error::Result;
use crate::lan::{Found, Holder, Supply};

/// The times of the probes, in parts of 100 of the whole time. With 200 ms, they are at 0, 60 and 120 ms.
const PROBE_AT: [u32; 3] = [0, 30, 60];

/// Each probe but the first is sent up to this part of 100 later, so that two hosts that begin together do not stay
/// together.
const JITTER: u32 = 5;

/// If the interface was down for a moment, the LAN is asked again, at most so many times in all.
const ATTEMPTS: usize = 3;

/// After the last probe, this step listens at least for this part of 100.
const ANSWER_WITHIN: u32 = 35;

#[derive(Default)]
pub(crate) struct Probe;

impl<'a> Step<'a> for Probe {
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        let lan = making.settings.lan;
        if !lan.detects {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let found = ask(making, lan.detect_within)?;
            if found.is_empty() {
                return Ok(());
            }
            let is_fixed = found.iter().all(|found| making.supply(found.address) == Supply::Fixed);
            // A container that is just ending, or one that is moved here, may still have it.
            if !is_fixed || begun.elapsed() >= held::GOES_WITHIN {
                return Err(making.refuse(found));
            }
            thread::sleep(lan.detect_within);
            pause_if_asked(&found, lan.detect_within);
            addresses::assign_anew(making, &found)?;
        }
    }
}

/// Opens the socket that hears which machine has an IPv6 address.
pub(super) fn listen_for_v6(making: &mut Making<'_>) {
    if making.ndp.is_none() && making.leased_addresses().any(|address| address.is_ipv6()) {
        // It only names the MAC of the other machine. The kernel detects duplicates without it.
        making.ndp = NdpSocket::open_in(&making.netns, making.ifindex()).ok();
    }
}

/// Returns true if the leased IPv4 addresses are assigned only after the LAN was asked.
pub(super) fn asks_for_v4(making: &Making<'_>) -> bool {
    making.settings.lan.detects && speaks(making) && making.parent.up && making.parent.carrier
}

/// Returns true if the link uses ARP and neighbour discovery.
pub(super) fn speaks(making: &Making<'_>) -> bool {
    !matches!(making.settings.link, LinkKind::Ipvlan { mode: IpvlanMode::L3 | IpvlanMode::L3s, .. })
}

/// The interface from which probes leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The container's link.
    Link,
    /// The parent on the host, with this ifindex.
    Parent(u32),
    /// The parent in the container, with this ifindex.
    ParentInContainer(u32),
}

pub(crate) fn place(making: &Making<'_>) -> Place {
    match (is_on_parent(making.settings), making.settings.link_in_container) {
        (false, _) => Place::Link,
        (true, true) => Place::ParentInContainer(making.parent.ifindex),
        (true, false) => Place::Parent(making.parent.ifindex),
    }
}

/// Returns true if probes leave from the parent.
pub(super) fn is_on_parent(settings: &Settings<'_>) -> bool {
    matches!(settings.link, LinkKind::Ipvlan { .. })
}

/// Waits a random time if another host has asked for the same address. Otherwise both could ask for the next one at the
/// same time, too.
pub(crate) fn pause_if_asked(found: &[Found], within: Duration) {
    if found.iter().any(|found| matches!(found.holder, Holder::Asker(_) | Holder::Unknown)) {
        thread::sleep(part(within, random(100)));
    }
}

/// Asks for all leased addresses, and assigns those of IPv4. Returns the addresses that other machines have. It stops at
/// the first ones.
fn ask(making: &mut Making<'_>, within: Duration) -> Result<Vec<Found>> {
    let wanted: Vec<Ipv4Addr> = match asks_for_v4(making) {
        true => making.leased_addresses().filter_map(v4).collect(),
        false => Vec::new(),
    };
    if wanted.is_empty() {
        remark_if_not_asked(making);
    } else {
        let found = ask_for_v4(making, &wanted, within)?;
        if !found.is_empty() {
            return Ok(found);
        }
        addresses::assign_rest(making)?;
        // Another host may have asked after the verdict, and before this one could answer.
        let mac = making.mac();
        let heard = making.arp.as_mut().map(|socket| Question { socket, mac, wanted: &wanted, was_down: false });
        if let Some(late) = heard.map(|mut question| question.hear(Instant::now())).transpose()?.flatten() {
            return Ok(vec![late]);
        }
    }
    let Some(address) = detection::verdict(making)? else { return Ok(Vec::new()) };
    Ok(vec![Found { address: address.into(), holder: holder_of_v6(making, address)? }])
}

fn remark_if_not_asked(making: &Making<'_>) {
    let has_v4 = making.leased_addresses().any(|address| address.is_ipv4());
    if has_v4 && speaks(making) {
        let parent = &making.parent.name;
        (making.task.remark)(format_args!(
            "parent {parent} has no carrier: no other machine was asked whether it has the address"
        ));
    }
}

/// Sends the probes, and listens. Returns the addresses that other machines have, at the first sign of them.
fn ask_for_v4(making: &mut Making<'_>, wanted: &[Ipv4Addr], within: Duration) -> Result<Vec<Found>> {
    open_arp(making, wanted)?;
    let mac = making.mac();
    for _ in 0..ATTEMPTS {
        let Some(socket) = making.arp.as_mut() else { return Ok(Vec::new()) };
        let mut question = Question { socket, mac, wanted, was_down: false };
        if let Some(found) = question.ask(within)? {
            return Ok(vec![found]);
        }
        let was_down = question.was_down;
        let parent = making.parent.ifindex;
        let carrier = making.beside_parent().link_by_index(parent)?.is_some_and(|link| link.up && link.carrier);
        if carrier && !was_down {
            return Ok(Vec::new());
        }
        if !carrier {
            break;
        }
    }
    remark_if_not_asked(making);
    Ok(Vec::new())
}

/// The search for a machine that has one of several IPv4 addresses.
pub(crate) struct Question<'a> {
    pub(crate) socket: &'a mut ArpSocket,
    /// The MAC of the probes, which a switch may send back.
    pub(crate) mac: Mac,
    pub(crate) wanted: &'a [Ipv4Addr],
    /// Set if the interface was down for a moment. Then an answer may be lost.
    pub(crate) was_down: bool,
}

impl Question<'_> {
    /// Sends the probes, and listens. Returns the first address that another machine has.
    pub(crate) fn ask(&mut self, within: Duration) -> Result<Option<Found>> {
        // Frames from before this question tell nothing about now.
        while self.next(Instant::now())?.is_some() {}
        let begun = Instant::now();
        let mut late = Duration::ZERO;
        for (number, at) in PROBE_AT.into_iter().enumerate() {
            let jitter = if number == 0 { 0 } else { random(JITTER) };
            let planned = begun + part(within, at + jitter);
            // The first probe comes at once.
            if number > 0
                && let Some(found) = self.hear(planned)?
            {
                return Ok(Some(found));
            }
            late = late.max(planned.elapsed());
            self.send()?;
        }
        // If this process gets a processor late, so does a container of this host that answers.
        let answered_by = Instant::now() + part(within, ANSWER_WITHIN) + late * 2;
        self.hear(answered_by.max(begun + within + late))
    }

    fn send(&mut self) -> Result<()> {
        for address in self.wanted {
            match self.socket.send(&Arp::probe(self.mac, *address)) {
                Err(error) if error.errno() == Some(Errno::ENETDOWN) => self.was_down = true,
                sent => sent?,
            }
        }
        Ok(())
    }

    /// Listens until the deadline, or until another machine has one of the addresses.
    fn hear(&mut self, deadline: Instant) -> Result<Option<Found>> {
        while let Some(heard) = self.next(deadline)? {
            let holder = |address: &Ipv4Addr| Some((*address, holder_of(*address, &heard, self.mac)?));
            if let Some((address, holder)) = self.wanted.iter().find_map(holder) {
                return Ok(Some(Found { address: address.into(), holder }));
            }
        }
        Ok(None)
    }

    /// Returns the next packet, or `None` at the deadline.
    fn next(&mut self, deadline: Instant) -> Result<Option<HeardArp>> {
        loop {
            match self.socket.receive(deadline) {
                Err(error) if error.errno() == Some(Errno::ENETDOWN) => self.was_down = true,
                heard => return Ok(heard?),
            }
        }
    }
}

/// Opens the socket for probes and answers, on the link or, with ipvlan, on the parent.
fn open_arp(making: &mut Making<'_>, wanted: &[Ipv4Addr]) -> Result<()> {
    if making.arp.is_none() {
        let socket = match place(making) {
            Place::Link => ArpSocket::open_in(&making.netns, making.ifindex())?,
            Place::ParentInContainer(parent) => ArpSocket::open_in(&making.netns, parent)?,
            Place::Parent(parent) => ArpSocket::open(parent)?,
        };
        making.arp = Some(socket);
    }
    making.arp.as_ref().map_or(Ok(()), |socket| Ok(socket.hear_only(wanted)?))
}

/// Sends a frame. An interface that is down sends nothing, as one without a carrier.
pub(super) fn send(making: &Making<'_>, arp: &Arp) -> Result<()> {
    match making.arp.as_ref().map(|socket| socket.send(arp)) {
        Some(Err(error)) if error.errno() != Some(Errno::ENETDOWN) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Returns the machine that has an address or asks for it, as a frame shows. `own` is the MAC of the probes, which a
/// switch may send back. A probe that is sent to one machine only is no sign: some switches ask so which machines are
/// there. (RFC 5227, section 2.1.1)
fn holder_of(address: Ipv4Addr, heard: &HeardArp, own: Mac) -> Option<Holder> {
    let arp = &heard.arp;
    if arp.sender_mac == own {
        return None;
    }
    let asks = arp.operation == ArpOperation::Request && arp.sender.is_unspecified() && arp.target == address;
    match arp.sender == address {
        true => Some(Holder::Machine(arp.sender_mac)),
        false => (asks && heard.is_broadcast).then_some(Holder::Asker(arp.sender_mac)),
    }
}

/// Returns the machine that has told that it has an IPv6 address.
fn holder_of_v6(making: &mut Making<'_>, address: Ipv6Addr) -> Result<Holder> {
    let own = making.mac();
    let Some(socket) = making.ndp.as_mut() else { return Ok(Holder::Unknown) };
    while let Some(heard) = socket.receive(Instant::now())? {
        if let Some(mac) = heard.mac.filter(|mac| heard.target == address && *mac != own) {
            return Ok(Holder::Machine(mac));
        }
    }
    Ok(Holder::Unknown)
}

pub(crate) fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn part(whole: Duration, hundredths: u32) -> Duration {
    whole * hundredths / 100
}

/// Returns a random number below `end`.
fn random(end: u32) -> u32 {
    let number = RandomState::new().hash_one(Instant::now()) % u64::from(end);
    u32::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

    fn mac(last: u8) -> Mac {
        Mac::from([2, 0, 0, 0, 0, last])
    }

    fn holder(arp: Arp, is_broadcast: bool) -> Option<Holder> {
        holder_of(ADDRESS, &HeardArp { arp, is_broadcast }, mac(1))
    }

    #[test]
    fn a_frame_with_the_address_as_sender_is_a_conflict() {
        let request = Arp::request(mac(2), ADDRESS, Ipv4Addr::new(10, 0, 0, 9));
        let reply = Arp { operation: ArpOperation::Reply, ..request };
        for arp in [request, reply, Arp::announcement(mac(2), ADDRESS)] {
            assert_eq!(holder(arp, true), Some(Holder::Machine(mac(2))));
            assert_eq!(holder(arp, false), Some(Holder::Machine(mac(2))));
        }
    }

    #[test]
    fn a_probe_of_another_machine_is_a_conflict_if_all_machines_get_it() {
        assert_eq!(holder(Arp::probe(mac(2), ADDRESS), true), Some(Holder::Asker(mac(2))));
        assert_eq!(holder(Arp::probe(mac(2), ADDRESS), false), None, "a switch looks which machines are there");
        assert_eq!(holder(Arp::probe(mac(2), Ipv4Addr::new(10, 0, 0, 8)), true), None);
    }

    #[test]
    fn own_frames_and_questions_are_no_conflict() {
        assert_eq!(holder(Arp::probe(mac(1), ADDRESS), true), None, "a switch has sent the frame back");
        assert_eq!(holder(Arp::request(mac(2), Ipv4Addr::new(10, 0, 0, 9), ADDRESS), true), None);
    }

    #[test]
    fn the_probes_are_spread_over_the_first_two_thirds() {
        let within = Duration::from_millis(200);
        assert_eq!(PROBE_AT.map(|at| part(within, at).as_millis()), [0, 60, 120]);
        assert!(PROBE_AT.iter().all(|at| at + JITTER <= 66));
    }
}
