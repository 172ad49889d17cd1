//! Reads the addresses of an attachment, and judges them.
//!
//! There are four sources, as in the reference: `ipam.addresses`, then `IP` of CNI_ARGS, which is added to them, then
//! `args.cni.ips`, which replaces them, then `runtimeConfig.ips`, which replaces all. `GATEWAY` of CNI_ARGS is for the
//! addresses of `IP`.

use std::net::IpAddr;

use cni::{Attachment, Call, Code, Error, Network, Object, Version};
use ipnet::IpNet;

/// An address for the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// The key or variable that names it.
    pub(crate) place: String,
    /// With its host bits.
    pub(crate) address: IpNet,
    pub(crate) gateway: Option<IpAddr>,
}

/// The texts of all sources that count.
pub(crate) struct Texts<'a> {
    addresses: Vec<Text<'a>>,
    /// From GATEWAY of CNI_ARGS: each is for the addresses of IP in whose network it is.
    gateways: Vec<&'a str>,
}

struct Text<'a> {
    place: String,
    code: Code,
    address: Option<&'a str>,
    gateway: Option<&'a str>,
}

/// Reads all sources. STATUS has no attachment.
pub(crate) fn read<'a>(call: &Call<'a>, attachment: Option<&'a Attachment>) -> Result<Texts<'a>, Error> {
    let keys = call.keys();
    let entry = |entry: &Object<'a>| {
        let place = entry.path("address");
        Ok(Text { place, code: CONFIG, address: entry.text("address")?, gateway: entry.text("gateway")? })
    };
    let configured = keys.object("ipam")?.objects("addresses")?.iter().map(entry).collect::<Result<Vec<_>, Error>>()?;
    let args = list(&keys.object("args")?.object("cni")?)?;
    let runtime = list(&keys.object("runtimeConfig")?)?;
    let (mut variable, mut gateways) = (Vec::new(), Vec::new());
    if let Some(attachment) = attachment {
        let words = |key| Ok::<_, Error>(attachment.args()?.get(key).filter(|text| !text.is_empty()));
        let texts = words("IP")?.into_iter().flat_map(|text| text.split(','));
        variable.extend(texts.map(|text| Text {
            place: VARIABLE.to_owned(),
            code: Code::INVALID_ENVIRONMENT,
            address: Some(text.trim()),
            gateway: None,
        }));
        gateways.extend(words("GATEWAY")?.into_iter().flat_map(|text| text.split(',').map(str::trim)));
    }
    // The last source that is not empty counts.
    Ok(match (runtime.is_empty(), args.is_empty()) {
        (false, _) => Texts { addresses: runtime, gateways: Vec::new() },
        (true, false) => Texts { addresses: args, gateways: Vec::new() },
        (true, true) => Texts { addresses: configured.into_iter().chain(variable).collect(), gateways },
    })
}

const VARIABLE: &str = "CNI_ARGS IP";

const CONFIG: Code = Code::INVALID_NETWORK_CONFIG;

fn list<'a>(keys: &Object<'a>) -> Result<Vec<Text<'a>>, Error> {
    let item = |item: &cni::object::Item<'a>| {
        Ok(Text { place: item.path().to_owned(), code: CONFIG, address: Some(item.text()?), gateway: None })
    };
    keys.items("ips")?.iter().map(item).collect()
}

impl Texts<'_> {
    /// Parses the addresses, and refuses those that cannot work.
    pub(crate) fn judge(self, version: Version) -> Result<Vec<Given>, Error> {
        let mut all: Vec<Given> = Vec::new();
        for text in &self.addresses {
            let given = text.parse()?;
            let refuse = |cause: String| Err(refused(text.code, &given.place, &given.address, &cause));
            if let Some(other) = all.iter().find(|other| other.address.addr() == given.address.addr()) {
                return refuse(format!("{} names this address too", other.place));
            }
            let has_family = |other: &&Given| other.address.addr().is_ipv4() == given.address.addr().is_ipv4();
            if let Some(other) = all.iter().find(has_family).filter(|_| version < Version::V0_3_0) {
                let cause = format!(
                    "is the second address of this family (after {}), and a result of cniVersion {} has one of each \
                     family; use cniVersion 0.3.0 or later",
                    other.place,
                    version.as_str()
                );
                return refuse(cause);
            }
            all.push(given);
        }
        for text in &self.gateways {
            let refuse = |cause: &str| refused(Code::INVALID_ENVIRONMENT, "CNI_ARGS GATEWAY", text, cause);
            let gateway: IpAddr = text.parse().map_err(|_| refuse("is not an IP address"))?;
            let mut has_address = false;
            let is_its = |given: &&mut Given| given.place == VARIABLE && given.address.contains(&gateway);
            for given in all.iter_mut().filter(is_its) {
                given.gateway = Some(gateway);
                has_address = true;
            }
            if !has_address {
                return Err(refuse("is in the network of no address of IP"));
            }
        }
        Ok(all)
    }
}

impl Text<'_> {
    fn parse(&self) -> Result<Given, Error> {
        let Some(text) = self.address else {
            return Err(Error::new(self.code, format!("{}: is missing", self.place)));
        };
        let refuse = |cause: &str| refused(self.code, &self.place, &format_args!("\"{text}\""), cause);
        let Ok(Network(address)) = text.parse() else {
            return Err(match text.parse::<IpAddr>() {
                Ok(_) => refuse("has no prefix length; write it behind the address, as in 10.0.0.5/24"),
                Err(_) => refuse("is not an address with a prefix length, such as 10.0.0.5/24"),
            });
        };
        if let Some(cause) = why_unusable(address) {
            return Err(refuse(cause));
        }
        let gateway = self.gateway.map(|gateway| self.parse_gateway(gateway, address)).transpose()?;
        Ok(Given { place: self.place.clone(), address, gateway })
    }

    fn parse_gateway(&self, text: &str, address: IpNet) -> Result<IpAddr, Error> {
        let place = format!("{}.gateway", self.place.trim_end_matches(".address"));
        let refuse = |cause: &str| refused(self.code, &place, &format_args!("\"{text}\""), cause);
        let gateway: IpAddr = text.parse().map_err(|_| refuse("is not an IP address"))?;
        if gateway == address.addr() {
            return Err(refuse("is the address of the container itself"));
        }
        let is_same_family = gateway.is_ipv4() == address.addr().is_ipv4();
        // Routers of IPv6 often have a link-local address. A network of one address has no room for a gateway.
        let may_be_outside = is_link_local(gateway) || address.prefix_len() == address.max_prefix_len();
        if !is_same_family || !(may_be_outside || address.contains(&gateway)) {
            return Err(refuse(&format!("is not in the network {}", address.trunc())));
        }
        Ok(gateway)
    }
}

/// The reason why no container can use the address.
fn why_unusable(address: IpNet) -> Option<&'static str> {
    let ip = address.addr();
    let has_edges = ip.is_ipv4() && address.prefix_len() < 31;
    match ip {
        _ if ip.to_canonical() != ip => Some("is an IPv4 address in the form of IPv6; write it in the form of IPv4"),
        _ if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() => Some("is not the address of a container"),
        _ if address.prefix_len() == 0 => Some("has the prefix length 0, which puts all addresses on the link"),
        _ if has_edges && ip == address.network() => Some("is the network itself, and not an address in it"),
        _ if has_edges && ip == address.broadcast() => Some("is the broadcast address of its network"),
        _ => None,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn refused(code: Code, place: &str, value: &dyn std::fmt::Display, cause: &str) -> Error {
    Error::new(code, format!("{place} {value}: {cause}"))
}
