//! Random ranges, exclusions and foreign leases, compared with a model that counts single addresses: only allowed
//! addresses are leased, in order, released ones again, and "full" means full.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Network, attachment};

/// An address by the number of its range and its place in that range's subnet, which may be beyond its end.
type At = (usize, u128);

/// A range as typed. The addresses are places in its subnet.
#[derive(Debug, Clone)]
struct Typed {
    /// Bits of the host part.
    bits: u8,
    start: Option<u128>,
    end: Option<u128>,
    gateway: Option<At>,
}

#[derive(Debug, Clone)]
struct Plan {
    v4: bool,
    base: u128,
    ranges: Vec<Typed>,
    /// Networks with that many bits of host part, and whether the range says so, or `ipam`.
    exclude: Vec<(At, u8, bool)>,
    /// True if released addresses are not leased again during the test.
    rests: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Ask(u8, At),
    Del(u8),
    /// The reference, which knows nothing of our index, leases an address, or frees the one that it leased.
    Foreign(At),
    /// An edit of the last leased address.
    Hint(At),
}

fn at() -> impl Strategy<Value = At> {
    (0..2_usize, 0..32_u128)
}

prop_compose! {
    fn any_range()(bits in 2..=5_u8, ends in any::<[Option<u8>; 2]>(), gateway in prop::option::of(at())) -> Typed {
        let place = |end: Option<u8>| end.map(|end| u128::from(end) & ((1 << bits) - 1));
        let (start, end) = match ends.map(place) {
            [Some(one), Some(other)] => (Some(one.min(other)), Some(one.max(other))),
            [start, end] => (start, end),
        };
        Typed { bits, start, end, gateway }
    }
}

prop_compose! {
    fn any_plan()(
        v4 in any::<bool>(), base in prop_oneof![Just(0), Just(u128::MAX), any::<u128>()],
        ranges in prop::collection::vec(any_range(), 1..=2),
        exclude in prop::collection::vec((at(), 0..=2_u8, any::<bool>()), 0..3), rests in any::<bool>(),
    ) -> Plan {
        Plan { v4, base, ranges, exclude, rests }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = || 0..6_u8;
    let step = prop_oneof![
        8 => owner().prop_map(Step::Add),
        2 => (owner(), at()).prop_map(|(owner, at)| Step::Ask(owner, at)),
        5 => owner().prop_map(Step::Del),
        2 => at().prop_map(Step::Foreign),
        1 => at().prop_map(Step::Hint),
    ];
    prop::collection::vec(step, 1..40)
}

impl Plan {
    fn ip(&self, (range, place): At) -> IpAddr {
        // Subnets side by side nowhere, at the ends of the number line too.
        let subnet = self.subnet(range).network();
        match subnet {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(place as u32)).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().wrapping_add(place)).into(),
        }
    }

    fn subnet(&self, range: usize) -> IpNet {
        let base = self.base ^ ((range as u128) << 20);
        let (ip, length) = match self.v4 {
            true => (Ipv4Addr::from_bits(base as u32).into(), 32),
            false => (Ipv6Addr::from_bits(base | 0xfd << 120).into(), 128),
        };
        IpNet::new(ip, length - self.ranges.get(range).map_or(5, |range| range.bits)).unwrap().trunc()
    }

    fn excluded(&self) -> impl Iterator<Item = (IpNet, Option<usize>)> {
        self.exclude.iter().map(|(at, bits, of_range)| {
            let length = if self.v4 { 32 } else { 128 } - bits;
            let net = IpNet::new(self.ip(*at), length).unwrap().trunc();
            (net, of_range.then_some(at.0).filter(|range| *range < self.ranges.len()))
        })
    }

    fn gateway(&self, range: usize) -> IpAddr {
        self.ip(self.ranges[range].gateway.unwrap_or((range, 1)))
    }

    fn ipam(&self) -> Value {
        let of = |wanted: Option<usize>| -> Vec<String> {
            self.excluded().filter(|(_, range)| *range == wanted).map(|(net, _)| net.to_string()).collect()
        };
        let range = |(at, typed): (usize, &Typed)| {
            let ip = |place: Option<u128>| place.map(|place| self.ip((at, place)));
            json!({"subnet": self.subnet(at), "rangeStart": ip(typed.start), "rangeEnd": ip(typed.end),
                   "gateway": typed.gateway.map(|at| self.ip(at)), "exclude": of(Some(at))})
        };
        let ranges: Value = self.ranges.iter().enumerate().map(range).collect();
        json!({"ranges": [ranges], "exclude": of(None), "reuseDelay": if self.rests { 1000 } else { 0 },
               "statusWhenFull": "unavailable"})
    }

    /// The addresses of each range, without network and broadcast address.
    fn between(&self) -> Vec<Vec<IpAddr>> {
        let between = |(at, typed): (usize, &Typed)| {
            let highest = (1 << typed.bits) - 1 - u128::from(self.v4);
            let (start, end) = (typed.start.unwrap_or(0).max(1), typed.end.unwrap_or(highest).min(highest));
            (start..=end).map(|place| self.ip((at, place))).collect()
        };
        self.ranges.iter().enumerate().map(between).collect()
    }
}

