//! The checker compares the addresses of the containers with the store, with the LAN and with the journals.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use e2e::lab::lan4;
use e2e::traffic::{Frame, Wire};

use crate::site::{POOL, Site};

/// The rounds in which two machines must answer for one address. After a DEL, both the old and the new container can answer
/// within one round.
const ROUNDS: usize = 3;

const ROUND: Duration = Duration::from_millis(300);

/// Checks until `ends`.
pub(crate) fn work(site: &Site, ends: &AtomicBool) {
    let wire = Wire::open(&site.lab.neighbour, site.lab.neighbour.nic);
    while !ends.load(Ordering::SeqCst) {
        check_leases(site);
        check_lan(site, &wire);
        thread::sleep(Duration::from_millis(500));
    }
}

/// Each address of a container has its lease. Without an answer of the store, nothing is known.
pub(crate) fn check_leases(site: &Site) {
    let before = site.live().clone();
    let Ok(leases) = site.leases() else { return site.count("check: the store gave no answer") };
    let after = site.live().clone();
    for (address, live) in before.iter().filter(|(address, live)| after.get(*address) == Some(live)) {
        let lease = leases.get(address);
        if lease.is_none_or(|lease| lease["containerID"] != live.id.as_str()) {
            site.break_rule(format!("{address} of {live:?} has the lease {lease:?}"));
        }
    }
    site.count("check: leases");
}

/// No address is on two machines.
pub(crate) fn check_lan(site: &Site, wire: &Wire) {
    let mut suspects: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let asked: Vec<IpAddr> = match round {
            0 => (POOL.0..=POOL.1).map(lan4).collect(),
            _ => suspects.keys().copied().collect(),
        };
        let answers = answers(wire, &asked);
        suspects = answers.into_iter().filter(|(_, macs)| macs.len() > 1).collect();
        if suspects.is_empty() {
            return site.count("check: LAN");
        }
    }
    for (address, macs) in suspects {
        site.break_rule(format!("{address} is on the LAN more than once: {macs:?}"));
    }
}

fn answers(wire: &Wire, asked: &[IpAddr]) -> BTreeMap<IpAddr, BTreeSet<String>> {
    wire.seen();
    for address in asked {
        wire.ask(IpAddr::V4(Ipv4Addr::UNSPECIFIED), *address);
    }
    let (seen, _) = wire.seen_within(ROUND, |_| false);
    let mut answers: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for seen in seen {
        if let Frame::Arp { operation: 2, sender, mac, .. } = seen.frame
            && asked.contains(&IpAddr::V4(sender))
        {
            answers.entry(IpAddr::V4(sender)).or_default().insert(mac);
        }
    }
    answers
}

/// At the end: the leases are those of the containers, and each is in the journal of its node.
pub(crate) fn check_end(site: &Site) {
    let leases = site.leases().unwrap_or_else(|error| panic!("list the leases at the end: {error}"));
    let live = site.live().clone();
    for (address, lease) in &leases {
        if !live.contains_key(address) {
            site.break_rule(format!("{address} has a lease without a container: {lease}"));
        }
    }
    for (address, live) in &live {
        let Some(lease) = leases.get(address) else {
            site.break_rule(format!("{address} of {live:?} has no lease"));
            continue;
        };
        let is_named = |page: &serde_json::Value| {
            page["containerID"] == live.id.as_str()
                && page["addresses"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|its| its["address"] == lease["address"]))
        };
        if !site.journal(live.node).iter().any(is_named) || lease["boot"] != site.boot(live.node).as_str() {
            site.break_rule(format!("the journal of node {} does not name {lease}", live.node));
        }
    }
}
