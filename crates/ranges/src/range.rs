//! Ranges of addresses and sets of ranges: the addresses that may be leased, and their order.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses of one subnet that may be leased. The set excludes gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The subnet. It gives the length of the prefix.
    pub subnet: IpNet,
    /// Never the subnet's network address.
    pub first: IpAddr,
    /// Never before `first`, and never an IPv4 subnet's broadcast address.
    pub last: IpAddr,
    /// The first and the last address as configured. The reference leases a network or broadcast address among them.
    pub typed: (IpAddr, IpAddr),
    /// The gateway of the result.
    pub gateway: IpAddr,
}

impl Range {
    /// Returns true if the address is between the first and the last one.
    pub fn contains(&self, ip: IpAddr) -> bool {
        // Addresses compare by family first, then as numbers.
        self.first <= ip && ip <= self.last
    }

    /// As [`Range::contains`], with the network and broadcast addresses that were typed.
    fn covers(&self, ip: IpAddr) -> bool {
        self.typed.0 <= ip && ip <= self.typed.1
    }

    /// Returns true if both have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The first and the last address of a subnet that an interface can have. `None` if the subnet is too small for a
/// gateway and a container. In IPv6, the first address is reserved for routers (RFC 4291, section 2.6.1), and there
/// is no broadcast address.
pub fn edges(subnet: IpNet) -> Option<(IpAddr, IpAddr)> {
    if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
        return None;
    }
    let last = subnet.broadcast();
    let last = if last.is_ipv4() { address(number(last) - 1, last) } else { last };
    Some((address(number(subnet.network()) + 1, last), last))
}

/// Addresses that are never leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    /// The key that says so, such as `ipam.exclude[0]`.
    pub key: String,
    /// The addresses.
    pub net: IpNet,
}

/// Consecutive addresses of one range that may be leased, as numbers of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    range: usize,
    /// The first address.
    pub first: u128,
    /// The last address.
    pub last: u128,
}

impl Span {
    /// The part after an address in the span.
    pub fn behind(self, ip: IpAddr) -> Option<Self> {
        let at = number(ip);
        (at < self.last).then(|| Self { first: at + 1, ..self })
    }
}

/// Ranges of one family, of which a container gets one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its place in the configuration, such as `ipam.ranges[0]`.
    pub key: String,
    /// Never empty.
    pub ranges: Vec<Range>,
    /// Why some addresses of the ranges may not be leased, for those who ask for one.
    pub excluded: Vec<Excluded>,
    /// The addresses that may be leased, in the order of the ranges.
    spans: Vec<Span>,
}

impl Set {
    /// All addresses of these ranges, which overlap nowhere.
    pub fn new(key: String, ranges: Vec<Range>) -> Self {
        let whole = |(range, its): (usize, &Range)| Span { range, first: number(its.first), last: number(its.last) };
        let spans = ranges.iter().enumerate().map(whole).collect();
        Self { key, ranges, excluded: Vec::new(), spans }
    }

    /// Excludes addresses from one range or from all. Gateways of other sets are excluded too: they are on the same
    /// link.
    pub fn leave_out(&mut self, range: Option<usize>, from: IpAddr, to: IpAddr) {
        if self.is_ipv4() != from.is_ipv4() {
            return;
        }
        let (from, to) = (number(from), number(to));
        let mut spans = Vec::with_capacity(self.spans.len() + 1);
        for span in &self.spans {
            if to < span.first || span.last < from || range.is_some_and(|range| range != span.range) {
                spans.push(*span);
                continue;
            }
            if span.first < from {
                spans.push(Span { last: from - 1, ..*span });
            }
            if to < span.last {
                spans.push(Span { first: to + 1, ..*span });
            }
        }
        self.spans = spans;
    }

    /// Returns true for a set of IPv4 ranges.
    pub fn is_ipv4(&self) -> bool {
        self.ranges.first().is_some_and(|range| range.first.is_ipv4())
    }

    /// The address of this set's family with this number.
    pub fn address(&self, number: u128) -> IpAddr {
        match self.is_ipv4() {
            true => Ipv4Addr::from_bits(number as u32).into(),
            false => Ipv6Addr::from_bits(number).into(),
        }
    }

