//! The step that asks the gateways for their MAC, when the addresses are in use. A gateway that does not answer is often
//! a sign of a wrong VLAN.
//!
//! In the list it comes before the step that waits for duplicate address detection, because its work is done at the end
//! of an ADD, in the opposite order. A host that loses an address must not tell the gateway of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use linux::{Arp, ArpSocket, Mac, NdpSocket};

use super::{Making, Step, probe};
use crate::GatewayCheck;
use crate::error::{Error, Result, unless_gone};

/// The times of the questions in ms.
const ASK_AT: [u64; 4] = [0, 100, 300, 700];

/// The time after which a gateway counts as silent.
const WITHIN: Duration = Duration::from_secs(1);

/// If there are gateways of both families, this step listens to each in turn for this time.
const TURN: Duration = Duration::from_millis(10);

/// An error names at most so many other machines.
const SHOWN: usize = 3;

#[derive(Default)]
pub(crate) struct Gateways;

impl<'a> Step<'a> for Gateways {
    fn finish(&mut self, making: &mut Making<'a>) -> Result<()> {
        let check = making.settings.lan.gateway;
        if check == GatewayCheck::Off || !probe::speaks(making) {
            return Ok(());
        }
        match ask(making) {
            Err(error) if check == GatewayCheck::Warn => (making.task.remark)(format_args!("{error}")),
            asked => asked?,
        }
        Ok(())
    }
}

/// Asks all gateways of the result. Fails if one is silent.
fn ask(making: &mut Making<'_>) -> Result<()> {
    let wanted = gateways(making)?;
    if wanted.is_empty() {
        return Ok(());
    }
    let parent = making.parent.ifindex;
    if !making.beside_parent().link_by_index(parent)?.is_some_and(|link| link.up && link.carrier) {
        let names = names(&wanted);
        (making.task.remark)(format_args!("{} has no carrier: {names} was not asked", making.parent.name));
        return Ok(());
    }
    let mut search = Search::begin(making, wanted)?;
    search.run(making.mac())?;
    match search.silent.is_empty() {
        true => Ok(()),
        false => Err(search.error(making)),
    }
}

/// A gateway, and the address of the container that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    gateway: IpAddr,
    asker: IpAddr,
}

fn names(wanted: &[Wanted]) -> String {
    let names: Vec<_> = wanted.iter().map(|wanted| wanted.gateway.to_string()).collect();
    format!("gateway {}", names.join(", "))
}

/// Returns the gateways of the result, without those that are this host itself.
fn gateways(making: &mut Making<'_>) -> Result<Vec<Wanted>> {
    let Some(leased) = &making.leased else { return Ok(Vec::new()) };
    let named = leased.ips.iter().filter_map(|ip| ip.gateway).chain(leased.routes.iter().filter_map(|route| route.gw));
    let mut wanted: Vec<Wanted> = Vec::new();
    for gateway in named {
        let of_family = || leased.ips.iter().filter(|ip| ip.address.addr().is_ipv4() == gateway.is_ipv4());
        let asker = of_family().find(|ip| ip.address.contains(&gateway)).or_else(|| of_family().next());
        let is_own = leased.ips.iter().any(|ip| ip.address.addr() == gateway);
        if let Some(asker) = asker.filter(|_| !is_own && wanted.iter().all(|wanted| wanted.gateway != gateway)) {
            wanted.push(Wanted { gateway, asker: asker.address.addr() });
        }
    }
    let hosts = making.addresses_beside_parent()?;
    wanted.retain(|wanted| !hosts.contains(&wanted.gateway));
    Ok(wanted)
}

/// The search for gateways.
struct Search {
    /// The gateways that have not answered.
    silent: Vec<Wanted>,
    arp: Option<ArpSocket>,
    ndp: Option<NdpSocket>,
    /// Other machines that were heard, with their MACs.
    heard: Vec<(IpAddr, Mac)>,
}

impl Search {
    fn begin(making: &mut Making<'_>, wanted: Vec<Wanted>) -> Result<Self> {
        let has = |is_v4| wanted.iter().any(|wanted| wanted.gateway.is_ipv4() == is_v4);
        let (netns, ifindex) = (&making.netns, making.ifindex());
        // The socket of the probes hears the answers too, unless it is on the parent.
        let is_on_link = making.arp.is_some() && !probe::is_on_parent(making.settings);
        let arp = match making.arp.take().filter(|_| is_on_link) {
            Some(arp) => {
                arp.hear_all()?;
                Some(arp)
            }
            None => has(true).then(|| ArpSocket::open_in(netns, ifindex)).transpose()?,
        };
        let ndp = has(false).then(|| NdpSocket::open_in(netns, ifindex)).transpose()?;
        Ok(Self { silent: wanted, arp, ndp, heard: Vec::new() })
    }

