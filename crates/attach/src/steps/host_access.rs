//! The step that lets the container and its host reach each other, through the host's link of the parent. It is the
//! only step that changes something on the host, so it writes a record first.

use std::net::IpAddr;

use ipnet::IpNet;
use linux::{LinkKind, Route, Rtnl};

use super::link;
use super::routes::{PRIORITY_OF_V6, is_there, keep_if_there};
use super::{Checking, Known, Making, Step, Undoing, Undone, Why};
use crate::error::{Error, Result};
use crate::host_link::{self, PROTOCOL, Ready};
use crate::host_side::{self, HostSide};
use crate::record::{self, Access, Content, Home};

/// The host access of an attachment.
#[derive(Default)]
pub(crate) struct HostAccess {
    /// The addresses of the container.
    addresses: Vec<IpAddr>,
    /// Destinations that the configuration names.
    routes: Vec<IpNet>,
    /// The next hops of the container's routes. If one is an address of the host, it needs a neighbour.
    gateways: Vec<IpAddr>,
    /// True if this ADD has written a record, or has begun to do so.
    is_recorded: bool,
}

impl<'a> Step<'a> for HostAccess {
    fn plan(&mut self, known: &mut Known<'_>) -> Result<()> {
        let Some(access) = known.host_access().cloned() else { return Ok(()) };
        let leased = known.leased;
        let refused = |key, value: String, cause: String| Err(Error::Config { key, value, cause });
        if leased.ips.is_empty() {
            let cause = "the attachment gets no address from IPAM, so the host cannot have a route to it";
            return refused("hostAccess", "is set".to_owned(), cause.to_owned());
        }
        for service in &access.services {
            let hidden = leased.ips.iter().map(|ip| ip.address.trunc()).find(|subnet| service.contains(subnet));
            if let Some(subnet) = hidden {
                let cause = format!("contains {subnet}, the container's own subnet, which would then lead to the host");
                return refused("hostAccess.services", format!("\"{service}\""), cause);
            }
        }
        self.addresses = leased.ips.iter().map(|ip| ip.address.addr()).collect();
        let named = access.services.iter().copied().chain(access.addresses.iter().copied().map(IpNet::from));
        self.routes = named.filter(|net| self.has_family(net.addr())).collect();
        let is_ipvlan = known.settings.is_some_and(|settings| matches!(settings.link, LinkKind::Ipvlan { .. }));
        if is_ipvlan && leased.ips.iter().any(|ip| ip.address.addr().is_ipv4()) {
            // The packets that the host forwards for the container arrive and leave by the parent. So the host sends
            // redirects, and the container would keep sending to a machine that has lost the address. The kernel accepts
            // redirects if either sysctl says so.
            known.sysctls.push(("net/ipv4/conf/all/accept_redirects".to_owned(), "0"));
            known.set("ipv4/conf", "accept_redirects", "0");
        }
        let gateways = leased.ips.iter().filter_map(|ip| ip.gateway);
        self.gateways = gateways.chain(leased.routes.iter().filter_map(|route| route.gw)).collect();
        self.gateways.sort_unstable();
        self.gateways.dedup();
        Ok(())
    }

    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        let Some(access) = making.settings.host_access else { return Ok(()) };
        let ifname = making.task.attachment.ifname;
        let mac = making.link.as_ref().and_then(|link| link.mac);
        let mac = mac.ok_or_else(|| Error::LinkGone(format!("find the MAC of {ifname}")))?;
        let (ifindex, parent) = (making.ifindex(), making.parent.ifindex);
        let host = Addresses::list(&mut making.host, parent)?;
        let its = Access {
            parent,
            kind: making.settings.link.name().to_owned(),
            addresses: self.addresses.clone(),
            host: self.reached(&host),
            routes: self.routes.clone(),
        };
        let lock = host_side::lock()?;
        // Others may have held the lock for a long time. A DEL that has begun meanwhile has found no record.
        if !link::stays(&mut making.inside, ifindex, &making.task.attachment)? {
            return Err(Error::LinkGone(format!("create {ifname}")));
        }
        let mut record = making.record(Some(its.clone()))?;
        let mut side = HostSide::locked(lock, record.home, &mut making.host, making.task.remark);
        // An ADD that was killed may have left other addresses.
        let attachment = &making.task.attachment;
        match making.vlan {
            Some(_) => drop(side.release_access_of(attachment)?),
            None => drop(side.release_of(attachment)?),
        }
        side.look_at_some(parent, attachment);
        let link = side.claim(&record, &its)?;
        // Set before the call, because a panic may come after the write.
        self.is_recorded = true;
        record.write()?;
        let ready = side.prepare(link, &making.parent, &making.settings.link, access, &self.addresses)?;
        side.lead_to(&mut record, mac, &ready)?;
        drop(side);
        self.lead_back(making, &its, &ready, &host)
    }

    /// Compares the host's side and the routes in the container with the record.
    fn verify(&self, checking: &mut Checking<'_>) -> Result<()> {
        let attachment = &checking.task.attachment;
        let content = record::of(attachment)?;
        if content.is_none() && !checking.wished.has_host_access {
            return Ok(());
        }
        let mut host = Rtnl::open()?;
        let record = match content {
            Some(Content::Whole(record)) if record.home == Home::here(&host)? => record.access,
            Some(Content::OtherSchema) => return Err(Error::OtherRecord(record::path_of(attachment))),
            _ => None,
        };
        let Some(record) = record else {
            if checking.wished.has_host_access {
                let difference = "cannot reach its host: hostAccess is set, and ADD has left no record of it";
                return Err(checking.differs(difference.to_owned()));
            }
            return Ok(());
        };
        let Some(link) = host_link::find(&mut host, record.parent, &record.kind)?.filter(|link| link.up) else {
            return Err(checking.differs("cannot reach its host: the host's link of the parent is gone or down".into()));
        };
        let its_mac = checking.link.as_ref().and_then(|link| link.mac);
        let on_host = host.routes_on(Some(PROTOCOL), link.ifindex)?;
        for address in &record.addresses {
            if !on_host.iter().any(|route| route.dst == IpNet::from(*address)) {
                return Err(checking.differs(format!("cannot be reached by its host: no route to {address}")));
            }
            if host.permanent_neighbour(link.ifindex, *address)? != its_mac {
                let difference =
                    format!("cannot be reached by its host: {address} has another MAC in the host's neighbours");
                return Err(checking.differs(difference));
            }
        }
        let ifindex = checking.ifindex();
        let private = host.addresses(link.ifindex)?.into_iter().map(|its| its.address.addr());
        for private in private.filter(|private| record.addresses.iter().any(|own| own.is_ipv4() == private.is_ipv4())) {
            if checking.rtnl.permanent_neighbour(ifindex, private)? != link.mac {
                let difference = format!("cannot reach its host: {private} has another MAC in its neighbours");
                return Err(checking.differs(difference));
            }
        }
        let routes = checking.rtnl.routes()?;
        let host_addresses = Addresses::list(&mut host, record.parent)?;
        let next_hops = routes.iter().filter(|route| route.oif == Some(ifindex)).filter_map(|route| route.gateway);
        for gateway in next_hops.filter(|gateway| host_addresses.all.contains(gateway)) {
            if checking.rtnl.permanent_neighbour(ifindex, gateway)? != link.mac {
                let difference = format!("cannot reach its host: {gateway} has another MAC in its neighbours");
                return Err(checking.differs(difference));
            }
        }
        let host_routes = record.host.iter().copied().map(IpNet::from);
        for dst in host_routes.chain(record.routes.iter().copied()) {
            if !routes.iter().any(|route| route.dst == dst && route.oif == Some(ifindex)) {
                return Err(checking.differs(format!("cannot reach its host: no route to {dst}")));
            }
        }
        let now = HostAccess { addresses: record.addresses.clone(), ..Self::default() }.reached(&host_addresses);
        if let Some(lost) = record.host.iter().find(|address| !now.contains(address)) {
            return Err(checking.differs(format!("has a route to {lost}, which is no address of the host any more")));
        }
        // A gateway has a neighbour in place of a route.
        let is_next_hop = |address: &IpAddr| routes.iter().any(|route| route.gateway == Some(*address));
        if let Some(new) = now.iter().find(|address| !record.host.contains(address) && !is_next_hop(address)) {
            return Err(checking.differs(format!("has no route to {new}, a new address of the host")));
        }
        Ok(())
    }

    fn undo(&mut self, undoing: &mut Undoing<'a, '_>) -> Result<Undone> {
        let attachment = &undoing.task.attachment;
        let may_exist = self.is_recorded || matches!(undoing.why, Why::Del { .. });
        let Some(content) = may_exist.then(|| record::of(attachment)).transpose()?.flatten() else {
            undoing.has_record = Some(false);
            return Ok(Undone::Whole);
        };
        let mut host = Rtnl::open()?;
        let mut side = HostSide::lock(&mut host, undoing.task.remark)?;
        undoing.has_record = match side.release_access_of(attachment) {
            Err(error @ Error::OtherRecord(_)) => {
                (undoing.task.remark)(format_args!("{error}: the host's routes to the container stay"));
                Some(false)
            }
            outcome => Some(outcome?),
        };
        if let Content::Whole(record) = content
            && let Some(access) = record.access
        {
            side.look_at_some(access.parent, attachment);
        }
        Ok(Undone::Whole)
    }
}

