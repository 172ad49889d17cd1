//! Many ADDs of many nodes at once. `POOL_ADDS` and `POOL_NODES` set other numbers.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::binaries::peers;
use e2e::plugin::{Call, Plugin, slowness};
use e2e::samples::show;
use serde_json::{Value, json};

use crate::site::{Shared, addresses};

/// The calls that run at the same time.
const PARALLEL: usize = 64;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The outcome of many ADDs.
struct Burst {
    /// The address and the time of each ADD that succeeded.
    given: Vec<(String, Duration)>,
    failed: usize,
    took: Duration,
}

impl Burst {
    /// Runs so many calls, [`PARALLEL`] at a time.
    fn run<'a>(adds: usize, call: impl Fn(usize) -> Call<'a> + Sync) -> Self {
        let (next, failed, begun) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
        let work = || {
            let mut given = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= adds {
                    return given;
                }
                let outcome = call(number).run();
                if outcome.status.success() {
                    given.push((addresses(&outcome.result()).remove(0), outcome.wall));
                } else {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let given = thread::scope(|scope| {
            let threads: Vec<_> = (0..PARALLEL.min(adds)).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a caller")).collect()
        });
        Self { given, failed: failed.into_inner(), took: begun.elapsed() }
    }

    /// ADDs that succeeded, for each second.
    fn rate(&self) -> f64 {
        self.given.len() as f64 / self.took.as_secs_f64()
    }

    fn show(&self, name: &str) {
        let mut walls: Vec<Duration> = self.given.iter().map(|(_, wall)| *wall).collect();
        walls.sort();
        let at = |part: usize| walls.get((walls.len().saturating_sub(1)) * part / 100).copied().unwrap_or_default();
        let (good, failed, rate) = (self.given.len(), self.failed, self.rate());
        show(&format!(
            "{name}: {good} ADDs in {:?} ({rate:.1} each second), {failed} failed, one {:?} (median), {:?} (99 %)",
            self.took,
            at(50),
            at(99)
        ));
    }
}

/// Many ADDs of lan-pool, by many nodes.
fn burst_of_lan_pool(shared: &Shared, lan: &'static str, adds: usize, nodes: usize) -> Burst {
    let machine = shared.node(lan, lan);
    let container = machine.container();
    let identity = |node: usize| shared.server.node_kubeconfig(&format!("scale-node-{node}"));
    let identities: Vec<_> = (0..nodes).map(identity).collect();
    let conf = |node: usize| {
        json!({"cniVersion": "1.1.0", "name": "lan", "type": "macvlan", "ipam": {
            "type": "lan-pool", "lan": lan, "dataDir": machine.data.join(node.to_string()),
            "ranges": [[{"subnet": "10.78.0.0/20"}]],
            "store": {"kubernetes": {"kubeconfig": identities[node]}},
        }})
    };
    let plugin = machine.plugin();
    Burst::run(adds, |number| {
        let call = plugin.attachment("ADD", &container, "eth0", &conf(number % nodes));
        call.env("CNI_CONTAINERID", format!("scale-{number}"))
    })
}

#[test]
fn many_adds_of_many_nodes_at_once_give_no_address_twice() {
    let (adds, nodes) = (number("POOL_ADDS", 200), number("POOL_NODES", 20));
    let shared = Shared::get();
    let burst = burst_of_lan_pool(&shared, "scale", adds, nodes);
    burst.show(&format!("lan-pool, {nodes} nodes"));
    let given: HashSet<&String> = burst.given.iter().map(|(address, _)| address).collect();
    assert_eq!((given.len(), burst.failed), (adds, 0), "an address was given twice, or an ADD has failed");
    assert_eq!(shared.leases("scale").len(), adds);
    // Far above a quiet machine: a lock for all nodes would need minutes.
    let most = Duration::from_millis(100) * u32::try_from(adds).expect("a small number") * slowness();
    assert!(burst.took < most, "{adds} ADDs took {:?}", burst.took);
}

/// The API group of whereabouts, and the kinds of its objects.
const GROUP: &str = "whereabouts.cni.cncf.io";
const KINDS: [(&str, &str); 3] = [
    ("IPPool", "ippools"),
    ("OverlappingRangeIPReservation", "overlappingrangeipreservations"),
    ("NodeSlicePool", "nodeslicepools"),
];

fn definition(kind: &str, plural: &str) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": open, "status": open}}},
            }],
        },
    })
}

/// Both use the same API server. whereabouts has its default settings, and the rights of an administrator. It gets slower with
/// the number of ADDs at once: `WHEREABOUTS_ADDS` sets another number. docs/benchmarks.md has the figures of a larger run.
#[test]
fn lan_pool_leases_many_times_as_fast_as_whereabouts() {
    let shared = Shared::start();
    let api = shared.server.admin_api();
    for (kind, plural) in KINDS {
        api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition(kind, plural));
        let path = format!("/apis/{GROUP}/v1alpha1/{plural}");
        e2e::patience::await_within(Duration::from_secs(60), "the kind is served", || {
            match api.request("GET", &path, None)?.status {
                200 => Ok(()),
                status => Err(format!("{status}")),
            }
        });
    }
    let machine = shared.node("whereabouts", "whereabouts");
    let container = machine.container();
    let file = shared.lab.path("whereabouts.conf");
    fs::write(&file, json!({"kubernetes": {"kubeconfig": shared.server.admin_kubeconfig()}}).to_string()).unwrap();
    let conf = json!({"cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "ipam": {
        "type": "whereabouts", "configuration_path": file, "range": "10.79.0.0/20",
    }});
    let plugin = Plugin::new(&machine.machine, peers("whereabouts").join("whereabouts")).search(peers("whereabouts"));
    let theirs = Burst::run(number("WHEREABOUTS_ADDS", 30), |number| {
        let call = plugin.attachment("ADD", &container, "eth0", &conf);
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{number}");
        call.env("CNI_CONTAINERID", format!("whereabouts-{number}")).args(&args)
    });
    let ours = burst_of_lan_pool(&shared, "compared", number("POOL_ADDS", 200), number("POOL_NODES", 20));
    theirs.show("whereabouts");
    ours.show("lan-pool");
    assert!(!theirs.given.is_empty() && ours.failed == 0, "whereabouts gave no address, or lan-pool failed");
    show(&format!("lan-pool has {:.0} times the rate of whereabouts", ours.rate() / theirs.rate()));
    // In this short run, the first calls of the nodes count, and the machine has other work.
    assert!(ours.rate() > 5.0 * theirs.rate());
}
