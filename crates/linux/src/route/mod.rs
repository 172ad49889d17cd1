//! Routes: lists, adds and deletes them, and finds the default route.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;

use ipnet::{IpNet, Ipv4Net};
use nix::errno::Errno;

use crate::netlink::constants::{
    AF_INET, AF_INET6, IP6_RT_PRIO_USER, NLM_F_APPEND, NLM_F_DUMP, NLM_F_EXCL, RT_TABLE_MAIN, RTM_GETROUTE,
    RTPROT_KERNEL, RTPROT_RA,
};
use crate::netlink::{DUMP_ATTEMPTS, Request};
use crate::{Error, Result, Rtnl};

pub(crate) mod codec;
#[cfg(test)]
mod tests;

/// A route. In a request, `None` is the default of the kernel or of `ip route add`. In an answer, `None` is a value
/// that the kernel does not report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination. Its host bits are ignored. `0.0.0.0/0` and `::/0` are the default routes.
    pub dst: IpNet,
    /// The next hop. `None` means that the destination is on the link. An IPv4 route may have an IPv6 gateway. (RFC
    /// 5549)
    pub gateway: Option<IpAddr>,
    /// The ifindex of the link.
    pub oif: Option<u32>,
    /// Of two routes to one destination, the kernel uses the one with the lower number. `None` is 0 for IPv4. `None`
    /// and 0 are 1024 for IPv6.
    pub priority: Option<u32>,
    /// The number of the table. `None` is table main.
    pub table: Option<u32>,
    /// The distance of the destination (`RT_SCOPE_*`). `None` is link for an IPv4 route without a gateway, and universe
    /// for all others. IPv6 ignores it.
    pub scope: Option<u8>,
    /// The largest packet on the path, in bytes. `None` is the MTU of the link.
    pub mtu: Option<u32>,
    /// The TCP segment size to announce, in bytes.
    pub advmss: Option<u32>,
    /// The source address that the kernel chooses for packets of this machine. (`RTA_PREFSRC`)
    pub source: Option<IpAddr>,
    /// The origin of the route (`RTPROT_*`). `None` is boot, as with `ip route add`.
    pub protocol: Option<u8>,
    /// The action for packets that match.
    pub kind: RouteKind,
}

/// The action of a route. (`RTN_*`)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Sends to a gateway or over a link.
    #[default]
    Unicast,
    /// Delivers to this machine.
    Local,
    /// Sends as a link-layer broadcast.
    Broadcast,
    /// Delivers to this machine, which shares the address with others.
    Anycast,
    /// Sends as a multicast.
    Multicast,
    /// Drops without an answer.
    Blackhole,
    /// Drops, and answers that the destination is unreachable.
    Unreachable,
    /// Drops, and answers that the destination is forbidden.
    Prohibit,
    /// Continues with the next table.
    Throw,
    /// Any other number.
    Other(u8),
}

impl Route {
    /// Returns a unicast route to `dst` with defaults: `Route { gateway, oif, ..Route::to(dst) }`.
    pub fn to(dst: IpNet) -> Self {
        Self {
            dst,
            gateway: None,
            oif: None,
            priority: None,
            table: None,
            scope: None,
            mtu: None,
            advmss: None,
            source: None,
            protocol: None,
            kind: RouteKind::Unicast,
        }
    }

    /// Returns true for a route that the kernel has made by itself. (`RTPROT_KERNEL`)
    pub fn is_of_kernel(&self) -> bool {
        self.protocol == Some(RTPROT_KERNEL)
    }

    /// Returns true for a default route.
    pub fn is_default(&self) -> bool {
        self.dst.prefix_len() == 0
    }
}

impl Default for Route {
    /// Returns the IPv4 default route.
    fn default() -> Self {
        Self::to(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)))
    }
}

