//! Many ADDs of many nodes at once. `POOL_ADDS` and `POOL_NODES` set other numbers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::plugin::slowness;
use e2e::samples::show;
use serde_json::json;

use crate::site::{Shared, addresses};

/// The calls that run at the same time.
const PARALLEL: usize = 64;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn many_adds_of_many_nodes_at_once_give_no_address_twice() {
    let (adds, nodes) = (number("POOL_ADDS", 200), number("POOL_NODES", 20));
    let shared = Shared::get();
    let machine = shared.node("scale", "scale-0");
    let container = machine.container();
    let identities: Vec<_> =
        (0..nodes).map(|node| shared.server.node_kubeconfig(&format!("scale-node-{node}"))).collect();
    let conf = |node: usize| {
        json!({"cniVersion": "1.1.0", "name": "lan", "type": "macvlan", "ipam": {
            "type": "lan-pool", "lan": "scale", "dataDir": machine.data.join(node.to_string()),
            "ranges": [[{"subnet": "10.78.0.0/20"}]],
            "store": {"kubernetes": {"kubeconfig": identities[node]}},
        }})
    };
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    let outcomes: Vec<(String, Duration)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= adds {
                    return done;
                }
                let call = machine.plugin().attachment("ADD", &container, "eth0", &conf(number % nodes));
                let outcome = call.env("CNI_CONTAINERID", format!("scale-{number}")).run();
                done.push((addresses(&outcome.result()).remove(0), outcome.wall));
            }
        };
        let threads: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a caller")).collect()
    });
    let took = begun.elapsed();
    let mut walls: Vec<Duration> = outcomes.iter().map(|(_, wall)| *wall).collect();
    walls.sort();
    let at = |part: usize| walls[(walls.len() - 1) * part / 100];
    show(&format!("{adds} ADDs of {nodes} nodes: {took:?} in all, one {:?} (median), {:?} (99 %)", at(50), at(99)));
    let given: HashSet<&String> = outcomes.iter().map(|(address, _)| address).collect();
    assert_eq!(given.len(), adds, "an address was given twice");
    assert_eq!(shared.leases("scale").len(), adds);
    // Far above a quiet machine: a lock for all nodes would need minutes.
    let most = Duration::from_millis(100) * u32::try_from(adds).expect("a small number") * slowness();
    assert!(took < most, "{adds} ADDs took {took:?}");
}
