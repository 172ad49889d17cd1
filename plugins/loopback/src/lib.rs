//! The loopback plugin: switches `lo` on in a container. Runtimes that speak the Kubernetes CRI call it for every
//! sandbox, before any network of their configuration.
#![forbid(unsafe_code)]

use attach::error::Error;
use cni::{AddResult, Attachment, Call, Interface, Ip, Plugin};
use frontend::bare_task;
use linux::{Link, Netns, Rtnl};

/// The plugin.
pub static PLUGIN: Loopback = Loopback;

/// The only link that it knows, whatever `CNI_IFNAME` says: the kernel makes it with the netns, under this name.
const LO: &str = "lo";

/// The plugin.
pub struct Loopback;

impl Plugin for Loopback {
    fn about(&self) -> &'static str {
        "switches lo on in a container"
    }

    /// What came before in a chain is the result, where there is something; else `lo` and its addresses are.
    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<AddResult, cni::Error> {
        let previous = call.prev_result()?;
        let netns = bare_task(call, "ADD", attachment, |task| task.open_netns())?;
        let made = switch_on(&netns)?;
        Ok(previous.unwrap_or_else(|| describe(attachment, &made)))
    }

    /// `lo` off again. Never the host's own, not even where `CNI_NETNS_OVERRIDE` permits that netns: with it, half of
    /// what runs on the host would stop.
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

    /// Needs nothing that could be missing.
    fn status(&self, _call: &Call<'_>) -> Result<(), cni::Error> {
        Ok(())
    }

    /// Keeps nothing that could be left behind.
    fn gc(&self, _call: &Call<'_>) -> Result<(), cni::Error> {
        Ok(())
    }
}

/// `lo` and its addresses, which the kernel itself gives it on the way up.
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

/// Only 127.0.0.0/8 and ::1: another address on `lo` (a service's, say) is somebody else's.
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

/// `lo` is up, and has what a result says of it. There need be no result: what runs before and after it in a chain is
/// not its affair.
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
