//! The step that adds the routes.

use std::net::IpAddr;

use cni::AddResult;
use linux::{Errno, Link, Route, RouteKind, Rtnl};

use super::{Checking, Known, Making, Step};
use crate::error::{Error, Result};
use crate::{DefaultRoute, result};

/// `RT_SCOPE_UNIVERSE` and `RT_SCOPE_LINK`. (include/uapi/linux/rtnetlink.h)
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// At most so many attempts, if a router advertisement arrives between two messages to the kernel.
const QUICKER_ROUTER: usize = 4;

/// The scope of an IPv4 default route that is taken. The next one that is taken has one less. (`RT_SCOPE_SITE`)
const FIRST_SCOPE_OF_TAKEN: u8 = 200;

/// The kernel's priority of an IPv6 route without one. (`IP6_RT_PRIO_USER`)
pub(crate) const PRIORITY_OF_V6: u32 = 1024;

/// The routes for the kernel, in the order of the result. The interface is set later. A route that must not be added is
/// `None`.
#[derive(Default)]
pub(crate) struct Routes(Vec<Option<Route>>);

impl<'a> Step<'a> for Routes {
    fn plan(&mut self, known: &mut Known<'_>) -> Result<()> {
        let is_left_out = |route: &Route| known.default_route() == DefaultRoute::None && is_default(route);
        let plan = |route| Ok(Some(kernel_route(route, known.leased)?).filter(|route| !is_left_out(route)));
        self.0 = known.leased.routes.iter().map(plan).collect::<Result<_>>()?;
        Ok(())
    }

    /// Adds the routes. Removes a route from the result if it is not added, because the container already had it.
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        if making.settings.default_route == DefaultRoute::Take && !self.0.iter().flatten().any(is_default) {
            (making.task.remark)(format_args!(
                "defaultRoute is take: the routes of ipam have no default route, so there is none to take"
            ));
        }
        let ifindex = making.ifindex();
        let mut added = Vec::with_capacity(self.0.len());
        for route in self.0.iter_mut() {
            let Some(route) = route else {
                added.push(None);
                continue;
            };
            route.oif = Some(ifindex);
            let planned = route.scope;
            let is_added = apply_one(making, route)?;
            added.push(is_added.then_some((route.priority, route.scope.filter(|_| route.scope != planned))));
        }
        let mut added = added.into_iter();
        if let Some(leased) = &mut making.leased {
            leased.routes.retain_mut(|route| match added.next() {
                Some(Some((priority, scope))) => {
                    route.priority = priority;
                    route.scope = scope.or(route.scope);
                    true
                }
                Some(None) => false,
                None => true,
            });
        }
        Ok(())
    }

    /// Compares the routes. A result does not tell the interface of a route. If it has interfaces of other plugins of a
    /// chain, they may have added routes. A route on our link must be as ADD adds it.
    fn verify(&self, checking: &mut Checking<'_>) -> Result<()> {
        let expected = checking.expected;
        let Some(link) = checking.link.as_ref().filter(|_| !expected.routes.is_empty()) else { return Ok(()) };
        let mut routes = checking.rtnl.routes()?;
        let mut inside = expected.interfaces.iter().filter(|interface| interface.sandbox.is_some());
        if inside.all(|interface| interface.name == link.name) {
            routes.retain(|its| its.oif == Some(link.ifindex));
        }
        let unset = is_without_metrics(link, expected);
        for route in &expected.routes {
            let wanted = kernel_route(route, expected)?;
            if !routes.iter().any(|its| is_as_wanted(its, &wanted, route, link, unset)) {
                return Err(checking.differs(format!("has no route to {}{} as ADD made it", wanted.dst, via(&wanted))));
            }
        }
        Ok(())
    }
}

