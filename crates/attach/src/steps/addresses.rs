//! The step that assigns the leased addresses to the link.

use ipnet::IpNet;

use super::held::{self, retry};
use super::{Checking, Known, Making, Step, Undoing, Undone};
use crate::error::{self, Error, Result, unless_gone};
use crate::result;

/// The smallest MTU of a link with IPv6, in bytes. (RFC 8200, section 5)
const IPV6_MIN_MTU: u32 = 1280;

#[derive(Default)]
pub(crate) struct Addresses(Vec<IpNet>);

impl<'a> Step<'a> for Addresses {
    fn plan(&mut self, known: &mut Known<'_>) -> Result<()> {
        if known.has_v6() && known.mtu < IPV6_MIN_MTU {
            let cause = format!("IPv6 needs at least {IPV6_MIN_MTU} (RFC 8200, section 5)");
            return Err(Error::Config { key: "mtu", value: known.mtu.to_string(), cause });
        }
        self.0 = known.leased.ips.iter().map(|ip| ip.address).collect();
        Ok(())
    }

    fn apply(&mut self, making: &mut Making<'a>) -> Result<()> {
        let ifindex = making.ifindex();
        self.0.iter().try_for_each(|address| {
            retry(|| making.inside.new_address(ifindex, *address)).map_err(|error| {
                let operation = format!("assign {address} to {}", making.task.attachment.ifname);
                held::explain(making, error.during(operation), "this address")
            })
        })
    }

    fn verify(&self, checking: &mut Checking<'_>) -> Result<()> {
        let present = checking.rtnl.addresses(checking.ifindex())?;
        for address in result::own_addresses(checking.expected, checking.task.attachment.ifname) {
            match present.iter().find(|its| its.address == address) {
                None => return Err(checking.differs(format!("has no address {address}"))),
                Some(its) if its.dad_failed() => {
                    let difference = format!("cannot use {address}: another machine on the LAN has it");
                    return Err(checking.differs(difference));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Removes all addresses from the links. If IPAM sends from its address, the address stays until the release.
    fn undo(&mut self, undoing: &mut Undoing<'a, '_>) -> Result<Undone> {
        let Some(inside) = undoing.inside.as_deref_mut() else { return Ok(Undone::Whole) };
        if undoing.needs_address_for_release {
            return Ok(Undone::Later);
        }
        for ifindex in &undoing.links {
            let addresses = match inside.addresses(*ifindex) {
                Err(error) if error::is_gone(&error) => continue,
                addresses => addresses?,
            };
            // The kernel may have removed an address with its primary address, or with the link.
            addresses.iter().try_for_each(|address| unless_gone(inside.del_address(address)))?;
        }
        Ok(Undone::Whole)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{known, leased};
    use super::*;

    #[test]
    fn every_leased_address_is_assigned() {
        let (result, mut addresses) = (leased(), Addresses::default());
        addresses.plan(&mut known(&result)).unwrap();
        assert_eq!(addresses.0, ["10.0.0.5/24".parse().unwrap(), "fd00::5/64".parse().unwrap()]);
    }

    #[test]
    fn ipv6_is_refused_on_a_link_with_a_small_mtu() {
        let mut result = leased();
        let plan = |result: &cni::AddResult| Addresses::default().plan(&mut Known { mtu: 1279, ..known(result) });
        let refused = plan(&result).unwrap_err().to_string();
        assert_eq!(refused, "mtu 1279: IPv6 needs at least 1280 (RFC 8200, section 5)");
        result.ips.truncate(1);
        plan(&result).unwrap();
    }
}
