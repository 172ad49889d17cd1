//! Calls that do not come to their end, or come at the wrong time: killed at every step, unheard,
//! overtaken by a DEL. In the end there is nothing, or all of it.

use std::thread;
use std::time::{Duration, Instant};

use e2e::kernel::Address;
use e2e::lab::{Families, lan4, lan6};
use e2e::traffic::{Wire, assert_reaches, assert_silent};
use e2e::{Binaries, Call, Container, Lab, cases};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

/// More system calls than any call makes.
const MANY: usize = 5000;

/// Nothing of the container's is left but what the next lease goes on from.
#[track_caller]
fn assert_zero(lab: &Lab, container: &Container, when: &str) {
    assert_eq!(container.link_names(), ["lo"], "{when}");
    let rest: Vec<_> =
        lab.lease_files().into_iter().filter(|name| name != "lock" && !name.starts_with("last_")).collect();
    assert!(rest.is_empty(), "{when}: {rest:?} left in the lease directory");
}

/// Kills a call at each of its system calls in turn, and looks after each at what is there. Ends
/// with the first call that comes to its own end; at least `least` must not.
fn killed_at_every_step<'a>(least: usize, call: impl Fn() -> (Container, Call<'a>), then: impl Fn(&Container, &str)) {
    // Leaving one call and entering the next are one moment as far as the kernel's state goes.
    for (step, stop) in (1..MANY).step_by(2).enumerate() {
        let (container, call) = call();
        let outcome = call.run_killed_at(stop);
        if outcome.status.success() {
            assert!(step >= least, "only {step} steps were killed");
            return;
        }
        then(&container, &format!("killed at step {step}"));
    }
    panic!("it never comes to its end");
}

fn one_ipv6_address(lab: &Lab) -> Value {
    let range = json!({"subnet": "fd50::/64", "rangeStart": "fd50::100", "rangeEnd": "fd50::100"});
    lab.conf_with(json!({"type": "host-local", "dataDir": lab.data_dir(), "ranges": [[range]]}))
}

/// As if another host had leased them.
fn forget_leases(lab: &Lab) {
    std::fs::remove_dir_all(lab.data_dir()).expect("remove the leases");
}

