//! Workers: each is a runtime that attaches and detaches containers on one node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;

use crate::site::{Live, Site};

/// The most containers of a worker.
const MOST: usize = 3;

/// Works until `ends`. Returns the containers that are left.
pub(crate) fn work(site: &Site, at: usize, worker: usize, seed: u64, ends: &AtomicBool) -> Vec<String> {
    let mut random = Rng::with_seed(seed);
    let mut containers: Vec<String> = Vec::new();
    let mut number = 0;
    let mut boots = 0;
    while !ends.load(Ordering::SeqCst) {
        let member = &site.members[at];
        if member.is_rebooting.load(Ordering::SeqCst) {
            thread::yield_now();
            continue;
        }
        let Ok(_run) = member.runs.read() else { return containers };
        let now = member.reboots.load(Ordering::SeqCst);
        if now != boots {
            boots = now;
            containers.clear();
        }
        let comes = containers.len() < MOST && (containers.is_empty() || random.bool());
        if comes {
            number += 1;
            let id = format!("n{at}w{worker}c{number}");
            if add(site, at, &id) {
                containers.push(id);
            }
        } else {
            let id = containers.swap_remove(random.usize(..containers.len()));
            del(site, at, &id);
        }
        drop(_run);
        // The time between two pods.
        thread::sleep(Duration::from_millis(random.u64(..50)));
    }
    containers
}

fn add(site: &Site, at: usize, id: &str) -> bool {
    let is_down = || site.members[at].is_rebooting.load(Ordering::SeqCst);
    if !site.run(at, &["ip", "netns", "add", id], &[], "").status.success() {
        return false;
    }
    let output = site.call(at, "ADD", id, &site.members[at].conf);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let address = result["ips"][0]["address"].as_str().and_then(|text| text.split('/').next()?.parse().ok());
    match address.filter(|_| output.status.success()) {
        Some(address) => {
            let mut live = site.live();
            // The registry has no containers of a node that goes down.
            if is_down() {
                return false;
            }
            let new = Live { node: at, id: id.to_owned() };
            if let Some(old) = live.insert(address, new.clone()) {
                site.break_rule(format!("{address} was given to {new:?}, and {old:?} has it"));
            }
            site.count("ADD: succeeded");
            true
        }
        None => {
            let code = result["code"].as_u64().map_or_else(|| "killed".to_owned(), |code| format!("code {code}"));
            site.count(&format!("ADD: {code}"));
            // One DEL, whose error is ignored, and then another container.
            let _ = site.call(at, "DEL", id, &site.members[at].conf);
            let _ = site.run(at, &["ip", "netns", "delete", id], &[], "");
            false
        }
    }
}

/// Repeats a DEL until it succeeds, or the node goes down.
pub(crate) fn del(site: &Site, at: usize, id: &str) {
    site.live().retain(|_, live| live.id != id);
    while !site.members[at].is_rebooting.load(Ordering::SeqCst) {
        let output = site.call(at, "DEL", id, &site.members[at].conf);
        if output.status.success() {
            site.count("DEL: succeeded");
            let _ = site.run(at, &["ip", "netns", "delete", id], &[], "");
            return;
        }
        site.count("DEL: failed or killed");
    }
}