/// The expected content of a directory.
struct Model {
    plan: Plan,
    between: Vec<Vec<IpAddr>>,
    /// The addresses that may be leased, in order.
    leasable: Vec<IpAddr>,
    leases: BTreeMap<String, String>,
    last: Option<IpAddr>,
    /// Every release, in order.
    released: Vec<IpAddr>,
}

impl Model {
    fn new(plan: Plan) -> Self {
        let between = plan.between();
        let gateways: Vec<_> = (0..plan.ranges.len()).map(|range| plan.gateway(range)).collect();
        let may_be = |(range, ip): &(usize, IpAddr)| {
            let excluded = |(net, of): (IpNet, Option<usize>)| net.contains(ip) && of.is_none_or(|of| of == *range);
            !gateways.contains(ip) && !plan.excluded().any(excluded)
        };
        let all = between.iter().enumerate().flat_map(|(range, ips)| ips.iter().map(move |ip| (range, *ip)));
        let leasable = all.filter(may_be).map(|(_, ip)| ip).collect();
        Self { plan, between, leasable, leases: BTreeMap::new(), last: None, released: Vec::new() }
    }

    fn is_free(&self, ip: &IpAddr) -> bool {
        !self.leases.contains_key(&ip.to_string())
    }

    fn held_by(&self, owner: &str) -> Option<IpAddr> {
        self.leases.iter().find(|(_, its)| *its == owner).and_then(|(ip, _)| ip.parse().ok())
    }

    /// The place behind an address that a range's ends include, and that is never leased: the network's own address
    /// comes before all others of its range, the broadcast address behind them.
    fn behind_edge(&self, last: IpAddr) -> Option<usize> {
        let before = |range: usize| self.between[..range].iter().map(Vec::len).sum::<usize>();
        self.plan.ranges.iter().enumerate().find_map(|(range, typed)| {
            let is = |place: u128| self.plan.ip((range, place)) == last;
            let broadcast = (1 << typed.bits) - 1;
            match () {
                () if typed.start == Some(0) && is(0) => Some(before(range)),
                () if self.plan.v4 && typed.end == Some(broadcast) && is(broadcast) => Some(before(range + 1)),
                () => None,
            }
        })
    }

    /// The next free address. `None` if the range is full.
    fn next(&self) -> Option<IpAddr> {
        let all: Vec<_> = self.between.iter().flatten().collect();
        let behind =
            |last: IpAddr| all.iter().position(|ip| **ip == last).map(|at| at + 1).or_else(|| self.behind_edge(last));
        let begin = self.last.and_then(behind).unwrap_or(0);
        let turn = all[begin..].iter().chain(&all[..begin]).map(|ip| **ip);
        let mut free = turn.filter(|ip| self.leasable.contains(ip) && self.is_free(ip));
        let rests = |ip: &IpAddr| self.plan.rests && self.released.contains(ip);
        let latest = |ip: &IpAddr| self.released.iter().rposition(|released| released == ip);
        free.clone().find(|ip| !rests(ip)).or_else(|| free.by_ref().min_by_key(latest))
    }

