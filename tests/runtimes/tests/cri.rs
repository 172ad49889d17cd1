//! containerd on a macvlan network of the Lab, called as the kubelet calls it.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use e2e::lab::{Families, lan4, lan6};
use e2e::patience::await_that;
use e2e::runtime::{Containerd, PAGE};
use e2e::traffic::{assert_reaches, await_silence, get};
use e2e::{Binaries, Lab, cases};
use runtimes::{Cri, Pod, recipe};
use serde_json::{Value, json};

/// containerd as `conf-examples/containerd.toml` has it, with a network of these plugins.
fn start<'a>(lab: &'a Lab, plugins: &[Value]) -> Containerd<'a> {
    let list = json!({"cniVersion": "1.0.0", "name": "lan", "plugins": plugins});
    Containerd::for_kubernetes(lab, &recipe::containerd(), &list)
}

/// Takes a pod away as the kubelet does, which stops everything twice.
fn end(cri: &Cri<'_>, pod: &Pod) {
    cri.stop(&pod.id);
    assert!(!cri.status(&pod.id).ready);
    cri.stop(&pod.id);
    cri.remove(&pod.id);
}

cases! {
    #[reference(passes)]
    fn a_pod_on_a_node_with_these_plugins_alone_is_reached_from_the_lan(lab) {
        let before = lab.host.links();
        let containerd = start(lab, &[lab.conf()]);
        let cri = Cri::connect(&containerd);
        let pod = cri.run_pod("web");
        let status = cri.status(&pod.id);
        assert!(status.ready);
        assert_eq!(status.ips, ["192.168.50.100"]);
        let lease = lab.data_dir().join("lan/192.168.50.100");
        assert_eq!(fs::read_to_string(lease).expect("read the lease"), format!("{}\r\neth0", pod.id));

        let container = cri.serve(&pod);
        assert_reaches(&lab.neighbour, lan4(100));
        assert_eq!(get(&lab.neighbour, lan4(100)), PAGE);
        assert_eq!(cri.netns(&container).link("eth0").kind.as_deref(), Some("macvlan"));
        let lo = cri.exec(&container, &["ip", "-oneline", "address", "show", "lo"]);
        assert!(lo.contains("inet 127.0.0.1/8") && lo.contains("inet6 ::1/128"), "{lo}");

        end(&cri, &pod);
        assert_eq!(lab.leases(), [""; 0]);
        assert_eq!(cri.pods(), []);
        await_silence(&lab.neighbour, lan4(100));
        await_that("the host's links are as before", || lab.host.links() == before);
    }

    /// Kubernetes shows the first address; a dual stack service needs the other as well.
    #[reference(passes)]
    fn a_pod_with_two_families_has_both_addresses_in_its_status(lab) {
        let containerd = start(lab, &[lab.conf_with(lab.ipam(Families::Dual))]);
        let cri = Cri::connect(&containerd);
        let pod = cri.run_pod("web");
        assert_eq!(cri.status(&pod.id).ips, ["192.168.50.100", "fd50::100"]);
        cri.serve(&pod);
        for ip in [lan4(100), lan6(100)] {
            assert_eq!(get(&lab.neighbour, ip), PAGE);
        }
        end(&cri, &pod);
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn tuning_after_macvlan_changes_the_pods_link(lab) {
        let tuning = json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"}});
        let containerd = start(lab, &[lab.conf(), tuning]);
        containerd.add_plugin(&Binaries::Reference.directory(lab.bin()).join("tuning"));
        let cri = Cri::connect(&containerd);
        let pod = cri.run_pod("web");
        assert_eq!(cri.status(&pod.id).ips, ["192.168.50.100"]);
        let netns = cri.netns(&cri.serve(&pod));
        assert_eq!(netns.link("eth0").mtu, 1400);
        assert_eq!(netns.sysctl("net/ipv4/conf/eth0/log_martians"), "1");
        assert_eq!(get(&lab.neighbour, lan4(100)), PAGE);
        drop(netns);
        end(&cri, &pod);
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// What the kubelet does all the time while a node is full: it asks again.
    #[reference(not_run: "its message is another")]
    fn a_pod_that_finds_no_address_leaves_nothing_and_starts_when_there_is_one(lab) {
        let mut ipam = lab.ipam(Families::V4);
        ipam["ranges"][0][0]["rangeEnd"] = json!("192.168.50.100");
        let containerd = start(lab, &[lab.conf_with(ipam)]);
        let cri = Cri::connect(&containerd);
        let first = cri.run_pod("first");
        for _ in 0..2 {
            let refused = lab.unchanged(&[], || cri.try_run_pod("second")).expect_err("no address is free");
            let message = refused.message();
            assert!(message.contains("no free address") && message.contains("192.168.50.100"), "{message}");
        }
        end(&cri, &first);
        let second = cri.run_pod("second");
        assert_eq!(cri.status(&second.id).ips, ["192.168.50.100"]);
        end(&cri, &second);
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn pods_that_start_at_once_have_addresses_of_their_own(lab) {
        let containerd = start(lab, &[lab.conf()]);
        let cri = Cri::connect(&containerd);
        let names = ["one", "two", "three", "four", "five", "six"];
        let pods = thread::scope(|scope| {
            let starts = names.map(|name| {
                let containerd = &containerd;
                scope.spawn(move || Cri::connect(containerd).run_pod(name))
            });
            starts.map(|start| start.join().expect("start a pod"))
        });
        let addresses: BTreeSet<String> = pods.iter().flat_map(|pod| cri.status(&pod.id).ips).collect();
        assert_eq!(addresses, (100..106).map(|last| lan4(last).to_string()).collect());
        thread::scope(|scope| {
            for pod in &pods {
                let containerd = &containerd;
                scope.spawn(move || end(&Cri::connect(containerd), pod));
            }
        });
        assert_eq!(lab.leases(), [""; 0]);
        assert_eq!(cri.pods(), []);
    }
}