/// The addresses of the host.
struct Addresses {
    /// Those on the parent and on the link of the default route, without those that the kernel replaces all the time.
    reached: Vec<IpAddr>,
    all: Vec<IpAddr>,
}

impl Addresses {
    fn list(host: &mut Rtnl, parent: u32) -> Result<Self> {
        let default = Rtnl::default_route(Rtnl::open)?;
        let all = host.all_addresses()?;
        let leads = |ifindex: u32| ifindex == parent || Some(ifindex) == default;
        let is_global = |address: &IpAddr| match address {
            IpAddr::V4(address) => !address.is_loopback(),
            IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
        };
        let mut reached: Vec<IpAddr> = all
            .iter()
            .filter(|its| leads(its.ifindex) && !its.temporary())
            .map(|its| its.address.addr())
            .filter(is_global)
            .collect();
        reached.sort_unstable();
        reached.dedup();
        Ok(Self { reached, all: all.iter().map(|its| its.address.addr()).collect() })
    }
}

impl HostAccess {
    fn has_family(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4())
    }

    /// The addresses of the host that need a route in the container. A gateway needs none: it stays on the link, so
    /// that other routes can use it as their next hop.
    fn reached(&self, host: &Addresses) -> Vec<IpAddr> {
        let reached = host.reached.iter().copied();
        reached.filter(|address| self.has_family(*address) && !self.gateways.contains(address)).collect()
    }

    /// Adds the routes and neighbours in the container.
    fn lead_back(&self, making: &mut Making<'_>, record: &Access, ready: &Ready, host: &Addresses) -> Result<()> {
        let ifindex = making.ifindex();
        let own: Vec<IpAddr> = ready.private.iter().copied().filter(|private| self.has_family(*private)).collect();
        let gateways = self.gateways.iter().copied().filter(|gateway| host.all.contains(gateway));
        for neighbour in own.iter().copied().chain(gateways) {
            making.inside.set_neighbour(ifindex, neighbour, ready.mac)?;
        }
        // For IPv6 and IPv4: whether addresses of the host are reached by this interface.
        let mut leads = [false; 2];
        for private in own {
            add_behind(making, host_link::route(private, ifindex))?;
        }
        for dst in record.host.iter().copied().map(IpNet::from).chain(record.routes.iter().copied()) {
            let gateway = ready.private_for(dst.addr());
            let route = Route { gateway, oif: Some(ifindex), protocol: Some(PROTOCOL), ..Route::to(dst) };
            let is_first = add_behind(making, route)?;
            if is_first && record.host.contains(&dst.addr()) {
                leads[usize::from(dst.addr().is_ipv4())] = true;
            }
        }
        for is_v4 in [true, false] {
            if leads[usize::from(is_v4)]
                && making.inside.default_routes(is_v4)?.iter().any(|route| route.oif != Some(ifindex))
            {
                let ifname = making.task.attachment.ifname;
                (making.task.remark)(format_args!(
                    "the container has a default route by another interface, and its packets to addresses of the host \
                     leave by {ifname} now; see docs/keys.md"
                ));
                break;
            }
        }
        Ok(())
    }
}

/// Adds a route in the container. If another interface of the container leads there, the new route has a larger metric:
/// it works when that interface is gone. Keeps a route of the same interface, which comes from IPAM. Returns true if it is
/// before those of other interfaces.
fn add_behind(making: &mut Making<'_>, mut route: Route) -> Result<bool> {
    /// A container has at most so many interfaces with host access.
    const INTERFACES: u32 = 32;
    let first = if route.dst.addr().is_ipv4() { 0 } else { PRIORITY_OF_V6 };
    let mut outcome = making.inside.new_route(&route);
    for behind in 1..INTERFACES {
        let is_same = |its: &Route| its.dst == route.dst && its.oif == route.oif;
        if !is_there(&outcome) || making.inside.routes()?.iter().any(is_same) {
            break;
        }
        route.priority = Some(first + behind);
        outcome = making.inside.new_route(&route);
    }
    keep_if_there(making, &route, outcome)?;
    Ok(route.priority.is_none())
}
