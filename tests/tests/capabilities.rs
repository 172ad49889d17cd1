//! The capabilities that each plugin needs, and its message if one is missing.

use std::fs;

use e2e::needs::{self, Feature};
use e2e::plugin::write_script;
use e2e::{Binaries, Container, Lab, Outcome, Plugin};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
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

/// Calls the plugin for a netns that is mounted, as runtimes have it: the Lab's own paths lead through a process, which
/// takes CAP_SYS_PTRACE to look into.
fn call(lab: &Lab, name: &str, capabilities: &str, command: &str, container: &Container, conf: &Value) -> Outcome {
    let netns = lab.path("netns");
    fs::write(&netns, "").expect("make a file");
    lab.host.run(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of our own");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("keep our mounts to ourselves");
        mount(Some(container.path()), &netns, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("mount");
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
fn macvlan_needs_two_and_says_which_one_is_missing() {
    let lab = Lab::new(Binaries::HardLinks);
    assert_two_are_needed(&lab, "macvlan", &lab.conf());
}

#[test]
fn ipvlan_needs_the_same_two_on_a_parent_of_its_own() {
    if needs::here(&[Feature::Ipvlan]) {
        let lab = Lab::new(Binaries::HardLinks);
        assert_two_are_needed(&lab, "ipvlan", &lab.ipvlan_conf("l2"));
    }
}

/// The container that is there is held by a process which may more than the plugin.
#[test]
fn ipvlan_without_sys_ptrace_refuses_what_it_cannot_see_and_with_it_sees() {
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

#[test]
fn host_local_needs_none_where_the_directory_is_its_own() {
    let lab = Lab::new(Binaries::HardLinks);
    fs::create_dir_all(lab.data_dir()).expect("make a directory");
    let conf = lab.conf_with(json!({"type": "host-local", "dataDir": lab.data_dir(), "subnet": "10.0.0.0/24"}));
    let ours = with_only(&lab, "host-local", "");
    let container = lab.container();
    ours.attachment("ADD", &container, "eth0", &conf).run().result();
    ours.attachment("DEL", &container, "eth0", &conf).run().done();
    assert_eq!(lab.leases(), [""; 0]);
}