    /// The range that contains an address, even if it may not be leased.
    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(ip))
    }

    /// Returns true if the address may be leased.
    pub fn admits(&self, ip: IpAddr) -> bool {
        let its = number(ip);
        ip.is_ipv4() == self.is_ipv4() && self.spans.iter().any(|span| span.first <= its && its <= span.last)
    }

    /// The number of addresses that may be leased.
    pub fn capacity(&self) -> u128 {
        self.spans.iter().map(|span| (span.last - span.first).saturating_add(1)).fold(0, u128::saturating_add)
    }

    /// The addresses that may be leased, in the order of the ranges.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The address with this number among those that may be leased. `None` if there are not so many.
    pub fn nth(&self, mut number: u128) -> Option<IpAddr> {
        for span in &self.spans {
            let after_first = span.last - span.first;
            if number <= after_first {
                return Some(self.address(span.first + number));
            }
            number -= after_first + 1;
        }
        None
    }

    /// The entry of a result for an address of this set: with the length of its subnet's prefix, and the gateway.
    pub fn leased(&self, ip: IpAddr) -> Option<cni::Ip> {
        let range = self.range_of(ip)?;
        let address = IpNet::new(ip, range.subnet.prefix_len()).ok()?;
        Some(cni::Ip { interface: None, address, gateway: Some(range.gateway) })
    }

    /// All addresses that may be leased, beginning after `after` if it is in a range of the set. The reference may
    /// have leased `after`, so it can be a network or broadcast address.
    pub fn turn(&self, after: Option<IpAddr>) -> Vec<Span> {
        let range_of = |ip: IpAddr| {
            let position = |holds: &dyn Fn(&Range) -> bool| self.ranges.iter().position(holds);
            position(&|range| range.contains(ip)).or_else(|| position(&|range| range.covers(ip)))
        };
        let place = after.and_then(|ip| Some((range_of(ip)?, number(ip))));
        let Some((range, at)) = place else { return self.spans.clone() };
        let (mut turn, mut rest) = (Vec::with_capacity(self.spans.len() + 1), Vec::new());
        for span in &self.spans {
            if (span.range, span.last) <= (range, at) {
                rest.push(*span);
            } else if span.range == range && span.first <= at {
                rest.push(Span { last: at, ..*span });
                turn.push(Span { first: at + 1, ..*span });
            } else {
                turn.push(*span);
            }
        }
        turn.append(&mut rest);
        turn
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.ranges.iter().map(Range::to_string).collect();
        write!(f, "{} ({})", self.key, ranges.join(","))
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address with this number in the family of `family`.
fn address(number: u128, family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn range(subnet: &str, first: &str, last: &str) -> Range {
        let subnet: IpNet = subnet.parse().unwrap();
        let (first, last) = (ip(first), ip(last));
        Range { subnet, first, last, typed: (first, last), gateway: edges(subnet).unwrap().0 }
    }

    fn set(ranges: Vec<Range>) -> Set {
        let gateways: Vec<_> = ranges.iter().map(|range| range.gateway).collect();
        let mut set = Set::new("ipam.ranges[0]".into(), ranges);
        gateways.into_iter().for_each(|gateway| set.leave_out(None, gateway, gateway));
        set
    }

    fn addresses(set: &Set, after: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
        set.turn(after).into_iter().flat_map(|span| span.first..=span.last).map(|number| set.address(number))
    }

    #[test]
    fn edges_at_the_ends_of_the_number_line() {
        let edges = |subnet: &str| edges(subnet.parse().unwrap()).map(|(first, last)| format!("{first}-{last}"));
        assert_eq!(edges("10.0.0.0/30").as_deref(), Some("10.0.0.1-10.0.0.2"));
        assert_eq!(edges("0.0.0.0/0").as_deref(), Some("0.0.0.1-255.255.255.254"));
        assert_eq!(edges("255.255.255.252/30").as_deref(), Some("255.255.255.253-255.255.255.254"));
        assert_eq!(edges("::/0").as_deref(), Some("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(
            edges("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126").as_deref(),
            Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
        );
        for subnet in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
            assert_eq!(edges(subnet), None, "{subnet}");
        }
    }

    #[test]
    fn a_turn_at_the_very_end_wraps_around() {
        let [subnet, first, top] =
            ["fffc/126", "fffd", "ffff"].map(|end| format!("ffff:ffff:ffff:ffff:ffff:ffff:ffff:{end}"));
        let set = set(vec![range(&subnet, &first, &top)]);
        let turn: Vec<_> = addresses(&set, Some(ip(&top))).collect();
        assert_eq!(turn, [ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"), ip(&top)]);
        assert_eq!(set.capacity(), 2);
    }

    #[test]
    fn a_turn_of_all_of_ipv6_begins_at_once() {
        let set = set(vec![range("::/0", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]);
        assert_eq!(set.capacity(), u128::MAX - 1);
        assert_eq!(addresses(&set, None).next(), Some(ip("::2")));
    }

    #[test]
    fn a_turn_goes_through_the_ranges_in_their_order() {
        let set = set(vec![range("10.1.0.0/29", "10.1.0.1", "10.1.0.3"), range("10.0.0.0/29", "10.0.0.4", "10.0.0.5")]);
        let turn =
            |after: Option<&str>| -> Vec<_> { addresses(&set, after.map(ip)).map(|ip| ip.to_string()).collect() };
        assert_eq!(turn(None), ["10.1.0.2", "10.1.0.3", "10.0.0.4", "10.0.0.5"]);
        assert_eq!(turn(Some("10.1.0.3")), ["10.0.0.4", "10.0.0.5", "10.1.0.2", "10.1.0.3"]);
        assert_eq!(turn(Some("10.0.0.4")), ["10.0.0.5", "10.1.0.2", "10.1.0.3", "10.0.0.4"]);
        assert_eq!(turn(Some("10.9.9.9")), turn(None));
        assert_eq!(turn(Some("fd00::1")), turn(None));
    }

    /// The reference had leased the broadcast address that rangeEnd names, and our turn began at the first range again.
    #[test]
    fn a_turn_goes_on_behind_an_address_at_the_end_of_a_range_that_is_never_leased_here() {
        let typed = |range: Range, first: &str, last: &str| Range { typed: (ip(first), ip(last)), ..range };
        let set = set(vec![
            typed(range("10.1.0.0/29", "10.1.0.5", "10.1.0.6"), "10.1.0.5", "10.1.0.7"),
            typed(range("10.0.0.0/29", "10.0.0.1", "10.0.0.3"), "10.0.0.0", "10.0.0.3"),
        ]);
        let turn = |after: &str| -> Vec<_> { addresses(&set, Some(ip(after))).map(|ip| ip.to_string()).collect() };
        assert_eq!(turn("10.1.0.7"), ["10.0.0.2", "10.0.0.3", "10.1.0.5", "10.1.0.6"]);
        assert_eq!(turn("10.0.0.0"), ["10.0.0.2", "10.0.0.3", "10.1.0.5", "10.1.0.6"]);
        assert_eq!(turn("10.0.0.7"), ["10.1.0.5", "10.1.0.6", "10.0.0.2", "10.0.0.3"]);
    }

    #[test]
    fn a_range_that_is_nothing_but_the_gateway_has_no_capacity() {
        let set = set(vec![range("10.0.0.0/29", "10.0.0.1", "10.0.0.1")]);
        assert_eq!(set.capacity(), 0);
        assert_eq!(addresses(&set, None).next(), None);
    }

    proptest! {
        /// One turn visits exactly the addresses that may be leased, each once, and what comes first is what follows
        /// `after`, wherever the range lies on the number line.
        #[test]
        fn a_turn_is_a_permutation_of_what_may_be_leased(
            base in any::<u32>(), size in 1u32..40, gap in 2u32..9, other in 0u32..40, gateway in 0u32..60, after in 0u32..90,
            out in prop::option::of((0u32..60, 0u32..20, prop::option::of(0usize..2))),
        ) {
            let base = base.min(u32::MAX - 90);
            let at = |offset: u32| IpAddr::V4(Ipv4Addr::from_bits(base + offset));
            let subnet = IpNet::new(at(0), 8).unwrap();
            let span = |first: u32, last: u32| {
                let (first, last) = (at(first), at(last));
                Range { subnet, first, last, typed: (first, last), gateway: at(gateway) }
            };
            let mut ranges = vec![span(0, size - 1)];
            if other > 0 {
                ranges.push(span(size + gap, size + gap + other - 1));
            }
            let mut set = set(ranges);
            let mut expected: Vec<_> = (0..=90).map(at).filter(|ip| set.range_of(*ip).is_some()).collect();
            expected.retain(|ip| *ip != at(gateway));
            if let Some((first, more, range)) = out {
                set.leave_out(range, at(first), at(first + more));
                let in_range = |ip| range.is_none_or(|range| set.ranges.get(range).is_some_and(|its| its.contains(ip)));
                expected.retain(|ip| *ip < at(first) || at(first + more) < *ip || !in_range(*ip));
            }
            let turn: Vec<_> = addresses(&set, Some(at(after))).collect();
            prop_assert!((0..=90).map(at).all(|ip| set.admits(ip) == expected.contains(&ip)));
            prop_assert_eq!(turn.len() as u128, set.capacity());
            let numbered: Vec<_> = (0..set.capacity()).filter_map(|number| set.nth(number)).collect();
            prop_assert_eq!(numbered, addresses(&set, None).collect::<Vec<_>>());
            prop_assert_eq!(set.nth(set.capacity()), None);
            if set.range_of(at(after)).is_some() {
                let begin = expected.iter().position(|ip| *ip > at(after)).unwrap_or(0);
                expected.rotate_left(begin);
            }
            prop_assert_eq!(turn, expected);
        }
    }
}
