//! The step that waits for an address from a router advertisement, and reports it. (RFC 4862, section 5.5)

use std::net::IpAddr;
use std::time::Instant;

use cni::Ip;
use ipnet::IpNet;
use linux::{Address, AddressWatch};

use super::{Known, Making, Step};
use crate::error::{Error, Result};

/// `RTPROT_RA`: the origin of routes from advertisements.
const ADVERTISED: u8 = 9;

#[derive(Default)]
pub(crate) struct Slaac {
    /// The leased addresses.
    leased: Vec<IpNet>,
    /// Opened before the link comes up.
    watch: Option<AddressWatch>,
}

impl<'a> Step<'a> for Slaac {
    fn plan(&mut self, known: &mut Known<'_>) -> Result<()> {
        self.leased = known.leased.ips.iter().map(|ip| ip.address).collect();
        Ok(())
    }

    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        if making.settings.slaac_timeout.is_some() && self.watch.is_none() {
            self.watch = Some(AddressWatch::open_in(&making.netns)?);
        }
        Ok(())
    }

    fn finish(&mut self, making: &mut Making<'a>) -> Result<()> {
        let (Some(mut watch), Some(within)) = (self.watch.take(), making.settings.slaac_timeout) else {
            return Ok(());
        };
        let ifindex = making.ifindex();
        let look = |present: &[Address]| present.iter().find(|its| self.is_it(its)).map(|its| its.address);
        let found = watch.wait_until(&mut making.inside, ifindex, Instant::now() + within, look)?;
        let Some(address) = found else {
            let late = Error::NoAdvertisement { ifname: making.task.attachment.ifname.to_owned(), within };
            if self.leased.is_empty() {
                return Err(late);
            }
            (making.task.remark)(format_args!("{late}, so the result has none"));
            return Ok(());
        };
        let routes = making.inside.default_routes(false)?;
        let router = routes.iter().find(|route| route.oif == Some(ifindex) && route.protocol == Some(ADVERTISED));
        let gateway: Option<IpAddr> = router.and_then(|route| route.gateway);
        if let Some(leased) = &mut making.leased {
            leased.ips.push(Ip { interface: None, address, gateway });
        }
        Ok(())
    }
}

impl Slaac {
    /// Returns true for an address that a router has caused, and that can be used.
    fn is_it(&self, address: &Address) -> bool {
        /// `RT_SCOPE_UNIVERSE`: not a link-local address.
        const EVERYWHERE: u8 = 0;
        address.scope == EVERYWHERE
            && !address.permanent()
            && !address.temporary()
            && !address.deprecated()
            && (!address.tentative() || address.optimistic())
            && !address.dad_failed()
            && !self.leased.contains(&address.address)
    }
}
