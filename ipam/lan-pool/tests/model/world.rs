//! The state of the model: the store, the messages under way, the nodes with their journals and containers, and the events
//! that can happen next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lan_pool::protocol::{
    Action, Claim, Entry, Give, Input, Machine, Mode, State, Take, Taken, Verdict, judge, recovered,
};
use lan_pool::{Answer, Held, Node, Owner, Request, Uid};

/// How often each event may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Limits {
    /// The addresses of each family in the pool.
    pub(crate) addresses: u8,
    /// The containers of each node.
    pub(crate) owners: u8,
    /// 2 for IPv4 and IPv6.
    pub(crate) families: u8,
    /// The messages that can be under way at once.
    pub(crate) flight: usize,
    /// The answers that a caller gives up waiting for.
    pub(crate) timeouts: u8,
    /// The calls that are killed.
    pub(crate) kills: u8,
    /// The ADDs of containers that got a DEL before.
    pub(crate) returns: u8,
    /// The containers that end without a DEL.
    pub(crate) ends: u8,
    pub(crate) sweeps: u8,
    pub(crate) reboots: u8,
    /// How often an administrator releases the leases of a node that is off.
    pub(crate) releases: u8,
    pub(crate) journal_wipes: u8,
    pub(crate) store_wipes: u8,
    /// True if the second node has the name of the first one.
    pub(crate) is_cloned: bool,
    /// True if only the first node has containers.
    pub(crate) is_alone: bool,
}

/// The protocol, or one of its broken variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Variant {
    Real,
    /// The store deletes the lease of the address, with any uid.
    NoUid,
    /// The journal gets an address after the answer to the create.
    LateJournal,
    /// A sweep looks at journal and namespaces first, and lists the store after that.
    JournalFirst,
    /// A sweep takes the leases of other nodes for its own.
    OtherNodes,
    /// A sweep deletes all leases that the journal does not name.
    TrustsJournal,
    /// If the answer to a create is lost, the call goes on with another address.
    Impatient,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    variant: Variant,
    limits: Limits,
    store: BTreeMap<IpAddr, Held>,
    uids: u8,
    /// The requests under way, with the number of the node that sent each, and how many of the same there are. Those of an
    /// administrator have no number.
    flight: BTreeMap<(Option<usize>, Request), u8>,
    machines: [Computer; 2],
    /// True if the store was wiped, so that containers have addresses without leases.
    is_wiped: bool,
    /// True if a journal was lost, so that its node did not know its leases for a time.
    was_lost: bool,
    /// A rule that the last event has broken.
    broken: Option<String>,
}

/// A node of the model, on or off.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Computer {
    node: Node,
    is_on: bool,
    owners: u8,
    /// The journal: a page for each owner, with the boot in which it was written.
    pages: BTreeMap<u8, (String, Vec<Entry>)>,
    /// True if the journal was lost, and was not made again.
    is_lost: bool,
    calls: BTreeMap<u8, Call>,
    sweep: Option<Sweep>,
    /// The addresses of the containers, each with owner and uid.
    links: BTreeMap<IpAddr, (u8, Uid)>,
    /// The containers that got a DEL.
    deleted: BTreeSet<u8>,
    /// The containers whose namespaces exist.
    living: BTreeSet<u8>,
}

/// A call of one owner. Calls of the same owner wait for each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Call {
    Add { take: Take, waits: Option<Request>, tried: BTreeSet<IpAddr>, is_v6: bool, mode: Mode },
    Del { give: Give, waits: Option<Request> },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Sweep {
    /// The list is under way. With [`Variant::JournalFirst`], the look at the node came before.
    Listing(Option<Local>),
    Listed(Vec<Held>, Option<Local>),
}

/// The knowledge of a node: its journal, and its living containers.
type Local = (BTreeMap<u8, (String, Vec<Entry>)>, BTreeSet<u8>);

