//! Reads the ranges, excludes, routes and requested addresses of an IPAM configuration, and turns them into sets in which
//! nothing is optional.

use std::net::IpAddr;
use std::path::PathBuf;

use cni::object::Item;
use cni::{Attachment, Call, Network, Object, Route, Version};
use ipnet::IpNet;

use crate::error::Error;
use crate::range::{Excluded, Range, Set, edges};
use crate::request::{self, Requested};

/// The addresses that one call may lease.
#[derive(Debug)]
pub struct Ranges {
    /// At least one. The index is the number of the set.
    pub sets: Vec<Set>,
    /// The requested address of each set. Empty without an attachment.
    pub requests: Vec<Option<Requested>>,
    /// `ipam.routes`.
    pub routes: Vec<Route>,
    /// `ipam.resolvConf`.
    pub resolv_conf: Option<PathBuf>,
    /// Remarks for the operator.
    pub warnings: Vec<String>,
}

impl Ranges {
    /// Reads everything, and refuses a configuration that cannot be served. `own` reads the keys of `ipam` that only this
    /// plugin has. It runs before the remarks on unknown keys. STATUS has no attachment, and asks for no address.
    ///
    /// # Errors
    ///
    /// The first wrong key, with its value, and the errors of `own`.
    pub fn read<T>(
        call: &Call<'_>,
        attachment: Option<&Attachment>,
        own: impl FnOnce(&Object<'_>) -> Result<T, cni::Error>,
    ) -> Result<(Self, T), cni::Error> {
        let (ipam, runtime) = (call.keys().object("ipam")?, call.keys().object("runtimeConfig")?);
        let mut warnings = Vec::new();
        let typed = typed_sets(&ipam, &runtime, &mut warnings)?;
        let excluded = ipam.texts("exclude")?;
        let routes = Route::read_list(&ipam, "routes")?;
        let resolv_conf = ipam.text("resolvConf")?.map(PathBuf::from);
        let own = own(&ipam)?;
        // Before anything is refused: a misspelt key can be the reason.
        call.remark_on_unread(&ipam, &[]);

        let mut sets = Vec::new();
        for (key, ranges) in typed {
            sets.push(resolve_set(key, &ranges, &mut warnings)?);
        }
        judge_sets(&sets, call.conf.version)?;
        let gateways: Vec<IpAddr> = sets.iter().flat_map(|set| &set.ranges).map(|range| range.gateway).collect();
        let excluded = read_excluded("ipam.exclude", &excluded)?;
        for set in &mut sets {
            gateways.iter().for_each(|gateway| set.leave_out(None, *gateway, *gateway));
            excluded.iter().for_each(|one| exclude(set, None, one));
        }
        Route::judge_list(&routes, &ipam, "routes")?;
        let requests = match attachment {
            Some(attachment) => {
                let args = call.keys().object("args")?.object("cni")?.texts("ips")?;
                request::read(attachment.args()?.get("IP"), &args, &runtime.texts("ips")?, sets.len())?
            }
            None => Vec::new(),
        };
        let requests = request::assign(requests, &sets)?;
        Ok((Self { sets, requests, routes, resolv_conf, warnings }, own))
    }
}

/// Returns the sets in the order of their numbers: `runtimeConfig.ipRanges`, the single subnet, `ranges`.
fn typed_sets<'a>(
    ipam: &Object<'a>,
    runtime: &Object<'a>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Vec<Typed<'a>>)>, cni::Error> {
    let mut sets = listed_sets(runtime, "ipRanges")?;
    // `ipam.exclude` applies to all ranges.
    let single = Typed { exclude: Vec::new(), ..Typed::read("ipam".into(), ipam)? };
    if single.subnet.is_some() {
        sets.push(("ipam.subnet".into(), vec![single]));
    } else if single.start.is_some() || single.end.is_some() || single.gateway.is_some() {
        warnings.push("ipam.rangeStart, rangeEnd and gateway have no effect without ipam.subnet".into());
    }
    sets.append(&mut listed_sets(ipam, "ranges")?);
    Ok(sets)
}

