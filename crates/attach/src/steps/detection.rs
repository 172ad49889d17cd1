//! The step that shortens duplicate address detection and waits for it. (RFC 4862, section 5.4)
//!
//! The kernel still sends a whole probe and waits for an answer. Two waits are shortened: the random delay before the
//! first probe, which spreads the probes of machines that boot at the same time, and the second of waiting after it,
//! which is a thousand times the round trip of a LAN. ADD restores both sysctls at its end.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use linux::{AddressWatch, sysctl};

use super::{Known, Making, Step, held};
use crate::error::{Error, Result};

/// The longest wait. The detection takes 0.2 s with our sysctls and 1 to 2 s without them. It takes longer with a
/// larger `dad_transmits`.
const DAD_WITHIN: Duration = Duration::from_secs(10);

/// The wait after each probe in ms, for the sysctl `retrans_time_ms`. The kernel's default is 1000.
const LISTEN_MS: &str = "200";

/// The detection for the IPv6 addresses of an attachment.
#[derive(Default)]
pub(crate) struct Detection {
    addresses: Vec<Ipv6Addr>,
    /// True if an address from a router advertisement is expected.
    awaits_router: bool,
}

/// The state of a detection. It is created before the addresses are assigned.
pub(crate) struct Running {
    watch: AddressWatch,
    /// The earlier values of the sysctls.
    before: Vec<(String, String)>,
}

impl<'a> Step<'a> for Detection {
    fn plan(&mut self, known: &mut Known<'_>) -> Result<()> {
        let v6 = |ip: &cni::Ip| match ip.address.addr() {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        };
        self.addresses = known.leased.ips.iter().filter_map(v6).collect();
        self.awaits_router = known.awaits_router();
        Ok(())
    }

    /// Prepares the detection while the link is down and has no address.
    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        if making.dad.is_some() || (self.addresses.is_empty() && !self.awaits_router) {
            return Ok(());
        }
        let (netns, ifname) = (&making.netns, making.task.attachment.ifname);
        let watch = AddressWatch::open_in(netns)?;
        let delay = format!("net/ipv6/conf/{ifname}/router_solicitation_delay");
        let listen = format!("net/ipv6/neigh/{ifname}/retrans_time_ms");
        let before = sysctl::replace_all(netns, &[(&delay, "0"), (&listen, LISTEN_MS)])?;
        making.dad = Some(Running { watch, before });
        Ok(())
    }

    /// Waits until every address can be used. Without a carrier, the detection does not start, so do not wait.
    fn finish(&mut self, making: &mut Making<'a>) -> Result<()> {
        let Some(mut running) = making.dad.take() else { return Ok(()) };
        let ifindex = making.ifindex();
        let carrier = making.inside.link_by_index(ifindex)?.is_some_and(|link| link.carrier);
        if carrier {
            self.wait(&mut running.watch, making)?;
        }
        let before: Vec<_> = running.before.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        for restored in sysctl::write_all(&making.netns, &before) {
            restored?;
        }
        if !carrier {
            let ifname = making.task.attachment.ifname;
            let text = format_args!("{ifname} has no carrier: IPv6 addresses stay tentative until it has one");
            (making.task.remark)(text);
        }
        Ok(())
    }
}

impl Detection {
    /// Waits for the detection. If it fails, a container that is just ending may still have the address: tries again.
    fn wait(&self, watch: &mut AddressWatch, making: &mut Making<'_>) -> Result<()> {
        let (ifname, ifindex) = (making.task.attachment.ifname, making.ifindex());
        let begun = Instant::now();
        while let Some(address) = first_failed(watch, &self.addresses, making)? {
            let rtnl = &mut making.inside;
            let listed = rtnl.addresses(ifindex)?.into_iter().find(|its| its.address.addr() == address);
            let failed = listed.ok_or_else(|| gone(address, ifname))?;
            if begun.elapsed() >= held::GOES_WITHIN {
                return Err(Error::Duplicate { address, ifname: ifname.to_owned() });
            }
            rtnl.del_address(&failed)?;
            rtnl.new_address(ifindex, failed.address)?;
        }
        Ok(())
    }
}

/// Waits for the detection of the leased addresses. Returns one that another machine has. Without a carrier, there is no
/// verdict.
pub(super) fn verdict(making: &mut Making<'_>) -> Result<Option<Ipv6Addr>> {
    let Some(mut running) = making.dad.take() else { return Ok(None) };
    let v6 = |address| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    };
    let addresses: Vec<_> = making.leased_addresses().filter_map(v6).collect();
    let ifindex = making.ifindex();
    let failed = match making.inside.link_by_index(ifindex)?.is_some_and(|link| link.carrier) {
        true => first_failed(&mut running.watch, &addresses, making),
        false => Ok(None),
    };
    making.dad = Some(running);
    failed
}

/// Waits until all addresses can be used, or one is another machine's, which is returned.
fn first_failed(watch: &mut AddressWatch, addresses: &[Ipv6Addr], making: &mut Making<'_>) -> Result<Option<Ipv6Addr>> {
    let (ifname, ifindex) = (making.task.attachment.ifname, making.ifindex());
    match watch.wait_usable(&mut making.inside, ifindex, addresses, Instant::now() + DAD_WITHIN) {
        Ok(()) => Ok(None),
        Err(linux::Error::DadFailed { address, removed: true }) => Err(gone(address, ifname)),
        Err(linux::Error::DadFailed { address, removed: false }) => Ok(Some(address)),
        Err(linux::Error::Timeout { .. }) => {
            let addresses = addresses.iter().map(Ipv6Addr::to_string).collect::<Vec<_>>().join(", ");
            Err(Error::Tentative { addresses, ifname: ifname.to_owned(), after: DAD_WITHIN })
        }
        Err(error) => Err(error.into()),
    }
}

fn gone(address: Ipv6Addr, ifname: &str) -> Error {
    Error::LinkGone(format!("assign {address} to {ifname}"))
}