fn address(number: u8, is_v6: bool) -> IpAddr {
    match is_v6 {
        false => Ipv4Addr::new(10, 0, 0, number).into(),
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

fn owner_of(number: u8) -> Owner {
    Owner { container_id: number.to_string(), ifname: String::new() }
}

impl World {
    pub(crate) fn new(limits: Limits, variant: Variant) -> Self {
        let limits = Limits { families: limits.families.max(1), ..limits };
        let machine = |number: u8| Computer {
            node: Node {
                name: if limits.is_cloned { "n".into() } else { number.to_string() },
                boot: "1".into(),
                machine: number.to_string(),
            },
            is_on: true,
            owners: 0,
            pages: BTreeMap::new(),
            is_lost: false,
            calls: BTreeMap::new(),
            sweep: None,
            links: BTreeMap::new(),
            deleted: BTreeSet::new(),
            living: BTreeSet::new(),
        };
        Self {
            variant,
            limits,
            store: BTreeMap::new(),
            uids: 0,
            flight: BTreeMap::new(),
            machines: [machine(1), machine(2)],
            is_wiped: false,
            was_lost: false,
            broken: None,
        }
    }

    /// Returns the rule that is broken in this state.
    pub(crate) fn broken(&self) -> Option<String> {
        if self.broken.is_some() {
            return self.broken.clone();
        }
        let [one, other] = &self.machines;
        if let Some(ip) = one.links.keys().find(|ip| other.links.contains_key(ip)).filter(|_| !self.is_wiped) {
            return Some(format!("I1: two containers have {ip}"));
        }
        for (at, machine) in self.machines.iter().enumerate() {
            for (ip, (owner, uid)) in &machine.links {
                let its = |held: &&Held| self.claim(at, *owner).is_mine(held) && held.uid == *uid;
                if !self.is_wiped && self.store.get(ip).filter(its).is_none() {
                    return Some(format!("I2: container {owner} of node {at} has {ip} without its lease"));
                }
            }
            for (owner, (boot, entries)) in &machine.pages {
                let open = |is_v6: bool| {
                    entries.iter().filter(|its| its.state.is_open() && its.address.is_ipv6() == is_v6).count()
                };
                if *boot == machine.node.boot && (open(false) > 1 || open(true) > 1) {
                    return Some(format!("I5: container {owner} of node {at} has two open addresses: {entries:?}"));
                }
            }
        }
        self.named().or_else(|| self.leaked())
    }

    /// I4: the journal names each lease of the running boot.
    fn named(&self) -> Option<String> {
        if self.was_lost || self.is_wiped {
            return None;
        }
        let nameless = |held: &&Held| {
            let machine = self.machines.iter().find(|its| its.node == held.lease.node);
            let owner = held.lease.owner().and_then(|owner| owner.container_id.parse::<u8>().ok());
            let is_named = |machine: &Computer, owner: u8| {
                machine
                    .pages
                    .get(&owner)
                    .is_some_and(|(_, entries)| entries.iter().any(|entry| entry.address == held.lease.address))
            };
            machine.zip(owner).is_some_and(|(machine, owner)| !is_named(machine, owner))
        };
        self.store.values().find(nameless).map(|held| format!("I4: the journal does not name {held:?}"))
    }

    /// If nothing is under way, a sweep of each node leaves only leases of living containers.
    fn leaked(&self) -> Option<String> {
        let is_quiet = self.flight.is_empty() && self.machines.iter().all(|its| its.calls.is_empty() && its.is_on);
        if !is_quiet || self.variant != Variant::Real {
            return None;
        }
        let dead = |held: &&Held| {
            let Some(machine) = self
                .machines
                .iter()
                .find(|its| (&its.node.name, &its.node.machine) == (&held.lease.node.name, &held.lease.node.machine))
            else {
                return false;
            };
            let owner = held.lease.owner().and_then(|owner| owner.container_id.parse::<u8>().ok()).unwrap_or_default();
            let is_alive = held.lease.node.boot == machine.node.boot && machine.living.contains(&owner);
            let verdict = self.verdict(machine, held, &(machine.pages.clone(), machine.living.clone()));
            !is_alive && verdict == Verdict::Keep
        };
        self.store.values().find(dead).map(|held| format!("leak: no sweep frees {held:?}"))
    }

    fn claim(&self, at: usize, owner: u8) -> Claim {
        Claim {
            lan: "lan".into(),
            node: self.machines[at].node.clone(),
            owner: owner_of(owner),
            netns: Some(owner.into()),
            pod: None,
        }
    }

    fn verdict(&self, machine: &Computer, held: &Held, local: &Local) -> Verdict {
        let (pages, living) = local;
        let owner = held.lease.owner().and_then(|owner| owner.container_id.parse::<u8>().ok()).unwrap_or_default();
        let page = pages.get(&owner).filter(|(boot, _)| *boot == machine.node.boot);
        let entry = page.and_then(|(_, entries)| entries.iter().find(|its| its.address == held.lease.address));
        let mut lives = |netns: u64| match self.variant {
            Variant::TrustsJournal => false,
            _ => living.contains(&(netns as u8)),
        };
        if self.variant == Variant::TrustsJournal && entry.is_some() {
            return Verdict::Keep;
        }
        if self.variant == Variant::OtherNodes && held.lease.node.name != machine.node.name {
            return Verdict::Delete;
        }
        judge(held, &machine.node, entry, &mut lives, 0)
    }

    /// All events that can happen now, with the states after them.
    pub(crate) fn events(&self) -> Vec<(String, Self)> {
        let mut events = Vec::new();
        self.deliveries(&mut events);
        for at in 0..self.machines.len() {
            match self.machines[at].is_on {
                true => self.events_of(at, &mut events),
                false => self.events_while_off(at, &mut events),
            }
        }
        if self.limits.store_wipes > 0 {
            let mut next = self.clone();
            next.limits.store_wipes -= 1;
            next.store.clear();
            next.is_wiped = true;
            events.push(("the store is wiped".into(), next));
        }
        events
    }

    /// Each message is carried out, and its answer arrives or is lost. Or the message is lost itself.
    fn deliveries(&self, events: &mut Vec<(String, Self)>) {
        for (from, request) in self.flight.keys() {
            let mut lost = self.clone();
            lost.unsend(*from, request);
            let mut done = lost.clone();
            let answer = done.carry_out(*from, request);
            events.push((format!("{from:?} {request:?} is lost"), lost));
            events.push((
                format!("{from:?} {request:?} is carried out: {answer:?}, and the answer is lost"),
                done.clone(),
            ));
            let Some(at) = *from else { continue };
            if done.machines[at].sweep.as_ref().is_some_and(|sweep| matches!(sweep, Sweep::Listing(_)))
                && let (Request::OfNode, Answer::Leases(leases)) = (request, &answer)
            {
                let mut next = done.clone();
                if let Some(Sweep::Listing(local)) = next.machines[at].sweep.take() {
                    next.machines[at].sweep = Some(Sweep::Listed(leases.clone(), local));
                }
                events.push((format!("node {at} lists {leases:?}"), next));
            }
            let waits = |call: &&Call| match call {
                Call::Add { waits, .. } | Call::Del { waits, .. } => waits.as_ref() == Some(request),
            };
            let waiting = done.machines[at].calls.iter().find(|(_, call)| waits(call)).map(|(owner, _)| *owner);
            if let Some(owner) = waiting {
                let label = format!("{from:?} {request:?} is carried out: {answer:?}");
                done.step(at, owner, Input::Answer(answer), &label, events);
            }
        }
    }

    fn unsend(&mut self, from: Option<usize>, request: &Request) {
        let key = (from, request.clone());
        match self.flight.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.flight.remove(&key)),
        }
    }

    fn send(&mut self, from: Option<usize>, request: Request) {
        *self.flight.entry((from, request)).or_default() += 1;
    }

    /// The store carries out a request. (Rule I3 is checked here.)
    fn carry_out(&mut self, from: Option<usize>, request: &Request) -> Answer {
        match request {
            Request::Create(lease) if self.store.contains_key(&lease.address) => Answer::Taken,
            Request::Create(lease) => {
                self.uids += 1;
                let uid = Uid(self.uids.to_string());
                self.store.insert(lease.address, Held { lease: lease.clone(), uid: uid.clone(), age: 0 });
                Answer::Made(uid)
            }
            Request::Get(ip) => Answer::Found(self.store.get(ip).cloned()),
            Request::Delete(ip, uid) => {
                let is_it = |held: &&Held| held.uid == *uid || self.variant == Variant::NoUid;
                if let Some(held) = self.store.get(ip).filter(is_it) {
                    let is_own = |at: usize| {
                        let node = &self.machines[at].node;
                        (&node.name, &node.machine) == (&held.lease.node.name, &held.lease.node.machine)
                    };
                    if from.is_some_and(|at| !is_own(at)) {
                        self.broken = Some(format!("I3: node {from:?} deletes {held:?}"));
                    }
                    self.store.remove(ip);
                }
                Answer::Gone
            }
            Request::OfNode | Request::InBlock(_) => {
                let node = from.map(|at| self.machines[at].node.name.clone());
                let is_listed =
                    |held: &&Held| Some(&held.lease.node.name) == node.as_ref() || self.variant == Variant::OtherNodes;
                Answer::Leases(self.store.values().filter(is_listed).cloned().collect())
            }
        }
    }

    fn events_of(&self, at: usize, events: &mut Vec<(String, Self)>) {
        let machine = &self.machines[at];
        if machine.owners < self.limits.owners
            && (at == 0 || !self.limits.is_alone)
            && self.flight.len() < self.limits.flight
        {
            let mut next = self.clone();
            let owner = machine.owners + 1;
            next.machines[at].owners = owner;
            next.machines[at].living.insert(owner);
            next.add(at, owner, false, Mode::Add, events);
        }
        for owner in &machine.living {
            self.events_of_container(at, *owner, events);
        }
        for (owner, call) in &machine.calls {
            let (Call::Add { waits, .. } | Call::Del { waits, .. }) = call;
            if self.limits.timeouts > 0 && waits.is_some() {
                let mut next = self.clone();
                next.limits.timeouts -= 1;
                let label = format!("node {at}, container {owner}: no answer");
                let lost = match (self.variant, waits) {
                    (Variant::Impatient, Some(Request::Create(_))) => Answer::Taken,
                    _ => Answer::Lost(String::new()),
                };
                next.step(at, *owner, Input::Answer(lost), &label, events);
                // The caller gives up in place of a further try.
                let mut given_up = self.clone();
                given_up.limits.timeouts -= 1;
                given_up.machines[at].calls.remove(owner);
                events.push((format!("node {at}, container {owner}: the call gives up"), given_up));
            }
            if self.limits.kills > 0 {
                let mut next = self.clone();
                next.limits.kills -= 1;
                next.machines[at].calls.remove(owner);
                events.push((format!("node {at}, container {owner}: the call is killed"), next));
            }
        }
        self.events_of_sweep(at, events);
        if self.limits.reboots > 0 {
            let mut next = self.clone();
            next.limits.reboots -= 1;
            let machine = &mut next.machines[at];
            machine.is_on = false;
            machine.calls.clear();
            machine.sweep = None;
            machine.links.clear();
            machine.living.clear();
            events.push((format!("node {at} goes off"), next));
        }
        if self.limits.journal_wipes > 0 {
            let mut next = self.clone();
            next.limits.journal_wipes -= 1;
            next.machines[at].pages.clear();
            next.machines[at].is_lost = true;
            next.was_lost = true;
            // A call that runs writes its page again, with its next write.
            events.push((format!("the journal of node {at} is wiped"), next));
        }
    }

    fn events_while_off(&self, at: usize, events: &mut Vec<(String, Self)>) {
        let mut on = self.clone();
        let machine = &mut on.machines[at];
        machine.is_on = true;
        machine.node.boot = (machine.node.boot.parse::<u8>().expect("a number") + 1).to_string();
        events.push((format!("node {at} comes back"), on));
        if self.limits.releases > 0 {
            let mut next = self.clone();
            next.limits.releases -= 1;
            for (ip, held) in &self.store {
                if held.lease.node.name == self.machines[at].node.name {
                    next.send(None, Request::Delete(*ip, held.uid.clone()));
                }
            }
            events.push((format!("an administrator releases the leases of node {at}"), next));
        }
    }

    fn events_of_container(&self, at: usize, owner: u8, events: &mut Vec<(String, Self)>) {
        let machine = &self.machines[at];
        if machine.calls.contains_key(&owner) {
            return;
        }
        let entries = machine.pages.get(&owner).map(|(_, entries)| entries.clone()).unwrap_or_default();
        // DEL: the address is off the link already.
        let can_send = self.flight.len() < self.limits.flight;
        if can_send && !entries.is_empty() {
            let mut next = self.clone();
            next.machines[at].links.retain(|_, (its, _)| *its != owner);
            next.machines[at].deleted.insert(owner);
            next.give(at, owner, "DEL", events);
        }
        // The ADD did not come to its end, and the runtime tries again with the same container. Or the container comes back
        // after a DEL.
        let is_deleted = machine.deleted.contains(&owner);
        let is_begun = entries.iter().any(|its| its.state.is_open());
        let may_come = if is_deleted { self.limits.returns > 0 } else { is_begun };
        if can_send && may_come && machine.links.values().all(|(its, _)| *its != owner) {
            let mut next = self.clone();
            if is_deleted {
                next.limits.returns -= 1;
                next.machines[at].deleted.remove(&owner);
            }
            next.add(at, owner, false, Mode::Add, events);
        }
        if self.limits.ends > 0 {
            let mut next = self.clone();
            next.limits.ends -= 1;
            next.machines[at].living.remove(&owner);
            next.machines[at].links.retain(|_, (its, _)| *its != owner);
            events.push((format!("container {owner} of node {at} ends without a DEL"), next));
        }
    }

    fn events_of_sweep(&self, at: usize, events: &mut Vec<(String, Self)>) {
        let machine = &self.machines[at];
        let local = || (machine.pages.clone(), machine.living.clone());
        match &machine.sweep {
            None if self.limits.sweeps > 0 => {
                let mut next = self.clone();
                next.limits.sweeps -= 1;
                next.machines[at].sweep = Some(Sweep::Listing((self.variant == Variant::JournalFirst).then(local)));
                next.send(Some(at), Request::OfNode);
                events.push((format!("node {at} sweeps"), next));
            }
            None => {}
            Some(Sweep::Listing(_)) => {
                let mut next = self.clone();
                next.machines[at].sweep = None;
                events.push((format!("node {at}: the sweep ends without a list"), next));
            }
            Some(Sweep::Listed(leases, before)) => {
                let local = before.clone().unwrap_or_else(local);
                let mut next = self.clone();
                next.machines[at].sweep = None;
                if machine.is_lost && self.variant != Variant::TrustsJournal {
                    // The journal is made again, and nothing is deleted.
                    let mut lives = |netns: u64| machine.living.contains(&(netns as u8));
                    for held in leases {
                        let Some((owner, _, entry)) = recovered(held, &machine.node, &mut lives) else { continue };
                        let owner: u8 = owner.container_id.parse().expect("a number");
                        if machine.calls.contains_key(&owner) {
                            continue;
                        }
                        let page = next.machines[at].pages.entry(owner).or_default();
                        page.0 = machine.node.boot.clone();
                        if page.1.iter().all(|its| its.address != entry.address) {
                            page.1.push(entry);
                        }
                    }
                    next.machines[at].is_lost = false;
                    events.push((format!("node {at} makes its journal again of {leases:?}"), next));
                    return;
                }
                self.swept(next, at, leases, &local, events);
            }
        }
    }

    /// The sweep judges all leases at once.
    fn swept(&self, mut next: Self, at: usize, leases: &[Held], local: &Local, events: &mut Vec<(String, Self)>) {
        let machine = &self.machines[at];
        let mut released = BTreeSet::new();
        for held in leases {
            match self.verdict(machine, held, local) {
                Verdict::Keep | Verdict::Foreign => {}
                Verdict::Delete => next.send(Some(at), Request::Delete(held.lease.address, held.uid.clone())),
                Verdict::Release => {
                    released.extend(held.lease.owner().and_then(|owner| owner.container_id.parse::<u8>().ok()));
                }
            }
        }
        // Pages of earlier boots have no meaning any more: the list has their leases.
        let boot = machine.node.boot.clone();
        next.machines[at].pages.retain(|_, (its, _)| *its == boot);
        let free = |owner: &u8| !machine.calls.contains_key(owner);
        let missing = machine.links.iter().find(|(ip, (owner, uid))| {
            free(owner) && !leases.iter().any(|held| held.lease.address == **ip && held.uid == *uid)
        });
        if let Some((_, (owner, _))) = missing {
            return next.add(at, *owner, false, Mode::Restore, events);
        }
        match released.into_iter().find(free) {
            Some(owner) => next.give(at, owner, "sweep", events),
            None => events.push((format!("node {at} has swept {leases:?}"), next)),
        }
    }

    /// Begins an ADD, or the part of it for the second family.
    fn add(mut self, at: usize, owner: u8, is_v6: bool, mode: Mode, events: &mut Vec<(String, Self)>) {
        let entries = self.page(at, owner);
        let can_go_on = |entry: &Entry| entry.state.is_open() || entry.state == State::Released(None);
        let mut mine: Vec<&Entry> =
            entries.iter().filter(|entry| entry.address.is_ipv6() == is_v6 && can_go_on(entry)).collect();
        mine.sort_by_key(|entry| !entry.state.is_open());
        let address = mine.first().map(|entry| entry.address).filter(|_| mode == Mode::Add || mine[0].state.is_open());
        if mode == Mode::Restore && address.is_none() {
            return events.push((format!("node {at}, container {owner}: nothing to restore"), self));
        }
        let take = Take::new(self.claim(at, owner), mode, entries, address);
        let call = Call::Add { take, waits: None, tried: BTreeSet::new(), is_v6, mode };
        self.machines[at].calls.insert(owner, call);
        self.step(at, owner, Input::Begin, &format!("node {at}, container {owner}: {mode:?}"), events);
    }

    /// Begins to release the entries of an owner.
    fn give(mut self, at: usize, owner: u8, why: &str, events: &mut Vec<(String, Self)>) {
        let entries = self.page(at, owner);
        let Some(address) = entries.first().map(|entry| entry.address) else {
            return events.push((format!("node {at}, container {owner}: {why} has nothing to do"), self));
        };
        let claim = self.claim(at, owner);
        let is_under_way = |(_, request): &(Option<usize>, Request)| *request == Request::Create(claim.lease(address));
        let is_quiet = !self.flight.keys().any(is_under_way);
        let give = Give::new(claim, entries, address, is_quiet);
        self.machines[at].calls.insert(owner, Call::Del { give, waits: None });
        self.step(at, owner, Input::Begin, &format!("node {at}, container {owner}: {why} of {address}"), events);
    }

    fn page(&self, at: usize, owner: u8) -> Vec<Entry> {
        let page = self.machines[at].pages.get(&owner).filter(|(boot, _)| *boot == self.machines[at].node.boot);
        page.map(|(_, entries)| entries.clone()).unwrap_or_default()
    }

    /// Steps a call until it waits for an answer, or ends. Every choice is an event of its own.
    fn step(mut self, at: usize, owner: u8, input: Input, label: &str, events: &mut Vec<(String, Self)>) {
        let Some(call) = self.machines[at].calls.get_mut(&owner) else { return };
        match call {
            Call::Add { take, waits, .. } => {
                *waits = None;
                match take.step(input) {
                    Action::Write(entries) => {
                        self.write(at, owner, entries);
                        self.step(at, owner, Input::Written, label, events);
                    }
                    Action::Ask(request) => {
                        *waits = Some(request.clone());
                        self.send(Some(at), request);
                        events.push((label.to_owned(), self));
                    }
                    Action::Choose => self.choose(at, owner, label, events),
                    Action::Done(taken) => self.taken(at, owner, &taken, label, events),
                }
            }
            Call::Del { give, waits } => {
                *waits = None;
                match give.step(input) {
                    Action::Write(entries) => {
                        self.write(at, owner, entries);
                        self.step(at, owner, Input::Written, label, events);
                    }
                    Action::Ask(request) => {
                        *waits = Some(request.clone());
                        self.send(Some(at), request);
                        events.push((label.to_owned(), self));
                    }
                    Action::Choose => unreachable!("a release chooses nothing"),
                    Action::Done(ended) => {
                        let rest = give.entries().len();
                        self.machines[at].calls.remove(&owner);
                        events.push((format!("{label}: {ended:?}, {rest} entries left"), self));
                    }
                }
            }
        }
    }

    fn write(&mut self, at: usize, owner: u8, mut entries: Vec<Entry>) {
        if self.variant == Variant::LateJournal {
            entries.retain(|entry| entry.state != State::Trying);
        }
        let boot = self.machines[at].node.boot.clone();
        match entries.is_empty() {
            true => drop(self.machines[at].pages.remove(&owner)),
            false => drop(self.machines[at].pages.insert(owner, (boot, entries))),
        }
    }

    fn choose(self, at: usize, owner: u8, label: &str, events: &mut Vec<(String, Self)>) {
        let Some(Call::Add { tried, is_v6, .. }) = self.machines[at].calls.get(&owner) else { return };
        let known: BTreeSet<IpAddr> = self.page(at, owner).iter().map(|entry| entry.address).collect();
        let untried: Vec<IpAddr> = (1..=self.limits.addresses).map(|number| address(number, *is_v6)).collect();
        let untried: Vec<_> = untried.into_iter().filter(|ip| !tried.contains(ip) && !known.contains(ip)).collect();
        if untried.is_empty() {
            return self.step(at, owner, Input::Candidate(None), &format!("{label}: full"), events);
        }
        for ip in untried {
            let mut next = self.clone();
            if let Some(Call::Add { tried, .. }) = next.machines[at].calls.get_mut(&owner) {
                tried.insert(ip);
            }
            next.step(at, owner, Input::Candidate(Some(ip)), &format!("{label}: tries {ip}"), events);
        }
    }

    fn taken(mut self, at: usize, owner: u8, taken: &Taken, label: &str, events: &mut Vec<(String, Self)>) {
        let Some(Call::Add { is_v6, mode, .. }) = self.machines[at].calls.remove(&owner) else { return };
        let label = format!("{label}: {taken:?}");
        let is_held = matches!(taken, Taken::Held(..));
        if is_held && !is_v6 && self.limits.families > 1 {
            return self.add(at, owner, true, mode, events);
        }
        if is_held {
            // The addresses of all families come onto the link at the end.
            for entry in self.page(at, owner) {
                if let State::Held(uid) = entry.state {
                    self.machines[at].links.insert(entry.address, (owner, uid));
                }
            }
        }
        events.push((label, self));
    }
}
