//! Two calls for one attachment at the same time: a DEL that overtakes its ADD, and several ADDs.

use std::thread;

use e2e::gate::Gate;
use e2e::patience::await_that;
use e2e::scenario::all_at_once;
use e2e::{Call, Container, Lab, cases};
use serde_json::Value;

/// An IPAM plugin that waits in ADD, and in the DEL of the runtime, until the test lets it continue. It does not wait
/// in the DEL of a failed ADD.
struct SlowIpam {
    conf: Value,
    add_asked: Gate,
    add_go: Gate,
    del_asked: Gate,
    del_go: Gate,
}

impl SlowIpam {
    /// The runtime's DEL.
    fn del<'a>(&self, lab: &'a Lab, container: &Container) -> Call<'a> {
        lab.plugin_with_fake("macvlan").del(container, "eth0", &self.conf).args("IgnoreUnknown=1;SLOW=1")
    }

    fn leasing(lab: &Lab, address: &str) -> Self {
        let conf = lab.fake_ipam(&format!(
            "case $CNI_COMMAND in\n\
                 ADD) echo >$LAB/add-asked; read word <$LAB/add-go; >$LAB/lease\n\
                 echo '{{\"cniVersion\": \"1.0.0\", \"ips\": [{{\"address\": \"{address}\"}}]}}';;\n\
                 DEL) rm -f $LAB/lease\n\
                 case $CNI_ARGS in *SLOW*) echo >$LAB/del-asked; read word <$LAB/del-go;; esac;;\n\
                 esac"
        ));
        let gate = |name| Gate::new(lab, name);
        let (add_asked, add_go) = (gate("add-asked"), gate("add-go"));
        Self { conf, add_asked, add_go, del_asked: gate("del-asked"), del_go: gate("del-go") }
    }
}

/// An ADD and a DEL of one attachment at the same time. Both wait in IPAM. The named one ends first.
fn add_fails_beside_del(lab: &Lab, first: &str) {
    let mut ipam = SlowIpam::leasing(lab, "192.168.50.77/24");
    let (container, conf) = (lab.container(), ipam.conf.clone());
    let (add, del) = thread::scope(|scope| {
        let add = scope.spawn(|| lab.plugin_with_fake("macvlan").add(&container, "eth0", &conf).run());
        let mut asked = ipam.add_asked.wait();
        let call = ipam.del(lab, &container);
        let del = scope.spawn(move || call.run());
        asked &= ipam.del_asked.wait();
        let end_add = || {
            ipam.add_go.open();
            add.join().expect("an ADD")
        };
        let end_del = || {
            ipam.del_go.open();
            del.join().expect("a DEL")
        };
        let (add, del) = match first {
            "ADD" => (end_add(), end_del()),
            _ => {
                let del = end_del();
                (end_add(), del)
            }
        };
        assert!(asked, "IPAM was not asked: {}\n{}", add.text(), del.text());
        (add, del)
    });
    add.fails(100, &["eth0", "it was deleted during the ADD"]);
    del.done();
    assert_eq!(container.link_names(), ["lo"]);
    assert!(!lab.path("lease").exists(), "the lease stayed: {:?}", lab.fake_calls());
}

cases! {
    /// DEL released nothing, because the address was not leased yet. ADD already had its link and succeeded. Then DEL
    /// deleted the link. Both succeeded, and the lease stayed for ever.
    #[reference(fails: "did not fail")]
    fn a_del_that_is_under_way_when_the_address_is_leased_makes_add_fail(lab) {
        add_fails_beside_del(lab, "ADD");
    }

    #[reference(fails: "another code")]
    fn a_del_that_is_over_when_the_address_is_leased_makes_add_fail(lab) {
        add_fails_beside_del(lab, "DEL");
    }

    /// DEL removes the address from the link first. ADD then reported that another machine had the address.
    #[reference(fails: "did not fail")]
    fn a_del_during_duplicate_address_detection_is_not_reported_as_another_machine(lab) {
        let mut ipam = SlowIpam::leasing(lab, "fd50::77/64");
        let (container, conf) = (lab.container(), ipam.conf.clone());
        // So many probes that a DEL can come in between.
        container.set_sysctl("net/ipv6/conf/default/dad_transmits", "10");
        let (add, del) = thread::scope(|scope| {
            let add = scope.spawn(|| lab.plugin_with_fake("macvlan").add(&container, "eth0", &conf).run());
            ipam.add_go.open();
            await_that("an address is tentative, or the ADD has ended", || {
                let up = container.find_link("eth0").is_some_and(|link| link.up);
                let detected = container.all_addresses().iter().any(|its| !its.link_local() && its.tentative());
                up && detected || add.is_finished()
            });
            let call = ipam.del(lab, &container);
            let del = scope.spawn(move || call.run());
            // Now the address is gone, and the link is still there.
            let asked = ipam.del_asked.wait();
            let add = add.join().expect("an ADD");
            ipam.del_go.open();
            let del = del.join().expect("a DEL");
            assert!(asked, "IPAM was not asked: {}\n{}", add.text(), del.text());
            (add, del)
        });
        let error = add.fails(100, &["eth0", "it was deleted during the ADD"]);
        assert!(!format!("{error:?}").contains("another machine"), "{}", add.text());
        del.done();
        assert_eq!(container.link_names(), ["lo"]);
        assert!(!lab.path("lease").exists(), "the lease stayed: {:?}", lab.fake_calls());
    }

    /// Some of the failed ADDs only said "file exists".
    #[reference(fails: "another code")]
    fn of_eight_adds_of_one_attachment_one_wins_and_the_others_say_why_not_twenty_times(lab) {
        for _ in 0..20 {
            let (container, conf) = (lab.container(), lab.conf());
            let outcomes = all_at_once(8, || lab.macvlan().add(&container, "eth0", &conf).run());
            let (winners, losers): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| outcome.status.success());
            for loser in losers {
                loser.fails(7, &["CNI_IFNAME", "eth0", "already"]);
            }
            let [winner] = winners[..] else { panic!("{} winners", winners.len()) };
            let address = winner.result()["ips"][0]["address"].as_str().expect("an address").to_owned();
            assert_eq!(container.address_texts("eth0"), [address.as_str()]);
            assert_eq!(lab.leases(), [address.trim_end_matches("/24")]);
            lab.macvlan().detach(lab, &container, &conf);
        }
    }
}
