//! A node reboots with pods on it: containerd and all containers end by SIGKILL. Then /run is empty and the boot ID
//! has changed. containerd's own data and the leases are still on disk.

use std::collections::BTreeSet;

use e2e::lab::{Families, lan4};
use e2e::runtime::{Containerd, PAGE};
use e2e::traffic::get;
use e2e::{Lab, cases};
use runtimes::{Cri, Pod, recipe};
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// containerd on a network whose range has one address for each of the pods.
fn start(lab: &Lab) -> Containerd<'_> {
    Containerd::for_kubernetes(lab, &recipe::containerd(), &network(lab))
}

fn network(lab: &Lab) -> Value {
    let mut ipam = lab.ipam(Families::V4);
    ipam["ranges"][0][0]["rangeEnd"] = json!("192.168.50.102");
    json!({"cniVersion": "1.0.0", "name": "lan", "plugins": [lab.conf_with(ipam)]})
}

fn run_pods(cri: &Cri<'_>) -> [Pod; 3] {
    NAMES.map(|name| cri.run_pod(name))
}

fn addresses(cri: &Cri<'_>, pods: &[Pod]) -> Vec<String> {
    pods.iter().flat_map(|pod| cri.status(&pod.id).ips).collect()
}

fn ids(pods: &[Pod]) -> BTreeSet<&str> {
    pods.iter().map(|pod| pod.id.as_str()).collect()
}

/// The containers that the leases are held by.
fn holders(lab: &Lab) -> BTreeSet<String> {
    let holder = |address: String| {
        let path = lab.data_dir().join("lan").join(address);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        text.split_once("\r\n").expect("an owner").0.to_owned()
    };
    lab.leases().into_iter().map(holder).collect()
}

/// All pods are served at addresses of their own, and hold all leases.
fn assert_whole(lab: &Lab, cri: &Cri<'_>, pods: &[Pod]) {
    let addresses = addresses(cri, pods);
    let distinct: BTreeSet<&str> = addresses.iter().map(String::as_str).collect();
    assert_eq!(distinct, BTreeSet::from(["192.168.50.100", "192.168.50.101", "192.168.50.102"]), "{addresses:?}");
    for pod in pods {
        cri.serve(pod);
    }
    for last in 100..103 {
        assert_eq!(get(&lab.neighbour, lan4(last)), PAGE);
    }
    assert_eq!(holders(lab), ids(pods).into_iter().map(str::to_owned).collect());
}

/// The old pods are still in containerd's books, and their end releases what they held.
fn assert_dead(cri: &Cri<'_>, pods: &[Pod]) {
    let dead: BTreeSet<String> = cri.pods().into_iter().filter(|(_, ready)| !ready).map(|(id, _)| id).collect();
    assert_eq!(dead, ids(pods).into_iter().map(str::to_owned).collect());
}

fn clear_away(cri: &Cri<'_>, pods: &[Pod]) {
    for pod in pods {
        cri.stop(&pod.id);
        cri.stop(&pod.id);
        cri.remove(&pod.id);
    }
}

cases! {
    #[reference(passes)]
    fn old_pods_that_are_cleared_away_first_leave_no_lease(lab) {
        let containerd = start(lab);
        let old = {
            let cri = Cri::connect(&containerd);
            let pods = run_pods(&cri);
            assert_whole(lab, &cri, &pods);
            pods
        };
        let containerd = containerd.reboot();
        let cri = Cri::connect(&containerd);
        assert_dead(&cri, &old);
        clear_away(&cri, &old);
        assert_eq!(lab.leases(), [""; 0]);

        let new = run_pods(&cri);
        assert_whole(lab, &cri, &new);
        clear_away(&cri, &new);
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// The kubelet starts a pod anew and clears the old one away when it comes to that. With the range full of leases
    /// from before the reboot, the reference has no address for it.
    #[reference(fails: "no IP addresses available")]
    fn new_pods_that_come_first_have_the_addresses_of_before_the_reboot(lab) {
        let containerd = start(lab);
        let old = run_pods(&Cri::connect(&containerd));
        let containerd = containerd.reboot();
        let cri = Cri::connect(&containerd);
        assert_eq!(lab.leases().len(), NAMES.len());
        // Their names are taken in containerd's books until the old ones are removed, so it is an attempt more.
        let new = NAMES.map(|name| cri.run_pod(&format!("{name}-again")));
        assert_whole(lab, &cri, &new);

        // Late, and about addresses that are others' by now.
        assert_dead(&cri, &old);
        clear_away(&cri, &old);
        for last in 100..103 {
            assert_eq!(get(&lab.neighbour, lan4(last)), PAGE);
        }
        assert_eq!(holders(lab), ids(&new).into_iter().map(str::to_owned).collect());
        clear_away(&cri, &new);
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// Nobody has cleared away what the first left when the second comes.
    #[reference(not_run: "it has no address after the first")]
    fn two_reboots_in_a_row_leak_nothing(lab) {
        let mut containerd = start(lab);
        let mut last = Vec::new();
        for boot in 0..3 {
            let cri = Cri::connect(&containerd);
            last = NAMES.map(|name| cri.run_pod(&format!("{name}-{boot}"))).to_vec();
            assert_eq!(holders(lab), ids(&last).into_iter().map(str::to_owned).collect());
            drop(cri);
            if boot < 2 {
                containerd = containerd.reboot();
            }
        }
        let cri = Cri::connect(&containerd);
        assert_eq!(cri.pods().len(), 3 * NAMES.len());
        for (id, _) in cri.pods() {
            if !ids(&last).contains(id.as_str()) {
                cri.stop(&id);
                cri.remove(&id);
            }
        }
        assert_whole(lab, &cri, &last);
        clear_away(&cri, &last);
        assert_eq!(lab.leases(), [""; 0]);
    }
}
