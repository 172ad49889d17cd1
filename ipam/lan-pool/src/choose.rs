//! Chooses the addresses to try: a few at random, and then the free ones of listed blocks, at random too. A shared order
//! would make all nodes try the same address. (The simulation of other ways is in docs/decisions.md.)

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use ranges::Set;

use crate::error::{Error, Nodes};
use crate::lease::Block;
use crate::store::{Answer, Request, Store};

/// The addresses that are tried before a block is listed.
const BLIND: usize = 4;

/// The most blocks that are listed. A larger set has free addresses that are found by chance.
const MOST_BLOCKS: usize = 256;

/// The addresses to try for one set.
pub(crate) struct Chooser<'a> {
    set: &'a Set,
    /// If the caller asks for an address, it is the only one.
    requested: Option<IpAddr>,
    /// Addresses that were tried, or that must not be tried.
    tried: HashSet<IpAddr>,
    /// The free addresses of the last listed block.
    free: Vec<IpAddr>,
    listed: HashSet<Block>,
    /// The leases in the listed blocks, by node.
    leases: BTreeMap<String, usize>,
    blind: usize,
}

impl<'a> Chooser<'a> {
    pub(crate) fn new(set: &'a Set, requested: Option<IpAddr>, known: impl Iterator<Item = IpAddr>) -> Self {
        Self {
            set,
            requested,
            tried: known.collect(),
            free: Vec::new(),
            listed: HashSet::new(),
            leases: BTreeMap::new(),
            blind: 0,
        }
    }

    /// The next address. `None` if no other one can be free.
    pub(crate) fn next(&mut self, store: &mut dyn Store, deadline: Instant) -> Result<Option<IpAddr>, Error> {
        if let Some(requested) = self.requested {
            return Ok(self.tried.insert(requested).then_some(requested));
        }
        while self.blind < BLIND {
            self.blind += 1;
            if let Some(ip) = self.random().filter(|ip| self.tried.insert(*ip)) {
                return Ok(Some(ip));
            }
        }
        loop {
            while !self.free.is_empty() {
                let ip = self.free.swap_remove(fastrand::usize(..self.free.len()));
                if self.tried.insert(ip) {
                    return Ok(Some(ip));
                }
            }
            let Some(block) = self.next_block() else { return Ok(None) };
            self.list(block, store, deadline)?;
        }
    }

    /// The leases that were seen.
    pub(crate) fn nodes(&self) -> Nodes {
        Nodes(self.leases.iter().map(|(node, leases)| (node.clone(), *leases)).collect())
    }

    fn random(&self) -> Option<IpAddr> {
        let capacity = self.set.capacity();
        (capacity > 0).then(|| self.set.nth(fastrand::u128(..capacity))).flatten()
    }

    /// A block at random, which was not listed before.
    fn next_block(&self) -> Option<Block> {
        if self.listed.len() >= MOST_BLOCKS {
            return None;
        }
        let at_random = (0..BLIND).filter_map(|_| self.random().map(Block::of));
        at_random.chain(self.blocks()).find(|block| !self.listed.contains(block))
    }

    /// All blocks of the set, in their order.
    fn blocks(&self) -> impl Iterator<Item = Block> {
        let spans = self.set.spans().iter();
        spans.flat_map(|span| {
            let (first, last) = (span.first / Block::SIZE, span.last / Block::SIZE);
            (first..=last).map(|block| Block::of(self.set.address(block * Block::SIZE)))
        })
    }

    fn list(&mut self, block: Block, store: &mut dyn Store, deadline: Instant) -> Result<(), Error> {
        self.listed.insert(block);
        let leases = match store.ask(&Request::InBlock(block), deadline) {
            Answer::Leases(leases) => leases,
            Answer::Refused(cause) => return Err(Error::Refused { cause }),
            Answer::Lost(cause) => return Err(Error::Away { cause }),
            other => return Err(Error::Away { cause: format!("a list is answered by {other:?}") }),
        };
        for held in leases.iter().filter(|held| self.set.admits(held.lease.address)) {
            *self.leases.entry(held.lease.node.name.clone()).or_default() += 1;
        }
        let taken: HashSet<IpAddr> = leases.into_iter().map(|held| held.lease.address).collect();
        let all =
            block.addresses().filter(|ip| self.set.admits(*ip) && !taken.contains(ip) && !self.tried.contains(ip));
        self.free = all.collect();
        Ok(())
    }
}
