//! The host-local IPAM plugin: addresses of this host's own ranges, leased from a directory of files that it shares
//! with the reference plugin of the same name, both ways.
#![forbid(unsafe_code)]

mod allocate;
mod config;
mod error;
mod lease;
mod range;
mod request;
mod resolv;
mod store;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use cni::{AddResult, Attachment, Call, Dns, Ip, Plugin};
use ipnet::IpNet;

use crate::config::Config;
use crate::error::{Error, all_well};
use crate::lease::{Content, Owner};
use crate::range::Set;
use crate::store::Directory;

/// The plugin.
pub struct HostLocal;

impl Plugin for HostLocal {
    fn about(&self) -> &'static str {
        "leases addresses from this host's own ranges"
    }

    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<AddResult, cni::Error> {
        let directory = directory(call)?;
        let config = Config::read(call, Some(attachment))?;
        let dns = config.resolv_conf.as_deref().map_or_else(|| Ok(Dns::default()), resolv::read)?;
        config.warnings.iter().for_each(|warning| call.warn(warning));

        let store = directory.create()?;
        let warn = |line: std::fmt::Arguments<'_>| call.warn(line);
        let addresses = allocate::allocate(&store, &config.sets, &config.requests, &owner(attachment), &warn)?;
        let ips = config.sets.iter().zip(addresses).filter_map(|(set, ip)| leased(set, ip)).collect();
        Ok(AddResult { interfaces: Vec::new(), ips, routes: config.routes, dns })
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
        let directory = directory(call)?;
        let Some(store) = directory.lock()? else { return Ok(()) };
        let held = store.held_by(&owner(attachment))?;
        let mut errors = held.unreadable;
        let mine = if held.leases.is_empty() { held.of_container } else { held.leases };
        errors.extend(mine.into_iter().filter_map(|ip| store.release(ip).err()));
        Ok(all_well(errors)?)
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), cni::Error> {
        let directory = directory(call)?;
        let config = Config::read(call, None)?;
        let previous = call.prev_result()?.map(|result| result.ips).unwrap_or_default();
        let previous: Vec<IpAddr> = previous.iter().map(|ip| ip.address.addr().to_canonical()).collect();
        let owner = owner(attachment);

        // Without the lock: nobody but this owner's own calls takes or makes its leases.
        let held = directory.held_by(&owner)?;
        let mine = if held.leases.is_empty() { held.of_container } else { held.leases };
        let found = judge(&mine, &previous, &config.sets, &owner, directory.path());
        match held.unreadable.is_empty() {
            true => Ok(found?),
            // What is missing may be in there.
            false => Ok(found.or(Err(Error::Several(held.unreadable)))?),
        }
    }

    fn status(&self, call: &Call<'_>) -> Result<(), cni::Error> {
        let directory = directory(call)?;
        let sets = Config::read(call, None)?.sets;
        let unavailable = |error: Error| match error {
            Error::Locked { .. } => error,
            error => Error::Unavailable(Box::new(error)),
        };
        directory.probe().map_err(unavailable)?;
        for set in &sets {
            // An ADD would reclaim the torn ones. They cost reading every lease, so only when it depends on them.
            let full = allocate::taken(&directory, set)? >= set.capacity();
            if full && allocate::torn(&directory, set)?.is_empty() {
                return Err(unavailable(allocate::exhausted(&directory, set)?).into());
            }
        }
        Ok(())
    }

    fn gc(&self, call: &Call<'_>) -> Result<(), cni::Error> {
        let valid = cni::config::valid_attachments(call.stdin)?;
        let owners: HashSet<_> =
            valid.iter().map(|one| Owner { container_id: &one.container_id, ifname: &one.ifname }).collect();
        let containers: HashSet<&str> = valid.iter().map(|one| one.container_id.as_str()).collect();
        let is_valid = |content: &Content| match content {
            Content::Owned { container_id, ifname } => owners.contains(&Owner { container_id, ifname }),
            // Which interface of the container it is for, nobody knows, so any speaks for it.
            Content::Legacy { container_id } | Content::Torn { container_id: Some(container_id) } => {
                containers.contains(container_id.as_str())
            }
            Content::Torn { container_id: None } | Content::Garbage => false,
        };

        let directory = directory(call)?;
        let Some(store) = directory.lock()? else { return Ok(()) };
        let mut stale = Vec::new();
        let mut errors = store.leases(|ip, content| {
            if !is_valid(&content) {
                stale.push((ip, content));
            }
        })?;
        for (ip, content) in stale {
            match store.release(ip) {
                Ok(()) => call.warn(format_args!("freed {ip} of {content}: not a valid attachment")),
                Err(error) => errors.push(error),
            }
        }
        Ok(all_well(errors)?)
    }
}

fn directory(call: &Call<'_>) -> Result<Directory, cni::Error> {
    Ok(Directory::new(&config::data_dir(call)?, &call.conf.name))
}

fn owner(attachment: &Attachment) -> Owner<'_> {
    Owner { container_id: &attachment.container_id, ifname: &attachment.ifname }
}

/// An address of a set, as a result has it.
fn leased(set: &Set, ip: IpAddr) -> Option<Ip> {
    let range = set.range_of(ip)?;
    let address = IpNet::new(ip, range.subnet.prefix_len()).ok()?;
    Some(Ip { interface: None, address, gateway: Some(range.gateway) })
}

/// Whether the leases that an owner holds are those that it should hold.
fn judge(held: &[IpAddr], previous: &[IpAddr], sets: &[Set], owner: &Owner<'_>, directory: &Path) -> Result<(), Error> {
    if held.is_empty() {
        return Err(Error::NoLease { owner: owner.to_string(), directory: directory.to_owned() });
    }
    let differs = |cause: String| Err(Error::Differs { owner: owner.to_string(), cause });
    if let Some(set) = sets.iter().find(|set| !held.iter().any(|ip| set.range_of(*ip).is_some())) {
        return differs(format!("holds no lease in {set}"));
    }
    let ours = |ip: &&IpAddr| sets.iter().any(|set| set.range_of(**ip).is_some());
    match previous.iter().filter(ours).find(|ip| !held.contains(ip)) {
        Some(ip) => differs(format!("holds no lease of {ip}, which prevResult names")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
