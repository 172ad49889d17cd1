//! CHECK: the kernel against prevResult. Not against the configuration: a meta plugin may have edited the result.

use cni::{AddResult, Attachment, Call, Code, Ipam};
use linux::{Link, LinkInfo, LinkKind, Netns, RouteKind, Rtnl};

use crate::container;
use crate::dismantle::{describe, own_addresses, own_interface, shares_mac};
use crate::error::{Error, Result};
use crate::plan;

/// CHECK. Changes nothing.
pub fn check(call: &Call<'_>, attachment: &Attachment, kind: &LinkKind) -> std::result::Result<(), cni::Error> {
    let missing = || cni::Error::new(Code::INVALID_NETWORK_CONFIG, "prevResult is missing: CHECK compares with it");
    let expected = call.prev_result()?.ok_or_else(missing)?;
    let netns = container::open(call, attachment)?;
    compare(attachment, kind, &expected, &netns)?;
    match Ipam::find(call)? {
        Some(ipam) => ipam.check(attachment),
        None => Ok(()),
    }
}

fn compare(attachment: &Attachment, kind: &LinkKind, expected: &AddResult, netns: &Netns) -> Result<()> {
    let ifname = &attachment.ifname;
    let differs = |what: String| Err(Error::Differs { ifname: ifname.clone(), what });
    let mut rtnl = Rtnl::open_in(netns)?;
    let Some(link) = rtnl.link(ifname)? else { return Err(Error::NoLink { ifname: ifname.clone() }) };

    if link.kind.as_deref() != Some(kind.name()) {
        return differs(format!("is {}, not {}", describe(&link), kind.name()));
    }
    if let Some(what) = other_mode(&link, kind) {
        return differs(what);
    }
    if !link.up {
        return differs("is down".into());
    }
    let Some(interface) = own_interface(expected, ifname) else {
        return differs("prevResult has no such interface in a sandbox".into());
    };
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    match interface.mac.as_deref() {
        // A MAC shared with the parent changes with the parent's.
        Some(expected) if !shares_mac(&link) && !expected.eq_ignore_ascii_case(&mac) => {
            return differs(format!("has the MAC {mac}, prevResult says {expected}"));
        }
        _ => {}
    }
    // The MTU may differ: the reference's tuning, next in a chain, sets it and leaves the result as it was.
    compare_addresses(&mut rtnl, &link, ifname, expected)?;
    compare_routes(&mut rtnl, &link, expected)
}

fn other_mode(link: &Link, kind: &LinkKind) -> Option<String> {
    let (actual, expected) = match (&link.info, kind) {
        (LinkInfo::Macvlan { mode: actual, .. }, LinkKind::Macvlan { mode: expected, .. }) => {
            (actual.to_string(), expected.to_string())
        }
        (LinkInfo::Ipvlan { mode: actual, .. }, LinkKind::Ipvlan { mode: expected, .. }) => {
            (actual.to_string(), expected.to_string())
        }
        _ => return None,
    };
    (actual != expected).then(|| format!("is in mode {actual}, not {expected}"))
}

fn compare_addresses(rtnl: &mut Rtnl, link: &Link, ifname: &str, expected: &AddResult) -> Result<()> {
    let differs = |what: String| Err(Error::Differs { ifname: link.name.clone(), what });
    let addresses = rtnl.addresses(link.ifindex)?;
    for address in own_addresses(expected, ifname) {
        match addresses.iter().find(|its| its.address == address) {
            None => return differs(format!("has no address {address}")),
            Some(its) if its.dad_failed() => {
                return differs(format!("cannot use {address}: another machine on the LAN has it"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// A result does not say which interface a route is for, and other plugins of the chain may have added theirs. One that
/// is on our link has to be as ADD makes it.
fn compare_routes(rtnl: &mut Rtnl, link: &Link, expected: &AddResult) -> Result<()> {
    if expected.routes.is_empty() {
        return Ok(());
    }
    let routes = rtnl.routes()?;
    let unset = without_metrics(link, expected);
    for route in &expected.routes {
        let wanted = plan::kernel_route(route, expected)?;
        if !routes.iter().any(|its| is_as_wanted(its, &wanted, route, link, unset)) {
            let via = wanted.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            let what = format!("has no route to {}{via} as ADD made it", wanted.dst);
            return Err(Error::Differs { ifname: link.name.clone(), what });
        }
    }
    Ok(())
}

/// Returns true if routes may be without the `mtu` and `advmss` of the result. The reference writes both into its results and
/// never sets them in the kernel. Its results have no `mtu` of the interface, while ours of 1.1.0 do: there CHECK is strict.
fn without_metrics(link: &Link, expected: &AddResult) -> bool {
    own_interface(expected, &link.name).is_none_or(|interface| interface.mtu.is_none())
}

fn is_as_wanted(
    its: &linux::Route,
    wanted: &linux::Route,
    route: &cni::Route,
    link: &Link,
    without_metrics: bool,
) -> bool {
    /// `RT_TABLE_MAIN`. (include/uapi/linux/rtnetlink.h)
    const MAIN: u32 = 254;
    /// What the kernel takes for larger numbers. (net/ipv4/metrics.c, for IPv6 too)
    const MAX_MTU: u32 = 65_520;
    const MAX_ADVMSS: u32 = 65_495;
    let gateway = if its.oif == Some(link.ifindex) { wanted.gateway } else { route.gw };
    let same = |actual: Option<u32>, wanted: Option<u32>| wanted.is_none() || actual == wanted;
    its.dst == wanted.dst
        && its.kind == RouteKind::Unicast
        && (its.gateway == gateway || (its.oif != Some(link.ifindex) && gateway.is_none()))
        // A result that names no table leaves it to the next plugin of the chain: sbr moves all routes to one of its own.
        && (wanted.table.is_none() || its.table.unwrap_or(MAIN) == wanted.table.unwrap_or(MAIN))
        && same(its.priority, wanted.priority)
        && ((without_metrics && its.mtu.is_none() && its.advmss.is_none())
            || (same(its.mtu, wanted.mtu.map(|mtu| mtu.min(MAX_MTU)))
                && same(its.advmss, wanted.advmss.map(|advmss| advmss.min(MAX_ADVMSS)))))
}
