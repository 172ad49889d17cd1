//! Requested addresses: where they are read from, and which set serves each.

use std::fmt;
use std::net::IpAddr;

use cni::Network;

use crate::error::Error;
use crate::range::Set;

/// A requested address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// The address.
    pub ip: IpAddr,
    /// The key or variable that asks for it.
    source: String,
}

impl fmt::Display for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.source, self.ip)
    }
}

/// Reads the three sources: `IP` of CNI_ARGS, `args.cni.ips` and `runtimeConfig.ips`. Duplicates are removed.
///
/// Reads at most one address more than `most`, the number of sets: the list can be long, and it is an error then
/// anyway.
pub(crate) fn read(
    variable: Option<&str>,
    args: &[String],
    runtime: &[String],
    most: usize,
) -> Result<Vec<Requested>, Error> {
    let numbered = |name: &'static str, ips| {
        let ips: &[String] = ips;
        ips.iter().enumerate().map(move |(at, text)| (format!("{name}[{at}]"), text.as_str()))
    };
    let mut requests: Vec<Requested> = Vec::new();
    let mut push = |source: String, text: &str, in_configuration: bool| {
        if requests.len() > most {
            return Ok(());
        }
        let Some(ip) = parse(text) else {
            let (place, cause) = (format!("{source} \"{text}\""), "is not an IP address".to_owned());
            return Err(match in_configuration {
                true => Error::Config { place, cause },
                false => Error::Variable { place, cause },
            });
        };
        if requests.iter().all(|request| request.ip != ip) {
            requests.push(Requested { ip, source });
        }
        Ok(())
    };
    // As in the reference, `IP=` asks for nothing, and an empty text in a list is an error.
    if let Some(text) = variable.filter(|text| !text.is_empty()) {
        push("CNI_ARGS IP".into(), text, false)?;
    }
    for (source, text) in numbered("args.cni.ips", args).chain(numbered("runtimeConfig.ips", runtime)) {
        push(source, text, true)?;
    }
    Ok(requests)
}

/// Parses an address. A prefix length behind it is ignored.
fn parse(text: &str) -> Option<IpAddr> {
    let ip = text.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<Network>().ok()?.0.addr()));
    ip.map(|ip| ip.to_canonical())
}

/// Assigns each request to the set that contains it. Returns one entry for each set.
pub(crate) fn assign(requests: Vec<Requested>, sets: &[Set]) -> Result<Vec<Option<Requested>>, Error> {
    let mut assigned: Vec<Option<Requested>> = sets.iter().map(|_| None).collect();
    for request in requests {
        let Some(at) = sets.iter().position(|set| set.admits(request.ip)) else {
            return Err(Error::Config { place: request.to_string(), cause: why_not(request.ip, sets) });
        };
        if let Some(other) = &assigned[at] {
            let cause = format!("{other} is in {} too, and each set gives only one address", sets[at].key);
            return Err(Error::Config { place: request.to_string(), cause });
        }
        assigned[at] = Some(request);
    }
    Ok(assigned)
}

/// The reason why the address cannot be leased.
fn why_not(ip: IpAddr, sets: &[Set]) -> String {
    let in_range = |set: &&Set| set.range_of(ip).is_some();
    let mut excluded = sets.iter().filter(in_range).flat_map(|set| &set.excluded);
    if let Some(excluded) = excluded.find(|excluded| excluded.net.contains(&ip)) {
        return format!("is excluded by {} {}", excluded.key, excluded.net);
    }
    let ranges = || sets.iter().flat_map(|set| &set.ranges);
    if let Some(range) = ranges().find(|range| range.gateway == ip) {
        return format!("is the gateway of {}", range.subnet);
    }
    if let Some(range) = ranges().find(|range| range.subnet.network() == ip) {
        return format!("is the network address of {}", range.subnet);
    }
    if let Some(range) = ranges().find(|range| ip.is_ipv4() && range.subnet.broadcast() == ip) {
        return format!("is the broadcast address of {}", range.subnet);
    }
    let sets: Vec<_> = sets.iter().map(Set::to_string).collect();
    format!("is in no range: {}", sets.join(", "))
}
