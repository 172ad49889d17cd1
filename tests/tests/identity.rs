//! DEL and CHECK find the link of an attachment by its mark, also if its name, MAC or addresses have changed. Each test
//! is a bug of an earlier release.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use e2e::lab::{Families, NIC, lan4};
use e2e::needs::{Feature, here};
use e2e::plugin::write_script;
use e2e::scenario::{PATH, all_at_once};
use e2e::traffic::{assert_reaches, assert_silent};
use e2e::{Binaries, Call, Container, Lab, Outcome, Plugin, with};
use serde_json::{Value, json};

const MAC: &str = "02:00:00:00:00:99";

/// A foreign IPAM plugin that runs this script and leases 192.168.50.77.
fn foreign_ipam(lab: &Lab, body: &str) -> Value {
    lab.fake_ipam(&format!("{body}\nif [ $CNI_COMMAND = ADD ]; then echo \"$answer\"; fi"))
}

/// DEL succeeded, and the link stayed.
#[test]
fn del_finds_its_link_without_an_address_after_the_mac_was_changed() {
    let lab = Lab::new(Binaries::HardLinks);
    for version in ["0.4.0", "1.1.0"] {
        let conf = with(lab.conf_with(json!({})), "cniVersion", json!(version));
        let (container, conf) = lab.macvlan().attach(&lab, &conf);
        container.ip(&format!("link set eth0 address {MAC}"));
        lab.macvlan().detach(&lab, &container, &conf);
    }
}

#[test]
fn del_finds_its_link_behind_the_references_tuning_with_a_mac() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.macvlan().attach(&lab, &lab.conf_with(json!({})));
    let tuning = Plugin::new(&lab.host, e2e::binaries::peers("reference").join("tuning")).search(lab.bin());
    let mut chained = json!({"cniVersion": "1.0.0", "name": "lan", "type": "tuning", "mac": MAC});
    chained["prevResult"] = conf["prevResult"].clone();
    chained["dataDir"] = json!(lab.path("tuning"));
    tuning.add(&container, "eth0", &chained).run().result();
    assert_eq!(container.link("eth0").mac, MAC);
    lab.macvlan().detach(&lab, &container, &conf);
}

/// DEL released the address, and the link still answered for it.
#[test]
fn del_finds_its_link_after_the_mac_was_changed_where_the_check_of_ipam_always_fails() {
    let lab = Lab::new(Binaries::HardLinks);
    let conf = foreign_ipam(&lab, "[ $CNI_COMMAND != CHECK ] || exit 1");
    let (container, conf) = lab.plugin_with_fake("macvlan").attach(&lab, &conf);
    container.ip(&format!("link set eth0 address {MAC}"));
    lab.plugin_with_fake("macvlan").detach(&lab, &container, &conf);
    assert_silent(&lab.neighbour, lan4(77));
}

/// The CHECK of the reference's `dhcp` takes a second lease. A link without a mark was made by an earlier release.
#[test]
fn del_never_asks_a_foreign_ipam_plugin_for_a_check() {
    let lab = Lab::new(Binaries::HardLinks);
    let conf = foreign_ipam(&lab, "");
    for group in ["", "0", "7"] {
        let (container, conf) = lab.plugin_with_fake("macvlan").attach(&lab, &conf);
        container.ip(&format!("link set eth0 address {MAC}"));
        if !group.is_empty() {
            container.ip(&format!("link set eth0 group {group}"));
        }
        lab.plugin_with_fake("macvlan").del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo"]);
        assert_eq!(lab.fake_calls(), ["ADD", "DEL"]);
        fs::remove_file(lab.path("calls")).expect("remove the calls");
    }
}

/// The link has the name, and neither our mark nor our address.
#[test]
fn del_leaves_a_link_that_has_only_the_name() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.plugin_with_fake("macvlan").attach(&lab, &foreign_ipam(&lab, ""));
    container.delete_link("eth0");
    lab.host.create_macvlan_in(&container, "eth0", NIC);
    let outcome = lab.plugin_with_fake("macvlan").del(&container, "eth0", &conf).run();
    assert!(outcome.stderr.contains("is not the interface that ADD created"), "{}", outcome.text());
    outcome.done();
    assert_eq!(container.link_names(), ["lo", "eth0"]);
    assert_eq!(lab.fake_calls(), ["ADD", "DEL"]);
}

/// A DEL of an earlier release was killed. The link has no address, and a group that only says that a DEL has begun.
#[test]
fn del_finishes_what_a_del_of_an_earlier_release_has_begun() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.macvlan().attach(&lab, &lab.conf());
    container.ip(&format!("link set eth0 address {MAC} group 30060"));
    container.ip("address flush dev eth0");
    lab.macvlan().detach(&lab, &container, &conf);
}

/// DEL looked for the name only. It released the address, and the renamed link still answered for it.
#[test]
fn del_and_check_find_a_link_that_the_container_has_renamed() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.macvlan().attach(&lab, &lab.conf());
    container.rename("eth0", "wan0");
    container.ip("link set wan0 up");
    assert_reaches(&lab.neighbour, lan4(100));
    let outcome = lab.unchanged(&[&container], || lab.macvlan().check(&container, "eth0", &conf).run());
    outcome.fails(102, &["eth0: was renamed to \"wan0\""]);
    lab.macvlan().detach(&lab, &container, &conf);
    assert_silent(&lab.neighbour, lan4(100));
}

