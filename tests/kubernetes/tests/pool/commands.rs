//! The commands for people: sweep, release and import.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::site::{PoolNode, Shared, addresses};

/// Runs a command of lan-pool on a node, with a network configuration.
fn run(node: &PoolNode<'_>, conf: &Value, words: &[&str]) -> Output {
    let file = conf_file(node, conf);
    let program = node.program();
    node.machine.run(|| {
        let mut command = Command::new(&program);
        command.args(words).arg("--conf").arg(&file).env_remove("KUBECONFIG");
        command.output().expect("run lan-pool")
    })
}

fn conf_file(node: &PoolNode<'_>, conf: &Value) -> PathBuf {
    let file = node.data.with_extension("conflist");
    let list = json!({"cniVersion": "1.1.0", "name": "lan", "plugins": [conf]});
    fs::write(&file, list.to_string()).expect("write a configuration");
    file
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_sweep_frees_the_leases_of_containers_that_are_gone() {
    let shared = Shared::get();
    let node = shared.node("sweep", "sweep-1");
    let (conf, lives) = (node.conf(10, 20), node.container());
    node.add(&lives, &conf).result();
    node.add(&node.container(), &conf).result();
    let output = run(&node, &conf, &["sweep"]);
    assert_eq!(text(&output), "sweep: 2 leases freed, 0 made again, 0 left for a later call\n");
    assert_eq!(text(&run(&node, &conf, &["sweep"])), "sweep: nothing to free\n");
    assert_eq!(shared.leases("sweep").len(), 2);
}

#[test]
fn a_release_asks_for_evidence_and_asks_the_lan() {
    let shared = Shared::get();
    let (dead, admin) = (shared.node("dead", "dead-1"), shared.node("dead", "dead-2"));
    let neighbour = shared.node("dead", "dead-3");
    let answering = neighbour.machine.v4.to_string();
    let mut conf = dead.conf(10, 20);
    conf["master"] = json!(admin.machine.nic);
    let lost = dead.container();
    let ips = [answering.as_str(), "192.168.50.222"];
    conf["ipam"]["ranges"] = json!([[{"subnet": "192.168.50.0/24", "rangeStart": ips[0], "rangeEnd": ips[0]}],
                                   [{"subnet": "192.168.50.0/24", "rangeStart": ips[1], "rangeEnd": ips[1]}]]);
    assert_eq!(addresses(&dead.add(&lost, &conf).result()), ips);
    let api = shared.server.admin_api();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "dead-1"}});
    api.create("/api/v1/nodes", &node);
    let kubeconfig = shared.server.admin_kubeconfig().display().to_string();
    let release = |more: &[&str]| {
        run(&admin, &conf, &[&["release", "--node", "dead-1", "--kubeconfig", kubeconfig.as_str()], more].concat())
    };
    let refused = release(&[]);
    assert_eq!(refused.status.code(), Some(1));
    let expected = "lan-pool release: dead-1 is not Ready, but its containers may still run. If the machine is off, set \
                    the taint node.kubernetes.io/out-of-service, delete the Node object, or say --off\n";
    assert_eq!(text(&refused), expected);
    api.delete("/api/v1/nodes/dead-1");
    let released = release(&[]);
    let said = text(&released);
    assert_eq!(released.status.code(), Some(1), "{said}");
    let holder = neighbour.machine.link(neighbour.machine.nic).mac;
    assert!(said.starts_with("dead-1: the cluster has no such node\ndead-1: 2 leases; asking the LAN of "), "{said}");
    assert!(
        said.contains(&format!("{answering}  pod default/{} on node dead-1: kept: {holder} answers for it\n", lost.id)),
        "{said}"
    );
    assert!(said.contains(&format!("192.168.50.222  pod default/{} on node dead-1: freed\n", lost.id)), "{said}");
    assert!(said.ends_with("1 leases freed, 1 kept\nlan-pool release: 1 leases are not freed\n"), "{said}");
    let left: Vec<_> = shared.leases("dead").iter().map(|lease| lease["address"].clone()).collect();
    assert_eq!(left, [json!(answering)]);
}

#[test]
fn a_node_may_not_release_the_leases_of_another_one() {
    let shared = Shared::get();
    let (dead, thief) = (shared.node("thief", "thief-1"), shared.node("thief", "thief-2"));
    let mut conf = dead.conf(10, 20);
    conf["master"] = json!(thief.machine.nic);
    conf["ipam"]["ranges"] =
        json!([[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.10", "rangeEnd": "10.77.0.20"}]]);
    dead.add(&dead.container(), &conf).result();
    let kubeconfig = shared.server.node_kubeconfig("thief-2").display().to_string();
    let words = ["release", "--node", "thief-1", "--off", "--kubeconfig", &kubeconfig];
    let refused = run(&thief, &conf, &words);
    assert_ne!(refused.status.code(), Some(0), "{}", text(&refused));
    assert_eq!(shared.leases("thief").len(), 1, "{}", text(&refused));
}

#[test]
fn live_leases_of_host_local_are_taken_over() {
    let shared = Shared::get();
    let node = shared.node("import", "import-1");
    let container = node.container();
    let data = shared.lab.path("import-host-local");
    let range = json!([[{"subnet": "192.168.50.0/24", "rangeStart": "192.168.50.230", "rangeEnd": "192.168.50.235"}]]);
    let old = json!({"cniVersion": "1.1.0", "name": "old", "type": "macvlan", "master": node.machine.nic,
                     "ipam": {"type": "host-local", "dataDir": data, "ranges": range}});
    let macvlan = node.main_plugin("macvlan");
    let ip = addresses(&macvlan.add(&container, "eth0", &old).run().result()).remove(0);
    // A lease without a container.
    fs::write(data.join("old/192.168.50.235"), "gone\r\neth0").unwrap();
    let mut new = old.clone();
    new["ipam"] = node.ipam(0, 0);
    new["ipam"]["ranges"] = range;
    let from = data.join("old").display().to_string();
    let output = run(&node, &new, &["import", "--from", &from]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("  {ip}: taken over for {} eth0\n", container.id)), "{said}");
    assert!(said.contains("  192.168.50.235: left, because no running container has this address\n"), "{said}");
    let leases = shared.leases("import");
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0]["address"], ip.as_str());
    assert_eq!(leases[0]["containerID"], container.id.as_str());
    // After the switch, the pod ends with the new configuration.
    macvlan.del(&container, "eth0", &new).run().done();
    assert_eq!(shared.leases("import"), [json!(null); 0]);
}
