//! The capabilities that each plugin needs, and its message if one is missing.

use std::fs;

use e2e::needs::{self, Feature};
use e2e::plugin::write_script;
use e2e::{Binaries, Container, Lab, Outcome, Plugin, mounts, with};
use serde_json::{Value, json};

const BOTH: &str = ",+net_admin,+sys_admin";

fn with_only<'a>(lab: &'a Lab, name: &str, capabilities: &str) -> Plugin<'a> {
    let script = lab.path("reduced");
    let program = lab.bin().join(name);
    write_script(
        &script,
        &format!("PATH=/usr/bin:/bin exec setpriv --bounding-set -all{capabilities} {}", program.display()),
    );
    Plugin::new(&lab.host, script).search(lab.bin())
}

/// Calls the plugin with the path of a mounted netns, as runtimes do. The paths of the Lab lead through a process,
/// which needs CAP_SYS_PTRACE.
fn call(lab: &Lab, name: &str, capabilities: &str, command: &str, container: &Container, conf: &Value) -> Outcome {
    let netns = lab.path("netns");
    fs::write(&netns, "").expect("make a file");
    lab.host.run(|| {
        mounts::own();
        mounts::bind(container.path(), &netns);
        let plugin = with_only(lab, name, capabilities);
        plugin.attachment(command, container, "eth0", conf).env("CNI_NETNS", &netns).run_here()
    })
}

fn assert_two_are_needed(lab: &Lab, name: &str, conf: &Value) {
    let container = lab.container();
    let run = |capabilities: &str, command: &str| call(lab, name, capabilities, command, &container, conf);
    run(BOTH, "ADD").result();
    run(BOTH, "DEL").done();
    lab.assert_gone(&container);
    let error = run(",+sys_admin", "ADD").fails(100, &["CAP_NET_ADMIN"]);
    assert!(error.msg.contains("operation not permitted"), "{}", error.msg);
    let error = run(",+net_admin", "ADD").fails(100, &["enter network namespace"]);
    assert!(error.msg.contains("operation not permitted"), "{}", error.msg);
    lab.assert_gone(&container);
}

#[test]
fn macvlan_needs_two_capabilities_and_names_a_missing_one() {
    let lab = Lab::new(Binaries::HardLinks);
    assert_two_are_needed(&lab, "macvlan", &lab.conf());
}

#[test]
fn ipvlan_needs_the_same_two_capabilities_on_a_free_parent() {
    if needs::here(&[Feature::Ipvlan]) {
        let lab = Lab::new(Binaries::HardLinks);
        assert_two_are_needed(&lab, "ipvlan", &lab.ipvlan_conf("l2"));
    }
}

/// Without the key, it needs none of these sockets.
#[test]
fn detection_needs_a_third_capability() {
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    let conf = with(lab.conf(), "detectIPConflict", json!(true));
    let run = |capabilities: &str, command: &str| call(&lab, "macvlan", capabilities, command, &container, &conf);
    let error = run(BOTH, "ADD").fails(100, &["open ARP socket"]);
    assert!(error.msg.contains("operation not permitted"), "{}", error.msg);
    lab.assert_gone(&container);
    run(&format!("{BOTH},+net_raw"), "ADD").result();
    run(BOTH, "DEL").done();
    lab.assert_gone(&container);
}

/// The plugin cannot look at the process that holds the other container.
#[test]
fn ipvlan_refuses_a_parent_that_it_cannot_check_without_sys_ptrace() {
    if !needs::here(&[Feature::Ipvlan]) {
        return;
    }
    let lab = Lab::new(Binaries::HardLinks);
    let conf = lab.ipvlan_conf("l2");
    let (first, second) = (lab.container(), lab.container());
    lab.ipvlan().add(&first, "eth0", &conf).run().result();
    call(&lab, "ipvlan", BOTH, "ADD", &second, &conf).fails(7, &["the plugin cannot enter"]);
    assert_eq!(second.link_names(), ["lo"]);
    call(&lab, "ipvlan", &format!("{BOTH},+sys_ptrace"), "ADD", &second, &conf).result();
    assert!(second.has_link("eth0"));
}

/// The plugin cannot look at the processes that may hold another interface on the link.
#[test]
fn without_sys_ptrace_the_link_of_a_vlan_is_kept() {
    if !needs::here(&[Feature::Vlan]) {
        return;
    }
    let lab = Lab::new(Binaries::HardLinks);
    lab.host.give_own_run();
    let conf = with(lab.conf(), "vlan", json!(100));
    let container = lab.container();
    call(&lab, "macvlan", BOTH, "ADD", &container, &conf).result();
    let outcome = call(&lab, "macvlan", BOTH, "DEL", &container, &conf);
    outcome.done();
    let said =
        "VLAN link ens3.100 is kept: it is not known if an interface in another network namespace is on it: look at ";
    assert!(outcome.stderr.contains(said), "{}", outcome.text());
    assert!(lab.host.has_link("ens3.100"));
    let with_ptrace = format!("{BOTH},+sys_ptrace");
    call(&lab, "macvlan", &with_ptrace, "ADD", &container, &conf).result();
    call(&lab, "macvlan", &with_ptrace, "DEL", &container, &conf).done();
    assert!(!lab.host.has_link("ens3.100"));
}

#[test]
fn host_local_needs_no_capability_in_its_own_directory() {
    let lab = Lab::new(Binaries::HardLinks);
    fs::create_dir_all(lab.data_dir()).expect("make a directory");
    let conf = lab.conf_with(json!({"type": "host-local", "dataDir": lab.data_dir(), "subnet": "10.0.0.0/24"}));
    let ours = with_only(&lab, "host-local", "");
    let container = lab.container();
    ours.attachment("ADD", &container, "eth0", &conf).run().result();
    ours.attachment("DEL", &container, "eth0", &conf).run().done();
    assert_eq!(lab.leases(), [""; 0]);
}
