//! Duplicate address detection (RFC 4862, section 5.4): made short, waited for by event, and tried again.
//!
//! A whole probe is sent and listened for. What is made short is the waiting around it: the random delay before the
//! first probe, which keeps machines that start together from speaking together, and the second of listening, a
//! thousand times the round trip of a LAN. Both are put back as they were.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use linux::{AddressWatch, Netns, Rtnl, sysctl};

use crate::error::{Error, Result};
use crate::held;

/// How long it may take in all: 0.2 s as we set it, 1 to 2 s where the sysctls cannot be written, longer with a larger
/// `dad_transmits`.
const DAD_WITHIN: Duration = Duration::from_secs(10);

/// How long each probe is listened for, in ms: the kernel's `retrans_time_ms`, 1000 by default.
const LISTEN_MS: &str = "200";

/// A detection that runs from before the addresses are there.
pub(crate) struct Detection {
    ifname: String,
    addresses: Vec<Ipv6Addr>,
    watch: AddressWatch,
    /// What the sysctls were.
    before: Vec<(String, String)>,
}

impl Detection {
    /// Prepares for it, while the link is down and before it has an address; `None` without IPv6 addresses.
    pub(crate) fn begin(netns: &Netns, ifname: &str, addresses: Vec<Ipv6Addr>) -> Result<Option<Self>> {
        if addresses.is_empty() {
            return Ok(None);
        }
        let watch = AddressWatch::open_in(netns)?;
        let delay = format!("net/ipv6/conf/{ifname}/router_solicitation_delay");
        let listen = format!("net/ipv6/neigh/{ifname}/retrans_time_ms");
        let before = sysctl::replace_all(netns, &[(&delay, "0"), (&listen, LISTEN_MS)])?;
        Ok(Some(Self { ifname: ifname.to_owned(), addresses, watch, before }))
    }

    /// Waits until every address is usable. `false`: it cannot begin, since the link has no carrier.
    pub(crate) fn end(mut self, netns: &Netns, rtnl: &mut Rtnl, ifindex: u32) -> Result<bool> {
        let carrier = rtnl.link_by_index(ifindex)?.is_some_and(|link| link.carrier);
        if carrier {
            self.wait(rtnl, ifindex)?;
        }
        let before: Vec<_> = self.before.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        for restored in sysctl::write_all(netns, &before) {
            restored?;
        }
        Ok(carrier)
    }

    /// An address that a dying container still holds is tried again.
    fn wait(&mut self, rtnl: &mut Rtnl, ifindex: u32) -> Result<()> {
        let begun = Instant::now();
        loop {
            let gone = |address| Error::LinkGone(format!("assign {address} to {}", self.ifname));
            let address = match self.watch.wait_usable(rtnl, ifindex, &self.addresses, begun + DAD_WITHIN) {
                Ok(()) => return Ok(()),
                Err(linux::Error::DadFailed { address, removed: true }) => return Err(gone(address)),
                Err(linux::Error::DadFailed { address, removed: false }) => address,
                Err(linux::Error::Timeout { .. }) => {
                    let addresses = self.addresses.iter().map(Ipv6Addr::to_string).collect::<Vec<_>>().join(", ");
                    return Err(Error::Tentative { addresses, ifname: self.ifname.clone(), after: DAD_WITHIN });
                }
                Err(error) => return Err(error.into()),
            };
            let listed = rtnl.addresses(ifindex)?;
            let failed = listed.into_iter().find(|its| its.address.addr() == address).ok_or_else(|| gone(address))?;
            if begun.elapsed() >= held::GOES_WITHIN {
                return Err(Error::Duplicate { address, ifname: self.ifname.clone() });
            }
            rtnl.del_address(&failed)?;
            rtnl.new_address(ifindex, failed.address)?;
        }
    }
}