/// Adds a route. Returns false if it is not added.
fn apply_one(making: &mut Making<'_>, route: &mut Route) -> Result<bool> {
    let policy = making.settings.default_route;
    if is_default(route) && matches!(policy, DefaultRoute::Keep | DefaultRoute::Take) {
        let is_v4 = route.dst.addr().is_ipv4();
        let (own, others): (Vec<_>, Vec<_>) =
            making.inside.default_routes(is_v4)?.into_iter().partition(|other| other.oif == route.oif);
        // A route such as "unreachable" has no interface.
        if policy == DefaultRoute::Keep && others.iter().any(|other| other.kind == RouteKind::Unicast) {
            (making.task.remark)(format_args!(
                "defaultRoute is keep: the container has a default route of another interface, so {}{} is not added",
                route.dst,
                via(route)
            ));
            return Ok(false);
        }
        // The first IPv4 default route of a result is the one that is used.
        let is_second = is_v4 && !own.is_empty();
        if policy == DefaultRoute::Take && !is_second {
            if is_v4 && route.gateway.is_some() && route.scope == Some(SCOPE_UNIVERSE) {
                route.scope = Some(scope_apart_from(&others));
            }
            if put_before(&mut *route, &others)? {
                let outcome = making.inside.prepend_route(route);
                return keep_if_there(making, route, outcome);
            }
        }
    }
    let outcome = add(&mut making.inside, route);
    keep_if_there(making, route, outcome)
}

/// Gives a default route a priority with which it comes before others. Returns true if it must also be put before
/// another one of the same priority. That is possible for IPv4 only.
fn put_before(route: &mut Route, others: &[Route]) -> Result<bool> {
    let is_v4 = route.dst.addr().is_ipv4();
    let usual = if is_v4 { 0 } else { PRIORITY_OF_V6 };
    let first = others.iter().map(|other| other.priority.unwrap_or(usual)).min();
    let own = route.priority.unwrap_or(usual);
    if is_v4 {
        let Some(first) = first.filter(|first| *first <= own) else { return Ok(false) };
        route.priority = Some(first).filter(|priority| *priority != 0);
        return Ok(true);
    }
    // A route of a router that advertises itself later has the usual priority.
    let first = first.unwrap_or(usual).min(usual);
    if first <= own {
        if first <= 1 {
            let cause = "cannot be taken: no route can come before the container's default route of priority 1";
            return Err(Error::Config { key: "defaultRoute", value: "\"take\"".to_owned(), cause: cause.to_owned() });
        }
        route.priority = Some(first - 1);
    }
    Ok(false)
}

/// Returns a scope that no other default route has. Of IPv4 default routes with the same priority and scope, the kernel
/// does not use the first, but one whose gateway has answered lately. (net/ipv4/fib_semantics.c, `fib_select_default`)
fn scope_apart_from(others: &[Route]) -> u8 {
    let is_free = |scope: &u8| others.iter().all(|other| other.scope != Some(*scope));
    (SCOPE_UNIVERSE..=FIRST_SCOPE_OF_TAKEN).rev().find(is_free).unwrap_or(SCOPE_UNIVERSE)
}

/// Returns true if all default routes with the priority of this one have been taken by other interfaces.
fn is_behind_taken(route: &Route, others: &[Route]) -> bool {
    let taken = SCOPE_UNIVERSE + 1..=FIRST_SCOPE_OF_TAKEN;
    let mut rivals = others.iter().filter(|other| other.priority == route.priority);
    rivals.all(|other| other.oif != route.oif && other.scope.is_some_and(|scope| taken.contains(&scope)))
}

/// Returns true for a default route of table main.
fn is_default(route: &Route) -> bool {
    route.is_default() && route.table.is_none_or(|table| table == MAIN)
}

fn via(route: &Route) -> String {
    route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default()
}

/// Judges the addition of a route in the container. Returns false if the container already had a route to this
/// destination. That route stays. It is often the default route of another network of the container.
pub(super) fn keep_if_there(making: &Making<'_>, route: &Route, outcome: linux::Result<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        outcome if is_there(&outcome) => {
            (making.task.remark)(format_args!("the container already has a route to {}: it is kept", route.dst));
            Ok(false)
        }
        Err(error) => {
            let ifname = making.task.attachment.ifname;
            Err(error.during(format!("add route {}{} dev {ifname}", route.dst, via(route))).into())
        }
    }
}

/// Returns true if a route was not added because there is one.
pub(super) fn is_there(outcome: &linux::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.errno() == Some(Errno::EEXIST))
}

