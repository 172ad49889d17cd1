//! The step that assigns the leased addresses to the link.

use ipnet::IpNet;
use linux::Errno;

use super::held::{self, retry};
use super::{Checking, Known, Making, Step, Undoing, Undone, probe};
use crate::error::{self, Error, Result, unless_gone};
use crate::lan::{Found, Holder, Supply};
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
        // The step `probe` assigns those of IPv4 after the LAN was asked.
        let only_v6 = probe::asks_for_v4(making);
        let now = self.0.iter().filter(|address| address.addr().is_ipv6() || !only_v6);
        now.copied().try_for_each(|address| assign(making, address))
    }

    fn take_back(&mut self, making: &mut Making<'a>, _found: &[Found]) -> Result<bool> {
        let ifindex = making.ifindex();
        let present = making.inside.addresses(ifindex)?;
        let mut ours = present.iter().filter(|its| self.0.contains(&its.address));
        ours.try_for_each(|address| unless_gone(making.inside.del_address(address)))?;
        Ok(false)
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

/// Assigns an address. If another container on the parent still has it, waits for its end, unless IPAM can give another
/// address.
fn assign(making: &mut Making<'_>, address: IpNet) -> Result<()> {
    let ifindex = making.ifindex();
    let detects = making.settings.lan.detects;
    let is_replaceable = detects && making.supply(address.addr()) == Supply::Others;
    let assigned = match is_replaceable {
        true => making.inside.new_address(ifindex, address),
        false => retry(|| making.inside.new_address(ifindex, address)),
    };
    assigned.map_err(|error| {
        if detects && error.errno() == Some(Errno::EADDRINUSE) {
            return making.refuse(vec![Found { address: address.addr(), holder: Holder::Sibling }]);
        }
        let operation = format!("assign {address} to {}", making.task.attachment.ifname);
        held::explain(making, error.during(operation), "this address")
    })
}

/// Assigns the leased IPv4 addresses that the link does not have yet.
pub(super) fn assign_rest(making: &mut Making<'_>) -> Result<()> {
    let rest: Vec<IpNet> = making.leased_nets().filter(|net| net.addr().is_ipv4()).collect();
    making.was_up_without_v4 = true;
    rest.into_iter().try_for_each(|address| assign(making, address))
}

/// Takes addresses off the link. Assigns those of IPv6 again, for another duplicate address detection.
pub(super) fn assign_anew(making: &mut Making<'_>, found: &[Found]) -> Result<()> {
    let ifindex = making.ifindex();
    let present = making.inside.addresses(ifindex)?;
    let asks_for_v4 = probe::asks_for_v4(making);
    for its in present.iter().filter(|its| {
        let is_found = found.iter().any(|found| found.address == its.address.addr());
        match its.address.addr().is_ipv4() {
            true => asks_for_v4,
            false => is_found,
        }
    }) {
        unless_gone(making.inside.del_address(its))?;
        if its.address.addr().is_ipv6() {
            assign(making, its.address)?;
        }
    }
    Ok(())
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
