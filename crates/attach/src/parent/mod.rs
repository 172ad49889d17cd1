//! Finds and checks the parent, and explains why the kernel refused it.

mod wish;

use std::path::Path;

use cni::Code;
use linux::{Errno, IpvlanMode, Link, LinkKind, Rtnl};

use crate::error::{Error, Result};
use crate::steps::Making;

pub use wish::{Properties, Wish};

/// The hardware type of Ethernet. (include/uapi/linux/if_arp.h)
const ARPHRD_ETHER: u16 = 1;

/// The smallest MTU of an Ethernet interface, in bytes. (`ETH_MIN_MTU`; RFC 791)
const MIN_MTU: u32 = 68;

/// Finds the parent of a link of this kind. `open` opens a socket in its namespace.
pub(crate) fn find(rtnl: &mut Rtnl, open: impl Fn() -> linux::Result<Rtnl>, wish: &Wish, kind: &str) -> Result<Link> {
    let wrong = |value: String, cause: &str| Error::Config { key: "master", value, cause: cause.into() };
    let link = match wish {
        Wish::Named(names) => wish::first(rtnl, names)?,
        Wish::With(properties) => wish::only(rtnl, properties)?,
        Wish::DefaultRoute => {
            let missing = || wrong("is not set".into(), "there is no default route to find the parent by; set master");
            let ifindex = Rtnl::default_route(open)?.ok_or_else(missing)?;
            rtnl.link_by_index(ifindex)?.ok_or_else(missing)?
        }
    };
    let quoted = || format!("\"{}\"", link.name);
    if link.loopback {
        return Err(wrong(quoted(), "is the loopback interface, which leads to no LAN"));
    }
    if link.arphrd != ARPHRD_ETHER {
        return Err(wrong(quoted(), "is not an Ethernet interface, so it cannot have sub-interfaces"));
    }
    Ok(match parent_of_both(&link, kind) {
        Some(ifindex) => rtnl.link_by_index(ifindex)?.unwrap_or(link),
        None => link,
    })
}

/// The parent of a chosen link, if that is itself of the wanted kind: the kernel puts the new link on the parent of both.
/// An example is a macvlan that has the address of the host. (`macvlan_common_newlink`, `ipvlan_link_new`)
fn parent_of_both(chosen: &Link, kind: &str) -> Option<u32> {
    // Both kinds have a variant for virtual machines, such as macvtap.
    let family = |kind: &str| kind.replace("vtap", "vlan");
    let is_same = chosen.kind.as_deref().is_some_and(|its| family(its) == family(kind));
    chosen.parent.filter(|_| is_same && chosen.parent_netnsid.is_none())
}

/// Checks the MTU of the new link. The kernel accepts one above the parent's, and then drops packets.
pub(crate) fn judge_mtu(parent: &Link, mtu: Option<u32>) -> Result<()> {
    let refuse = |mtu: u32, cause| Err(Error::Config { key: "mtu", value: mtu.to_string(), cause });
    match mtu {
        Some(mtu) if mtu > parent.mtu => {
            refuse(mtu, format!("is larger than the MTU {} of parent {}", parent.mtu, parent.name))
        }
        Some(mtu) if mtu < MIN_MTU => refuse(mtu, format!("the smallest MTU of an Ethernet interface is {MIN_MTU}")),
        _ => Ok(()),
    }
}

/// Returns the reason why no packets can pass now. Returns `None` if they can.
pub(crate) fn obstacle(parent: &Link) -> Option<String> {
    match (parent.up, parent.carrier) {
        (false, _) => Some(format!("parent {} is down: no packets pass until it is up", parent.name)),
        (true, false) => Some(format!("parent {} has no carrier: no packets pass until it has one", parent.name)),
        (true, true) => None,
    }
}

/// Returns a reason why frames may be lost although the kernel accepts the link. Returns `None` if no reason is known.
pub(crate) fn doubt(parent: &Link, kind: &LinkKind) -> Option<String> {
    let own_mac = matches!(kind, LinkKind::Macvlan { .. });
    let wireless = Path::new("/sys/class/net").join(&parent.name).join("phy80211").exists();
    (own_mac && wireless).then(|| {
        let name = &parent.name;
        format!("parent {name} is wireless: access points drop frames from a second MAC; use ipvlan on it")
    })
}

