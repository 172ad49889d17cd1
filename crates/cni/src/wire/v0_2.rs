//! 0.1.0 and 0.2.0: one address per family, each with its routes; no interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::error::Error;
use crate::object::Object;
use crate::result::{AddResult, Dns, Ip, Route};
use crate::version::Version;

#[derive(Serialize)]
pub(super) struct Shape {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<Family>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<Family>,
    dns: Dns,
}

#[derive(Serialize)]
struct Family {
    ip: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

impl Shape {
    pub(super) fn new(result: &AddResult, version: Version) -> Self {
        let family = |v4: bool| {
            let ip = result.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4)?;
            let routes = result.routes.iter().filter(|route| route.dst.addr().is_ipv4() == v4);
            Some(Family { ip: ip.address, gateway: ip.gateway, routes: routes.cloned().collect() })
        };
        Self { cni_version: version.as_str(), ip4: family(true), ip6: family(false), dns: result.dns.clone() }
    }
}

pub(super) fn read(keys: &Object<'_>) -> Result<AddResult, Error> {
    let mut result = AddResult { dns: Dns::read(keys, "dns")?, ..AddResult::default() };
    for key in ["ip4", "ip6"] {
        let family = keys.object(key)?;
        if !family.is_set() {
            continue;
        }
        let (address, gateway) = (super::address(&family, "ip")?, family.parsed("gateway", "an IP address")?);
        result.ips.push(Ip { interface: None, address, gateway });
        result.routes.append(&mut Route::read_list(&family, "routes")?);
    }
    Ok(result)
}
