//! CHECK: the kernel against prevResult. Not against the configuration: a meta plugin may have edited the result.

use cni::{AddResult, Attachment, Call, Code, Ipam};
use linux::{Link, LinkInfo, LinkKind, Netns, Rtnl};

use crate::container;
use crate::dismantle::{describe, own_interface};
use crate::error::{Error, Result};

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
        Some(expected) if !expected.eq_ignore_ascii_case(&mac) => {
            return differs(format!("has the MAC {mac}, prevResult says {expected}"));
        }
        _ => {}
    }
    match interface.mtu {
        Some(expected) if expected != link.mtu => {
            return differs(format!("has an MTU of {}, prevResult says {expected}", link.mtu));
        }
        _ => {}
    }
    compare_addresses(&mut rtnl, &link, expected)?;
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

fn compare_addresses(rtnl: &mut Rtnl, link: &Link, expected: &AddResult) -> Result<()> {
    let differs = |what: String| Err(Error::Differs { ifname: link.name.clone(), what });
    let addresses = rtnl.addresses(link.ifindex)?;
    let is_ours = |index: usize| expected.interfaces.get(index).is_none_or(|interface| interface.name == link.name);
    for ip in expected.ips.iter().filter(|ip| ip.interface.is_none_or(is_ours)) {
        match addresses.iter().find(|its| its.address == ip.address) {
            None => return differs(format!("has no address {}", ip.address)),
            Some(its) if its.dad_failed() => {
                return differs(format!("cannot use {}: another machine on the LAN has it", ip.address));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// A result does not say which interface a route is for, and other plugins may have added theirs, so any will do.
fn compare_routes(rtnl: &mut Rtnl, link: &Link, expected: &AddResult) -> Result<()> {
    /// `RT_TABLE_MAIN`. (include/uapi/linux/rtnetlink.h)
    const MAIN: u32 = 254;
    if expected.routes.is_empty() {
        return Ok(());
    }
    let routes = rtnl.routes()?;
    for route in &expected.routes {
        let is_it = |its: &&linux::Route| {
            its.dst == route.dst
                && route.gw.is_none_or(|gw| its.gateway == Some(gw))
                && its.table.unwrap_or(MAIN) == route.table.unwrap_or(MAIN)
                && route.priority.is_none_or(|priority| its.priority == Some(priority))
        };
        if !routes.iter().any(|its| is_it(&its)) {
            let via = route.gw.map(|gw| format!(" via {gw}")).unwrap_or_default();
            return Err(Error::Differs {
                ifname: link.name.clone(),
                what: format!("has no route to {}{via}", route.dst),
            });
        }
    }
    Ok(())
}
