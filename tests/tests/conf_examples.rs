//! Every file in `conf-examples/` does what it says, on a LAN as it describes.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::traffic::assert_reaches;
use e2e::{Lab, cases};
use ipnet::IpNet;
use serde_json::{Value, json};

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf-examples");
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("read a directory").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conflist"));
    paths.sort();
    assert!(paths.len() >= 3, "too few examples in {}", directory.display());
    paths
}

/// What a runtime makes of a list of one plugin; only the leases lie elsewhere.
fn configuration(lab: &Lab, path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let list: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let plugins = list["plugins"].as_array().unwrap_or_else(|| panic!("{}: no plugins", path.display()));
    assert_eq!(plugins.len(), 1, "{}: this test runs lists of one plugin", path.display());
    let mut conf = plugins[0].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    conf["name"] = list["name"].clone();
    if conf["ipam"]["type"] == "host-local" {
        conf["ipam"]["dataDir"] = json!(lab.data_dir());
    }
    conf
}

/// The addresses of a result, each with its gateway.
fn addresses(result: &Value) -> Vec<(IpNet, IpNet)> {
    let ips = result["ips"].as_array().map_or(&[][..], Vec::as_slice);
    let one = |ip: &Value| {
        let address: IpNet = ip["address"].as_str()?.parse().ok()?;
        let gateway = ip["gateway"].as_str()?.parse().ok()?;
        Some((address, IpNet::new(gateway, address.prefix_len()).ok()?))
    };
    ips.iter().map(|ip| one(ip).unwrap_or_else(|| panic!("an address without a gateway: {ip}"))).collect()
}

/// Runs the examples of one plugin.
fn attach_and_detach(lab: &Lab, program: &str) {
    let mut ran = 0;
    for path in examples() {
        let conf = configuration(lab, &path);
        if conf["type"] != program {
            continue;
        }
        ran += 1;
        let container = lab.container();
        let result = lab.plugin(program).add(&container, "eth0", &conf).run().result();
        for (address, gateway) in addresses(&result) {
            // The neighbour is the router of the example's LAN.
            if !lab.neighbour.has_address(gateway.addr()) {
                lab.neighbour.add_address(lab.neighbour.nic, gateway);
            }
            assert_reaches(&lab.neighbour, address.addr());
            assert_reaches(&container, gateway.addr());
        }
        let mut checked = conf.clone();
        checked["prevResult"] = result;
        lab.plugin(program).check(&container, "eth0", &checked).run().done();
        lab.plugin(program).del(&container, "eth0", &checked).run().done();
        assert_eq!(container.link_names(), ["lo"], "{}", path.display());
    }
    assert!(ran > 0, "no example of {program}");
}

cases! {
    #[reference(passes)]
    fn every_example_of_macvlan_attaches_a_container_to_its_lan(lab) {
        attach_and_detach(lab, "macvlan");
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn every_example_of_ipvlan_attaches_a_container_to_its_lan(lab) {
        attach_and_detach(lab, "ipvlan");
    }
}

#[test]
fn every_example_is_run_by_one_of_these_tests() {
    for path in examples() {
        let text = fs::read_to_string(&path).expect("read an example");
        let list: Value = serde_json::from_str(&text).expect("JSON");
        let program = list["plugins"][0]["type"].as_str().unwrap_or_default();
        assert!(["macvlan", "ipvlan"].contains(&program), "{}: nothing here runs {program}", path.display());
    }
}
