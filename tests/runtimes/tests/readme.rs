//! Copies the configurations from README.md and docs/install.md as a reader does, and runs a pod with them.

use std::fs;
use std::path::Path;

use e2e::lab::lan4;
use e2e::runtime::{Containerd, PAGE};
use e2e::traffic::get;
use e2e::{Binaries, Lab};
use runtimes::{Cri, recipe};
use serde_json::Value;

/// The first block of a language in a page, without its indentation.
fn block(page: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let fence = format!("```{language}\n");
    let mut blocks = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.next().unwrap_or_else(|| panic!("{page} has no block of {language}"));
    let lines: Vec<&str> = block.lines().map(str::trim_start).collect();
    lines.join("\n")
}

/// The NIC and the subnet of the Lab are those of the block, so the test changes nothing in it.
#[test]
fn with_the_configurations_of_the_documents_a_pod_is_on_the_lan() {
    let lab = Lab::new(Binaries::HardLinks);
    let network: Value = serde_json::from_str(&block("README.md", "json")).expect("the README's network is JSON");
    // The first block of TOML on that page is for containerd.
    let toml = recipe::for_this_machine(&block("docs/install.md", "toml"));
    let containerd = Containerd::for_kubernetes(&lab, &toml, &network);
    let cri = Cri::connect(&containerd);
    let pod = cri.run_pod("web");
    assert_eq!(cri.status(&pod.id).ips, ["192.168.50.200"]);
    cri.serve(&pod);
    assert_eq!(get(&lab.neighbour, lan4(200)), PAGE);
    // The default directory of leases, in the jail.
    let lease = containerd.see("/var/lib/cni/networks/lan/192.168.50.200");
    assert_eq!(fs::read_to_string(lease).expect("read the lease"), format!("{}\r\neth0", pod.id));
    cri.stop(&pod.id);
    cri.remove(&pod.id);
    assert!(!containerd.see("/var/lib/cni/networks/lan/192.168.50.200").exists(), "the lease is left");
}