#[test]
fn del_deletes_the_renamed_link_and_not_the_one_that_has_its_name_now() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.macvlan().attach(&lab, &lab.conf());
    container.rename("eth0", "wan0");
    lab.host.create_macvlan_in(&container, "eth0", NIC);
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    assert_eq!((container.link_names(), lab.leases()), (vec!["lo".to_owned(), "eth0".into()], vec![]));
}

#[test]
fn del_leaves_the_other_attachment_of_its_container() {
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    let conf = lab.conf();
    for ifname in ["eth0", "net1"] {
        lab.macvlan().add(&container, ifname, &conf).run().result();
    }
    container.rename("eth0", "wan0");
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    assert_eq!((container.link_names(), lab.leases().len()), (vec!["lo".to_owned(), "net1".into()], 1));
    lab.macvlan().del(&container, "net1", &conf).run().done();
    lab.assert_gone(&container);
}

/// `ip` does not show groups above a limit, so the mark must be below it.
#[test]
fn the_mark_of_a_link_is_its_group_as_ip_shows_it() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, _) = lab.macvlan().attach(&lab, &lab.conf());
    let show = || container.run(|| Command::new("ip").args(["-d", "-j", "link", "show", "eth0"]).output());
    let shown: Value = serde_json::from_slice(&show().expect("start ip").stdout).expect("JSON");
    // FNV-1a of "container-1", a NUL and "eth0", folded.
    assert_eq!(shown[0]["group"], "143451878");
}

/// Kernel 6.1 refuses the final name if the host has a link of that name. There, all ADDs of one attachment made their
/// link under one temporary name, and a failed ADD deleted the link of the successful one.
#[test]
fn of_eight_adds_at_once_one_succeeds_if_the_host_has_a_link_of_that_name() {
    let lab = Lab::new(Binaries::HardLinks);
    lab.host.create_stray("eth0");
    let conf = lab.conf();
    for _ in 0..8 {
        let container = lab.container();
        let outcomes = all_at_once(8, || lab.macvlan().add(&container, "eth0", &conf).run());
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.status.success());
        assert_eq!(won.len(), 1, "{:?}", lost.iter().map(|outcome| outcome.text()).collect::<Vec<_>>());
        for outcome in &lost {
            outcome.fails(7, &["the container already has an interface of this name"]);
        }
        assert_whole(&container, &won[0]);
        lab.macvlan().detach(&lab, &container, &conf);
    }
}

/// As above, with both ADDs stopped at the worst moments. The first has made its link, and the second makes its own and
/// is about to rename it. Then the first looks at the link, and it took that of the second for its own.
#[test]
fn two_adds_of_one_interface_never_take_each_others_link() {
    const RTM_NEWLINK: u16 = 16;
    const RTM_GETLINK: u16 = 18;
    const RTM_SETLINK: u16 = 19;
    let lab = Lab::new(Binaries::HardLinks);
    lab.host.create_stray("eth0");
    let conf = lab.conf();
    let container = lab.container();
    let add = lab.macvlan().add(&container, "eth0", &conf);
    let (outcome, trace) = add.run_stepwise(None);
    outcome.result();
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    let made = trace.steps.iter().rposition(|step| step.requests == [RTM_NEWLINK]).expect("a link is made");
    let look = trace.steps[made..].iter().find(|step| step.requests == [RTM_GETLINK]).expect("it is looked at");
    let change = trace.steps[made..].iter().find(|step| step.requests == [RTM_SETLINK]).expect("it is changed");

    let (is_held, held) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let (first, second) = thread::scope(|scope| {
        let (mut second, add) = (None, &add);
        let (first, _) = add.run_held_at(look, || {
            second = Some(scope.spawn(move || {
                let hold = move || {
                    is_held.send(()).expect("say that it is held");
                    let _ = wait.recv();
                };
                add.run_held_at(change, hold).0
            }));
            // A newer kernel has no such conflict, so the second ADD is not stopped and the channel is closed.
            let _ = { held }.recv();
        });
        drop(go_on);
        (first, second.expect("it was held").join().expect("a call"))
    });
    let (won, lost) = if first.status.success() { (first, second) } else { (second, first) };
    lost.fails(7, &["the container already has an interface of this name"]);
    assert_whole(&container, &won);
    assert_eq!(lab.leases().len(), 1);
    lab.macvlan().detach(&lab, &container, &conf);
}

/// If the host had a link of that name, the error had no reason.
#[test]
fn a_refusal_has_its_reason_also_if_the_host_has_a_link_of_that_name() {
    let lab = Lab::new(Binaries::HardLinks);
    lab.host.create_stray("eth0");
    lab.host.create_bridge("br0");
    lab.host.make_port(NIC, "br0");
    lab.macvlan().refuses(
        &lab,
        &lab.conf(),
        100,
        &["device or resource busy", "is a port of bridge br0; set master to this bridge"],
    );
}

