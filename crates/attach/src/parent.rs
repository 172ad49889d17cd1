//! The parent of a sub-interface: finding it, judging it, and saying why the kernel would not have it.

use cni::Code;
use linux::{Errno, Link, Rtnl};

use crate::error::{Error, Result};

/// Finds the parent: the interface called `master`, or that of the default route.
pub fn find(rtnl: &mut Rtnl, master: Option<&str>) -> Result<Link> {
    let wrong = |value: String, cause: &str| Error::Config { key: "master", value, cause: cause.into() };
    if let Some(name) = master {
        let link = rtnl.link(name)?.ok_or_else(|| wrong(format!("\"{name}\""), "there is no such interface"))?;
        return match link.loopback {
            true => Err(wrong(format!("\"{name}\""), "the loopback interface leads to no LAN")),
            false => Ok(link),
        };
    }
    let missing = || wrong("is not set".into(), "and there is no default route whose interface to take");
    let ifindex = rtnl.default_route()?.ok_or_else(missing)?;
    rtnl.link_by_index(ifindex)?.ok_or_else(missing)
}

/// The MTU of the new link, which cannot exceed its parent's: the kernel would take it and drop the packets.
pub fn refuse_mtu(parent: &Link, mtu: Option<u32>) -> Result<()> {
    match mtu {
        Some(mtu) if mtu > parent.mtu => Err(Error::Config {
            key: "mtu",
            value: mtu.to_string(),
            cause: format!("the parent {} has an MTU of {}, which is the most", parent.name, parent.mtu),
        }),
        _ => Ok(()),
    }
}

/// Why nothing can pass yet; `None` when it can.
pub fn silence(parent: &Link) -> Option<String> {
    match (parent.up, parent.carrier) {
        (false, _) => Some(format!("parent {} is down: nothing passes until it is up", parent.name)),
        (true, false) => Some(format!("parent {} has no carrier: nothing passes until it has", parent.name)),
        (true, true) => None,
    }
}

/// STATUS: code 50 where no ADD can work.
pub fn status(master: Option<&str>) -> std::result::Result<(), cni::Error> {
    let unavailable = |text: String| cni::Error::new(Code::PLUGIN_NOT_AVAILABLE, text);
    let mut rtnl = Rtnl::open().map_err(Error::from)?;
    let parent = find(&mut rtnl, master).map_err(|error| unavailable(error.to_string()))?;
    silence(&parent).map_or(Ok(()), |text| Err(unavailable(text)))
}

/// Says why the kernel refused a link on this parent, where looking at the parent tells.
pub fn explain(rtnl: &mut Rtnl, parent: &Link, kind: &str, error: linux::Error) -> Error {
    let why = match error.errno() {
        Some(Errno::EBUSY) => busy(rtnl, parent, kind),
        Some(Errno::EPERM) => Some("the plugin needs CAP_NET_ADMIN on the host and in the container".to_owned()),
        Some(Errno::EOPNOTSUPP) => {
            Some(format!("this kernel has no {kind} (module {kind}, CONFIG_{})", kind.to_uppercase()))
        }
        Some(Errno::EINVAL) if kind == "macvlan" => exclusive(rtnl, parent),
        _ => None,
    };
    match why {
        Some(why) => Error::Explained { error, why },
        None => Error::Linux(error),
    }
}

fn busy(rtnl: &mut Rtnl, parent: &Link, kind: &str) -> Option<String> {
    let name = &parent.name;
    if let Some(slave_kind) = parent.slave_kind.as_deref() {
        let master = parent.master.and_then(|ifindex| rtnl.link_by_index(ifindex).ok().flatten());
        let master = master.map_or_else(|| format!("a {slave_kind}"), |link| format!("{slave_kind} {}", link.name));
        return Some(format!("{name} is a port of {master}; name that as master, or take {name} out of it"));
    }
    let links = rtnl.links().ok()?;
    let other = links.into_iter().find(|link| {
        link.parent == Some(parent.ifindex) && link.kind.as_deref().is_some_and(|its| its != kind && is_exclusive(its))
    });
    let other = other.and_then(|link| link.kind)?;
    Some(format!("{name} already carries {other} interfaces; macvlan and ipvlan cannot share a parent"))
}

fn is_exclusive(kind: &str) -> bool {
    matches!(kind, "macvlan" | "macvtap" | "ipvlan" | "ipvtap")
}

/// A macvlan in passthru mode has its parent alone, in whichever order they come.
fn exclusive(rtnl: &mut Rtnl, parent: &Link) -> Option<String> {
    let here = rtnl
        .links()
        .ok()?
        .into_iter()
        .any(|link| link.parent == Some(parent.ifindex) && link.kind.as_deref() == Some("macvlan"));
    let what = if here {
        "carries other macvlan interfaces"
    } else {
        "may carry other macvlan interfaces, in other containers"
    };
    Some(format!("{} {what}; one in passthru mode needs its parent alone", parent.name))
}