/// Adds a route. If it is an IPv6 route and the others to its destination are on the same link, it is added next to
/// them. They are routes of the same result with another gateway, or routes from a router advertisement. If it is an
/// IPv4 default route and other interfaces have taken the default route, it is added behind theirs.
fn add(inside: &mut Rtnl, route: &Route) -> linux::Result<()> {
    let mut outcome = inside.new_route(route);
    if !is_there(&outcome) {
        return outcome;
    }
    if route.dst.addr().is_ipv4() {
        let is_behind = is_default(route) && is_behind_taken(route, &inside.default_routes(true)?);
        return if is_behind { inside.append_route(route) } else { outcome };
    }
    if !inside.can_stand_beside(route)? {
        return outcome;
    }
    outcome = inside.append_route(route);
    for _ in 0..QUICKER_ROUTER {
        if !is_there(&outcome) {
            break;
        }
        // The gateway itself has advertised this route. An advertised route expires, so replace it.
        inside.delete_advertised(route)?;
        outcome = inside.append_route(route);
    }
    outcome
}

/// Converts a route of a result for the kernel, without the interface.
///
/// A route without `gw` uses the gateway of its address family. If there is no gateway, or if `scope` is 253 (link) or
/// higher, the destination is on the link.
///
/// # Errors
///
/// If the kernel would refuse or ignore the route.
fn kernel_route(route: &cni::Route, result: &AddResult) -> Result<Route> {
    let value = || route.dst.to_string();
    if route.dst.addr().is_ipv4() && route.dst.addr() != route.dst.network() {
        // For IPv6, the kernel ignores host bits.
        let cause = format!("the destination has host bits set; the network is {}", route.dst.trunc());
        return Err(Error::Config { key: "routes", value: value(), cause });
    }
    let on_link = route.scope.is_some_and(|scope| scope >= SCOPE_LINK);
    let default = || {
        let gateways = result.ips.iter().filter_map(|ip| ip.gateway);
        gateways.into_iter().find(|gateway| gateway.is_ipv4() == route.dst.addr().is_ipv4()).filter(|_| !on_link)
    };
    let gateway = route.gw.or_else(default);
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != route.dst.addr().is_ipv4()) {
        let cause = format!(
            "its next hop {} is of another address family",
            gateway.map(|ip| ip.to_string()).unwrap_or_default()
        );
        return Err(Error::Config { key: "routes", value: value(), cause });
    }
    // The kernel finds a next hop only by a route of a narrower scope. So a route without a next hop needs the scope
    // link.
    let scope = if gateway.is_none() && route.dst.addr().is_ipv4() { SCOPE_LINK } else { SCOPE_UNIVERSE };
    Ok(Route {
        gateway,
        priority: route.priority,
        table: route.table,
        scope: Some(route.scope.unwrap_or(scope)),
        mtu: route.mtu,
        advmss: route.advmss,
        ..Route::to(route.dst.trunc())
    })
}

/// Returns true if routes may be without the `mtu` and `advmss` of the result. The reference plugins write both into
/// their results and do not set them in the kernel. Their results have no `mtu` of the interface. Ours of
/// cniVersion 1.1.0 have one: there CHECK is strict.
fn is_without_metrics(link: &Link, expected: &AddResult) -> bool {
    result::own_interface(expected, &link.name).is_none_or(|interface| interface.mtu.is_none())
}

