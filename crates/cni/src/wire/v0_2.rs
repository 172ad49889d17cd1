//! 0.1.0 and 0.2.0: one address per family, each with its routes; no interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::result::{AddResult, Dns, Ip, Route};
use crate::version::Version;

#[derive(Serialize, Deserialize)]
pub(super) struct Shape {
    #[serde(rename = "cniVersion", default)]
    cni_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip4: Option<Family>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip6: Option<Family>,
    #[serde(default, deserialize_with = "super::nullable")]
    dns: Dns,
}

#[derive(Serialize, Deserialize)]
struct Family {
    #[serde(deserialize_with = "super::interface_address")]
    ip: IpNet,
    #[serde(default, deserialize_with = "super::optional_ip", skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, deserialize_with = "super::nullable", skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

impl Shape {
    pub(super) fn new(result: &AddResult, version: Version) -> Self {
        let family = |v4: bool| {
            let ip = result.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4)?;
            let routes = result.routes.iter().filter(|route| route.dst.addr().is_ipv4() == v4);
            Some(Family { ip: ip.address, gateway: ip.gateway, routes: routes.cloned().collect() })
        };
        Self { cni_version: version.to_string(), ip4: family(true), ip6: family(false), dns: result.dns.clone() }
    }

    pub(super) fn into_result(self) -> AddResult {
        let mut result = AddResult { dns: self.dns, ..AddResult::default() };
        for family in [self.ip4, self.ip6].into_iter().flatten() {
            result.ips.push(Ip { interface: None, address: family.ip, gateway: family.gateway });
            result.routes.extend(family.routes);
        }
        result
    }
}
