//! The step that tells the LAN which MAC the addresses of the container have now. So switches and routers forget an
//! earlier one.
//!
//! The kernel does so by itself for IPv6, and for the IPv4 addresses that a link has when it comes up. This step does the
//! rest: IPv4 addresses that were added later, and the repetitions that the configuration asks for.

use std::net::Ipv4Addr;
use std::path::absolute;

use linux::{Arp, ArpSocket};

use super::{Making, Step, link, probe};
use crate::error::{Error, Result};
use crate::mark::Mark;
use crate::repeat::Repetition;

/// The first announcement.
#[derive(Default)]
pub(crate) struct Announce;

impl<'a> Step<'a> for Announce {
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        let is_missed = making.was_up_without_v4 && making.parent.carrier;
        if is_missed
            && making.leased_addresses().next().is_some()
            && probe::speaks(making)
            && let Err(error) = announce(making)
        {
            // The container works without an announcement.
            (making.task.remark)(format_args!("the addresses are not announced: {error}"));
        }
        Ok(())
    }
}

/// The further announcements. They begin after the detection of duplicate addresses. Before that, IPv6 addresses are not
/// usable, and would not be announced.
#[derive(Default)]
pub(crate) struct Repeat;

impl<'a> Step<'a> for Repeat {
    fn finish(&mut self, making: &mut Making<'a>) -> Result<()> {
        let lan = &making.settings.lan;
        let addresses: Vec<_> = making.leased_addresses().collect();
        if lan.announcements <= 1 || addresses.is_empty() || !probe::speaks(making) {
            return Ok(());
        }
        let attachment = &making.task.attachment;
        let netns = attachment.netns.ok_or(Error::NetnsUnset)?;
        let later = Repetition {
            // The process leaves its working directory.
            netns: absolute(netns).unwrap_or_else(|_| netns.to_owned()),
            seen: making.netns.seen(),
            ifindex: making.ifindex(),
            group: Mark::of(attachment).group(),
            mac: making.mac(),
            addresses,
            times: lan.announcements - 1,
            every: lan.announce_every,
            parent: (!making.settings.link_in_container).then_some(making.parent.ifindex),
            waits_for_carrier: !making.parent.carrier || !making.parent.up,
            asks: lan.detects.then(|| (probe::place(making), lan.detect_within)),
        };
        if let Err(error) = linux::process::detach(move || later.run()) {
            (making.task.remark)(format_args!("the addresses are announced once only: start a process: {error}"));
        }
        Ok(())
    }
}

/// Announces the IPv4 addresses once.
fn announce(making: &mut Making<'_>) -> Result<()> {
    let ifindex = making.ifindex();
    if making.arp.is_none() {
        making.arp = Some(ArpSocket::open_in(&making.netns, ifindex)?);
    }
    let wanted: Vec<_> = making.leased_addresses().collect();
    // A DEL may have begun in the meantime, and the address may belong to another container by now.
    if !link::stays(&mut making.inside, ifindex, &making.task.attachment)? {
        return Ok(());
    }
    let present = making.inside.addresses(ifindex)?;
    let present = present.iter().map(|its| its.address.addr()).filter(|address| wanted.contains(address));
    let present: Vec<Ipv4Addr> = present.filter_map(probe::v4).collect();
    let mac = making.mac();
    present.into_iter().try_for_each(|address| probe::send(making, &Arp::announcement(mac, address)))
}
