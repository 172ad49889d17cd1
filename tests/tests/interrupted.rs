//! Calls that are interrupted: the result is not read, a DEL overtakes an ADD, an answer of the kernel is lost. At the
//! end, nothing is left or everything is there. Faults at every step are in `faults`.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use e2e::kernel::Address;
use e2e::lab::{Families, lan4, lan6};
use e2e::patience::PATIENCE;
use e2e::trace::{Deed, Fault};
use e2e::traffic::{Wire, assert_reaches, assert_silent};
use e2e::{Binaries, Call, Container, Lab, Outcome, Plugin, cases, with};
use nix::errno::Errno;
use nix::libc;
use serde_json::{Value, json};

/// More system calls than any call makes.
const MANY: usize = 5000;

/// Nothing of the container is left except the last address, from which host-local continues.
#[track_caller]
fn assert_zero(lab: &Lab, container: &Container, when: &str) {
    assert_eq!(container.link_names(), ["lo"], "{when}");
    let rest: Vec<_> =
        lab.lease_files().into_iter().filter(|name| name != "lock" && !name.starts_with("last_")).collect();
    assert!(rest.is_empty(), "{when}: {rest:?} left in the lease directory");
}

/// Makes each system call that `which` selects fail, each in a separate run. `which` gets the last requests to the
/// kernel and the number of the system call. `then` looks at the state after each run, and after a run without a
/// failure.
fn failing_at_each<'a>(
    errno: Errno,
    which: impl Fn(&[u16], i64) -> bool,
    call: impl Fn() -> (Container, Call<'a>),
    then: impl Fn(&Container, &Outcome),
) {
    let (container, well) = call();
    let (outcome, trace) = well.run_stepwise(None);
    then(&container, &outcome);
    let steps = trace.steps;
    let (mut asked, mut picked) = (Vec::new(), 0);
    for step in steps {
        if which(&asked, step.number) {
            let (container, call) = call();
            let fault = Fault { step: step.clone(), deed: Deed::Fail(errno) };
            let (outcome, trace) = call.run_stepwise(Some(&fault));
            // The search depends on the other namespaces of the machine, so the call may not come.
            picked += usize::from(trace.struck);
            then(&container, &outcome);
        }
        if !step.requests.is_empty() {
            asked = step.requests;
        }
    }
    assert!(picked > 1, "only {picked} calls failed");
}

fn one_ipv6_address(lab: &Lab) -> Value {
    lab.conf_over(json!([[{"subnet": "fd50::/64", "rangeStart": "fd50::100", "rangeEnd": "fd50::100"}]]))
}

/// As if another host had made the leases.
fn forget_leases(lab: &Lab) {
    fs::remove_dir_all(lab.data_dir()).expect("remove the leases");
}

/// More system calls of one kind than any call makes.
const MANY_OF_ONE: usize = 200;

/// The program `macvlan` under strace, which makes system calls of its main thread fail.
fn failing<'a>(lab: &'a Lab, calls: &str, errno: &str, when: usize) -> Plugin<'a> {
    lab.behind(&format!(
        "exec strace -o $LAB/strace -e trace={calls},sendto -e inject={calls}:error={errno}:when={when} $PLUGIN"
    ))
}

/// The lines of strace up to the injected failure. `None` if nothing was injected.
fn until_injected(lab: &Lab) -> Option<Vec<String>> {
    let log = fs::read_to_string(lab.path("strace")).expect("the log of strace");
    let lines: Vec<String> = log.lines().map(str::to_owned).collect();
    let at = lines.iter().position(|line| line.contains("(INJECTED)"))?;
    Some(lines[..at].to_vec())
}

/// Returns true if a request is an RTM_NEWLINK with NLM_F_CREATE and NLM_F_EXCL. strace prints words if it knows the
/// protocol of the socket, and numbers otherwise.
fn creates_a_link(request: &str) -> bool {
    let says = |word: &str, number: &str| request.contains(word) || request.contains(number);
    says("nlmsg_type=RTM_NEWLINK,", "nlmsg_type=0x10 ") && says("NLM_F_EXCL|NLM_F_CREATE", "|0x600,")
}

