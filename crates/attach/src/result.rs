//! The result of an ADD, and the parts of one that are an attachment's own.

use cni::{AddResult, Interface};
use ipnet::IpNet;

use crate::steps::Making;

/// The result: what was leased, on the link that was made, which is the one interface, in a chain too: with the plugin
/// before's beside it, the reference's DEL no longer knows whose link it is, and fails on every container when an
/// operator goes back to it.
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

/// The addresses of this attachment in a result that other plugins may have added theirs to.
pub(crate) fn own_addresses(result: &AddResult, ifname: &str) -> Vec<IpNet> {
    let is_ours = |index: usize| result.interfaces.get(index).is_none_or(|interface| interface.name == ifname);
    let own = result.ips.iter().filter(|ip| ip.interface.is_none_or(is_ours));
    own.map(|ip| ip.address).collect()
}

/// The interface of this attachment in a result that other plugins may have added theirs to.
pub(crate) fn own_interface<'a>(result: &'a AddResult, ifname: &str) -> Option<&'a cni::Interface> {
    result.interfaces.iter().find(|interface| interface.name == ifname && interface.sandbox.is_some())
}
