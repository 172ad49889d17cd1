//! The files of `conf-examples/` that are not conflists: read as their programs read them, and run.

use e2e::lab::lan4;
use e2e::runtime::{Containerd, PAGE};
use e2e::traffic::get;
use e2e::{Binaries, Lab, cases};
use runtimes::{Cri, Libcni, example, recipe};
use serde_json::{Value, json};
use yaml_rust2::YamlLoader;

/// Each file, and the tests here that run it.
const TESTED: [&str; 3] = ["containerd.toml", "crio.conf", "multus.yaml"];

#[test]
fn every_other_file_of_conf_examples_is_tested_here() {
    let names: Vec<String> = recipe::names().into_iter().filter(|name| !name.ends_with(".conflist")).collect();
    assert_eq!(names, TESTED);
}

#[test]
fn every_file_of_conf_examples_has_a_line_in_its_readme() {
    let readme = std::fs::read_to_string(recipe::path("README.md")).expect("read the table");
    for name in recipe::names() {
        assert!(readme.contains(&format!("| [{name}]({name}) |")), "README.md has no line for {name}");
    }
    let lines = readme.lines().filter(|line| line.starts_with("| [")).count();
    assert_eq!(lines, recipe::names().len(), "README.md has lines for files that there are not");
}

/// What Multus takes out of the object that Kubernetes keeps for it.
fn network_of_multus() -> Value {
    let path = recipe::path("multus.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let objects = YamlLoader::load_from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let object = &objects[0];
    assert_eq!(object["apiVersion"].as_str(), Some("k8s.cni.cncf.io/v1"));
    assert_eq!(object["kind"].as_str(), Some("NetworkAttachmentDefinition"));
    let list: Value = serde_json::from_str(object["spec"]["config"].as_str().expect("text")).expect("JSON");
    // Multus asks for the object by its name, and calls the plugins with the list's.
    assert_eq!(list["name"].as_str(), object["metadata"]["name"].as_str());
    list
}

cases! {
    /// With what a pod may ask for in its annotation: addresses and a MAC.
    #[reference(passes)]
    fn the_network_of_multus_attaches_a_container(lab) {
        let list = example::settle(lab, network_of_multus());
        let asked = json!({"ips": ["192.168.50.231/24"], "mac": "02:00:5e:10:00:02"});
        let pod = [("IgnoreUnknown", "true"), ("K8S_POD_NAMESPACE", "default"), ("K8S_POD_NAME", "web-0")];
        let runtime = Libcni::new(lab, &list).capabilities(asked).args(&pod);
        example::live(lab, &list, &runtime, |container, _| {
            assert_eq!(container.address_texts("eth0"), ["192.168.50.231/24"]);
            assert_eq!(container.link("eth0").mac, "02:00:5e:10:00:02");
        });
    }
}

/// The network for pods, in the place where the configuration of containerd says that networks are.
#[test]
fn the_configuration_of_containerd_and_the_network_for_pods_make_a_node() {
    let lab = Lab::new(Binaries::HardLinks);
    let text = std::fs::read_to_string(recipe::path("kubernetes-primary.conflist")).expect("read an example");
    let list = example::settle(&lab, serde_json::from_str(&text).expect("JSON"));
    lab.neighbour.add_address(lab.neighbour.nic, "192.168.50.1/16".parse().expect("a prefix"));
    let containerd = Containerd::for_kubernetes(&lab, &recipe::containerd(), &list);
    let cri = Cri::connect(&containerd);
    let pod = cri.run_pod("web");
    cri.serve(&pod);
    let ip = cri.status(&pod.id).ips.remove(0).parse().expect("an address");
    assert_ne!(ip, lan4(100));
    assert_eq!(get(&lab.neighbour, ip), PAGE);
    cri.stop(&pod.id);
    cri.remove(&pod.id);
    assert_eq!(lab.leases_in("pods"), [""; 0]);
}

/// CRI-O itself is not in Debian 12, so nothing here runs it: its file is held against CRI-O's manual, crio.conf(5).
#[test]
fn the_configuration_of_cri_o_leads_to_the_plugins_and_the_network_for_pods() {
    let recipe = recipe::toml("crio.conf");
    let network = recipe["crio"]["network"].as_table().expect("a table");
    let keys: Vec<&str> = network.keys().map(String::as_str).collect();
    assert_eq!(keys, ["cni_default_network", "network_dir", "plugin_dirs"]);
    let text = std::fs::read_to_string(recipe::path("kubernetes-primary.conflist")).expect("read an example");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(network["cni_default_network"].as_str(), list["name"].as_str());
    assert_eq!(network["network_dir"].as_str(), Some("/etc/cni/net.d/"));
    let directories = network["plugin_dirs"].as_array().expect("a list");
    assert_eq!(directories.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>(), ["/opt/cni/bin/"]);
}
