//! The IPAM plugin host-local. It leases addresses from ranges, and stores them in the same files as the reference
//! plugin of this name.
//!
//! A *lease* is a file with the name of the address. Its *owner* is one interface of one container. A *record* stores
//! when and where an owner got its leases. The *index* is a bitmap of all leases.
#![forbid(unsafe_code)]

mod allocate;
mod boots;
mod config;
mod directory;
mod error;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
#[path = "../../../tests/hostile/inside/host_local.rs"]
pub mod fuzz;
mod index;
mod kept;
mod lease;
mod lock;
mod machine;
mod reclaim;
mod record;
mod scan;
mod store;
mod turn;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use cni::{AddResult, Attachment, Call, Dns, GiveBack, Leased, Plugin};
use linux::Living;

use crate::config::Config;
use crate::directory::{Directory, Held, Note};
use crate::error::{Error, all_well};
use crate::lease::{Content, Owner};
use crate::machine::Machine;
use crate::reclaim::Census;
use crate::record::Identity;
use crate::store::{Probed, Store};
use ranges::Set;

/// The plugin.
pub struct HostLocal;

impl Plugin for HostLocal {
    fn about(&self) -> &'static str {
        "leases addresses from ranges of this host"
    }

    fn is_ipam(&self) -> bool {
        true
    }

    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<AddResult, cni::Error> {
        add(&Machine::this(), call, attachment)
    }

    fn lease<'a>(&'a self, call: &'a Call<'a>, attachment: &'a Attachment) -> Result<Leased<'a>, cni::Error> {
        let machine = Machine::this();
        let (result, made) = lease(&machine, call, attachment)?;
        let give_back =
            made.map(|made| -> GiveBack<'a> { Box::new(move || give_back(&machine, call, attachment, &made)) });
        Ok(Leased { result, give_back })
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
        del(&Machine::this(), call, attachment)
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
        check(&Machine::this(), call, attachment)
    }

    fn status(&self, call: &Call<'_>) -> Result<(), cni::Error> {
        status(&Machine::this(), call)
    }

    fn gc(&self, call: &Call<'_>) -> Result<(), cni::Error> {
        gc(&Machine::this(), call)
    }
}

/// An ADD names at most so many other networks with its address.
const REMARKS: usize = 3;

/// The leases that an ADD made, if they can be distinguished from others.
type Made = Option<Vec<(IpAddr, Identity)>>;

fn add(machine: &Machine, call: &Call<'_>, attachment: &Attachment) -> Result<AddResult, cni::Error> {
    Ok(lease(machine, call, attachment)?.0)
}

fn lease(machine: &Machine, call: &Call<'_>, attachment: &Attachment) -> Result<(AddResult, Made), cni::Error> {
    let directory = directory(machine, call)?;
    let config = Config::read(call, Some(attachment))?;
    let dns = config.resolv_conf.as_deref().map_or_else(|| Ok(Dns::default()), ranges::resolv::read)?;
    config.warnings.iter().for_each(|warning| call.warn(warning));
    let netns = attachment.netns.as_deref().and_then(linux::living::of_container);

    let store = Store::create(&directory)?;
    if store.is_first
        && let Err(error) = store.boots.note()
    {
        call.warn(format_args!("after the next reboot, leases of this boot will not be reclaimed: {error}"));
    }
    let warn = |line: std::fmt::Arguments<'_>| call.warn(line);
    let given = allocate::allocate(&store, &config, &owner(attachment), netns, &warn)?;
    drop(store);
    for (ip, other) in directory.leased_elsewhere(&given.addresses).into_iter().take(REMARKS) {
        let cause =
            "so two containers may have it: the ranges of both networks overlap, or this network had that name before";
        call.warn(format_args!("{ip} is leased in the network \"{other}\" too, {cause}"));
    }
    let ips = config.sets.iter().zip(given.addresses).filter_map(|(set, ip)| set.leased(ip)).collect();
    Ok((AddResult { interfaces: Vec::new(), ips, routes: config.routes, dns }, given.made))
}

