//! A fault at each system call of lan-pool: it is killed there, or the call fails. After the DEL that a runtime sends, and
//! one sweep, no lease is left, and the next ADD works.

use e2e::faults::{Selection, describe, selected};
use e2e::trace::Fault;
use e2e::{Container, Outcome};
use serde_json::Value;

use crate::site::{PoolNode, Shared, addresses};

/// The faults of each test. `UNDERLAY_FAULTS` sets another number.
const COUNT: usize = 60;

struct Sweep<'a> {
    shared: &'a Shared,
    node: PoolNode<'a>,
    lan: &'a str,
    container: Container,
    conf: Value,
}

impl<'a> Sweep<'a> {
    fn new(shared: &'a Shared, lan: &'a str, name: &'static str) -> Self {
        let node = shared.node(lan, name);
        let (container, conf) = (node.container(), node.conf(10, 30));
        let sweep = Self { shared, node, lan, container, conf };
        // The first calls make the journal.
        sweep.add();
        sweep.node.del(&sweep.container, &sweep.conf).done();
        sweep
    }

    fn add(&self) -> Vec<String> {
        addresses(&self.node.add(&self.container, &self.conf).result())
    }

    fn leased(&self) -> Vec<String> {
        let leases = self.shared.leases(self.lan).into_iter();
        let mut leased: Vec<_> = leases.map(|lease| lease["address"].as_str().unwrap_or_default().to_owned()).collect();
        leased.sort();
        leased
    }

    /// Runs `work` with each selected fault of a command.
    fn each(&self, command: &str, prepare: impl Fn(), check: impl Fn(&Outcome, &str)) {
        prepare();
        let (outcome, trace) = self.node.call(command, &self.container, &self.conf).run_stepwise(None);
        assert!(outcome.status.success(), "{}", outcome.text());
        self.node.del(&self.container, &self.conf).done();
        let faults: Vec<Fault> = selected(&trace.steps, &Selection::from_environment(COUNT));
        assert!(!faults.is_empty());
        for fault in &faults {
            prepare();
            let (outcome, trace) = self.node.call(command, &self.container, &self.conf).run_stepwise(Some(fault));
            let what = format!("{}, {}", describe(fault), outcome.text());
            assert!(!trace.hung, "it does not end: {what}");
            check(&outcome, &what);
            self.node.del(&self.container, &self.conf).done();
            if !self.leased().is_empty() {
                self.node.gc(&self.conf).done();
            }
            assert_eq!(self.leased(), [""; 0], "leases are left after DEL and a sweep: {what}");
        }
    }
}

#[test]
fn an_add_with_a_fault_at_each_system_call_leaves_nothing_after_del() {
    let shared = Shared::get();
    let sweep = Sweep::new(&shared, "fault-add", "fault-add-1");
    let check = |outcome: &Outcome, what: &str| {
        if outcome.status.success() {
            let mut given = addresses(&outcome.result());
            given.sort();
            assert_eq!(sweep.leased(), given, "{what}");
        }
    };
    sweep.each("ADD", || {}, check);
}

#[test]
fn a_del_with_a_fault_at_each_system_call_leaves_nothing_after_another_del() {
    let shared = Shared::get();
    let sweep = Sweep::new(&shared, "fault-del", "fault-del-1");
    sweep.each("DEL", || drop(sweep.add()), |_, _| {});
}

/// A GC of a node whose container lives must not lose its lease.
#[test]
fn a_sweep_with_a_fault_at_each_system_call_keeps_the_leases_of_living_containers() {
    let shared = Shared::get();
    let sweep = Sweep::new(&shared, "fault-gc", "fault-gc-1");
    let mut given = sweep.add();
    given.sort();
    let mut conf = sweep.conf.clone();
    conf["cni.dev/valid-attachments"] = serde_json::json!([]);
    let call = || sweep.node.plugin().call("GC", &conf);
    let (_, trace) = call().run_stepwise(None);
    for fault in &selected(&trace.steps, &Selection::from_environment(COUNT)) {
        let (outcome, trace) = call().run_stepwise(Some(fault));
        let what = format!("{}, {}", describe(fault), outcome.text());
        assert!(!trace.hung, "it does not end: {what}");
        assert_eq!(sweep.leased(), given, "{what}");
    }
    assert_eq!(
        {
            let mut again = sweep.add();
            again.sort();
            again
        },
        given
    );
    sweep.node.del(&sweep.container, &sweep.conf).done();
    assert_eq!(sweep.leased(), [""; 0]);
}