impl Rtnl {
    /// Lists the routes of all tables of the namespace, IPv4 first. A route with several next hops is listed once per
    /// hop.
    ///
    /// # Errors
    ///
    /// `EINTR` if the routes changed during every dump.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = self.routes_of(AF_INET, |_| true)?;
        routes.append(&mut self.routes_of(AF_INET6, |_| true)?);
        Ok(routes)
    }

    /// Lists the routes on a link: those of an origin in table main, or those of all tables. The kernel skips all others.
    ///
    /// # Errors
    ///
    /// As [`Rtnl::routes`].
    pub fn routes_on(&mut self, protocol: Option<u8>, ifindex: u32) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let request = codec::filter(family, protocol, ifindex);
            // Kernels before 4.20 send all routes.
            let wanted =
                |route: &Route| (protocol.is_none() || route.protocol == protocol) && route.oif == Some(ifindex);
            match self.dump_routes(request, family, wanted) {
                // The kernel does not have this family.
                Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {}
                found => routes.append(&mut found?),
            }
        }
        Ok(routes)
    }

    fn routes_of(&mut self, family: u8, wanted: impl Fn(&Route) -> bool) -> Result<Vec<Route>> {
        self.dump_routes(Request::new(RTM_GETROUTE, NLM_F_DUMP, &codec::header(family)), family, wanted)
    }

    fn dump_routes(&mut self, request: Request, family: u8, wanted: impl Fn(&Route) -> bool) -> Result<Vec<Route>> {
        self.socket.dump(request, format_args!("list routes"), |message, list| {
            // A kernel without IPv6 answers with the routes of all families.
            if message.payload.first() != Some(&family) {
                return Ok(());
            }
            codec::decode(message, |route| {
                if wanted(&route) {
                    list.push(route);
                }
            })
        })
    }

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the table has a route with this destination and priority. `ENETUNREACH` if no link leads to the
    /// gateway.
    pub fn new_route(&mut self, route: &Route) -> Result<()> {
        self.request_route(route, NLM_F_EXCL)
    }

    /// Adds an IPv4 route before others with the same destination and priority.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the first of them is the same.
    pub fn prepend_route(&mut self, route: &Route) -> Result<()> {
        self.request_route(route, 0)
    }

    /// Adds a route to others with the same destination and priority: an IPv4 route behind them, an IPv6 route next to
    /// them.
    ///
    /// # Errors
    ///
    /// `EEXIST` if one of them has the same gateway.
    pub fn append_route(&mut self, route: &Route) -> Result<()> {
        self.request_route(route, NLM_F_APPEND)
    }

    /// Lists the default routes of a family in table main, of every kind.
    ///
    /// # Errors
    ///
    /// As [`Rtnl::routes`].
    pub fn default_routes(&mut self, is_v4: bool) -> Result<Vec<Route>> {
        let is_it = |route: &Route| route.is_default() && route.table == Some(RT_TABLE_MAIN);
        self.routes_of(if is_v4 { AF_INET } else { AF_INET6 }, is_it)
    }

    /// Deletes a route. The kernel compares only what is set in `route`.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is no such route.
    pub fn del_route(&mut self, route: &Route) -> Result<()> {
        self.socket.acknowledge(codec::delete_request(route), format_args!("delete route {}", route.dst))
    }

    /// Deletes an IPv6 route that is equal to this one and that comes from a router advertisement, if there is one.
    pub fn delete_advertised(&mut self, route: &Route) -> Result<()> {
        // The kernel compares only the attributes in the request.
        let its = Route { protocol: Some(RTPROT_RA), priority: Some(priority6(route)), ..route.clone() };
        let operation = format_args!("remove advertised route {}", route.dst);
        match self.socket.acknowledge(codec::delete_request(&its), operation) {
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    /// Returns true if this route can be appended to those with the same destination, table and priority: there are
    /// such routes, all on the same link, and none is the kernel's own. The kernel then uses all of them. Only for
    /// IPv6.
    pub fn can_stand_beside(&mut self, route: &Route) -> Result<bool> {
        let table = route.table.unwrap_or(RT_TABLE_MAIN);
        let priority = priority6(route);
        let in_the_way = self.routes_of(AF_INET6, |its| {
            (its.dst, its.table, its.priority) == (route.dst, Some(table), Some(priority))
        })?;
        let beside = |its: &Route| !its.is_of_kernel() && its.oif == route.oif;
        Ok(!in_the_way.is_empty() && in_the_way.iter().all(beside))
    }

    fn request_route(&mut self, route: &Route, others: u16) -> Result<()> {
        let request = codec::new_request(route, others);
        match route.gateway {
            Some(gateway) => self.socket.acknowledge(request, format_args!("add route {} via {gateway}", route.dst)),
            None => self.socket.acknowledge(request, format_args!("add route {}", route.dst)),
        }
    }

    /// Returns the ifindex of the default route with the lowest priority number in table main. IPv4 comes before IPv6.
    /// Returns `None` if there is no default route. `open` opens a socket in the namespace: each dump that is not read
    /// to its end uses up a socket.
    pub fn default_route(open: impl Fn() -> Result<Self>) -> Result<Option<u32>> {
        type Find<'a> = &'a dyn Fn() -> Result<Vec<Route>>;
        let v4 = || first_routes(&open);
        let v6 = || open()?.routes_of(AF_INET6, leads_out);
        for find in [&v4 as Find<'_>, &v6] {
            let candidates = match find() {
                // The kernel does not have this family, or the namespace has no table of it yet.
                Err(error) if matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::ENOENT)) => continue,
                candidates => candidates?,
            };
            let best = candidates.iter().min_by_key(|route| route.priority.unwrap_or(0));
            if let Some(route) = best {
                return Ok(route.oif);
            }
        }
        Ok(None)
    }
}

/// Lists the IPv4 default routes. The kernel lists a table in the order of destinations, so the default routes come
/// first. The rest, a million routes on some routers, is not read. (net/ipv4/fib_trie.c, `fib_table_dump`) IPv6 has
/// another order.
fn first_routes(open: impl Fn() -> Result<Rtnl>) -> Result<Vec<Route>> {
    let operation = format_args!("list routes");
    for _ in 0..DUMP_ATTEMPTS {
        let mut header = codec::header(AF_INET);
        header[codec::TABLE] = RT_TABLE_MAIN as u8;
        let request = Request::new(RTM_GETROUTE, NLM_F_DUMP, &header);
        let (mut found, mut is_behind) = (Vec::new(), false);
        let is_of_one_moment = open()?.socket.dump_until(request, operation, |message| {
            codec::decode(message, |route| {
                is_behind |= route.table == Some(RT_TABLE_MAIN) && !route.dst.addr().is_unspecified();
                found.extend(Some(route).filter(leads_out));
            })?;
            Ok(if is_behind { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if is_of_one_moment {
            return Ok(found);
        }
    }
    Err(Error::kernel(operation, Errno::EINTR))
}

/// Returns the priority that the kernel gives an IPv6 route. (net/ipv6/route.c)
fn priority6(route: &Route) -> u32 {
    route.priority.filter(|priority| *priority != 0).unwrap_or(IP6_RT_PRIO_USER)
}

fn leads_out(route: &Route) -> bool {
    route.is_default() && route.kind == RouteKind::Unicast && route.table == Some(RT_TABLE_MAIN) && route.oif.is_some()
}
