//! The page docs/kubernetes.md: all of its blocks, in their order.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::binaries::peers;
use e2e::document::folder;
use e2e::lab::MACHINE_NIC;
use e2e::plugin::write_script;
use e2e::runtime::{IMAGE, PATH};
use kubernetes::Cluster;
use kubernetes::cluster::{Turn, network};
use kubernetes::kube_proxy::KubeProxy;
use kubernetes::pods::Pod;
use serde_json::{Value, json};

/// The languages of the blocks, in their order.
const LANGUAGES: [&str; 8] = ["json", "sh", "yaml", "yaml", "sh", "sh", "sh", "sh"];

/// The image of the page, which is not here.
const BUSYBOX: &str = "          image: docker.io/library/busybox:1.37\n";

/// The blocks of the page, each with its language.
fn blocks() -> Vec<(String, String)> {
    let page = fs::read_to_string(folder().join("kubernetes.md")).expect("read the page");
    let parts: Vec<&str> = page.split("```").collect();
    let block = |part: &&str| part.split_once('\n').map(|(language, text)| (language.to_owned(), text.to_owned()));
    parts.iter().skip(1).step_by(2).filter_map(block).collect()
}

/// A directory with the commands that the page uses.
fn prepare(cluster: &Turn, directory: &Path) {
    fs::create_dir_all(directory.join("bin")).expect("make a directory");
    let configuration = cluster.nodes[0].root().join("etc/kubernetes/admin.conf");
    let kubectl = format!(
        "exec {} --kubeconfig {} \"$@\"",
        peers("kubernetes").join("kubectl").display(),
        configuration.display()
    );
    write_script(&directory.join("bin/kubectl"), &kubectl);
    write_script(&directory.join("bin/wget"), "exec busybox wget \"$@\"");
}

/// Runs a block in a shell on a machine of the LAN until it succeeds, as a reader who is faster than kube-proxy. Returns
/// the lines of its output.
#[track_caller]
fn run(cluster: &Turn, directory: &Path, block: &str) -> Vec<String> {
    cluster.until("a block of the page succeeds", || try_run(cluster, directory, block))
}

fn try_run(cluster: &Turn, directory: &Path, block: &str) -> Result<Vec<String>, String> {
    let path = format!("{}:{PATH}", directory.join("bin").display());
    let mut command = Command::new("sh");
    command.args(["-e", "-u", "-c", block]).current_dir(directory).env("PATH", path).env("HOME", directory);
    let output = cluster.gateway.run(|| command.output()).expect("start a shell");
    if !output.status.success() {
        return Err(format!("{block}\n{output:?}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

#[test]
fn each_block_of_the_page_does_what_the_page_says() {
    let cluster = Cluster::shared();
    let directory = cluster.lab.path("page");
    prepare(&cluster, &directory);
    let blocks = blocks();
    let languages: Vec<&str> = blocks.iter().map(|(language, _)| language.as_str()).collect();
    assert_eq!(languages, LANGUAGES, "the page has other blocks: extend this test");
    let text = |index: usize| blocks[index].1.as_str();

    let list: Value = serde_json::from_str(text(0)).expect("the network is JSON");
    for node in &cluster.nodes {
        let mut list = list.clone();
        list["plugins"][0]["master"] = json!(MACHINE_NIC);
        let ranges = network(node)["plugins"][0]["ipam"]["ranges"].clone();
        if node.name == cluster.nodes[0].name {
            assert_eq!(list["plugins"][0]["ipam"]["ranges"], ranges, "the page has the file of the first node");
        }
        list["plugins"][0]["ipam"]["ranges"] = ranges;
        node.set_network(&list);
    }
    run(&cluster, &directory, text(1));
    cluster.set_kube_proxy_keys(text(2));

    // The test has no registry, and its image is on the nodes already. It needs no token.
    assert!(text(3).contains(BUSYBOX), "the page has another image");
    let image = format!("          image: {IMAGE}\n          imagePullPolicy: Never\n");
    let manifest = text(3).replace(BUSYBOX, &image);
    let manifest =
        manifest.replace("      containers:\n", "      automountServiceAccountToken: false\n      containers:\n");
    fs::write(directory.join("web.yaml"), manifest).expect("write web.yaml");
    run(&cluster, &directory, text(4));
    let pods = cluster.await_replicas("web", 2);
    let names = |pods: &[Pod]| {
        let mut names: Vec<_> = pods.iter().map(|pod| pod.name.clone()).collect();
        names.sort();
        names
    };
    let mut answers = run(&cluster, &directory, text(5));
    answers.sort();
    answers.dedup();
    assert_eq!(answers, names(&pods), "requests of a pod to the Service reach both pods");
    let answers = run(&cluster, &directory, text(6));
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| names(&pods).contains(answer)), "{answers:?}");
    run(&cluster, &directory, text(7));

    cluster.await_no_pods();
    cluster.await_nothing_left();
    cluster.set_kube_proxy(KubeProxy::USUAL);
    for node in &cluster.nodes {
        node.set_network(&network(node));
    }
}