fn listed_sets<'a>(keys: &Object<'a>, key: &'static str) -> Result<Vec<(String, Vec<Typed<'a>>)>, cni::Error> {
    let range = |item: &Item<'a>| Typed::read(item.path().to_owned(), &item.object()?);
    let set =
        |item: &Item<'a>| Ok((item.path().to_owned(), item.items()?.iter().map(range).collect::<Result<_, _>>()?));
    keys.items(key)?.iter().map(set).collect()
}

/// The keys of one range.
struct Typed<'a> {
    key: String,
    subnet: Option<&'a str>,
    start: Option<&'a str>,
    end: Option<&'a str>,
    gateway: Option<&'a str>,
    exclude: Vec<String>,
}

impl<'a> Typed<'a> {
    fn read(key: String, keys: &Object<'a>) -> Result<Self, cni::Error> {
        Ok(Self {
            key,
            subnet: keys.text("subnet")?,
            start: keys.text("rangeStart")?,
            end: keys.text("rangeEnd")?,
            gateway: keys.text("gateway")?,
            exclude: keys.texts("exclude")?,
        })
    }
}

fn refuse(key: &str, field: &str, value: impl std::fmt::Display, cause: impl Into<String>) -> Error {
    Error::Config { place: format!("{key}.{field} {value}"), cause: cause.into() }
}

/// Returns the cause of the refusal if the address has host bits.
fn host_bits(net: IpNet) -> Option<String> {
    (net.addr() != net.network()).then(|| format!("has host bits set; the network is {}", net.trunc()))
}

fn resolve_set(key: String, typed: &[Typed<'_>], warnings: &mut Vec<String>) -> Result<Set, Error> {
    let mut ranges: Vec<Range> = Vec::new();
    for range in typed {
        let key = &range.key;
        let range = resolve_range(range, warnings)?;
        if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
            let cause = format!("its addresses {range} overlap {other} of the same set");
            return Err(refuse(key, "subnet", range.subnet, cause));
        }
        if ranges.first().is_some_and(|first| first.first.is_ipv4() != range.first.is_ipv4()) {
            let cause = "IPv4 and IPv6 are in one set; write each family in its own inner list";
            return Err(refuse(key, "subnet", range.subnet, cause));
        }
        ranges.push(range);
    }
    match ranges.is_empty() {
        true => Err(Error::Config { place: key, cause: "is empty; write at least one range into it".into() }),
        false => {
            let mut set = Set::new(key, ranges);
            for (range, Typed { key, exclude: excluded, .. }) in typed.iter().enumerate() {
                let subnet = set.ranges[range].subnet;
                for one in read_excluded(&format!("{key}.exclude"), excluded)? {
                    if !subnet.contains(&one.net) {
                        warnings.push(format!("{} {}: is not in the subnet {subnet}", one.key, one.net));
                    }
                    exclude(&mut set, Some(range), &one);
                }
            }
            Ok(set)
        }
    }
}

/// Reads a list of addresses and networks that are never leased.
fn read_excluded(key: &str, typed: &[String]) -> Result<Vec<Excluded>, Error> {
    let read = |(at, text): (usize, &String)| {
        let key = format!("{key}[{at}]");
        let refuse = |cause: String| Error::Config { place: format!("{key} {text:?}"), cause };
        let net = match (text.parse::<IpAddr>(), text.parse::<Network>()) {
            (Ok(ip), _) => IpNet::from(ip.to_canonical()),
            (_, Ok(Network(net))) => net,
            _ => return Err(refuse("is neither an IP address nor a network such as 10.0.0.64/28".into())),
        };
        match host_bits(net) {
            None => Ok(Excluded { key, net }),
            // One address, or all of the network: the operator has to say which.
            Some(cause) => Err(refuse(format!("{cause}, the address {}", net.addr()))),
        }
    };
    typed.iter().enumerate().map(read).collect()
}

fn exclude(set: &mut Set, range: Option<usize>, one: &Excluded) {
    set.leave_out(range, one.net.network(), one.net.broadcast());
    set.excluded.push(one.clone());
}