/// Releases the leases that an ADD has made. Leases of a later ADD of the same owner stay.
fn give_back(
    machine: &Machine,
    call: &Call<'_>,
    attachment: &Attachment,
    made: &[(IpAddr, Identity)],
) -> Result<(), cni::Error> {
    let directory = directory(machine, call)?;
    let owner = owner(attachment);
    let Some(store) = Store::lock(&directory)? else { return Ok(()) };
    let mut held = store.held_by(&owner)?.leases;
    let mut errors = Vec::new();
    for (ip, identity) in made {
        match store.directory.read(*ip) {
            Ok(Some(lease)) if lease.identity == *identity => match store.release(*ip) {
                Ok(()) => held.retain(|its| its != ip),
                Err(error) => errors.push(error),
            },
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    if held.is_empty() {
        // Without leases, the record has no meaning.
        let _ = store.forget(&owner);
    }
    Ok(all_well(errors)?)
}

fn del(machine: &Machine, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
    let directory = directory(machine, call)?;
    let owner = owner(attachment);
    let Some(store) = Store::lock(&directory)? else { return Ok(()) };
    let mut held = store.held_by(&owner)?;
    let mut errors = Vec::new();
    if !held.unreadable.is_empty() {
        // A file that cannot be read must not prevent the DEL of other containers. It is an error only if the record
        // says that it is a lease of this owner.
        held.unreadable.iter().for_each(|error| call.warn(format_args!("ignored a file that cannot be read: {error}")));
        match store.directory.note(&owner) {
            Note::Record(record) => {
                errors.extend(record.leases.iter().filter_map(|(ip, _)| store.directory.read(*ip).err()));
                // Those of the container's other interfaces are not meant.
                held.of_container.clear();
            }
            Note::Nothing => {}
            // What the record says is not known, so one of the files may be a lease of this owner.
            Note::Unreadable | Note::Foreign => errors.append(&mut held.unreadable),
        }
    }
    let mine = if held.leases.is_empty() { held.of_container } else { held.leases };
    keep_conflicts(&store, call, &mine);
    errors.extend(mine.into_iter().filter_map(|ip| store.release(ip).err()));
    if errors.is_empty() {
        // Without leases, the record has no meaning.
        let _ = store.forget(&owner);
    }
    Ok(all_well(errors)?)
}

/// Keeps those addresses of a DEL from other containers that other machines on the LAN have. If this fails, a remark
/// says so, because the lease must be released.
fn keep_conflicts(store: &Store<'_>, call: &Call<'_>, held: &[IpAddr]) {
    let mut conflicts = config::conflicts(call);
    conflicts.retain(|conflict| held.contains(&conflict.ip));
    if conflicts.is_empty() {
        return;
    }
    if let Err(error) = store.keep(&conflicts) {
        let ips: Vec<_> = conflicts.iter().map(|conflict| conflict.ip.to_string()).collect();
        let cause = "so the next ADD may get it, although another machine on the LAN has it";
        call.warn(format_args!("{} not kept, {cause}: {error}", ips.join(", ")));
    }
}

fn check(machine: &Machine, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
    let directory = directory(machine, call)?;
    let config = Config::read(call, None)?;
    let previous = call.prev_result()?.map(|result| result.ips).unwrap_or_default();
    let previous: Vec<IpAddr> = previous.iter().map(|ip| ip.address.addr().to_canonical()).collect();
    let owner = owner(attachment);

    // The lock is not needed: only calls for this owner change its leases. First try the leases that prevResult and
    // the record name.
    let noted = match directory.note(&owner) {
        Note::Record(record) => record.leases.into_iter().map(|(ip, _)| ip).collect(),
        _ => Vec::new(),
    };
    let named: Vec<_> = previous.iter().chain(&noted).copied().filter(|ip| directory.is_held(*ip, &owner)).collect();
    if judge(&named, &previous, &config.sets, &owner, directory.path()).is_ok() {
        return Ok(());
    }
    let mut held = Held::default();
    let unreadable = directory.look(&mut |seen| held.look(seen.ip, seen.content, &owner))?;
    let mine = if held.leases.is_empty() { held.of_container } else { held.leases };
    let found = judge(&mine, &previous, &config.sets, &owner, directory.path());
    match unreadable.is_empty() {
        true => Ok(found?),
        // The missing lease may be in a file that could not be read.
        false => Ok(found.or(Err(Error::Several(unreadable)))?),
    }
}

fn status(machine: &Machine, call: &Call<'_>) -> Result<(), cni::Error> {
    let directory = directory(machine, call)?;
    let config = Config::read(call, None)?;
    let sets = &config.sets;
    let unavailable = |error: Error| match error {
        Error::Locked { .. } => error,
        error => Error::Unavailable(Box::new(error)),
    };
    let Probed { free, kept } = Store::probe(&directory, sets, config.conflict_delay).map_err(unavailable)?;
    for (at, set) in sets.iter().enumerate() {
        if free.as_ref().is_some_and(|free| free.get(at) == Some(&true)) {
            continue;
        }
        let census = Census::of(&directory, set, &kept)?;
        // An ADD would free stale leases. The search for namespaces looks at the whole machine, and a runtime calls
        // STATUS every few seconds, so it is not done for a remark.
        if census.has_room(set) || (config.full_is_unavailable && census.has_gone()) {
            continue;
        }
        let full = census.exhausted(set, 0);
        // If a set has no address at all, no ADD can succeed.
        if config.full_is_unavailable || set.capacity() == 0 {
            return Err(unavailable(full).into());
        }
        call.warn(format_args!("{full}"));
    }
    Ok(())
}

fn gc(machine: &Machine, call: &Call<'_>) -> Result<(), cni::Error> {
    let valid = cni::config::valid_attachments(call.stdin)?;
    // IDs with interface names, and IDs alone with an empty name.
    let interfaces = valid.iter().map(|one| (one.container_id.as_str(), one.ifname.as_str()));
    let valid: HashSet<_> = interfaces.chain(valid.iter().map(|one| (one.container_id.as_str(), ""))).collect();
    let is_valid = |content: &Content| match content {
        Content::Owned { container_id, ifname } => valid.contains(&(container_id.as_str(), ifname.as_str())),
        // The interface is not known, so any valid interface of the container keeps the lease.
        Content::Legacy { container_id } | Content::Torn { container_id: Some(container_id) } => {
            valid.contains(&(container_id.as_str(), ""))
        }
        Content::Torn { container_id: None } | Content::Garbage => false,
    };

    let directory = directory(machine, call)?;
    let Some(store) = Store::lock(&directory)? else { return Ok(()) };
    let mut stale = Vec::new();
    let mut errors = store.scan(&mut |seen| {
        if let Some(content) = seen.content.filter(|content| !is_valid(content)) {
            if store.boots.may_be_foreign(seen.record) {
                return;
            }
            let past = seen.record.is_some_and(|record| store.boots.is_past(record));
            let netns = seen.record.filter(|_| !past).and_then(|record| record.netns);
            stale.push((seen.ip, content.clone(), past, netns));
        }
    })?;
    let mut living = Living::default();
    for (ip, content, past, netns) in stale {
        if let Some(netns) = netns.filter(|netns| living.has(*netns)) {
            let exists = if living.is_incomplete() {
                "may still exist, because not all namespaces could be searched"
            } else {
                "still exists"
            };
            call.warn(format_args!("kept {ip} of {content}: it is not in the runtime's list of valid attachments, but its network namespace ({netns}) {exists}"));
            continue;
        }
        match store.release(ip) {
            Ok(()) if past => call.warn(format_args!("freed {ip} of {content}: leased before the last reboot")),
            Ok(()) => {
                call.warn(format_args!("freed {ip} of {content}: it is not in the runtime's list of valid attachments"))
            }
            Err(error) => {
                errors.push(error);
                continue;
            }
        }
        if let Content::Owned { container_id, ifname } = &content {
            // All leases of an owner are freed together.
            let _ = store.forget(&Owner { container_id, ifname });
        }
    }
    Ok(all_well(errors)?)
}

fn directory(machine: &Machine, call: &Call<'_>) -> Result<Directory, cni::Error> {
    Ok(Directory::new(&config::data_dir(call)?, &call.conf.name, machine.clone()))
}

fn owner(attachment: &Attachment) -> Owner<'_> {
    Owner { container_id: &attachment.container_id, ifname: &attachment.ifname }
}

/// Checks that an owner has the leases that it should have.
fn judge(held: &[IpAddr], previous: &[IpAddr], sets: &[Set], owner: &Owner<'_>, directory: &Path) -> Result<(), Error> {
    if held.is_empty() {
        return Err(Error::NoLease { owner: owner.to_string(), directory: directory.to_owned() });
    }
    let differs = |cause: String| Err(Error::Differs { owner: owner.to_string(), cause });
    if let Some(set) = sets.iter().find(|set| !held.iter().any(|ip| set.range_of(*ip).is_some())) {
        return differs(format!("has no lease in {set}"));
    }
    let ours = |ip: &&IpAddr| sets.iter().any(|set| set.range_of(**ip).is_some());
    match previous.iter().filter(ours).find(|ip| !held.contains(ip)) {
        Some(ip) => differs(format!("has no lease of {ip}, which prevResult names")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
