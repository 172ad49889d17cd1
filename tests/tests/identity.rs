//! An attachment's link is the one with its mark, whatever its name, MAC and addresses are now. Each test is a bug of
//! an earlier release.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use e2e::lab::{Families, NIC, lan4};
use e2e::needs::{Feature, here};
use e2e::plugin::write_script;
use e2e::traffic::{assert_reaches, assert_silent};
use e2e::{Binaries, Call, Container, Lab, Plugin, with};
use serde_json::{Value, json};

const MAC: &str = "02:00:00:00:00:99";

/// A foreign IPAM plugin: it runs this script, and leases 192.168.50.77.
fn foreign_ipam(lab: &Lab, body: &str) -> Value {
    lab.fake_ipam(&format!("{body}\nif [ $CNI_COMMAND = ADD ]; then echo \"$answer\"; fi"))
}

/// F1: it ended well, and the link stayed.
#[test]
fn del_finds_its_link_without_an_address_after_the_mac_was_changed() {
    let lab = Lab::new(Binaries::HardLinks);
    for version in ["0.4.0", "1.1.0"] {
        let container = lab.container();
        let conf = with(lab.conf_with(json!({})), "cniVersion", json!(version));
        let mut conf = conf.clone();
        conf["prevResult"] = lab.macvlan().add(&container, "eth0", &conf).run().result();
        container.ip(&format!("link set eth0 address {MAC}"));
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
    }
}

/// F1, with the plugin that does so in a chain.
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
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    lab.assert_gone(&container);
}

/// F2: the address was released, and the link still answered for it.
#[test]
fn del_finds_its_link_after_the_mac_was_changed_where_the_check_of_ipam_always_fails() {
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    let conf = foreign_ipam(&lab, "[ $CNI_COMMAND != CHECK ] || exit 1");
    let conf =
        with(conf.clone(), "prevResult", lab.plugin_with_fake("macvlan").add(&container, "eth0", &conf).run().result());
    container.ip(&format!("link set eth0 address {MAC}"));
    lab.plugin_with_fake("macvlan").del(&container, "eth0", &conf).run().done();
    lab.assert_gone(&container);
    assert_silent(&lab.neighbour, lan4(77));
}

/// F3: the CHECK of the reference's `dhcp` takes a second lease. A link without a mark is of an earlier release.
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
        assert_eq!(
            (container.link_names(), lab.fake_calls()),
            (vec!["lo".to_owned()], vec!["ADD".into(), "DEL".into()])
        );
        fs::remove_file(lab.path("calls")).expect("remove the calls");
    }
}

/// A foreign link with neither our mark nor our address stays, whatever its name.
#[test]
fn del_leaves_a_link_that_is_known_by_nothing() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.plugin_with_fake("macvlan").attach(&lab, &foreign_ipam(&lab, ""));
    container.delete_link("eth0");
    lab.host.create_macvlan_in(&container, "eth0", NIC);
    let outcome = lab.plugin_with_fake("macvlan").del(&container, "eth0", &conf).run();
    assert!(outcome.stderr.contains("is not the interface that ADD created"), "{}", outcome.text());
    outcome.done();
    assert_eq!(
        (container.link_names(), lab.fake_calls()),
        (vec!["lo".into(), "eth0".to_owned()], vec!["ADD".into(), "DEL".into()])
    );
}

/// A DEL of an earlier release, killed when it had begun: the link has no address left, and a group that only says so.
#[test]
fn del_goes_on_with_a_link_that_an_earlier_release_has_begun_with() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.macvlan().attach(&lab, &lab.conf());
    container.ip(&format!("link set eth0 address {MAC} group 30060"));
    container.ip("address flush dev eth0");
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    lab.assert_gone(&container);
}

/// C9: DEL looked by name only, released the address, and the link answered for it under its new name.
#[test]
fn del_and_check_find_a_link_that_the_container_has_renamed() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.macvlan().attach(&lab, &lab.conf());
    container.ip("link set eth0 down");
    container.ip("link set eth0 name wan0");
    container.ip("link set wan0 up");
    assert_reaches(&lab.neighbour, lan4(100));
    let outcome = lab.unchanged(&[&container], || lab.macvlan().check(&container, "eth0", &conf).run());
    outcome.fails(102, &["eth0: was renamed to \"wan0\""]);
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    lab.assert_gone(&container);
    assert_silent(&lab.neighbour, lan4(100));
}

/// Another link has the name by then, and must not change.
#[test]
fn del_takes_the_renamed_link_and_not_the_one_that_has_its_name_now() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.macvlan().attach(&lab, &lab.conf());
    container.ip("link set eth0 down");
    container.ip("link set eth0 name wan0");
    lab.host.create_macvlan_in(&container, "eth0", NIC);
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    assert_eq!((container.link_names(), lab.leases()), (vec!["lo".to_owned(), "eth0".into()], vec![]));
}

/// Of two attachments of one container each DEL takes its own.
#[test]
fn del_leaves_the_other_attachment_of_its_container() {
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    let conf = lab.conf();
    for ifname in ["eth0", "net1"] {
        lab.macvlan().add(&container, ifname, &conf).run().result();
    }
    container.ip("link set eth0 down");
    container.ip("link set eth0 name wan0");
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    assert_eq!((container.link_names(), lab.leases().len()), (vec!["lo".to_owned(), "net1".into()], 1));
    lab.macvlan().del(&container, "net1", &conf).run().done();
    lab.assert_gone(&container);
}

