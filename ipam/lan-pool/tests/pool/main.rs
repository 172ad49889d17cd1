//! The pool of a node with a store in memory: answers that are lost, calls that are killed at each request, reboots, a lost
//! journal and a lost store. Real namespaces are the evidence of living containers, as in the plugin.

mod faults;
mod life;
mod store;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lan_pool::journal::Journal;
use lan_pool::pool::{Pool, Swept};
use lan_pool::protocol::Claim;
use lan_pool::{Error, Held, Node, Owner, Request};
use ranges::Set;

use store::{Client, Fault, Killed, Leases};

/// An inode that no namespace has.
const DEAD: u64 = 1;

/// A machine with a journal.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    pub(crate) node: Node,
    pub(crate) leases: Leases,
    pub(crate) remarks: Mutex<Vec<String>>,
}

impl Machine {
    pub(crate) fn new(name: &str, leases: &Leases) -> Self {
        let node = Node { name: name.into(), boot: "boot-1".into(), machine: format!("machine of {name}") };
        let folder = tempfile::tempdir().expect("a temporary directory");
        Self { folder, node, leases: leases.clone(), remarks: Mutex::default() }
    }

    pub(crate) fn reboot(&mut self) {
        self.node.boot.push('+');
    }

    /// Works with the pool. `None` if the call was killed.
    pub(crate) fn with<T>(
        &self,
        within: Duration,
        fault: impl FnMut(usize, &Request) -> Fault,
        work: impl FnOnce(&Pool<'_>) -> T,
    ) -> Option<T> {
        let client =
            Client { leases: self.leases.clone(), node: self.node.name.clone(), fault: Box::new(fault), count: 0 };
        let remark = |text: fmt::Arguments<'_>| self.remarks.lock().expect("remarks").push(text.to_string());
        let pool = Pool {
            lan: "office",
            node: self.node.clone(),
            journal: self.journal(),
            store: RefCell::new(Box::new(client)),
            deadline: Cell::new(Instant::now() + within),
            conflict_delay: 600,
            remark: &remark,
        };
        match panic::catch_unwind(AssertUnwindSafe(|| work(&pool))) {
            Ok(outcome) => Some(outcome),
            Err(panic) if panic.is::<Killed>() => None,
            Err(panic) => panic::resume_unwind(panic),
        }
    }

    /// As [`Machine::with`], without faults.
    pub(crate) fn call<T>(&self, work: impl FnOnce(&Pool<'_>) -> T) -> T {
        self.with(Duration::from_secs(5), |_, _| Fault::None, work).expect("nothing kills the call")
    }

    pub(crate) fn journal(&self) -> Journal {
        Journal::new(self.folder.path(), "office", &self.node.boot)
    }

    pub(crate) fn claim(&self, id: &str, netns: u64) -> Claim {
        let owner = Owner { container_id: id.into(), ifname: "eth0".into() };
        let pod = Some(format!("default/{id}"));
        Claim { lan: "office".into(), node: self.node.clone(), owner, netns: Some(netns), pod }
    }

    pub(crate) fn add(&self, id: &str, netns: u64, sets: &[Set]) -> Result<Vec<IpAddr>, Error> {
        self.call(|pool| pool.add(&self.claim(id, netns), sets, &[]))
    }

    pub(crate) fn del(&self, id: &str) -> Result<(), Error> {
        self.call(|pool| pool.del(&self.claim(id, living()), &[]))
    }

    pub(crate) fn sweep(&self) -> Swept {
        self.call(|pool| pool.sweep(&HashSet::new())).expect("a sweep")
    }

    pub(crate) fn remarks(&self) -> Vec<String> {
        std::mem::take(&mut self.remarks.lock().expect("remarks"))
    }

    pub(crate) fn journal_folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The inode of a namespace that exists: that of the tests.
pub(crate) fn living() -> u64 {
    File::open("/proc/self/ns/net").and_then(|file| file.metadata()).expect("our own namespace").ino()
}

/// Sets of addresses: `10.0.0.FIRST` to `10.0.0.LAST`, and the same of fd00::.
pub(crate) fn sets(first: u8, last: u8, families: usize) -> Vec<Set> {
    let range = |subnet: &str, first: String, last: String, gateway: &str| {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (first, last) = (ip(&first), ip(&last));
        let subnet = subnet.parse().expect("a subnet");
        ranges::Range { subnet, first, last, typed: (first, last), gateway: ip(gateway) }
    };
    let v4 = range("10.0.0.0/24", format!("10.0.0.{first}"), format!("10.0.0.{last}"), "10.0.0.1");
    let v6 = range("fd00::/64", format!("fd00::{first:x}"), format!("fd00::{last:x}"), "fd00::1");
    let sets = vec![Set::new("ipam.ranges[0]".into(), vec![v4]), Set::new("ipam.ranges[1]".into(), vec![v6])];
    sets.into_iter().take(families).collect()
}

/// The owners of all leases, with their addresses, sorted.
pub(crate) fn owners(held: &[Held]) -> Vec<(IpAddr, String)> {
    let owner = |held: &Held| held.lease.owner().map(|owner| owner.container_id.clone()).unwrap_or_default();
    held.iter().map(|held| (held.lease.address, owner(held))).collect()
}
