//! containerd on a macvlan network of the Lab. The tests call it as the kubelet does.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use e2e::lab::{Families, lan4, lan6};
use e2e::patience::await_that;
use e2e::runtime::{Containerd, PAGE};
use e2e::traffic::{assert_reaches, await_silence, get};
use e2e::{Binaries, Lab, cases};
use runtimes::{Cri, recipe};
use serde_json::{Value, json};

/// Starts containerd with `conf-examples/containerd.toml` and a network of these plugins.
fn start<'a>(lab: &'a Lab, plugins: &[Value]) -> Containerd<'a> {
    let list = json!({"cniVersion": "1.0.0", "name": "lan", "plugins": plugins});
    Containerd::for_kubernetes(lab, &recipe::containerd(), &list)
}

cases! {
    #[reference(passes)]
    fn the_lan_reaches_a_pod_of_a_node_that_has_no_other_plugins(lab) {
        let before = lab.host.links();
        let containerd = start(lab, &[lab.conf()]);
        let cri = Cri::connect(&containerd);
        let pod = cri.run_pod("web");
        let status = cri.status(&pod.id);
        assert!(status.ready);
        assert_eq!(status.ips, ["192.168.50.100"]);
        let lease = fs::read_to_string(lab.lease_file("192.168.50.100")).expect("read the lease");
        assert_eq!(lease, format!("{}\r\neth0", pod.id));

        let container = cri.serve(&pod);
        assert_reaches(&lab.neighbour, lan4(100));
        assert_eq!(get(&lab.neighbour, lan4(100)), PAGE);
        assert_eq!(cri.netns(&container).link("eth0").kind.as_deref(), Some("macvlan"));
        let lo = cri.exec(&container, &["ip", "-oneline", "address", "show", "lo"]);
        assert!(lo.contains("inet 127.0.0.1/8") && lo.contains("inet6 ::1/128"), "{lo}");

        cri.end(&pod);
        assert_eq!(lab.leases(), [""; 0]);
        assert_eq!(cri.pods(), []);
        await_silence(&lab.neighbour, lan4(100));
        await_that("the host's links are as before", || lab.host.links() == before);
    }

    /// Kubernetes shows the first address. A dual stack service also needs the other one.
    #[reference(passes)]
    fn the_status_of_a_dual_stack_pod_has_both_addresses(lab) {
        let containerd = start(lab, &[lab.conf_with(lab.ipam(Families::Dual))]);
        let cri = Cri::connect(&containerd);
        let pod = cri.run_pod("web");
        assert_eq!(cri.status(&pod.id).ips, ["192.168.50.100", "fd50::100"]);
        cri.serve(&pod);
        for ip in [lan4(100), lan6(100)] {
            assert_eq!(get(&lab.neighbour, ip), PAGE);
        }
        cri.end(&pod);
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn tuning_after_macvlan_changes_the_link_of_the_pod(lab) {
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
        cri.end(&pod);
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// While no address is free, the kubelet tries again and again.
    #[reference(not_run: "its message is another")]
    fn a_pod_without_a_free_address_leaves_nothing_and_starts_when_one_is_free(lab) {
        let containerd = start(lab, &[lab.conf_of("192.168.50.100", "192.168.50.100")]);
        let cri = Cri::connect(&containerd);
        let first = cri.run_pod("first");
        for _ in 0..2 {
            let refused = lab.unchanged(&[], || cri.try_run_pod("second")).expect_err("no address is free");
            let message = refused.message();
            assert!(message.contains("no free address") && message.contains("192.168.50.100"), "{message}");
        }
        cri.end(&first);
        let second = cri.run_pod("second");
        assert_eq!(cri.status(&second.id).ips, ["192.168.50.100"]);
        cri.end(&second);
        assert_eq!(lab.leases(), [""; 0]);
    }

    #[reference(passes)]
    fn pods_that_start_at_the_same_time_have_different_addresses(lab) {
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
                scope.spawn(move || Cri::connect(containerd).end(pod));
            }
        });
        assert_eq!(lab.leases(), [""; 0]);
        assert_eq!(cri.pods(), []);
    }
}
