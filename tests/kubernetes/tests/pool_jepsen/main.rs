//! Random faults on four nodes that share a pool, for some time: no address is given twice, and nothing leaks. The checker is
//! tested too: it must find mistakes that are made on purpose.
//!
//! `JEPSEN_SECONDS` sets the time, and `JEPSEN_SEED` the seed of the random numbers.

mod checker;
mod nemesis;
mod site;
mod workers;

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::lab::lan4;
use e2e::patience::await_within;
use e2e::samples::show;
use e2e::traffic::Wire;
use kubernetes::api_server::pool::LEASES;
use serde_json::json;

use site::{LAN, Live, Site};

/// The workers of each node.
const WORKERS: usize = 3;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn random_faults_give_no_address_twice_and_leak_nothing() {
    let seconds = number("JEPSEN_SECONDS").unwrap_or(120);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let seed = number("JEPSEN_SEED").unwrap_or(now);
    show(&format!("JEPSEN_SEED={seed} JEPSEN_SECONDS={seconds}"));
    let site = Site::new(3);
    let (ends, checked) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let mut all = Vec::new();
        for at in 0..site.members.len() {
            for worker in 0..WORKERS {
                let seed = seed.wrapping_add((at * WORKERS + worker) as u64 + 1);
                let (site, ends) = (&site, &ends);
                all.push(scope.spawn(move || drop(workers::work(site, at, worker, seed, ends))));
            }
        }
        all.push(scope.spawn(|| nemesis::work(&site, seed, &ends)));
        scope.spawn(|| checker::work(&site, &checked));
        // The time of the run is its purpose.
        thread::sleep(Duration::from_secs(seconds));
        ends.store(true, Ordering::SeqCst);
        for one in all {
            one.join().expect("a worker, or the nemesis");
        }
        (0..3).for_each(|member| site.server.etcd_member(member).start());
        site.server.await_readiness();
        checked.store(true, Ordering::SeqCst);
    });
    await_within(Duration::from_secs(60), "the store answers", || site.leases().map(drop));
    // A request that was under way arrives before the API server gives it up.
    for at in 0..site.members.len() {
        let swept = site.sweep(at);
        assert!(swept.status.success(), "{}", String::from_utf8_lossy(&swept.stderr));
    }
    checker::check_end(&site);
    checker::check_leases(&site);
    let left: Vec<Live> = site.live().values().cloned().collect();
    for Live { node, id } in left {
        workers::del(&site, node, &id);
    }
    let leases = site.leases().unwrap();
    assert!(leases.is_empty(), "leases are left after the last DELs: {leases:?}");
    show(&format!("seed {seed}, {seconds} s: {:#?}", site.counts()));
    let broken = site.broken();
    assert!(broken.is_empty(), "JEPSEN_SEED={seed}: {} broken rules:\n{}", broken.len(), broken.join("\n"));
    let counts = site.counts();
    let count = |what: &str| counts.get(what).copied().unwrap_or_default();
    assert!(count("ADD: succeeded") > 20 && count("check: LAN") > 5 && count("check: leases") > 5, "{counts:#?}");
}

/// A checker that finds nothing proves nothing.
#[test]
fn the_checker_finds_a_lost_lease_a_leaked_lease_and_an_address_twice() {
    let site = Site::new(1);
    let wire = Wire::open(&site.lab.neighbour, site.lab.neighbour.nic);
    let attach = |at: usize, id: &str, conf: &serde_json::Value| {
        assert!(site.run(at, &["ip", "netns", "add", id], &[], "").status.success());
        let output = site.call(at, "ADD", id, conf);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let address = result["ips"][0]["address"].as_str().unwrap().to_owned();
        address.split('/').next().unwrap().parse().unwrap()
    };
    let address = attach(0, "first", &site.members[0].conf);
    site.live().insert(address, Live { node: 0, id: "first".into() });
    checker::check_leases(&site);
    checker::check_lan(&site, &wire);
    checker::check_end(&site);
    assert_eq!(site.broken(), [""; 0]);

    // The same address once more, by another IPAM plugin.
    let mut twice = site.members[1].conf.clone();
    twice["ipam"] = json!({"type": "static", "addresses": [{"address": format!("{address}/24")}]});
    attach(1, "second", &twice);
    checker::check_lan(&site, &wire);
    assert!(site.broken()[0].starts_with(&format!("{address} is on the LAN more than once")), "{:?}", site.broken());

    // An administrator deletes the lease.
    site.server.admin_api().delete(&format!("{LEASES}/{LAN}.{address}"));
    checker::check_leases(&site);
    assert!(site.broken()[1].ends_with("has the lease None"), "{:?}", site.broken());

    // A lease without a container.
    attach(2, "third", &site.members[2].conf);
    checker::check_end(&site);
    let broken = site.broken();
    assert!(broken.iter().any(|text| text.contains("has a lease without a container")), "{broken:?}");
    let in_pool = |ip: std::net::IpAddr| (site::POOL.0..=site::POOL.1).any(|last| lan4(last) == ip);
    assert!(in_pool(address));
}
