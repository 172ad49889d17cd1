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
    running: Option<Running>,
}

/// The state of a detection. It is created before the addresses are assigned.
struct Running {
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
        if self.addresses.is_empty() && !self.awaits_router {
            return Ok(());
        }
        let (netns, ifname) = (&making.netns, making.task.attachment.ifname);
        let watch = AddressWatch::open_in(netns)?;
        let delay = format!("net/ipv6/conf/{ifname}/router_solicitation_delay");
        let listen = format!("net/ipv6/neigh/{ifname}/retrans_time_ms");
        let before = sysctl::replace_all(netns, &[(&delay, "0"), (&listen, LISTEN_MS)])?;
        self.running = Some(Running { watch, before });
        Ok(())
    }

    /// Waits until every address can be used. Without a carrier, the detection does not start, so do not wait.
    fn finish(&mut self, making: &mut Making<'a>) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
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
        let (ifname, ifindex, rtnl) = (making.task.attachment.ifname, making.ifindex(), &mut making.inside);
        let begun = Instant::now();
        loop {
            let gone = |address| Error::LinkGone(format!("assign {address} to {ifname}"));
            let address = match watch.wait_usable(rtnl, ifindex, &self.addresses, begun + DAD_WITHIN) {
                Ok(()) => return Ok(()),
                Err(linux::Error::DadFailed { address, removed: true }) => return Err(gone(address)),
                Err(linux::Error::DadFailed { address, removed: false }) => address,
                Err(linux::Error::Timeout { .. }) => {
                    let addresses = self.addresses.iter().map(Ipv6Addr::to_string).collect::<Vec<_>>().join(", ");
                    return Err(Error::Tentative { addresses, ifname: ifname.to_owned(), after: DAD_WITHIN });
                }
                Err(error) => return Err(error.into()),
            };
            let listed = rtnl.addresses(ifindex)?;
            let failed = listed.into_iter().find(|its| its.address.addr() == address).ok_or_else(|| gone(address))?;
            if begun.elapsed() >= held::GOES_WITHIN {
                return Err(Error::Duplicate { address, ifname: ifname.to_owned() });
            }
            rtnl.del_address(&failed)?;
            rtnl.new_address(ifindex, failed.address)?;
        }
    }
}
