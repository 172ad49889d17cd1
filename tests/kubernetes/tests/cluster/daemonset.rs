//! The DaemonSet of packaging/ on a cluster that has the reference plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::Binaries;
use e2e::plugin::write_script;
use e2e::runtime::PAGE;
use e2e::traffic::get;
use kubernetes::cluster::{Turn, copy_plugins};
use kubernetes::pods::{self, DEPLOYMENTS, Pod};
use kubernetes::{Cluster, Node};
use serde_json::json;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The reference plugins on each node before the installation.
const REFERENCE: [&str; 4] = ["bridge", "host-local", "loopback", "macvlan"];

/// The image that the manifest names, and the image of a later version.
const IMAGE: &str = "docker.io/library/underlay:0.1.0";
const LATER_IMAGE: &str = "docker.io/library/underlay:later";

/// The files in the directory of plugins, each with its content.
type Plugins = BTreeMap<String, Vec<u8>>;

fn plugins(node: &Node) -> Plugins {
    let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let names = node.names_in("/opt/cni/bin").into_iter();
    let files = names.filter(|name| node.plugin_dir().join(name).is_file());
    files.map(|name| (name.clone(), read(node.plugin_dir().join(name)))).collect()
}

/// Replaces all plugins of a node by those in a directory.
fn replace_plugins(node: &Node, from: &Path) {
    let directory = node.plugin_dir();
    fs::remove_dir_all(&directory).unwrap_or_else(|e| panic!("empty {}: {e}", directory.display()));
    copy_plugins(from, &directory);
}

/// Builds an image of a program, as `make image` does.
fn image(program: &Path, directory: &Path) -> PathBuf {
    let script = Path::new(REPOSITORY).join("packaging/image.sh");
    let output = Command::new(script).arg(program).arg(directory).env("SOURCE_DATE_EPOCH", "1700000000").output();
    let output = output.expect("start packaging/image.sh");
    assert!(output.status.success(), "{output:?}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}

fn await_rollout(cluster: &Turn) {
    let status = ["--namespace=kube-system", "rollout", "status", "daemonset/underlay", "--timeout=120s"];
    cluster.kubectl(&status, "");
}

/// Waits until each name that we install is that program, and `lan-pool` that companion, on both nodes.
fn await_programs(cluster: &Turn, program: &[u8], companion: &[u8]) {
    for node in &cluster.nodes {
        cluster.until(&format!("the program is installed on {}", node.name), || {
            let plugins = plugins(node);
            let names = ["underlay", "macvlan", "ipvlan", "ipvlan-l2", "host-local", "loopback", "static"];
            let wanted = names.into_iter().map(|name| (name, program)).chain([("lan-pool", companion)]);
            let others: Vec<&str> = wanted
                .filter(|(name, wanted)| plugins.get(*name).is_none_or(|bytes| bytes != wanted))
                .map(|(name, _)| name)
                .collect();
            if others.is_empty() { Ok(()) } else { Err(format!("not yet: {others:?}")) }
        });
    }
}

/// Asserts that the pods from before still run as the same containers and answer.
fn assert_undisturbed(cluster: &Turn, before: &[Pod]) {
    let now = cluster.await_replicas("web", before.len());
    let identity = |pod: &Pod| (pod.name.clone(), pod.container.clone(), pod.ip, pod.restarts);
    let sorted = |pods: &[Pod]| pods.iter().map(identity).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&now), sorted(before));
    for pod in before {
        assert_eq!(get(&cluster.gateway, pod.ip), PAGE);
    }
}

#[test]
fn the_daemonset_installs_upgrades_and_uninstalls_while_pods_run() {
    let cluster = Cluster::shared();
    let scratch = cluster.lab.path("daemonset");
    fs::create_dir_all(scratch.join("reference")).expect("make a directory");
    for name in REFERENCE {
        let from = Binaries::Reference.directory(&scratch).join(name);
        fs::copy(&from, scratch.join("reference").join(name)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
    for node in &cluster.nodes {
        replace_plugins(node, &scratch.join("reference"));
    }
    let before = plugins(&cluster.nodes[0]);
    let pods = cluster.deploy("web", 4, pods::spec());

    // The later version differs only by bytes at the ends of its programs, which no loader reads.
    let program = cluster.lab.bin().join("underlay");
    let later = scratch.join("underlay");
    let [(bytes, later_bytes), (companion, later_companion)] = ["underlay", "lan-pool"].map(|name| {
        let bytes = fs::read(cluster.lab.bin().join(name)).expect("read a program");
        let later_bytes = [&bytes[..], b"later"].concat();
        write_script(&scratch.join(name), "");
        fs::write(scratch.join(name), &later_bytes).expect("write a later program");
        (bytes, later_bytes)
    });
    let later_archive = image(&later, &scratch.join("later"));
    let archive = image(&program, &scratch.join("now"));
    for node in &cluster.nodes {
        node.import(&later_archive);
        node.ctr(&["image", "tag", IMAGE, LATER_IMAGE]);
        node.import(&archive);
    }

    let manifest = fs::read_to_string(Path::new(REPOSITORY).join("packaging/daemonset.yaml")).expect("read a manifest");
    assert!(manifest.contains(IMAGE), "the manifest names another image");
    cluster.kubectl(&["apply", "-f", "-"], &manifest);
    await_rollout(&cluster);
    await_programs(&cluster, &bytes, &companion);
    assert_undisturbed(&cluster, &pods);

    let later_manifest = manifest.replace(IMAGE, LATER_IMAGE);
    cluster.kubectl(&["apply", "-f", "-"], &later_manifest);
    await_rollout(&cluster);
    await_programs(&cluster, &later_bytes, &later_companion);
    assert_undisturbed(&cluster, &pods);

    // Our plugins attach four pods more.
    cluster.api.patch(&format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 8}}));
    let pods = cluster.await_replicas("web", 8);

    let back = later_manifest.replace("args: [install, --wait]", "args: [uninstall, --wait]");
    assert_ne!(back, later_manifest);
    cluster.kubectl(&["apply", "-f", "-"], &back);
    await_rollout(&cluster);
    for node in &cluster.nodes {
        cluster.until(&format!("the reference is back on {}", node.name), || {
            let names = node.names_in("/opt/cni/bin");
            if names == REFERENCE { Ok(()) } else { Err(format!("{names:?}")) }
        });
        assert!(plugins(node) == before, "{} has other plugins than before", node.name);
    }
    assert_undisturbed(&cluster, &pods);
    cluster.kubectl(&["--namespace=kube-system", "delete", "daemonset/underlay", "--wait"], "");

    // The reference does not know the host's side of our four pods. Our next ADD removes it.
    cluster.api.delete(&format!("{DEPLOYMENTS}/web"));
    cluster.await_no_pods();
    for node in &cluster.nodes {
        replace_plugins(node, cluster.lab.bin());
        cluster.deploy(node.name, 1, pods::spec_on(node));
    }
    for node in &cluster.nodes {
        cluster.api.delete(&format!("{DEPLOYMENTS}/{}", node.name));
    }
    cluster.await_no_pods();
    cluster.await_nothing_left();
}
