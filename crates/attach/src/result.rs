//! Writes the result of an ADD, and finds the parts of a result that belong to an attachment.

use cni::{AddResult, Interface};
use ipnet::IpNet;

use crate::steps::Making;

/// Returns the result: one interface, the new link, with the leased addresses. In a chain too, the result does not have
/// the interfaces of earlier plugins: with two interfaces, the DEL of the reference plugins fails, so an operator could
/// not go back to them.
pub(crate) fn of(making: &mut Making<'_>) -> AddResult {
    let leased = making.leased.take().unwrap_or_default();
    let (attachment, link, dns) = (&making.task.attachment, making.link.as_ref(), making.settings.dns);
    let interface = Interface {
        name: attachment.ifname.to_owned(),
        mac: link.and_then(|link| link.mac).map(|mac| mac.to_string()),
        mtu: link.map(|link| link.mtu),
        sandbox: attachment.netns.map(|path| path.to_string_lossy().into_owned()),
        ..Interface::default()
    };
    let on_it = |ip| cni::Ip { interface: Some(0), ..ip };
    AddResult {
        interfaces: vec![interface],
        ips: leased.ips.into_iter().map(on_it).collect(),
        routes: leased.routes,
        dns: if dns.is_empty() { leased.dns } else { dns.clone() },
    }
}

/// Returns the addresses of this attachment. The result may have addresses of other plugins too.
pub(crate) fn own_addresses(result: &AddResult, ifname: &str) -> Vec<IpNet> {
    let is_ours = |index: usize| result.interfaces.get(index).is_none_or(|interface| interface.name == ifname);
    let own = result.ips.iter().filter(|ip| ip.interface.is_none_or(is_ours));
    own.map(|ip| ip.address).collect()
}

/// Returns the interface of this attachment. The result may have interfaces of other plugins too.
pub(crate) fn own_interface<'a>(result: &'a AddResult, ifname: &str) -> Option<&'a cni::Interface> {
    result.interfaces.iter().find(|interface| interface.name == ifname && interface.sandbox.is_some())
}