fn resolve_range(typed: &Typed<'_>, warnings: &mut Vec<String>) -> Result<Range, Error> {
    let key = typed.key.as_str();
    let Some(text) = typed.subnet else {
        return Err(Error::Config { place: format!("{key}.subnet"), cause: "is missing".into() });
    };
    let refuse = |field: &str, value: &dyn std::fmt::Display, cause: String| refuse(key, field, value, cause);
    let refuse_subnet = |cause: String| refuse("subnet", &format_args!("{text:?}"), cause);
    let subnet: IpNet = match text.parse() {
        Ok(Network(subnet)) => subnet,
        Err(_) => return Err(refuse_subnet("is not a network such as 10.0.0.0/24".into())),
    };
    if subnet.addr().to_canonical() != subnet.addr() {
        return Err(refuse_subnet("is an IPv4 network in the form of IPv6; write it in the form of IPv4".into()));
    }
    if let Some(cause) = host_bits(subnet) {
        return Err(refuse_subnet(cause));
    }
    let Some((lowest, highest)) = edges(subnet) else {
        return Err(refuse_subnet("is too small for a gateway and a container".into()));
    };

    let address = |field: &str, text: Option<&str>| match text.map(str::parse::<IpAddr>) {
        None => Ok(None),
        Some(Ok(ip)) => Ok(Some(ip.to_canonical())),
        Some(Err(_)) => {
            Err(refuse(field, &format_args!("{:?}", text.unwrap_or_default()), "is not an IP address".into()))
        }
    };
    let start = address("rangeStart", typed.start)?;
    let end = address("rangeEnd", typed.end)?;
    for (field, ip) in [("rangeStart", start), ("rangeEnd", end)] {
        let Some(ip) = ip else { continue };
        if !subnet.contains(&ip) {
            return Err(refuse(field, &ip, format!("is not in the subnet {subnet}")));
        }
        if ip < lowest || highest < ip {
            let what = if ip < lowest { "network" } else { "broadcast" };
            warnings.push(format!("{key}.{field} {ip}: is the {what} address of {subnet}, which is never leased"));
        }
    }
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        return Err(refuse("rangeStart", &start, format!("is after rangeEnd {end}")));
    }
    let (first, last) = (start.unwrap_or(lowest).max(lowest), end.unwrap_or(highest).min(highest));
    if last < first {
        let (start, end) = (start.unwrap_or(lowest), end.unwrap_or(highest));
        let cause = format!("no address between rangeStart {start} and rangeEnd {end} can be leased");
        return Err(refuse("subnet", &subnet, cause));
    }

    let gateway = address("gateway", typed.gateway)?;
    if let Some(gateway) = gateway.filter(|gateway| !subnet.contains(gateway)) {
        warnings.push(format!("{key}.gateway {gateway}: is not in the subnet {subnet}"));
    }
    let typed = (start.unwrap_or(lowest), end.unwrap_or(highest));
    Ok(Range { subnet, first, last, typed, gateway: gateway.unwrap_or(lowest) })
}

/// Checks the sets against each other.
fn judge_sets(sets: &[Set], version: Version) -> Result<(), Error> {
    if sets.is_empty() {
        let cause = "is not set: there is no address to lease; set ipam.ranges, ipam.subnet or runtimeConfig.ipRanges";
        return Err(Error::Config { place: "ipam.ranges".into(), cause: cause.into() });
    }
    for (at, set) in sets.iter().enumerate() {
        for other in &sets[..at] {
            let pair = |range| Some((range, other.ranges.iter().find(|other| other.overlaps(range))?));
            if let Some((range, clash)) = set.ranges.iter().find_map(pair) {
                let cause = format!("its addresses {range} overlap {clash} of {}", other.key);
                return Err(Error::Config { place: set.key.clone(), cause });
            }
            let family = |set: &Set| set.ranges.first().map(|range| range.first.is_ipv4());
            if version < Version::V0_3_0 && family(set) == family(other) {
                let cause = format!(
                    "is the second set of this address family (after {}), and a result of cniVersion {version} has one address of each family; use cniVersion 0.3.0 or later",
                    other.key
                );
                return Err(Error::Config { place: set.key.clone(), cause });
            }
        }
    }
    Ok(())
}