cases! {
    /// A DEL was killed after it had removed the addresses. In mode passthru the link has the MAC of its parent, so the
    /// next DEL thought that the link was foreign and left it.
    #[reference(not_run: "its threads make every run another one")]
    fn a_del_that_was_killed_after_it_removed_the_addresses_is_finished_by_the_next(lab) {
        let killed = |stop: usize| {
            let (container, conf) = lab.macvlan().attach(lab, &with(lab.conf(), "mode", json!("passthru")));
            let del = lab.macvlan().del(&container, "eth0", &conf);
            let outcome = del.run_killed_at(stop);
            let bare = container.has_link("eth0") && container.address_texts("eth0").is_empty();
            if !outcome.status.success() {
                del.run().done();
            }
            assert_zero(lab, &container, &format!("killed at stop {stop}"));
            (outcome.status.success(), bare)
        };
        let ends: Vec<_> = (1..MANY).step_by(4).map(killed).take_while(|(ended, _)| !ended).collect();
        assert!(ends.iter().any(|(_, bare)| *bare), "it was never killed in between: {ends:?}");
    }

    /// The kernel had created the link, but there was no memory for its answer. ADD took that for a refusal.
    #[reference(not_run: "its threads make every run another one")]
    fn an_add_without_memory_for_an_answer_leaves_nothing(lab) {
        let conf = lab.conf();
        let add = || {
            let container = lab.container();
            let call = lab.macvlan().add(&container, "eth0", &conf);
            (container, call)
        };
        let receives = |_: &[u16], number| number == libc::SYS_recvmsg;
        failing_at_each(Errno::ENOMEM, receives, add, |container, outcome| {
            if outcome.status.success() {
                lab.macvlan().del(container, "eth0", &conf).run().done();
            } else {
                outcome.fails(100, &["out of memory"]);
            }
            assert_zero(lab, container, &outcome.text());
        });
    }

    /// The kernel's answer was lost, so ADD did not know if it had created the link. It took an existing link that was
    /// down for its own.
    #[reference(not_run: "its threads make every run another one")]
    fn an_add_that_misses_an_answer_leaves_a_link_that_was_there_and_is_down(lab) {
        let conf = lab.conf();
        let add = || {
            let (container, _) = lab.macvlan().attach(lab, &conf);
            container.set_down("eth0");
            let call = lab.macvlan().add(&container, "eth0", &conf);
            (container, call)
        };
        let receives = |_: &[u16], number| number == libc::SYS_recvmsg;
        failing_at_each(Errno::ENOBUFS, receives, add, |container, outcome| {
            assert_eq!(outcome.status.code(), Some(1), "{}", outcome.text());
            let leased = lab.leases();
            let its: Vec<_> = container.address_texts("eth0").into_iter().filter(|text| text.contains('.')).collect();
            assert_eq!(its.len(), 1, "{}", outcome.text());
            let kept = leased.iter().any(|lease| its[0].starts_with(&format!("{lease}/")));
            assert!(kept, "{its:?} is not leased: {leased:?}; {}", outcome.text());
            lab.macvlan().del(container, "eth0", &conf).run().done();
            assert_zero(lab, container, &outcome.text());
        });
    }

    /// The guard of the parent's mode created a macvlan for a moment. If the answer was lost, it did not delete it.
    #[needs(Ipvlan)]
    #[reference(not_run: "it has no guard")]
    fn an_ipvlan_add_that_misses_an_answer_about_a_link_leaves_nothing(lab) {
        let conf = lab.ipvlan_conf("l2");
        let add = || {
            let container = lab.container();
            let call = lab.ipvlan().add(&container, "eth0", &conf);
            (container, call)
        };
        let about_links = |asked: &[u16], number| number == libc::SYS_recvmsg && asked.iter().any(|kind| *kind <= 18);
        failing_at_each(Errno::ENOBUFS, about_links, add, |container, outcome| {
            if outcome.status.success() {
                let mut names = container.link_names();
                // Linux 6.1 lists them in another order.
                names.sort();
                assert_eq!(names, ["eth0", "lo"], "{}", outcome.text());
                lab.ipvlan().del(container, "eth0", &conf).run().done();
            }
            assert_zero(lab, container, &outcome.text());
        });
    }

    /// The runtime was restarted during the ADD, so it never learns of the address.
    #[reference(fails: "left == right")]
    fn an_add_whose_result_is_not_read_is_undone(lab) {
        let container = lab.container();
        let outcome = lab.macvlan().add(&container, "eth0", &lab.conf()).run_unheard();
        assert_zero(lab, &container, "after an ADD whose result was not read");
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.text());
        assert_silent(&lab.neighbour, lan4(100));
    }

    /// A pod is deleted while it starts. On dual stack, ADD takes a second for duplicate address detection, and DEL
    /// does not wait for it.
    #[reference(not_run: "it succeeds with a link that is gone, or panics")]
    fn a_del_during_its_add_leaves_nothing(lab) {
        let container = lab.container();
        // Longer, because DEL starts late on a slow machine.
        container.set_sysctl("net/ipv6/conf/default/dad_transmits", "5");
        let conf = lab.conf_with(lab.ipam(Families::Dual));
        let (add, del) = thread::scope(|scope| {
            let add = scope.spawn(|| lab.macvlan().add(&container, "eth0", &conf).run());
            let deadline = Instant::now() + PATIENCE;
            while !container.has_link("eth0") || container.address_texts("eth0").len() < 2 {
                assert!(Instant::now() < deadline && !add.is_finished(), "ADD never has its addresses");
                thread::yield_now();
            }
            let del = lab.macvlan().del(&container, "eth0", &conf).run();
            (add.join().expect("an ADD"), del)
        });
        del.done();
        add.fails(100, &["eth0"]);
        assert_zero(lab, &container, "after a DEL during ADD");
    }

    #[reference(passes)]
    fn without_a_carrier_add_sets_the_ipv4_address(lab) {
        lab.unplug();
        let (container, _) = lab.macvlan().attach(lab, &lab.conf());
        assert_eq!(container.address_texts("eth0"), ["192.168.50.100/24"]);
    }

    /// Duplicate address detection does not start without a carrier, so ADD does not wait.
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

    /// A container with a static address restarts: the old one still exists, and answers the neighbour solicitation of
    /// duplicate address detection.
    #[reference(fails: "did not succeed")]
    fn add_waits_for_an_ipv6_address_that_a_dying_container_still_has(lab) {
        let conf = one_ipv6_address(lab);
        let (old, new) = (lab.container(), lab.container());
        let wire = Wire::open(&lab.neighbour, lab.neighbour.nic);
        let announced = || {
            let frame = wire.wait_for(PATIENCE, |frame| frame.announces(lan6(100)));
            assert!(frame.is_some(), "no machine announces the address");
        };
        lab.macvlan().add(&old, "eth0", &conf).run().result();
        announced();
        forget_leases(lab);
        let outcome = thread::scope(|scope| {
            let add = scope.spawn(|| lab.macvlan().add(&new, "eth0", &conf).run());
            // The answer of the old container goes to all machines.
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

    #[reference(fails: "another code")]
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

    #[reference(passes)]
    fn add_and_del_thirty_times_leave_no_trace(lab) {
        let conf = lab.conf();
        let (container, _) = lab.macvlan().attach(lab, &conf);
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        fs::remove_dir_all(lab.data_dir()).expect("remove the leases");
        lab.unchanged(&[&container], || {
            for _ in 0..30 {
                lab.macvlan().add(&container, "eth0", &conf).run().result();
                lab.macvlan().del(&container, "eth0", &conf).run().done();
            }
            fs::remove_dir_all(lab.data_dir()).expect("remove the leases");
        });
        lab.macvlan().add(&container, "eth0", &conf).run().result();
        assert_reaches(&lab.neighbour, lan4(100));
    }

    /// At the limit of processes or threads, ADD panicked or left the IPAM plugin running.
    #[reference(not_run: "its threads make every run another one")]
    fn at_the_limit_of_processes_add_fails_with_code_11_and_leaves_nothing(lab) {
        let conf = lab.fake_ipam("echo $$ >>$LAB/pids\n[ $CNI_COMMAND = ADD ] && echo \"$answer\"; exit 0");
        for (failed, when) in (1..MANY_OF_ONE).enumerate() {
            let container = lab.container();
            let add = || failing(lab, "clone,clone3,vfork", "EAGAIN", when).add(&container, "eth0", &conf).run();
            let outcome = lab.unchanged(&[&container], || {
                let outcome = add();
                if outcome.status.success() {
                    lab.plugin_with_fake("macvlan").del(&container, "eth0", &conf).run().done();
                }
                outcome
            });
            for pid in fs::read_to_string(lab.path("pids")).unwrap_or_default().lines() {
                assert!(!Path::new("/proc").join(pid).exists(), "an IPAM plugin lives on as {pid}: {}", outcome.text());
            }
            if until_injected(lab).is_none() {
                outcome.result();
                // The child alone.
                assert_eq!(failed, 1);
                return;
            }
            outcome.fails(11, &["fake"]);
        }
        panic!("it never ends");
    }

    /// At the limit of threads, the wait for the lock of the leases panicked, with code 999.
    #[reference(not_run: "its threads make every run another one")]
    fn at_the_limit_of_threads_an_add_that_waits_for_the_lock_fails_with_code_11(lab) {
        lab.write_lease("lock", "");
        let lock = fs::File::open(lab.lease_file("lock")).expect("open the lock");
        lock.lock().expect("take the lock");
        let container = lab.container();
        let without_threads = "exec strace -o $LAB/strace -e inject=clone,clone3,vfork:error=EAGAIN $PLUGIN";
        let add = || lab.behind(without_threads).add(&container, "eth0", &lab.conf()).run();
        let outcome = lab.unchanged(&[&container], add);
        // As a separate program, IPAM cannot be started.
        let is_called = lab.binaries() == Binaries::HardLinks;
        outcome.fails(11, &[if is_called { "no thread can be started to wait for it" } else { "host-local" }]);
    }

    /// The kernel had created the link, but its answer was lost, and ADD left the link. Here each answer is lost once.
    #[reference(not_run: "its threads make every run another one")]
    fn an_add_that_misses_an_answer_of_the_kernel_leaves_nothing_and_can_be_repeated(lab) {
        let mut of_the_creation = 0;
        for when in 1..MANY_OF_ONE {
            let container = lab.container();
            let conf = lab.conf();
            let outcome = failing(lab, "recvmsg", "ENOBUFS", when).add(&container, "eth0", &conf).run();
            let Some(before) = until_injected(lab) else {
                outcome.result();
                assert_eq!(of_the_creation, 1, "the acknowledgement of the new link was never lost");
                return;
            };
            let request = before.iter().rfind(|line| line.starts_with("sendto")).expect("a request before an answer");
            of_the_creation += usize::from(creates_a_link(request));
            let error = outcome.error();
            assert_eq!(error.code, 11, "answer {when}: {}", outcome.text());
            assert_eq!(error.details, "", "answer {when}: {}", outcome.text());
            lab.assert_gone(&container);
            let retried = lab.macvlan().add(&container, "eth0", &conf).run().result();
            assert_eq!(container.address_texts("eth0"), [retried["ips"][0]["address"].as_str().expect("an address")]);
            lab.macvlan().del(&container, "eth0", &conf).run().done();
        }
        panic!("it never ends");
    }
}