fn is_as_wanted(
    its: &linux::Route,
    wanted: &linux::Route,
    route: &cni::Route,
    link: &Link,
    without_metrics: bool,
) -> bool {
    /// The kernel replaces larger numbers by these, for IPv6 too. (net/ipv4/metrics.c)
    const MAX_MTU: u32 = 65_520;
    const MAX_ADVMSS: u32 = 65_495;
    let is_own = its.oif == Some(link.ifindex);
    let gateway = if is_own { wanted.gateway } else { route.gw };
    // With slaacTimeout, the result gets the gateway of a router after the routes were added.
    let may_be_on_link = route.gw.is_none()
        && its.gateway.is_none()
        && matches!(gateway, Some(IpAddr::V6(gateway)) if gateway.is_unicast_link_local());
    let same = |actual: Option<u32>, wanted: Option<u32>| wanted.is_none() || actual == wanted;
    its.dst == wanted.dst
        && its.kind == RouteKind::Unicast
        && (its.gateway == gateway || if is_own { may_be_on_link } else { gateway.is_none() })
        // If the result names no table, accept any: the plugin sbr, later in a chain, moves all routes to its own
        // table.
        && (wanted.table.is_none() || its.table.unwrap_or(MAIN) == wanted.table.unwrap_or(MAIN))
        && same(its.priority, wanted.priority)
        && ((without_metrics && its.mtu.is_none() && its.advmss.is_none())
            || (same(its.mtu, wanted.mtu.map(|mtu| mtu.min(MAX_MTU)))
                && same(its.advmss, wanted.advmss.map(|advmss| advmss.min(MAX_ADVMSS)))))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{known, leased};
    use super::*;

    fn route(dst: &str, gw: Option<&str>) -> cni::Route {
        cni::Route::new(dst.parse().unwrap(), gw.map(|text| text.parse().unwrap()))
    }

    #[test]
    fn without_leased_routes_there_are_no_routes() {
        let (result, mut routes) = (leased(), Routes::default());
        routes.plan(&mut known(&result)).unwrap();
        assert_eq!(routes.0, []);
    }

    #[test]
    fn a_route_without_a_next_hop_uses_the_gateway_of_its_family() {
        let plan = |route: cni::Route| kernel_route(&route, &leased()).map(|route| (route.gateway, route.scope));
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(plan(route("0.0.0.0/0", None)).unwrap(), (ip("10.0.0.1"), Some(0)));
        assert_eq!(plan(route("0.0.0.0/0", Some("10.0.0.9"))).unwrap(), (ip("10.0.0.9"), Some(0)));
        assert_eq!(plan(route("::/0", None)).unwrap(), (None, Some(0)));
        let on_link = cni::Route { scope: Some(253), ..route("10.1.0.0/16", None) };
        assert_eq!(plan(on_link).unwrap(), (None, Some(253)));
    }

    #[test]
    fn a_taken_route_has_a_scope_of_its_own() {
        let with = |scope| Route { scope: Some(scope), ..Route::default() };
        assert_eq!(scope_apart_from(&[]), 200);
        assert_eq!(scope_apart_from(&[with(0), with(253)]), 200);
        assert_eq!(scope_apart_from(&[with(200), with(199), with(0)]), 198);
        assert_eq!(scope_apart_from(&[with(199)]), 200, "one that has been removed");
    }

    #[test]
    fn a_usual_default_route_comes_behind_taken_ones_only() {
        let other = |scope, oif| Route { scope: Some(scope), oif: Some(oif), ..Route::default() };
        let own = other(0, 7);
        assert!(is_behind_taken(&own, &[other(200, 3), other(199, 4)]));
        assert!(!is_behind_taken(&own, &[other(200, 3), other(0, 4)]), "the first network keeps its route");
        assert!(!is_behind_taken(&own, &[other(200, 7)]), "the second gateway of this result");
        let behind = Route { priority: Some(100), ..other(0, 4) };
        assert!(is_behind_taken(&own, &[other(200, 3), behind]), "one with another priority is not in the way");
    }

    #[test]
    fn without_a_gateway_a_route_is_on_the_link() {
        let mut result = leased();
        result.ips[0].gateway = None;
        let planned = kernel_route(&route("169.254.1.1/32", None), &result).unwrap();
        assert_eq!((planned.gateway, planned.scope), (None, Some(253)));
    }

    #[test]
    fn attributes_of_a_route_are_kept() {
        let wanted = cni::Route {
            mtu: Some(1400),
            advmss: Some(1360),
            priority: Some(7),
            table: Some(100),
            ..route("10.1.0.0/16", None)
        };
        let planned = kernel_route(&wanted, &leased()).unwrap();
        assert_eq!(
            (planned.mtu, planned.advmss, planned.priority, planned.table),
            (Some(1400), Some(1360), Some(7), Some(100))
        );
    }

    #[test]
    fn routes_that_the_kernel_would_refuse_are_refused_early() {
        let refused = |route: cni::Route| kernel_route(&route, &leased()).unwrap_err().to_string();
        assert_eq!(
            refused(route("10.1.2.3/16", None)),
            "routes 10.1.2.3/16: the destination has host bits set; the network is 10.1.0.0/16"
        );
        assert_eq!(
            kernel_route(&route("fd01::1/64", None), &leased()).unwrap().dst,
            "fd01::/64".parse().unwrap(),
            "the kernel accepts host bits of IPv6"
        );
        assert_eq!(
            refused(route("10.1.0.0/16", Some("fd00::1"))),
            "routes 10.1.0.0/16: its next hop fd00::1 is of another address family"
        );
    }
}