cases! {
    /// A node runs out of memory, a runtime loses patience. The runtime then calls DEL.
    #[reference(not_run: "its threads make every run another one")]
    fn an_add_killed_at_any_step_leaves_nothing_after_del(lab) {
        let conf = lab.conf();
        let add = || {
            let container = lab.container();
            let call = lab.macvlan().add(&container, "eth0", &conf);
            (container, call)
        };
        killed_at_every_step(50, add, |container, when| {
            lab.macvlan().del(container, "eth0", &conf).run().done();
            assert_zero(lab, container, when);
        });
    }

    #[reference(not_run: "its threads make every run another one")]
    fn a_del_killed_at_any_step_leaves_nothing_after_another(lab) {
        let conf = lab.conf();
        let del = || {
            let container = lab.container();
            lab.macvlan().add(&container, "eth0", &conf).run().result();
            let call = lab.macvlan().del(&container, "eth0", &conf);
            (container, call)
        };
        killed_at_every_step(30, del, |container, when| {
            lab.macvlan().del(container, "eth0", &conf).run().done();
            assert_zero(lab, container, when);
        });
    }

    /// The runtime was restarted while it waited: it will never learn of the address.
    #[reference(fails: "left == right")]
    fn an_add_whose_answer_nobody_reads_is_undone(lab) {
        let container = lab.container();
        let outcome = lab.macvlan().add(&container, "eth0", &lab.conf()).run_unheard();
        assert_zero(lab, &container, "after an ADD that nobody heard");
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.text());
        assert_silent(&lab.neighbour, lan4(100));
    }

    /// A pod is deleted while it starts. On dual stack ADD spends a second on duplicate address
    /// detection, and DEL does not wait for it.
    #[reference(not_run: "it succeeds with a link that is gone, or panics")]
    fn a_del_beside_its_add_ends_with_nothing(lab) {
        let container = lab.container();
        let conf = lab.conf_with(lab.ipam(Families::Dual));
        let (add, del) = thread::scope(|scope| {
            let add = scope.spawn(|| lab.macvlan().add(&container, "eth0", &conf).run());
            let deadline = Instant::now() + PATIENCE;
            while !container.has_link("eth0") || container.address_texts("eth0").len() < 2 {
                assert!(Instant::now() < deadline && !add.is_finished(), "ADD never got so far");
                thread::yield_now();
            }
            let del = lab.macvlan().del(&container, "eth0", &conf).run();
            (add.join().expect("an ADD"), del)
        });
        del.done();
        add.fails(100, &["eth0"]);
        assert_zero(lab, &container, "after DEL beside ADD");
    }

    #[reference(passes)]
    fn without_a_carrier_an_ipv4_address_is_given_and_works_later(lab) {
        lab.unplug();
        let container = lab.container();
        lab.macvlan().add(&container, "eth0", &lab.conf()).run().result();
        assert_eq!(container.address_texts("eth0"), ["192.168.50.100/24"]);
    }

    /// Duplicate address detection cannot begin without a carrier, so there is nothing to wait for.
    #[reference(fails: "no warning")]
    fn without_a_carrier_ipv6_is_a_warning_and_no_wait(lab) {
        lab.unplug();
        let container = lab.container();
        let outcome = lab.macvlan().add(&container, "eth0", &lab.conf_with(lab.ipam(Families::V6))).run();
        outcome.result();
        assert!(outcome.stderr.contains("carrier"), "no warning: {}", outcome.text());
        assert!(outcome.wall < Duration::from_secs(1), "waited: {}", outcome.text());
        assert_eq!(container.address_texts("eth0"), ["fd50::100/64"]);
    }

    /// A restart with a static address: the old container is still going when the new one comes,
    /// and answers the kernel's question whether somebody has the address.
    #[reference(fails: "cannot be used")]
    fn an_ipv6_address_that_a_dying_container_still_has_is_waited_for(lab) {
        let conf = one_ipv6_address(lab);
        let (old, new) = (lab.container(), lab.container());
        let wire = Wire::open(&lab.neighbour, lab.neighbour.nic);
        let announced = || {
            let frame = wire.wait_for(PATIENCE, |frame| frame.announces(lan6(100)));
            assert!(frame.is_some(), "nobody announces the address");
        };
        lab.macvlan().add(&old, "eth0", &conf).run().result();
        if lab.binaries() != Binaries::Reference {
            announced();
        }
        forget_leases(lab);
        let outcome = thread::scope(|scope| {
            let add = scope.spawn(|| lab.macvlan().add(&new, "eth0", &conf).run());
            // The old one's answer to the new one's question, for all to hear.
            announced();
            old.delete_link("eth0");
            add.join().expect("an ADD")
        });
        outcome.result();
        let addresses = new.addresses("eth0");
        assert!(!addresses.iter().any(Address::duplicate), "an address cannot be used: {addresses:?}");
        assert!(!addresses.iter().any(Address::tentative), "an address is tentative: {addresses:?}");
        assert_reaches(&lab.neighbour, lan6(100));
    }

    #[reference(fails: "did not fail")]
    fn an_ipv6_address_that_another_machine_has_is_an_error_and_leaves_nothing(lab) {
        let conf = one_ipv6_address(lab);
        let (first, second) = (lab.container(), lab.container());
        lab.macvlan().add(&first, "eth0", &conf).run().result();
        forget_leases(lab);
        let outcome = lab.macvlan().add(&second, "eth0", &conf).run();
        outcome.fails(100, &["fd50::100", "eth0"]);
        assert_zero(lab, &second, "after an ADD of a duplicate");
        assert_reaches(&lab.neighbour, lan6(100));
    }

    /// As `kubectl delete` and `kubectl apply` in a loop.
    #[reference(passes)]
    fn add_and_del_thirty_times_leave_no_trace(lab) {
        let container = lab.container();
        let conf = lab.conf();
        lab.macvlan().add(&container, "eth0", &conf).run().result();
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        std::fs::remove_dir_all(lab.data_dir()).expect("remove the leases");
        lab.unchanged(&[&container], || {
            for _ in 0..30 {
                lab.macvlan().add(&container, "eth0", &conf).run().result();
                lab.macvlan().del(&container, "eth0", &conf).run().done();
            }
            std::fs::remove_dir_all(lab.data_dir()).expect("remove the leases");
        });
        lab.macvlan().add(&container, "eth0", &conf).run().result();
        assert_reaches(&lab.neighbour, lan4(100));
    }
}
