//! A node with pods reboots: SIGKILL ends containerd and all containers. Then /run is empty, and the boot ID has
//! changed. The data of containerd and the leases are still on disk.

use std::collections::BTreeSet;

use e2e::lab::lan4;
use e2e::runtime::{Containerd, PAGE};
use e2e::traffic::get;
use e2e::{Lab, cases};
use runtimes::{Cri, Pod, recipe};
use serde_json::json;

const NAMES: [&str; 3] = ["one", "two", "three"];

/// Starts containerd with a network of three addresses, one for each pod.
fn start(lab: &Lab) -> Containerd<'_> {
    let plugin = lab.conf_of("192.168.50.100", "192.168.50.102");
    let list = json!({"cniVersion": "1.0.0", "name": "lan", "plugins": [plugin]});
    Containerd::for_kubernetes(lab, &recipe::containerd(), &list)
}

fn run_pods(cri: &Cri<'_>) -> [Pod; 3] {
    NAMES.map(|name| cri.run_pod(name))
}

fn ids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.id.clone()).collect()
}

/// The containers that hold the leases.
fn holders(lab: &Lab) -> BTreeSet<String> {
    let holder = |address: String| {
        let path = lab.lease_file(&address);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        text.split_once("\r\n").expect("an owner").0.to_owned()
    };
    lab.leases().into_iter().map(holder).collect()
}

/// Asserts that the pods have different addresses, serve their pages, and hold all leases.
fn assert_whole(lab: &Lab, cri: &Cri<'_>, pods: &[Pod]) {
    let addresses: BTreeSet<String> = pods.iter().flat_map(|pod| cri.status(&pod.id).ips).collect();
    assert_eq!(addresses, (100..103).map(|last| lan4(last).to_string()).collect());
    for pod in pods {
        cri.serve(pod);
    }
    assert_served(lab, pods);
}

fn assert_served(lab: &Lab, pods: &[Pod]) {
    for last in 100..103 {
        assert_eq!(get(&lab.neighbour, lan4(last)), PAGE);
    }
    assert_eq!(holders(lab), ids(pods));
}

/// Asserts that containerd still lists these pods, and no others, as not ready.
fn assert_dead(cri: &Cri<'_>, pods: &[Pod]) {
    let dead: BTreeSet<String> = cri.pods().into_iter().filter(|(_, ready)| !ready).map(|(id, _)| id).collect();
    assert_eq!(dead, ids(pods));
}

fn end_all(cri: &Cri<'_>, pods: &[Pod]) {
    pods.iter().for_each(|pod| cri.end(pod));
}

cases! {
    #[reference(passes)]
    fn pods_that_the_kubelet_ends_after_a_reboot_leave_no_lease(lab) {
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
        end_all(&cri, &old);
        assert_eq!(lab.leases(), [""; 0]);

        let new = run_pods(&cri);
        assert_whole(lab, &cri, &new);
        end_all(&cri, &new);
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// The kubelet may start new pods before it ends the old ones. All addresses are leased since before the reboot, so
    /// the reference has none for the new pods.
    #[reference(fails: "no IP addresses available")]
    fn new_pods_get_the_addresses_of_pods_from_before_a_reboot(lab) {
        let containerd = start(lab);
        let old = run_pods(&Cri::connect(&containerd));
        let containerd = containerd.reboot();
        let cri = Cri::connect(&containerd);
        assert_eq!(lab.leases().len(), NAMES.len());
        // containerd refuses the names of pods that it still lists.
        let new = NAMES.map(|name| cri.run_pod(&format!("{name}-again")));
        assert_whole(lab, &cri, &new);

        // The end of the old pods must not release the addresses, which the new pods have.
        assert_dead(&cri, &old);
        end_all(&cri, &old);
        assert_served(lab, &new);
        end_all(&cri, &new);
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// The second reboot happens before the pods from before the first one were ended.
    #[reference(not_run: "it has no address after the first")]
    fn two_reboots_one_after_the_other_leak_nothing(lab) {
        let mut containerd = start(lab);
        let mut last = Vec::new();
        for boot in 0..3 {
            let cri = Cri::connect(&containerd);
            last = NAMES.map(|name| cri.run_pod(&format!("{name}-{boot}"))).to_vec();
            assert_eq!(holders(lab), ids(&last));
            drop(cri);
            if boot < 2 {
                containerd = containerd.reboot();
            }
        }
        let cri = Cri::connect(&containerd);
        assert_eq!(cri.pods().len(), 3 * NAMES.len());
        for (id, _) in cri.pods() {
            if !ids(&last).contains(&id) {
                cri.stop(&id);
                cri.remove(&id);
            }
        }
        assert_whole(lab, &cri, &last);
        end_all(&cri, &last);
        assert_eq!(lab.leases(), [""; 0]);
    }
}