/// Returns the reason why the parent's network cannot reach an address of the container. Returns `None` if no reason is
/// known. In layer 3 mode, ipvlan answers no ARP and no neighbour solicitation. (drivers/net/ipvlan/ipvlan_core.c)
pub(crate) fn unreachable(making: &mut Making<'_>) -> Option<String> {
    let LinkKind::Ipvlan { mode: mode @ (IpvlanMode::L3 | IpvlanMode::L3s), .. } = making.settings.link else {
        return None;
    };
    let (name, ifindex) = (making.parent.name.clone(), making.parent.ifindex);
    // The addresses are only for a remark, so an error is ignored.
    let networks = making.beside_parent().addresses(ifindex).ok()?;
    let mut leased = making.leased.iter().flat_map(|leased| &leased.ips).map(|ip| ip.address.addr());
    let (ip, network) =
        leased.find_map(|ip| Some((ip, networks.iter().find(|its| its.address.contains(&ip))?.address.trunc())))?;
    let mode = mode.as_str();
    Some(format!(
        "{ip} is in {network}, the network of parent {name}, and in mode {mode} no machine of that network reaches it; \
         use mode l2, or another network that the router sends to this host"
    ))
}

/// Checks for STATUS if an ADD can work.
///
/// # Errors
///
/// Code 50 if the parent is missing, unsuitable, down or without a carrier.
pub fn status(wish: &Wish, kind: &LinkKind) -> std::result::Result<(), cni::Error> {
    let unavailable = |text: String| cni::Error::new(Code::PLUGIN_NOT_AVAILABLE, text);
    let mut rtnl = Rtnl::open().map_err(Error::from)?;
    let parent = find(&mut rtnl, Rtnl::open, wish, kind.name()).map_err(|error| unavailable(error.to_string()))?;
    obstacle(&parent).map_or(Ok(()), |text| Err(unavailable(text)))
}

/// Adds the reason why the kernel refused a link on this parent, if it can be found out.
pub(crate) fn explain(rtnl: &mut Rtnl, parent: &Link, kind: &LinkKind, error: linux::Error) -> Error {
    let name = kind.name();
    let silent = matches!(&error, linux::Error::Kernel { ext_ack: None, .. });
    let why = match error.errno() {
        Some(Errno::EBUSY) => busy(rtnl, parent, kind),
        Some(Errno::EPERM) => "the plugin needs CAP_NET_ADMIN on the host and in the container".to_owned(),
        Some(Errno::EOPNOTSUPP) => {
            let option = name.to_uppercase();
            format!("this kernel has no {name}: load the module {name}, or use a kernel with CONFIG_{option}")
        }
        Some(Errno::ENODEV) => format!("{} has just been deleted", parent.name),
        Some(Errno::EINVAL) if silent && matches!(kind, LinkKind::Macvlan { .. }) => alone(rtnl, parent),
        _ => return Error::Linux(error),
    };
    Error::Explained { error, why }
}

fn busy(rtnl: &mut Rtnl, parent: &Link, kind: &LinkKind) -> String {
    let name = &parent.name;
    if let Some(slave_kind) = parent.slave_kind.as_deref() {
        let master = parent.master.and_then(|ifindex| rtnl.link_by_index(ifindex).ok().flatten());
        let master = master.map_or_else(|| format!("a {slave_kind}"), |link| format!("{slave_kind} {}", link.name));
        return format!("{name} is a port of {master}; set master to this {slave_kind}, or remove {name} from it");
    }
    // Most of these links are in containers and cannot be seen from here. Both kinds use the parent's single
    // rx_handler.
    let other = if matches!(kind, LinkKind::Macvlan { .. }) { "ipvlan" } else { "macvlan" };
    let verb = if carries(rtnl, parent, other) { "already carries" } else { "seems to carry" };
    format!("{name} {verb} {other} interfaces; macvlan and ipvlan cannot share a parent")
}

/// Explains a refusal because of passthru mode: then the parent can have only one macvlan, the old or the new one.
fn alone(rtnl: &mut Rtnl, parent: &Link) -> String {
    let verb = if carries(rtnl, parent, "macvlan") { "carries" } else { "may carry" };
    format!(
        "{} {verb} another macvlan interface, and an interface in mode passthru cannot share its parent",
        parent.name
    )
}

fn carries(rtnl: &mut Rtnl, parent: &Link, kind: &str) -> bool {
    let is_it = |link: &Link| {
        link.parent == Some(parent.ifindex) && link.parent_netnsid.is_none() && link.kind.as_deref() == Some(kind)
    };
    rtnl.links().is_ok_and(|links| links.iter().any(is_it))
}
