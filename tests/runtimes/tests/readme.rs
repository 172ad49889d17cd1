//! Copies the configuration blocks of README.md and docs/install.md as a reader does, and runs a container with them.

use std::fs;
use std::path::Path;

use e2e::lab::lan4;
use e2e::runtime::{Containerd, PAGE};
use e2e::traffic::get;
use e2e::{Binaries, Lab};
use runtimes::{Cri, recipe};
use serde_json::Value;

/// The only block of that language.
fn block(language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let fence = format!("```{language}\n");
    let mut blocks = text.split(&fence).skip(1).map(|rest| rest.split("```").next());
    let block = blocks.next().flatten().unwrap_or_else(|| panic!("the README has no block of {language}"));
    assert!(blocks.next().is_none(), "the README has two blocks of {language}");
    block.to_owned()
}

/// The Lab's NIC and subnet are those of the block: nothing of it has to be changed.
#[test]
fn the_two_blocks_of_the_readme_put_a_pod_on_the_lan() {
    let lab = Lab::new(Binaries::HardLinks);
    let network: Value = serde_json::from_str(&block("json")).expect("the README's network is JSON");
    let containerd = Containerd::for_kubernetes(&lab, &recipe::for_this_machine(&block("toml")), &network);
    let cri = Cri::connect(&containerd);
    let pod = cri.run_pod("web");
    assert_eq!(cri.status(&pod.id).ips, ["192.168.50.200"]);
    cri.serve(&pod);
    assert_eq!(get(&lab.neighbour, lan4(200)), PAGE);
    // The default directory of leases, which is the test's own here.
    let lease = containerd.see("/var/lib/cni/networks/lan/192.168.50.200");
    assert_eq!(fs::read_to_string(lease).expect("read the lease"), format!("{}\r\neth0", pod.id));
    cri.stop(&pod.id);
    cri.remove(&pod.id);
    assert!(!containerd.see("/var/lib/cni/networks/lan/192.168.50.200").exists(), "the lease is left");
}