    /// The answer of an ADD: an address or a code.
    fn add(&mut self, owner: &str, asked: Option<IpAddr>) -> Result<IpAddr, u32> {
        let held = self.held_by(owner);
        let ip = match (asked, held) {
            (Some(ip), _) if !self.leasable.contains(&ip) => return Err(7),
            (Some(ip), Some(held)) => return if ip == held { Ok(ip) } else { Err(7) },
            (Some(ip), None) if !self.is_free(&ip) => return Err(101),
            (Some(ip), None) => ip,
            (None, Some(held)) => return Ok(held),
            (None, None) => self.next().ok_or(101_u32)?,
        };
        self.leases.insert(ip.to_string(), owner.to_owned());
        self.last = Some(ip);
        Ok(ip)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_next_free_address_behind_the_last_is_given_until_all_are_taken(plan in any_plan(), steps in steps()) {
        let network = Network::new(plan.ipam());
        let mut model = Model::new(plan);
        if model.between.iter().any(Vec::is_empty) {
            let refused = network.add("c0").map(|_| ()).map_err(|error| error.code.0);
            prop_assert_eq!(refused, Err(7), "a range without any address");
            return Ok(());
        }
        for step in steps {
            match step {
                Step::Add(owner) | Step::Ask(owner, _) => {
                    let asked = if let Step::Ask(_, at) = step { Some(model.plan.ip(at)) } else { None };
                    let (owner, args) = (format!("c{owner}"), asked.map(|ip| format!("IP={ip}")).unwrap_or_default());
                    let given = network.call(|call| crate::add(&network.machine, call, &attachment(&owner, "eth0", &args)));
                    let given = given.map(|result| result.ips[0].clone()).map_err(|error| error.code.0);
                    let ip = given.as_ref().map(|ip| ip.address.addr()).map_err(|code| *code);
                    prop_assert_eq!(ip, model.add(&owner, asked), "{} {:?}", owner, asked);
                    if let Ok(given) = given {
                        let range = model.between.iter().position(|ips| ips.contains(&given.address.addr())).unwrap();
                        prop_assert_eq!(given.address.trunc(), model.plan.subnet(range));
                        prop_assert_eq!(given.gateway, Some(model.plan.gateway(range)));
                    }
                }
                Step::Del(owner) => {
                    let owner = format!("c{owner}");
                    network.del(&owner).unwrap();
                    model.released.extend(model.held_by(&owner));
                    model.leases.retain(|_, its| *its != owner);
                }
                Step::Foreign(at) => {
                    let name = model.plan.ip(at).to_string();
                    match model.leases.get(&name).map(String::as_str) {
                        Some("other") => {
                            fs::remove_file(network.path().join(&name)).unwrap();
                            model.leases.remove(&name);
                        }
                        Some(_) => {}
                        None => {
                            network.put(&name, "other\r\neth0");
                            model.leases.insert(name, "other".into());
                        }
                    }
                }
                Step::Hint(at) => {
                    let ip = model.plan.ip(at);
                    network.put("last_reserved_ip.0", &ip.to_string());
                    model.last = Some(ip);
                }
            }
            let expected: BTreeMap<_, _> =
                model.leases.iter().map(|(ip, owner)| (ip.clone(), format!("{owner}\r\neth0"))).collect();
            prop_assert_eq!(network.leases(), expected);
            let status = network.status().map_err(|error| error.code.0);
            prop_assert_eq!(status, model.next().map(|_| ()).ok_or(50));
        }
    }
}