/// Read by other software. Marks of iproute2's largest group and above would not be shown.
#[test]
fn the_mark_of_a_link_is_its_group_as_ip_shows_it() {
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    lab.macvlan().add(&container, "eth0", &lab.conf()).run().result();
    let show = || container.run(|| Command::new("ip").args(["-d", "-j", "link", "show", "eth0"]).output());
    let shown: Value = serde_json::from_slice(&show().expect("start ip").stdout).expect("JSON");
    // FNV-1a of "container-1", a NUL and "eth0", folded.
    assert_eq!(shown[0]["group"], "143451878");
}

/// C7: kernel 6.1 minds a link of the final name on the host. There, all ADDs of one attachment made their link under one
/// temporary name, and the one that lost destroyed the link of the one that had won.
#[test]
fn of_eight_adds_at_once_one_wins_and_is_whole_where_the_host_has_a_link_of_that_name() {
    let lab = Lab::new(Binaries::HardLinks);
    lab.host.create_stray("eth0");
    let conf = lab.conf();
    for _ in 0..8 {
        let container = lab.container();
        let outcomes: Vec<_> = thread::scope(|scope| {
            let one = || lab.macvlan().add(&container, "eth0", &conf).run();
            let running: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            running.into_iter().map(|one| one.join().expect("a call")).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.status.success());
        assert_eq!(won.len(), 1, "{:?}", lost.iter().map(|outcome| outcome.text()).collect::<Vec<_>>());
        for outcome in &lost {
            outcome.fails(7, &["the container already has an interface of this name"]);
        }
        let address = won[0].result()["ips"][0]["address"].as_str().expect("an address").to_owned();
        assert_eq!(
            (container.link_names(), container.address_texts("eth0")),
            (vec!["lo".into(), "eth0".to_owned()], vec![address])
        );
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        lab.assert_gone(&container);
    }
}

/// C7, at the worst moments: the first ADD has made its link and not yet looked at it, when the second one makes its own and
/// is about to rename it. The first took the link of the second for its own.
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
            // It ends at once where the kernel minds no link on the host.
            let _ = { held }.recv();
        });
        drop(go_on);
        (first, second.expect("it was held").join().expect("a call"))
    });
    let (won, lost) = if first.status.success() { (first, second) } else { (second, first) };
    lost.fails(7, &["the container already has an interface of this name"]);
    let address = won.result()["ips"][0]["address"].as_str().expect("an address").to_owned();
    assert_eq!(
        (container.link_names(), container.address_texts("eth0")),
        (vec!["lo".into(), "eth0".to_owned()], vec![address])
    );
    assert_eq!(lab.leases().len(), 1);
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    lab.assert_gone(&container);
}

/// E1: the reason was lost where the host has a link of that name.
#[test]
fn a_refusal_has_its_reason_also_where_the_host_has_a_link_of_that_name() {
    let lab = Lab::new(Binaries::HardLinks);
    lab.host.create_stray("eth0");
    lab.host.create_bridge("br0");
    lab.host.make_port(NIC, "br0");
    let container = lab.container();
    let outcome = lab.unchanged(&[&container], || lab.macvlan().add(&container, "eth0", &lab.conf()).run());
    outcome.fails(100, &["device or resource busy", "is a port of bridge br0; set master to this bridge"]);
}

/// C8: while an ADD waited for IPAM, its link was deleted, and a second ADD for the same interface succeeded. The first one
/// failed, and released the lease of the second by its owner.
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
    assert_eq!(
        (container.link_names(), lab.fake_calls()),
        (vec!["lo".to_owned()], vec!["ADD".into(), "ADD".into(), "DEL".to_owned()])
    );
}

/// The lock of the guard is one for the whole machine, so tests that take it take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ipvlan<'a>(lab: &'a Lab, container: &Container) -> Call<'a> {
    lab.ipvlan().add(container, "eth0", &lab.ipvlan_conf("l2"))
}

/// C5: killed between making its probe and deleting it, the guard left a macvlan on the parent, where no other ipvlan could be
/// made until the DEL of that container.
#[test]
fn an_ipvlan_add_that_is_killed_anywhere_is_in_nobody_elses_way() {
    if !here(&[Feature::Ipvlan]) {
        return;
    }
    let _turn = turn();
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

/// C4: the lock was a file of procfs, and each mount of that has its own inode, so two callers held it at once. It is a file
/// that a user of the host cannot open, and so cannot hold.
#[test]
fn the_guards_lock_is_one_for_callers_with_different_mounts_of_procfs() {
    if !here(&[Feature::Ipvlan]) {
        return;
    }
    let _turn = turn();
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    ipvlan(&lab, &container).run().result();
    for (path, mode) in [("/run/underlay", 0o40700), ("/run/underlay/ipvlan.lock", 0o100600)] {
        let metadata = fs::symlink_metadata(path).expect("the lock");
        assert_eq!((metadata.uid(), metadata.mode()), (0, mode), "{path}");
    }
    let script = lab.path("elsewhere");
    let body = "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
                exec unshare --mount sh -ec 'mount -t proc proc /proc; exec flock /run/underlay/ipvlan.lock sh -c \"echo held; cat\"'";
    write_script(&script, body);
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

/// Two families, so that everything that an ADD makes is there.
#[test]
fn a_renamed_link_with_both_families_goes_with_its_del() {
    let lab = Lab::new(Binaries::HardLinks);
    let (container, conf) = lab.macvlan().attach(&lab, &lab.conf_with(lab.ipam(Families::Dual)));
    container.ip("link set eth0 down");
    container.ip("link set eth0 name wan0");
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    lab.assert_gone(&container);
}
