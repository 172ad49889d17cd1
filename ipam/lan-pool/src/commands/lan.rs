//! Asks the machines on a LAN whether one of them has an address: ARP (RFC 5227) and neighbour discovery (RFC 4861).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use linux::{Arp, ArpSocket, Mac, NdpSocket, Rtnl};

use super::Error;

/// How often each address is asked for.
const ROUNDS: u32 = 3;

/// The time to listen after each round.
const ROUND: Duration = Duration::from_millis(400);

/// The time after which the other family has its turn.
const TURN: Duration = Duration::from_millis(20);

/// Returns the addresses that a machine on the LAN of this interface has, each with the MAC of the machine.
pub(crate) fn holders(interface: &str, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, Mac>, Error> {
    let failed = |error: linux::Error| Error::Pool(format!("ask the LAN of {interface}: {error}"));
    let mut rtnl = Rtnl::open().map_err(failed)?;
    let link = rtnl.link_by_any_name(interface).map_err(failed)?;
    let link =
        link.ok_or_else(|| Error::Usage(format!("this node has no interface {interface}; say --interface IF")))?;
    let (Some(mac), true) = (link.mac, link.up && link.carrier) else {
        return Err(Error::Pool(format!("{interface} is down or has no carrier, so no machine can be asked")));
    };
    let own = rtnl.addresses(link.ifindex).map_err(failed)?;
    let source = own.iter().find_map(|its| match its.address.addr() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip),
        _ => None,
    });
    let has = |is_v4| addresses.iter().any(|ip| ip.is_ipv4() == is_v4);
    if has(false) && source.is_none() {
        return Err(Error::Pool(format!(
            "{interface} has no link-local address, so IPv6 addresses cannot be asked for"
        )));
    }
    let mut arp = has(true).then(|| ArpSocket::open(link.ifindex)).transpose().map_err(failed)?;
    let mut ndp = has(false).then(|| NdpSocket::open(link.ifindex)).transpose().map_err(failed)?;
    let mut found = BTreeMap::new();
    for _ in 0..ROUNDS {
        for ip in addresses.iter().filter(|ip| !found.contains_key(*ip)).copied().collect::<Vec<_>>() {
            match (ip, &arp, &ndp, source) {
                (IpAddr::V4(ip), Some(arp), ..) => arp.send(&Arp::probe(mac, ip)).map_err(failed)?,
                (IpAddr::V6(ip), _, Some(ndp), Some(source)) => ndp.solicit(source, ip, mac).map_err(failed)?,
                _ => {}
            }
        }
        let end = Instant::now() + ROUND;
        while Instant::now() < end {
            let until = if arp.is_some() && ndp.is_some() { end.min(Instant::now() + TURN) } else { end };
            if let Some(arp) = &mut arp
                && let Some(heard) = arp.receive(until).map_err(failed)?
                && heard.arp.sender_mac != mac
            {
                found.insert(IpAddr::V4(heard.arp.sender), heard.arp.sender_mac);
            }
            if let Some(ndp) = &mut ndp
                && let Some(heard) = ndp.receive(until).map_err(failed)?
                && let Some(its) = heard.mac.filter(|its| *its != mac)
            {
                found.insert(IpAddr::V6(heard.target), its);
            }
        }
    }
    found.retain(|ip, _| addresses.contains(ip));
    Ok(found)
}