    /// Asks until every gateway has answered, or the time is over.
    fn run(&mut self, mac: Mac) -> Result<()> {
        let begun = Instant::now();
        let ends = ASK_AT[1..].iter().map(|at| Duration::from_millis(*at)).chain([WITHIN]);
        for end in ends {
            self.ask(mac)?;
            while !self.silent.is_empty() && begun.elapsed() < end {
                self.listen(begun + end)?;
            }
        }
        Ok(())
    }

    fn ask(&self, mac: Mac) -> Result<()> {
        for Wanted { gateway, asker } in &self.silent {
            match (gateway, asker, &self.arp, &self.ndp) {
                (IpAddr::V4(gateway), IpAddr::V4(asker), Some(arp), _) => {
                    arp.send(&Arp::request(mac, *asker, *gateway))?;
                }
                // The address is not usable yet if the carrier has come just now.
                (IpAddr::V6(gateway), IpAddr::V6(asker), _, Some(ndp)) => {
                    unless_gone(ndp.solicit(*asker, *gateway, mac))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Listens until something is heard, or until the deadline. Both families have their turn.
    fn listen(&mut self, deadline: Instant) -> Result<()> {
        let waits_for = |is_v4| self.silent.iter().any(|wanted| wanted.gateway.is_ipv4() == is_v4);
        let (v4, v6) = (waits_for(true), waits_for(false));
        let until = if v4 && v6 { deadline.min(Instant::now() + TURN) } else { deadline };
        if let Some(arp) = self.arp.as_mut().filter(|_| v4)
            && let Some(heard) = arp.receive(until)?
        {
            self.note(IpAddr::V4(heard.arp.sender), Some(heard.arp.sender_mac));
        }
        if let Some(ndp) = self.ndp.as_mut().filter(|_| v6)
            && let Some(heard) = ndp.receive(until)?
        {
            self.note(IpAddr::V6(heard.target), heard.mac);
        }
        Ok(())
    }

    fn note(&mut self, address: IpAddr, mac: Option<Mac>) {
        self.silent.retain(|wanted| wanted.gateway != address);
        let is_new = self.heard.iter().all(|(its, _)| *its != address);
        let is_address = address != IpAddr::V4(Ipv4Addr::UNSPECIFIED) && address != IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        self.heard.extend(mac.filter(|_| is_new && is_address).map(|mac| (address, mac)));
    }

    fn error(&self, making: &Making<'_>) -> Error {
        let vlan = making.settings.vlan.map(|tag| format!(", VLAN {}", tag.id)).unwrap_or_default();
        let heard = match self.heard.as_slice() {
            [] => "no other machine was heard".to_owned(),
            heard => {
                let shown: Vec<_> =
                    heard.iter().take(SHOWN).map(|(address, mac)| format!("{address} ({mac})")).collect();
                let more = heard.len().saturating_sub(SHOWN);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("other machines were heard: {}{more}", shown.join(", "))
            }
        };
        Error::SilentGateway {
            gateways: names(&self.silent),
            ifname: making.task.attachment.ifname.to_owned(),
            within: WITHIN,
            place: format!("parent {}{vlan}", making.parent.name),
            heard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_has_answered_if_it_was_heard_at_all() {
        let wanted = |last| Wanted { gateway: IpAddr::from([10, 0, 0, last]), asker: IpAddr::from([10, 0, 0, 9]) };
        let silent = vec![wanted(1), wanted(2)];
        let mut search = Search { silent, arp: None, ndp: None, heard: Vec::new() };
        let mac = Mac::from([2, 0, 0, 0, 0, 1]);
        search.note(IpAddr::from([10, 0, 0, 1]), Some(mac));
        assert_eq!(search.silent, [wanted(2)]);
        search.note(IpAddr::from([0, 0, 0, 0]), Some(mac));
        search.note(IpAddr::from([10, 0, 0, 1]), Some(mac));
        assert_eq!(search.heard, [(IpAddr::from([10, 0, 0, 1]), mac)]);
    }
}
