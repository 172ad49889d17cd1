//! The plugin: reads a call, and runs it with a [`Pool`].

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cni::{AddResult, Attachment, Call, Code, Conflict, Dns, Plugin};

use crate::config::{self, Place};
use crate::error::Error;
use crate::journal::Journal;
use crate::lease::Owner;
use crate::machine;
use crate::pool::{Pool, Swept};
use crate::protocol::Claim;
use crate::store::{Away, Store, kubernetes};

/// The time for an ADD. A runtime starts a pod again after an error.
const ADD_WITHIN: Duration = Duration::from_secs(10);

/// The time for a DEL. After that, the journal has the rest.
const DEL_WITHIN: Duration = Duration::from_secs(3);

/// The time for a CHECK and for a STATUS. The runtime calls STATUS every five seconds.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// The time for a GC and a sweep by hand.
const SWEEP_WITHIN: Duration = Duration::from_secs(30);

/// The plugin.
pub struct LanPool;

impl Plugin for LanPool {
    fn about(&self) -> &'static str {
        "leases addresses from one pool for all nodes of a LAN"
    }

    fn is_ipam(&self) -> bool {
        true
    }

    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<AddResult, cni::Error> {
        let (place, ranges) = config::read(call, Some(attachment))?;
        let dns = ranges.resolv_conf.as_deref().map_or_else(|| Ok(Dns::default()), ranges::resolv::read)?;
        ranges.warnings.iter().for_each(|warning| call.warn(warning));
        let remark = |text: fmt::Arguments<'_>| call.warn(format_args!("ADD: {text}"));
        let pool = open(&place, ADD_WITHIN, &remark)?;
        let claim = claim(&pool, attachment);
        let addresses = pool.add(&claim, &ranges.sets, &ranges.requests)?;
        let ips = ranges.sets.iter().zip(addresses).filter_map(|(set, ip)| set.leased(ip)).collect();
        Ok(AddResult { interfaces: Vec::new(), ips, routes: ranges.routes, dns })
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
        let place = Place::of(call)?;
        let remark = |text: fmt::Arguments<'_>| call.warn(format_args!("DEL: {text}"));
        let conflicts = Conflict::read(call.keys()).unwrap_or_else(|error| {
            remark(format_args!("ignored: {error}"));
            Vec::new()
        });
        let pool = open_or_away(&place, DEL_WITHIN, &remark)?;
        Ok(pool.del(&claim(&pool, attachment), &conflicts)?)
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
        let (place, ranges) = config::read(call, None)?;
        let remark = |text: fmt::Arguments<'_>| call.warn(format_args!("CHECK: {text}"));
        let pool = open(&place, LOOK_WITHIN, &remark)?;
        let claim = claim(&pool, attachment);
        let previous = call.prev_result()?.map(|result| result.ips).unwrap_or_default();
        let previous: Vec<IpAddr> = previous.iter().map(|ip| ip.address.addr().to_canonical()).collect();
        for set in &ranges.sets {
            let Some(ip) = previous.iter().find(|ip| set.range_of(**ip).is_some()) else {
                let text = format!("{}: prevResult has no address in {set}", claim.owner);
                return Err(cni::Error::new(Code::DIFFERS, text));
            };
            pool.check(&claim, *ip)?;
        }
        Ok(())
    }

    fn status(&self, call: &Call<'_>) -> Result<(), cni::Error> {
        let unavailable = |error: cni::Error| cni::Error { code: Code::PLUGIN_NOT_AVAILABLE, ..error };
        let (place, _) = config::read(call, None)?;
        let mut store = client(&place, LOOK_WITHIN).map_err(|error| unavailable(error.into()))?;
        // A store that is away, or that refuses, would make every node NotReady at once. So it is a remark.
        if let Err(cause) = store.look(Instant::now() + LOOK_WITHIN) {
            call.warn(format_args!("STATUS: {cause}"));
        }
        Ok(())
    }

    fn gc(&self, call: &Call<'_>) -> Result<(), cni::Error> {
        let place = Place::of(call)?;
        let valid = cni::config::valid_attachments(call.stdin)?.into_iter();
        let valid = valid.map(|one| Owner { container_id: one.container_id, ifname: one.ifname }).collect();
        let remark = |text: fmt::Arguments<'_>| call.warn(format_args!("GC: {text}"));
        sweep(&place, &valid, &remark).map(drop)
    }
}

/// Sweeps once.
///
/// # Errors
///
/// The store cannot be asked, or the journal cannot be read or written.
pub(crate) fn sweep(
    place: &Place,
    valid: &HashSet<Owner>,
    remark: &dyn Fn(fmt::Arguments<'_>),
) -> Result<Swept, cni::Error> {
    let swept = open(place, SWEEP_WITHIN, remark)?.sweep(valid)?;
    let Swept { freed, restored, left } = swept;
    if swept != Swept::default() {
        remark(format_args!("{freed} leases freed, {restored} made again, {left} left for a later call"));
    }
    Ok(swept)
}

fn claim(pool: &Pool<'_>, attachment: &Attachment) -> Claim {
    // What the runtime says of the pod is only for people, so an error is ignored.
    let pod = attachment
        .args()
        .ok()
        .and_then(|args| Some(format!("{}/{}", args.get("K8S_POD_NAMESPACE")?, args.get("K8S_POD_NAME")?)));
    Claim {
        lan: pool.lan.to_owned(),
        node: pool.node.clone(),
        owner: Owner { container_id: attachment.container_id.clone(), ifname: attachment.ifname.clone() },
        netns: attachment.netns.as_deref().and_then(linux::living::of_container),
        pod,
    }
}

fn client(place: &Place, within: Duration) -> Result<kubernetes::Client, Error> {
    let deadline = Instant::now() + within;
    kubernetes::Client::open(&place.kubernetes, &place.lan, place.node.as_deref(), machine::host_name(), deadline)
}

fn open<'a>(place: &'a Place, within: Duration, remark: &'a dyn Fn(fmt::Arguments<'_>)) -> Result<Pool<'a>, Error> {
    let client = client(place, within)?;
    let name = client.node().to_owned();
    pool(place, within, name, Box::new(client), remark)
}

/// As [`open`], for a command.
pub(crate) fn open_for_sweep<'a>(place: &'a Place, remark: &'a dyn Fn(fmt::Arguments<'_>)) -> Result<Pool<'a>, Error> {
    open(place, SWEEP_WITHIN, remark)
}

/// As [`open`], for a DEL: without credentials, the store is away.
fn open_or_away<'a>(
    place: &'a Place,
    within: Duration,
    remark: &'a dyn Fn(fmt::Arguments<'_>),
) -> Result<Pool<'a>, Error> {
    match client(place, within) {
        Ok(client) => {
            let name = client.node().to_owned();
            pool(place, within, name, Box::new(client), remark)
        }
        Err(error) => {
            let name = place.node.clone().or_else(machine::host_name).unwrap_or_default();
            pool(place, within, name, Box::new(Away(error.to_string())), remark)
        }
    }
}

fn pool<'a>(
    place: &'a Place,
    within: Duration,
    name: String,
    store: Box<dyn Store + 'a>,
    remark: &'a dyn Fn(fmt::Arguments<'_>),
) -> Result<Pool<'a>, Error> {
    let node = machine::this(name)?;
    let journal = Journal::new(&place.data_dir, &place.lan, &node.boot);
    let (deadline, conflict_delay) = (Cell::new(Instant::now() + within), place.conflict_delay.into());
    Ok(Pool { lan: &place.lan, node, journal, store: RefCell::new(store), deadline, conflict_delay, remark })
}
