//! A fault at each request of an ADD and of a DEL. After the DEL that a runtime sends, and one sweep, nothing is left.

use std::time::Duration;

use lan_pool::pool::Pool;

use crate::store::{Fault, Leases};
use crate::{Machine, living, sets};

const SHORT: Duration = Duration::from_millis(150);

const ALL: [Fault; 6] =
    [Fault::Lost, Fault::AnswerLost, Fault::Refused, Fault::KilledBefore, Fault::KilledAfter, Fault::Late];

/// Some faults last: all requests after the first one have it too.
fn plans() -> Vec<(Fault, usize, bool)> {
    let mut plans = Vec::new();
    for fault in ALL {
        for at in 0..12 {
            plans.extend([(fault, at, false), (fault, at, true)]);
        }
    }
    plans
}

fn hits(at: usize, lasts: bool, number: usize) -> bool {
    number == at || (lasts && number > at)
}

#[test]
fn an_add_with_a_fault_and_the_del_after_it_leave_nothing() {
    let mut hit = 0;
    for (fault, at, lasts) in plans() {
        let leases = Leases::default();
        let machine = Machine::new("node1", &leases);
        let other = Machine::new("node2", &leases);
        // Nearly full, so that addresses are tried that others have.
        let pool = sets(10, 14, 2);
        machine.add("first", living(), &pool).unwrap();
        other.add("other", living(), &pool).unwrap();
        let story = format!("{fault:?} at request {at}, lasts: {lasts}");
        let mut is_hit = false;
        let plan = |number: usize, _: &lan_pool::Request| match hits(at, lasts, number) {
            true => {
                is_hit = true;
                fault
            }
            false => Fault::None,
        };
        let added = machine.with(SHORT, plan, |its: &Pool<'_>| its.add(&machine.claim("a", living()), &pool, &[]));
        hit += usize::from(is_hit);
        if let Some(Ok(given)) = &added {
            assert!(given.iter().all(|ip| leases.get(*ip).is_some()), "{story}");
        }
        machine.del("a").unwrap();
        leases.arrive();
        // A late request of the ADD can arrive after the DEL. The page is too young to be forgotten.
        for _ in 0..2 {
            machine.sweep();
        }
        let left = leases.all();
        assert_eq!(left.len(), 4, "{story}: {left:?}\n{:?}", machine.remarks());
    }
    assert!(hit > 40, "only {hit} faults were hit");
}

#[test]
fn a_del_with_a_fault_and_a_sweep_after_it_leave_nothing() {
    let mut hit = 0;
    for (fault, at, lasts) in plans() {
        let leases = Leases::default();
        let machine = Machine::new("node1", &leases);
        let pool = sets(10, 14, 2);
        machine.add("first", living(), &pool).unwrap();
        machine.add("a", living(), &pool).unwrap();
        let mut is_hit = false;
        let plan = |number: usize, _: &lan_pool::Request| match hits(at, lasts, number) {
            true => {
                is_hit = true;
                fault
            }
            false => Fault::None,
        };
        let deleted = machine.with(SHORT, plan, |its: &Pool<'_>| its.del(&machine.claim("a", living()), &[]));
        hit += usize::from(is_hit);
        let story = format!("{fault:?} at request {at}, lasts: {lasts}: {deleted:?}");
        // A DEL that was killed is called again.
        match deleted {
            Some(deleted) => deleted.unwrap_or_else(|error| panic!("{story}: {error}")),
            None => machine.del("a").unwrap(),
        }
        leases.arrive();
        machine.sweep();
        let left = leases.all();
        assert_eq!(left.len(), 2, "{story}: {left:?}\n{:?}", machine.remarks());
    }
    assert!(hit > 10, "only {hit} faults were hit");
}

/// The store has lost everything, and the sweep that makes it again has a fault.
#[test]
fn a_sweep_with_a_fault_loses_no_lease_of_a_living_container() {
    for (fault, at, lasts) in plans() {
        let leases = Leases::default();
        let machine = Machine::new("node1", &leases);
        let pool = sets(10, 14, 2);
        let given = machine.add("a", living(), &pool).unwrap();
        leases.wipe();
        let plan = |number: usize, _: &lan_pool::Request| if hits(at, lasts, number) { fault } else { Fault::None };
        let _ = machine.with(SHORT, plan, |its: &Pool<'_>| its.sweep(&Default::default()));
        leases.arrive();
        machine.sweep();
        let story = format!("{fault:?} at request {at}, lasts: {lasts}");
        assert!(given.iter().all(|ip| leases.get(*ip).is_some()), "{story}: {:?}", leases.all());
        machine.del("a").unwrap();
        machine.sweep();
        assert_eq!(leases.all(), [], "{story}: {:?}", machine.remarks());
    }
}

/// All addresses of the pool were in doubt for this container, so that its next ADD found no other one.
#[test]
fn an_address_in_doubt_is_tried_again_by_the_same_container() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let pool = sets(10, 11, 1);
    for _ in 0..3 {
        let lost = |_: usize, request: &lan_pool::Request| match request {
            lan_pool::Request::Create(_) => Fault::Late,
            _ => Fault::None,
        };
        let added = machine.with(SHORT, lost, |its: &Pool<'_>| its.add(&machine.claim("a", living()), &pool, &[]));
        added.unwrap().unwrap_err();
        machine.del("a").unwrap();
    }
    let given = machine.add("a", living(), &pool).unwrap();
    leases.arrive();
    machine.add("b", living(), &pool).unwrap();
    machine.del("a").unwrap();
    assert!(leases.get(given[0]).is_none(), "{:?}", leases.all());
    assert_eq!(leases.all().len(), 1);
}

/// The answer to the create was lost, and then another machine was found to have the address. The next ADD of the
/// container tried it again and again, because the create could still arrive.
#[test]
fn an_address_in_doubt_that_another_machine_has_is_not_tried_again() {
    let leases = Leases::default();
    let machine = Machine::new("node1", &leases);
    let pool = sets(10, 11, 1);
    let mut is_first = true;
    let lost = |_: usize, request: &lan_pool::Request| match request {
        lan_pool::Request::Create(_) if std::mem::take(&mut is_first) => Fault::AnswerLost,
        _ => Fault::None,
    };
    let add = |its: &Pool<'_>| its.add(&machine.claim("a", living()), &pool, &[]);
    let first = machine.with(SHORT * 10, lost, add).unwrap().unwrap()[0];
    let conflict = cni::Conflict { address: first, mac: None };
    machine.call(|its| its.del(&machine.claim("a", living()), &[conflict])).unwrap();
    assert_ne!(machine.add("a", living(), &pool).unwrap()[0], first);
}
