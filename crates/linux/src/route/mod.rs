//! Routes: listing and adding them, and where the default one leads.

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

/// A route. On the way to the kernel, `None` leaves the choice to it, or to the conventions
/// of `ip route add`; on the way back, it is what the kernel does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which destinations it is for; host bits are ignored. `0.0.0.0/0` and `::/0` are
    /// the default routes.
    pub dst: IpNet,
    /// The next machine; `None` where the destination is on the link. An IPv4 route may
    /// have an IPv6 gateway (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The link to send over.
    pub oif: Option<u32>,
    /// Of two routes to one destination, the lower number wins. IPv6 takes `None` and 0
    /// for 1024, IPv4 `None` for 0.
    pub priority: Option<u32>,
    /// The table; main when `None`.
    pub table: Option<u32>,
    /// How far the destination is away (`RT_SCOPE_*`). When `None`, an IPv4 route without
    /// a gateway leads to the link, all others anywhere. IPv6 has no use for it.
    pub scope: Option<u8>,
    /// The largest packet on the path, in bytes; the link's when `None`.
    pub mtu: Option<u32>,
    /// The TCP segment size to announce, in bytes.
    pub advmss: Option<u32>,
    /// Who made it (`RTPROT_*`); boot, as `ip route add` has it, when `None`.
    pub protocol: Option<u8>,
    /// What happens to packets that match.
    pub kind: RouteKind,
}

/// What a route does (`RTN_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Sends on to a gateway or over a link.
    #[default]
    Unicast,
    /// Delivers to this machine.
    Local,
    /// Sends as a link-layer broadcast.
    Broadcast,
    /// Delivers to this machine as one of several.
    Anycast,
    /// Sends as a multicast.
    Multicast,
    /// Drops in silence.
    Blackhole,
    /// Drops, and says that the destination is unreachable.
    Unreachable,
    /// Drops, and says that it is forbidden.
    Prohibit,
    /// Goes on with the next table.
    Throw,
    /// Any other number.
    Other(u8),
}

impl Route {
    /// A unicast route to `dst` about which nothing else is said:
    /// `Route { gateway, oif, ..Route::to(dst) }`.
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
            protocol: None,
            kind: RouteKind::Unicast,
        }
    }

    /// Whether it is for every destination that no other route is for.
    pub fn is_default(&self) -> bool {
        self.dst.prefix_len() == 0
    }
}

impl Default for Route {
    /// The IPv4 default route.
    fn default() -> Self {
        Self::to(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)))
    }
}

impl Rtnl {
    /// All routes of the namespace, IPv4 first, of all tables. A route with several next
    /// hops is as many routes here.
    ///
    /// # Errors
    ///
    /// What the kernel says; `EINTR` when the routes never stop changing.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = self.routes_of(AF_INET, |_| true)?;
        routes.append(&mut self.routes_of(AF_INET6, |_| true)?);
        Ok(routes)
    }

    fn routes_of(&mut self, family: u8, wanted: impl Fn(&Route) -> bool) -> Result<Vec<Route>> {
        let header = codec::header(family);
        self.socket.dump(
            Request::new(RTM_GETROUTE, NLM_F_DUMP, &header),
            format_args!("list routes"),
            |message, list| {
                // A kernel without IPv6 answers for it with the routes of all families.
                if message.payload.first() != Some(&family) {
                    return Ok(());
                }
                codec::decode(message, |route| {
                    if wanted(&route) {
                        list.push(route);
                    }
                })
            },
        )
    }

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// What the kernel says: `EEXIST` when there is one for that destination, with that
    /// priority, in that table; `ENETUNREACH` when the gateway is not on any link.
    pub fn new_route(&mut self, route: &Route) -> Result<()> {
        self.request_route(route, NLM_F_EXCL)
    }

    /// Adds an IPv6 route beside those that there are for that destination, with that priority.
    ///
    /// # Errors
    ///
    /// What the kernel says: `EEXIST` when there is one by the same gateway.
    pub fn append_route(&mut self, route: &Route) -> Result<()> {
        self.request_route(route, NLM_F_APPEND)
    }

    /// Removes the IPv6 route that a router has told of itself and that is this one otherwise, if it is there.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn delete_advertised(&mut self, route: &Route) -> Result<()> {
        // Each that is named has to match; those that are not match all.
        let its = Route { protocol: Some(RTPROT_RA), priority: Some(priority6(route)), ..route.clone() };
        let operation = format_args!("remove advertised route {}", route.dst);
        match self.socket.acknowledge(codec::delete_request(&its), operation) {
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether all IPv6 routes that have the destination, the table and the priority of this one are on its link too, and
    /// are not the kernel's own. Then it can be appended to them, and the kernel uses all of them.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn can_stand_beside(&mut self, route: &Route) -> Result<bool> {
        let table = route.table.unwrap_or(RT_TABLE_MAIN);
        let priority = priority6(route);
        let in_the_way = self.routes_of(AF_INET6, |its| {
            (its.dst, its.table, its.priority) == (route.dst, Some(table), Some(priority))
        })?;
        let beside = |its: &Route| its.protocol != Some(RTPROT_KERNEL) && its.oif == route.oif;
        Ok(!in_the_way.is_empty() && in_the_way.iter().all(beside))
    }

    fn request_route(&mut self, route: &Route, others: u16) -> Result<()> {
        let request = codec::new_request(route, others);
        match route.gateway {
            Some(gateway) => self.socket.acknowledge(request, format_args!("add route {} via {gateway}", route.dst)),
            None => self.socket.acknowledge(request, format_args!("add route {}", route.dst)),
        }
    }

    /// The link over which the rest of the world is reached: that of the default route with
    /// the lowest priority number in table main, IPv4 before IPv6. `open` opens a socket in the
    /// namespace: a list of routes that is not read to its end takes its socket along.
    ///
    /// # Errors
    ///
    /// What the kernel says. That there is no default route is not an error.
    pub fn default_route(open: impl Fn() -> Result<Self>) -> Result<Option<u32>> {
        type Find<'a> = &'a dyn Fn() -> Result<Vec<Route>>;
        let v4 = || first_routes(&open);
        let v6 = || open()?.routes_of(AF_INET6, leads_out);
        for find in [&v4 as Find<'_>, &v6] {
            let candidates = match find() {
                // A kernel without this family, and without anything to fall back to.
                Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => continue,
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

/// The IPv4 default routes. The kernel lists a table in the order of its destinations, so they come first, and a router's million
/// others are not read. (net/ipv4/fib_trie.c, `fib_table_dump`) IPv6 routes come in another order.
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

/// The priority that an IPv6 route will have. (net/ipv6/route.c)
fn priority6(route: &Route) -> u32 {
    route.priority.filter(|priority| *priority != 0).unwrap_or(IP6_RT_PRIO_USER)
}

fn leads_out(route: &Route) -> bool {
    route.is_default() && route.kind == RouteKind::Unicast && route.table == Some(RT_TABLE_MAIN) && route.oif.is_some()
}