/// While an ADD waited for IPAM, its link was deleted, and a second ADD for the same interface succeeded. Then the
/// first one failed and released the lease of the second, because the owner was the same.
#[test]
fn an_add_that_fails_late_does_not_release_the_lease_of_a_later_add() {
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    let bin = lab.bin().display().to_string();
    let nested = format!(
        "if [ $CNI_COMMAND = ADD ] && [ ! -e $LAB/nested ]; then\n\
         touch $LAB/nested; cat >$LAB/stdin; nsenter --net=$CNI_NETNS ip link delete eth0\n\
         {bin}/macvlan <$LAB/stdin >$LAB/second || exit 1\nfi"
    );
    let conf = foreign_ipam(&lab, &nested);
    let outcome = lab.plugin_with_fake("macvlan").add(&container, "eth0", &conf).run();
    outcome.fails(100, &["create eth0: it was deleted during the ADD"]);
    let second: Value =
        serde_json::from_slice(&fs::read(lab.path("second")).expect("the second result")).expect("JSON");
    assert_eq!(second["ips"][0]["address"], "192.168.50.77/24");
    assert_eq!(lab.fake_calls(), ["ADD", "ADD"], "the lease of the second was released");
    assert_eq!(container.address_texts("eth0"), ["192.168.50.77/24"]);
    lab.plugin_with_fake("macvlan").del(&container, "eth0", &conf).run().done();
    assert_eq!(container.link_names(), ["lo"]);
    assert_eq!(lab.fake_calls(), ["ADD", "ADD", "DEL"]);
}

/// The machine has one lock of the guard, so the tests that take it run one after the other.
/// `None` if the kernel has no ipvlan.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    here(&[Feature::Ipvlan]).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The container has the link and the address of the result.
#[track_caller]
fn assert_whole(container: &Container, outcome: &Outcome) {
    assert_eq!(container.link_names(), ["lo", "eth0"]);
    assert_eq!(container.address_texts("eth0"), [outcome.result()["ips"][0]["address"].as_str().expect("an address")]);
}

fn ipvlan<'a>(lab: &'a Lab, container: &Container) -> Call<'a> {
    lab.ipvlan().add(container, "eth0", &lab.ipvlan_conf("l2"))
}

/// The guard created a macvlan on the parent and deleted it. If it was killed in between, no ipvlan could be created on
/// that parent until the DEL of that container.
#[test]
fn an_ipvlan_add_that_is_killed_anywhere_does_not_stop_other_adds() {
    let Some(_turn) = turn() else { return };
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    let (outcome, trace) = ipvlan(&lab, &container).run_stepwise(None);
    outcome.result();
    lab.ipvlan().del(&container, "eth0", &lab.ipvlan_conf("l2")).run().done();
    let asks = trace.steps.iter().filter(|step| step.number == nix::libc::SYS_sendto);
    for step in asks {
        let killed = lab.container();
        let fault = e2e::trace::Fault { step: step.clone(), deed: e2e::trace::Deed::Kill };
        ipvlan(&lab, &killed).run_stepwise(Some(&fault));
        let other = lab.container();
        ipvlan(&lab, &other).run().result();
        for container in [killed, other] {
            lab.ipvlan().del(&container, "eth0", &lab.ipvlan_conf("l2")).run().done();
        }
    }
}

/// The lock was a file of procfs. Each mount of procfs has its own inode for it, so two callers could hold the lock at
/// once. Now only root can open the file.
#[test]
fn callers_with_different_mounts_of_procfs_share_the_lock_of_the_guard() {
    let Some(_turn) = turn() else { return };
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    ipvlan(&lab, &container).run().result();
    for (path, mode) in [("/run/underlay", 0o40700), ("/run/underlay/ipvlan.lock", 0o100600)] {
        let metadata = fs::symlink_metadata(path).expect("the lock");
        assert_eq!((metadata.uid(), metadata.mode()), (0, mode), "{path}");
    }
    let script = lab.path("elsewhere");
    let holds = "mount -t proc proc /proc; exec flock /run/underlay/ipvlan.lock sh -c \"echo held; cat\"";
    write_script(&script, &format!("PATH={PATH}\nexec unshare --mount sh -ec '{holds}'"));
    let mut holder = Command::new(&script)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start a holder");
    let mut held = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().expect("a pipe"), &mut held).expect("it holds the lock");
    let late = lab.container();
    let outcome = lab.unchanged(&[&late], || ipvlan(&lab, &late).run());
    outcome.fails(11, &["lock /run/underlay/ipvlan.lock: timed out"]);
    drop(holder.stdin.take());
    holder.wait().expect("wait for the holder");
    ipvlan(&lab, &late).run().result();
}

#[test]
fn del_deletes_a_renamed_link_with_addresses_of_both_families() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.macvlan().attach(&lab, &lab.conf_with(lab.ipam(Families::Dual)));
    container.rename("eth0", "wan0");
    lab.macvlan().detach(&lab, &container, &conf);
}
