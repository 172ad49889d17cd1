//! A store in memory, with the faults of a network.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use lan_pool::lease::Block;
use lan_pool::{Answer, Held, Lease, Request, Store, Uid};

/// The outcome of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The request does not arrive.
    Lost,
    /// The request is carried out, and its answer does not arrive.
    AnswerLost,
    /// The store is away, or refuses everything. Nothing is carried out.
    Refused,
    /// The process ends before the request is sent.
    KilledBefore,
    /// The process ends after the request is carried out.
    KilledAfter,
    /// The answer does not arrive in time. The request arrives when [`Leases::arrive`] is called.
    Late,
}

/// The leases of all nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    leases: BTreeMap<IpAddr, Held>,
    uids: u32,
    late: Vec<(String, Request)>,
}

/// Chooses the fault of a request.
pub(crate) type Plan<'a> = Box<dyn FnMut(usize, &Request) -> Fault + 'a>;

/// The store as one node sees it.
pub(crate) struct Client<'a> {
    pub(crate) leases: Leases,
    pub(crate) node: String,
    /// The fault of each request, by its number in this call.
    pub(crate) fault: Plan<'a>,
    pub(crate) count: usize,
}

impl Leases {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<Held> {
        self.inner().leases.values().cloned().collect()
    }

    pub(crate) fn wipe(&self) {
        self.inner().leases.clear();
    }

    pub(crate) fn get(&self, address: IpAddr) -> Option<Held> {
        self.inner().leases.get(&address).cloned()
    }

    /// All leases get older.
    pub(crate) fn pass(&self, seconds: u64) {
        self.inner().leases.values_mut().for_each(|held| held.age += seconds);
    }

    pub(crate) fn put(&self, lease: Lease) -> Answer {
        self.inner().create(&lease)
    }

    /// The late requests arrive.
    pub(crate) fn arrive(&self) {
        let late = std::mem::take(&mut self.inner().late);
        for (node, request) in late {
            self.inner().carry_out(&node, &request);
        }
    }
}

impl Inner {
    fn create(&mut self, lease: &Lease) -> Answer {
        if self.leases.contains_key(&lease.address) {
            return Answer::Taken;
        }
        self.uids += 1;
        let uid = Uid(format!("uid-{}", self.uids));
        self.leases.insert(lease.address, Held { lease: lease.clone(), uid: uid.clone(), age: 0 });
        Answer::Made(uid)
    }

    fn carry_out(&mut self, node: &str, request: &Request) -> Answer {
        match request {
            Request::Create(lease) => self.create(lease),
            Request::Get(ip) => Answer::Found(self.leases.get(ip).cloned()),
            Request::Delete(ip, uid) => {
                if let Some(held) = self.leases.get(ip).filter(|held| held.uid == *uid) {
                    assert_eq!(held.lease.node.name, node, "a node deletes the lease of another one: {held:?}");
                    self.leases.remove(ip);
                }
                Answer::Gone
            }
            Request::OfNode => self.list(|held| held.lease.node.name == node),
            Request::InBlock(block) => self.list(|held| Block::of(held.lease.address) == *block),
        }
    }

    fn list(&self, is_listed: impl Fn(&Held) -> bool) -> Answer {
        Answer::Leases(self.leases.values().filter(|held| is_listed(held)).cloned().collect())
    }
}

/// The panic of a process that is killed.
pub(crate) struct Killed;

impl Store for Client<'_> {
    fn ask(&mut self, request: &Request, _: Instant) -> Answer {
        let fault = (self.fault)(self.count, request);
        self.count += 1;
        match fault {
            Fault::None => self.leases.inner().carry_out(&self.node, request),
            Fault::Lost => Answer::Lost("no answer".into()),
            Fault::AnswerLost => {
                self.leases.inner().carry_out(&self.node, request);
                Answer::Lost("no answer".into())
            }
            Fault::Late => {
                self.leases.inner().late.push((self.node.clone(), request.clone()));
                Answer::Lost("no answer".into())
            }
            Fault::Refused => Answer::Refused("connection refused".into()),
            Fault::KilledBefore => std::panic::panic_any(Killed),
            Fault::KilledAfter => {
                self.leases.inner().carry_out(&self.node, request);
                std::panic::panic_any(Killed)
            }
        }
    }
}
