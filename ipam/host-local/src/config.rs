//! Reads the keys of host-local, and turns them into sets of ranges in which nothing is optional. DEL and GC read
//! only [`data_dir`], so that a wrong edit of the configuration cannot prevent a DEL.

use std::path::PathBuf;

use cni::{Attachment, Call, Conflict, Object, Route};
use ranges::{Ranges, Requested, Set};

use crate::error::Error;
use crate::kept::Kept;

const DATA_DIR: &str = "/var/lib/cni/networks";

/// The default of `conflictDelay`, in seconds.
const CONFLICT_DELAY: u32 = 600;

/// The configuration of one call.
#[derive(Debug)]
pub(crate) struct Config {
    /// At least one. The index is the number of the set.
    pub(crate) sets: Vec<Set>,
    /// The requested address of each set.
    pub(crate) requests: Vec<Option<Requested>>,
    pub(crate) routes: Vec<Route>,
    /// The seconds for which a released address is not leased again, if others are free.
    pub(crate) reuse_delay: u64,
    /// The seconds for which an address that another machine has is not leased.
    pub(crate) conflict_delay: u32,
    pub(crate) resolv_conf: Option<PathBuf>,
    /// If true, STATUS fails when a range is full.
    pub(crate) full_is_unavailable: bool,
    /// Remarks for the operator.
    pub(crate) warnings: Vec<String>,
}

/// Reads the directory of the leases, and nothing else.
pub(crate) fn data_dir(call: &Call<'_>) -> Result<PathBuf, cni::Error> {
    Ok(call.keys().object("ipam")?.text("dataDir")?.unwrap_or(DATA_DIR).into())
}

/// Reads the addresses of a DEL that other machines on the LAN have, each with the seconds for which it must be kept.
/// A wrong value is a remark: it must not prevent the release of a lease.
pub(crate) fn conflicts(call: &Call<'_>) -> Vec<Kept> {
    let conflicts = Conflict::read(call.keys()).unwrap_or_else(|error| {
        call.warn(format_args!("ignored: {error}"));
        Vec::new()
    });
    if conflicts.is_empty() {
        return Vec::new();
    }
    let seconds = call.keys().object("ipam").and_then(|ipam| conflict_delay(&ipam)).unwrap_or_else(|error| {
        call.warn(format_args!("ignored: {error}; the default of {CONFLICT_DELAY} s is used"));
        CONFLICT_DELAY
    });
    let kept = |conflict: Conflict| Kept {
        ip: conflict.address,
        mac: conflict.mac.and_then(|mac| mac.parse().ok()),
        seconds: seconds.into(),
    };
    conflicts.into_iter().filter(|_| seconds > 0).map(kept).collect()
}

fn conflict_delay(ipam: &Object<'_>) -> Result<u32, cni::Error> {
    Ok(ipam.number("conflictDelay")?.unwrap_or(CONFLICT_DELAY))
}

impl Config {
    /// Reads everything, and refuses a configuration that cannot be served. STATUS has no attachment, and asks for no address.
    pub(crate) fn read(call: &Call<'_>, attachment: Option<&Attachment>) -> Result<Self, cni::Error> {
        let own = |ipam: &Object<'_>| {
            let reuse_delay = ipam.number("reuseDelay")?.unwrap_or_default().into();
            Ok((reuse_delay, conflict_delay(ipam)?, full_is_unavailable(ipam)?))
        };
        let (ranges, (reuse_delay, conflict_delay, full_is_unavailable)) = Ranges::read(call, attachment, own)?;
        let Ranges { sets, requests, routes, resolv_conf, warnings } = ranges;
        Ok(Self { sets, requests, routes, reuse_delay, conflict_delay, resolv_conf, full_is_unavailable, warnings })
    }
}

/// Returns true if STATUS must fail when a range is full. The default is false: code 50 makes a node of Kubernetes
/// NotReady, and its pods are evicted although they have addresses.
fn full_is_unavailable(ipam: &Object<'_>) -> Result<bool, cni::Error> {
    let key = "statusWhenFull";
    match ipam.text(key)? {
        None | Some("available") => Ok(false),
        Some("unavailable") => Ok(true),
        Some(text) => {
            let cause = "is neither available nor unavailable".to_owned();
            Err(Error::Config { place: format!("{} \"{text}\"", ipam.path(key)), cause }.into())
        }
    }
}
