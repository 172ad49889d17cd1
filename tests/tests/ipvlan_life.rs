//! An ipvlan attachment from ADD to DEL: all versions, CHECK, STATUS, GC, and an ADD that fails or is killed.

use e2e::lab::{Families, NIC, lan4, lan6};
use e2e::needs::{self, Feature};
use e2e::patience::await_that;
use e2e::traffic::assert_reaches;
use e2e::{Binaries, Container, Lab, cases, with, without};
use serde_json::{Value, json};

/// More system calls than any call makes.
const MANY: usize = 5000;
/// The code for a difference. The specification has no code for it.
const DIFFERS: u64 = 102;

fn version_1_1(conf: Value) -> Value {
    with(conf, "cniVersion", json!("1.1.0"))
}

#[track_caller]
fn assert_zero(lab: &Lab, container: &Container, when: &str) {
    assert_eq!(container.link_names(), ["lo"], "{when}");
    assert_eq!(lab.leases(), [""; 0], "{when}");
}

cases! {
    /// A route could not be added. ADD failed, and both link and lease stayed.
    #[needs(Ipvlan)]
    #[reference(fails: "link stayed")]
    fn u3_a_bad_route_leaves_no_link_and_no_lease(lab) {
        let mut conf = lab.ipvlan_conf("l2");
        conf["ipam"]["routes"] = json!([{"dst": "10.9.0.0/16", "gw": "172.31.0.1"}]);
        let container = lab.container();
        let failed = lab.ipvlan().add(&container, "eth0", &conf).run();
        assert!(!container.has_link("eth0"), "the link stayed: {}", failed.text());
        failed.fails(100, &["10.9.0.0/16", "172.31.0.1", "eth0", "Nexthop has invalid gateway"]);
        assert_zero(lab, &container, "after a failed ADD");
        // The next ADD gets the next address.
        let (_container, _) = lab.ipvlan().attach(lab, &lab.ipvlan_conf("l2"));
        assert_reaches(&lab.neighbour, lan4(101));
    }

    /// After a node lost its default route, no pod could be deleted and no lease was freed.
    #[needs(Ipvlan)]
    #[reference(fails: "did not succeed")]
    fn u4_del_without_a_master_needs_no_default_route(lab) {
        lab.add_default_route();
        let conf = without(lab.ipvlan_conf("l2"), "master");
        let (container, _) = lab.ipvlan().attach(lab, &conf);
        lab.host.set_down(NIC);
        lab.ipvlan().del(&container, "eth0", &conf).run().done();
        assert_zero(lab, &container, "after DEL");
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn check_succeeds_after_add(lab) {
        let (container, conf) = lab.ipvlan().attach(lab, &lab.ipvlan_conf("l2"));
        lab.unchanged(&[&container], || lab.ipvlan().check(&container, "eth0", &conf).run()).done();
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "its codes are others")]
    fn check_names_the_difference(lab) {
        let mut conf = lab.ipvlan_conf("l2");
        conf["ipam"]["routes"] = json!([{"dst": "10.20.0.0/16", "gw": "192.168.50.20"}]);
        let (container, conf) = lab.ipvlan().attach(lab, &conf);
        let differs = |conf: &Value, code: u64, names: &[&str]| {
            lab.ipvlan().differs(lab, &container, conf, code, names);
        };
        let other = with(conf.clone(), "mode", json!("l3"));
        differs(&other, DIFFERS, &["eth0", "mode l2", "l3"]);
        container.ip("route del 10.20.0.0/16");
        differs(&conf, DIFFERS, &["10.20.0.0/16", "192.168.50.20"]);
        container.ip("route add 10.20.0.0/16 via 192.168.50.20");
        container.ip("address delete 192.168.50.100/24 dev eth0");
        differs(&conf, DIFFERS, &["eth0", "192.168.50.100/24"]);
        container.delete_link("eth0");
        differs(&conf, 3, &["eth0"]);
    }

    #[needs(Ipvlan)]
    #[reference(fails: "did not fail")]
    fn status_fails_if_an_add_would_fail(lab) {
        let mut conf = version_1_1(lab.ipvlan_conf("l2"));
        let status = |conf: &Value| lab.unchanged(&[], || lab.ipvlan().call("STATUS", conf).run());
        status(&conf).done();
        lab.host.set_down(NIC);
        status(&conf).fails(50, &[NIC, "down"]);
        conf["master"] = json!("nope0");
        status(&conf).fails(50, &["master", "nope0"]);
        conf["mode"] = json!("l4");
        status(&conf).fails(2, &["mode", "l4"]);
    }

    /// STATUS looked for a default route that such a chain does not need. The node never became ready.
    #[reference(passes)]
    fn status_without_a_master_succeeds_in_a_chain(lab) {
        let conf = without(without(version_1_1(lab.ipvlan_conf("l2")), "ipam"), "master");
        lab.unchanged(&[], || lab.ipvlan().call("STATUS", &conf).run()).done();
    }

    #[needs(Ipvlan)]
    #[reference(fails: "GC frees the lease")]
    fn gc_frees_the_leases_of_attachments_that_are_not_in_its_list(lab) {
        let conf = version_1_1(lab.ipvlan_conf("l2"));
        // The kernel gives a new namespace the lowest free number. With these, no other test gets that of `second`.
        let lower: Vec<_> = (0..50).map(|_| lab.container()).collect();
        let ((first, _), (second, _)) = (lab.ipvlan().attach(lab, &conf), lab.ipvlan().attach(lab, &conf));
        assert_eq!(lab.leases(), ["192.168.50.100", "192.168.50.101"]);
        drop(lower);
        // The container ended without a DEL.
        drop(second);
        let mut gc = conf.clone();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": first.id, "ifname": "eth0"}]);
        // The search of another test may hold the namespace for a moment, and then GC keeps the lease.
        await_that("GC frees the lease", || {
            lab.ipvlan().call("GC", &gc).run().done();
            lab.leases() == ["192.168.50.100"]
        });
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn del_twice_and_without_a_netns_are_successes(lab) {
        let (container, conf) = lab.ipvlan().attach(lab, &lab.ipvlan_conf("l2"));
        for _ in 0..2 {
            lab.ipvlan().del(&container, "eth0", &conf).run().done();
            assert_zero(lab, &container, "after DEL");
        }
        lab.ipvlan().del(&container, "eth0", &conf).env("CNI_NETNS", "").run().done();
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn del_works_when_the_parent_has_been_deleted(lab) {
        let (container, conf) = lab.ipvlan().attach(lab, &lab.ipvlan_conf("l2"));
        lab.host.delete_link(NIC);
        lab.ipvlan().del(&container, "eth0", &conf).run().done();
        assert_zero(lab, &container, "after DEL");
    }

    /// The path of the netns belongs to a container of another network now.
    #[needs(Ipvlan)]
    #[reference(not_run: "it deletes the link")]
    fn del_leaves_a_link_of_another_kind(lab) {
        let (container, conf) = lab.ipvlan().attach(lab, &lab.ipvlan_conf("l2"));
        container.delete_link("eth0");
        lab.host.create_macvlan_in(&container, "eth0", NIC);
        let before = container.link("eth0");
        let outcome = lab.ipvlan().del(&container, "eth0", &conf).run();
        outcome.done();
        assert_eq!(container.find_link("eth0"), Some(before));
        assert!(outcome.stderr.contains("eth0") && outcome.stderr.contains("macvlan"), "{}", outcome.text());
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// Linux 6.1 refuses the name if the host has a link of that name. Then the link has another name for a moment.
    #[needs(Ipvlan)]
    #[reference(not_run: "its threads make every run another one")]
    fn if_the_host_has_a_link_of_that_name_a_killed_add_leaves_nothing_after_del(lab) {
        lab.host.create_stray("eth0");
        for kind in ["ipvlan", "macvlan"] {
            let conf = if kind == "macvlan" { lab.conf() } else { lab.ipvlan_conf("l2") };
            let refuses = refuses_a_name_of_the_host(lab);
            let (mut steps, mut temporary, mut done) = (0, 0, false);
            // The guard of ipvlan makes another number of system calls each time, so one pass may miss the few that
            // see the temporary name.
            let mut stops = (1..MANY).step_by(2).chain((2..MANY).step_by(2)).chain((1..MANY).step_by(2));
            while let Some(stop) = stops.next() {
                let container = lab.container();
                let outcome = lab.plugin(kind).add(&container, "eth0", &conf).run_killed_at(stop);
                temporary += usize::from(container.link_names().iter().any(|name| name.starts_with("ul")));
                lab.plugin(kind).del(&container, "eth0", &conf).run().done();
                assert_zero(lab, &container, &format!("{kind} killed at step {steps}"));
                steps += 1;
                if outcome.status.success() {
                    done = true;
                    if temporary > 0 || (kind == "macvlan" && !refuses) {
                        break;
                    }
                    // The rest of this pass would succeed too.
                    stops.find(|next| *next < stop);
                }
            }
            assert!(done, "it never ends");
            assert!(steps > 50, "only {steps} steps were killed");
            let has_one = temporary > 0 || (kind == "macvlan" && !refuses);
            assert!(has_one, "no ADD of {kind} was killed while the link had its temporary name");
        }
    }
}

/// Returns true if this kernel refuses a name in a container because the host has a link of that name.
fn refuses_a_name_of_the_host(lab: &Lab) -> bool {
    let there = lab.container();
    match lab.host.try_create_ipvlan_in(&there, "eth0", NIC, "l2", "bridge") {
        Ok(()) => false,
        Err(e) if e.contains("File exists") => true,
        Err(e) => panic!("{e}"),
    }
}

/// `versions` tests each field with macvlan. ipvlan must print the same.
macro_rules! version_tests {
    ($($module:ident = $version:literal;)+) => {
        $(
            mod $module {
                mod hard_links {
                    version_tests!($version on HardLinks);
                }
                mod plain_copies {
                    version_tests!($version on PlainCopies);
                }
            }
        )+
    };
    ($version:literal on $binaries:ident) => {
        #[test]
        fn add_prints_what_macvlan_prints_and_check_and_del_answer_as_the_version_allows() {
            crate::lives_in(e2e::Binaries::$binaries, $version);
        }
    };
}

version_tests! {
    v0_1_0 = "0.1.0";
    v0_2_0 = "0.2.0";
    v0_3_0 = "0.3.0";
    v0_3_1 = "0.3.1";
    v0_4_0 = "0.4.0";
    v1_0_0 = "1.0.0";
    v1_1_0 = "1.1.0";
}

fn lives_in(binaries: Binaries, version: &str) {
    if !needs::here(&[Feature::Ipvlan]) {
        return;
    }
    let (printed, expected) = (life(binaries, version, "ipvlan"), life(binaries, version, "macvlan"));
    assert_eq!(printed, expected);
}

/// ADD, CHECK and DEL by that plugin in a new Lab. Returns the result of ADD without the fields that always differ.
fn life(binaries: Binaries, version: &str, kind: &str) -> Value {
    let lab = Lab::new(binaries);
    let mut ipam = lab.ipam(Families::Dual);
    ipam["routes"] = json!([{"dst": "10.20.0.0/16", "gw": "192.168.50.254"}, {"dst": "fd99::/48", "gw": "fd50::fe"}]);
    let mut conf = lab.conf_with(ipam);
    conf["type"] = json!(kind);
    conf["cniVersion"] = json!(version);
    conf["dns"] = json!({"nameservers": ["192.168.50.1"], "search": ["lan.example"]});
    let (plugin, container) = (lab.plugin(kind), lab.container());
    let mut result = plugin.add(&container, "eth0", &conf).run().result();
    assert_reaches(&lab.neighbour, lan4(100));
    assert_reaches(&lab.neighbour, lan6(100));
    conf["prevResult"] = result.clone();
    let check = plugin.check(&container, "eth0", &conf).run();
    match version {
        "0.1.0" | "0.2.0" | "0.3.0" | "0.3.1" => {
            check.fails(1, &["CHECK"]);
        }
        _ => {
            check.done();
        }
    }
    plugin.del(&container, "eth0", &conf).run().done();
    assert_zero(&lab, &container, "after DEL");
    if let Some(interface) = result.pointer_mut("/interfaces/0") {
        assert_eq!(interface["sandbox"], json!(container.path()));
        assert!(interface["mac"].is_string(), "{interface}");
        interface["sandbox"] = json!("");
        interface["mac"] = json!("");
    }
    result
}
