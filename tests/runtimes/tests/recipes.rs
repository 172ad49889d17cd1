//! The files of `conf-examples/` that are not conflists.

use e2e::lab::lan4;
use e2e::runtime::{Containerd, PAGE};
use e2e::traffic::get;
use e2e::{Binaries, Lab, cases};
use runtimes::{Cri, Libcni, example, recipe};
use serde_json::{Value, json};
use yaml_rust2::YamlLoader;

/// The files that the tests here use.
const TESTED: [&str; 3] = ["containerd.toml", "crio.conf", "multus.yaml"];

#[test]
fn every_other_file_of_conf_examples_has_a_test_here() {
    let names: Vec<String> = recipe::names().into_iter().filter(|name| !name.ends_with(".conflist")).collect();
    assert_eq!(names, TESTED);
}

#[test]
fn every_file_of_conf_examples_has_a_line_in_its_readme() {
    let readme = recipe::text("README.md");
    for name in recipe::names() {
        assert!(readme.contains(&format!("| [{name}]({name}) |")), "README.md has no line for {name}");
    }
    let lines = readme.lines().filter(|line| line.starts_with("| [")).count();
    assert_eq!(lines, recipe::names().len(), "README.md has a line for a file that does not exist");
}

/// The network that Multus reads from the object in Kubernetes.
fn network_of_multus() -> Value {
    let objects = YamlLoader::load_from_str(&recipe::text("multus.yaml")).expect("multus.yaml is YAML");
    let object = &objects[0];
    assert_eq!(object["apiVersion"].as_str(), Some("k8s.cni.cncf.io/v1"));
    assert_eq!(object["kind"].as_str(), Some("NetworkAttachmentDefinition"));
    let list: Value = serde_json::from_str(object["spec"]["config"].as_str().expect("text")).expect("JSON");
    // Multus finds the object by its name, and passes the name of the list to the plugins.
    assert_eq!(list["name"].as_str(), object["metadata"]["name"].as_str());
    list
}

cases! {
    /// A pod can request addresses and a MAC in its annotation.
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

/// The network for pods is in the directory that the configuration of containerd names.
#[test]
fn containerd_runs_a_pod_with_its_example_and_the_network_for_pods() {
    let lab = Lab::new(Binaries::HardLinks);
    let list = example::settle(&lab, recipe::list("kubernetes-primary.conflist"));
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

/// CRI-O is not in Debian 12, so no test runs it. This test compares its file with the manual crio.conf(5).
#[test]
fn the_configuration_of_cri_o_names_the_plugins_and_the_network_for_pods() {
    let recipe = recipe::toml("crio.conf");
    let network = recipe["crio"]["network"].as_table().expect("a table");
    let keys: Vec<&str> = network.keys().map(String::as_str).collect();
    assert_eq!(keys, ["cni_default_network", "network_dir", "plugin_dirs"]);
    let list = recipe::list("kubernetes-primary.conflist");
    assert_eq!(network["cni_default_network"].as_str(), list["name"].as_str());
    assert_eq!(network["network_dir"].as_str(), Some("/etc/cni/net.d/"));
    let directories = network["plugin_dirs"].as_array().expect("a list");
    assert_eq!(directories.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>(), ["/opt/cni/bin/"]);
}
