//! What there shall be: a pure function of configuration, link and IPAM result. No kernel, no root.

use std::net::{IpAddr, Ipv6Addr};

use cni::{AddResult, Attachment, Dns, Interface};
use ipnet::IpNet;
use linux::{Link, Route};

use crate::error::{Error, Result};

/// `RT_SCOPE_UNIVERSE` and `RT_SCOPE_LINK`. (include/uapi/linux/rtnetlink.h)
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;

/// Everything that is set inside the container, in the order in which it is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Keys below /proc/sys and their values, while the link is down.
    pub sysctls: Vec<(String, &'static str)>,
    /// Addresses, before the link is up.
    pub addresses: Vec<IpNet>,
    /// Routes, after it is.
    pub routes: Vec<Route>,
}

impl Plan {
    /// Plans the attachment. Layer 2 only, with nothing leased, changes nothing but the link.
    pub fn new(ifname: &str, mtu: u32, leased: &AddResult) -> Result<Self> {
        let addresses: Vec<IpNet> = leased.ips.iter().map(|ip| ip.address).collect();
        let v6 = addresses.iter().any(|address| !is_v4(address));
        let mut sysctls = Vec::new();
        if !addresses.is_empty() {
            // One gratuitous ARP per address when the link comes up: the LAN learns of a moved address at once, also of
            // one that is added later.
            sysctls.push((format!("net/ipv4/conf/{ifname}/arp_notify"), "1"));
        }
        if v6 && mtu < 1280 {
            let cause = "IPv6 needs 1280 at the least (RFC 8200, section 5)".to_owned();
            return Err(Error::Config { key: "mtu", value: mtu.to_string(), cause });
        }
        if v6 {
            // Some runtimes switch IPv6 off in new namespaces; an address asked for is wanted. So is ::1 then: the
            // reference gives both, and there are programs that talk to themselves over it.
            sysctls.push(("net/ipv6/conf/lo/disable_ipv6".to_owned(), "0"));
            sysctls.push((format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0"));
            sysctls.push((format!("net/ipv6/conf/{ifname}/ndisc_notify"), "1"));
            // A link that is set down keeps its IPv6 addresses, as it keeps those of IPv4.
            sysctls.push((format!("net/ipv6/conf/{ifname}/keep_addr_on_down"), "1"));
        }
        let routes = leased.routes.iter().map(|route| kernel_route(route, leased)).collect::<Result<_>>()?;
        Ok(Self { sysctls, addresses, routes })
    }

    /// The IPv6 addresses: usable only when duplicate address detection is over.
    pub fn ipv6(&self) -> Vec<Ipv6Addr> {
        let v6 = |address: &IpNet| match address.addr() {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        };
        self.addresses.iter().filter_map(v6).collect()
    }
}

fn is_v4(address: &IpNet) -> bool {
    address.addr().is_ipv4()
}

/// A result's route as the kernel wants it, without the interface.
///
/// Without a next hop of its own it goes by the gateway of the addresses of its family, and on the link itself where
/// there is none, or where its scope says so: `scope` 253 (link) and above have no gateway by definition.
pub fn kernel_route(route: &cni::Route, result: &AddResult) -> Result<Route> {
    let value = || route.dst.to_string();
    if is_v4(&route.dst) && route.dst.addr() != route.dst.network() {
        // The kernel takes them for IPv6, and leaves them out.
        let cause = format!("the destination has host bits set; the network is {}", route.dst.trunc());
        return Err(Error::Config { key: "routes", value: value(), cause });
    }
    let on_link = route.scope.is_some_and(|scope| scope >= SCOPE_LINK);
    let default = || {
        let gateways = result.ips.iter().filter_map(|ip| ip.gateway);
        gateways.into_iter().find(|gateway| gateway.is_ipv4() == is_v4(&route.dst)).filter(|_| !on_link)
    };
    let gateway = route.gw.or_else(default);
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != is_v4(&route.dst)) {
        let cause =
            format!("its next hop {} is of the other family", gateway.map(|ip| ip.to_string()).unwrap_or_default());
        return Err(Error::Config { key: "routes", value: value(), cause });
    }
    // A next hop is looked up among routes of a narrower scope, so one that has none must say "link" to be found.
    let scope = if gateway.is_none() && is_v4(&route.dst) { SCOPE_LINK } else { SCOPE_UNIVERSE };
    Ok(Route {
        gateway,
        priority: route.priority,
        table: route.table,
        scope: Some(route.scope.unwrap_or(scope)),
        mtu: route.mtu,
        advmss: route.advmss,
        ..Route::to(route.dst.trunc())
    })
}

/// The result: what was leased, on the link that was made, which is the one interface, in a chain too: with the plugin
/// before's beside it, the reference's DEL no longer knows whose link it is, and fails on every container when an
/// operator goes back to it.
pub fn result(attachment: &Attachment, link: &Link, leased: AddResult, dns: &Dns) -> AddResult {
    let interface = Interface {
        name: attachment.ifname.clone(),
        mac: link.mac.map(|mac| mac.to_string()),
        mtu: Some(link.mtu),
        sandbox: attachment.netns.as_ref().map(|path| path.to_string_lossy().into_owned()),
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

#[cfg(test)]
mod tests {
    use cni::Ip;

    use super::*;

    fn leased() -> AddResult {
        let ip = |address: &str, gateway: Option<&str>| Ip {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
        };
        AddResult { ips: vec![ip("10.0.0.5/24", Some("10.0.0.1")), ip("fd00::5/64", None)], ..AddResult::default() }
    }

    fn route(dst: &str, gw: Option<&str>) -> cni::Route {
        cni::Route::new(dst.parse().unwrap(), gw.map(|text| text.parse().unwrap()))
    }

    #[test]
    fn layer_2_only_sets_nothing() {
        assert_eq!(Plan::new("eth0", 1500, &AddResult::default()).unwrap(), Plan::default());
    }

    #[test]
    fn sysctls_follow_the_families() {
        let keys = |result: &AddResult| -> Vec<String> {
            Plan::new("eth0.5", 1500, result)
                .unwrap()
                .sysctls
                .into_iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect()
        };
        let mut result = leased();
        assert_eq!(
            keys(&result),
            [
                "net/ipv4/conf/eth0.5/arp_notify=1",
                "net/ipv6/conf/lo/disable_ipv6=0",
                "net/ipv6/conf/eth0.5/disable_ipv6=0",
                "net/ipv6/conf/eth0.5/ndisc_notify=1",
                "net/ipv6/conf/eth0.5/keep_addr_on_down=1"
            ]
        );
        result.ips.swap_remove(0);
        assert_eq!(keys(&result).len(), 5, "an IPv4 address may be added to it later");
        result.ips = leased().ips[..1].to_vec();
        assert_eq!(keys(&result), ["net/ipv4/conf/eth0.5/arp_notify=1"]);
    }

    #[test]
    fn route_without_a_next_hop_takes_the_gateway_of_its_family() {
        let plan = |route: cni::Route| kernel_route(&route, &leased()).map(|route| (route.gateway, route.scope));
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(plan(route("0.0.0.0/0", None)).unwrap(), (ip("10.0.0.1"), Some(0)));
        assert_eq!(plan(route("0.0.0.0/0", Some("10.0.0.9"))).unwrap(), (ip("10.0.0.9"), Some(0)));
        assert_eq!(plan(route("::/0", None)).unwrap(), (None, Some(0)));
        let on_link = cni::Route { scope: Some(253), ..route("10.1.0.0/16", None) };
        assert_eq!(plan(on_link).unwrap(), (None, Some(253)));
    }

    #[test]
    fn route_on_the_link_itself_can_lead_to_a_next_hop() {
        let mut result = leased();
        result.ips[0].gateway = None;
        let planned = kernel_route(&route("169.254.1.1/32", None), &result).unwrap();
        assert_eq!((planned.gateway, planned.scope), (None, Some(253)));
    }

    #[test]
    fn attributes_arrive() {
        let wanted = cni::Route {
            mtu: Some(1400),
            advmss: Some(1360),
            priority: Some(7),
            table: Some(100),
            ..route("10.1.0.0/16", None)
        };
        let planned = kernel_route(&wanted, &leased()).unwrap();
        assert_eq!(
            (planned.mtu, planned.advmss, planned.priority, planned.table),
            (Some(1400), Some(1360), Some(7), Some(100))
        );
    }

    #[test]
    fn routes_that_no_kernel_takes_are_refused_before_anything_is_touched() {
        let refused = |route: cni::Route| kernel_route(&route, &leased()).unwrap_err().to_string();
        assert_eq!(
            refused(route("10.1.2.3/16", None)),
            "routes 10.1.2.3/16: the destination has host bits set; the network is 10.1.0.0/16"
        );
        assert_eq!(
            kernel_route(&route("fd01::1/64", None), &leased()).unwrap().dst,
            "fd01::/64".parse().unwrap(),
            "the kernel takes these"
        );
        assert_eq!(
            refused(route("10.1.0.0/16", Some("fd00::1"))),
            "routes 10.1.0.0/16: its next hop fd00::1 is of the other family"
        );
    }
}
