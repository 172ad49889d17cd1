//! The plugin `loopback`: sets `lo` up in a container. CRI runtimes call it for every sandbox, before the networks of
//! their configuration.
#![forbid(unsafe_code)]

use attach::error::Error;
use cni::{AddResult, Attachment, Call, Interface, Ip, Plugin};
use frontend::bare_task;
use linux::{Link, Netns, Rtnl};

/// The plugin `loopback`.
pub static PLUGIN: Loopback = Loopback;

/// The link of the plugin, also if `CNI_IFNAME` has another name. The kernel creates it with each namespace.
const LO: &str = "lo";

/// Implements [`Plugin`] for `lo`.
pub struct Loopback;

impl Plugin for Loopback {
    fn about(&self) -> &'static str {
        "sets lo up in a container"
    }

    /// Returns `prevResult`, if there is one. Otherwise the result is `lo` with its addresses.
    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<AddResult, cni::Error> {
        let previous = call.prev_result()?;
        let netns = bare_task(call, "ADD", attachment, |task| task.open_netns())?;
        let made = switch_on(&netns)?;
        Ok(previous.unwrap_or_else(|| describe(attachment, &made)))
    }

    /// Sets `lo` down, but never that of the host, also if `CNI_NETNS_OVERRIDE` allows the host's namespace. Many
    /// programs on the host need it.
    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
        match bare_task(call, "DEL", attachment, |task| task.open_netns_if_there())? {
            Some(netns) if netns.id() != Netns::current().map_err(Error::from)?.id() => Ok(switch_off(&netns)?),
            _ => Ok(()),
        }
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
        let expected = call.prev_result()?;
        let netns = bare_task(call, "CHECK", attachment, |task| task.open_netns())?;
        Ok(compare(&netns, expected.as_ref())?)
    }

    /// Always succeeds, because the plugin needs nothing.
    fn status(&self, _call: &Call<'_>) -> Result<(), cni::Error> {
        Ok(())
    }

    /// Always succeeds, because the plugin stores nothing.
    fn gc(&self, _call: &Call<'_>) -> Result<(), cni::Error> {
        Ok(())
    }
}

/// `lo`, and the addresses that the kernel assigns when it is set up.
type Made = (Link, Vec<linux::Address>);

fn switch_on(netns: &Netns) -> Result<Made, Error> {
    let mut rtnl = Rtnl::open_in(netns)?;
    let link = lo(&mut rtnl)?;
    rtnl.set_up(link.ifindex)?;
    let addresses = rtnl.addresses(link.ifindex)?;
    Ok((link, addresses))
}

fn switch_off(netns: &Netns) -> Result<(), Error> {
    let mut rtnl = Rtnl::open_in(netns)?;
    let link = lo(&mut rtnl)?;
    Ok(rtnl.set_down(link.ifindex)?)
}

fn lo(rtnl: &mut Rtnl) -> Result<Link, Error> {
    rtnl.link(LO)?.ok_or_else(|| Error::NoLink { ifname: LO.to_owned() })
}

/// Returns the result. It has only 127.0.0.0/8 and ::1, because another program has added other addresses to `lo`.
fn describe(attachment: &Attachment, (link, addresses): &Made) -> AddResult {
    let interface = Interface {
        name: link.name.clone(),
        mac: link.mac.map(|mac| mac.to_string()),
        mtu: Some(link.mtu),
        sandbox: attachment.netns.as_ref().map(|path| path.to_string_lossy().into_owned()),
        ..Interface::default()
    };
    let own = addresses.iter().map(|address| address.address).filter(|address| address.addr().is_loopback());
    let ips = own.map(|address| Ip { interface: Some(0), address, gateway: None });
    AddResult { interfaces: vec![interface], ips: ips.collect(), ..AddResult::default() }
}

/// Checks that `lo` is up and has the addresses of the result, if there is a result.
fn compare(netns: &Netns, expected: Option<&AddResult>) -> Result<(), Error> {
    let differs = |what: String| Err(Error::Differs { ifname: LO.to_owned(), what });
    let mut rtnl = Rtnl::open_in(netns)?;
    let link = lo(&mut rtnl)?;
    if !link.up {
        return differs("is down".into());
    }
    let addresses = rtnl.addresses(link.ifindex)?;
    let wanted = expected.into_iter().flat_map(addresses_of_lo);
    match wanted.into_iter().find(|wanted| !addresses.iter().any(|its| its.address == *wanted)) {
        Some(missing) => differs(format!("has no address {missing}")),
        None => Ok(()),
    }
}

fn addresses_of_lo(result: &AddResult) -> impl Iterator<Item = ipnet::IpNet> + '_ {
    let is_lo = |index: usize| {
        result.interfaces.get(index).is_some_and(|interface| interface.name == LO && interface.sandbox.is_some())
    };
    result.ips.iter().filter(move |ip| ip.interface.is_some_and(is_lo)).map(|ip| ip.address)
}
