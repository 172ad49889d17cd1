//! `lan-pool import`: takes over the leases of host-local whose containers run, so that a network can be switched without a
//! restart of pods.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;

use linux::{Holder, NetnsId, NetnsSearch, Rtnl};

use super::words::Words;
use super::{Error, networks, say};
use crate::lease::Owner;
use crate::pool::Pool;

pub(crate) fn run(words: &Words) -> Result<(), Error> {
    let from = words.from.as_deref().ok_or_else(|| {
        Error::Usage("say --from DIRECTORY: the leases of host-local, such as /var/lib/cni/networks/NETWORK".into())
    })?;
    let network = networks::one(&words.conf)?;
    let living = living()?;
    let remark = |text: fmt::Arguments<'_>| {
        let _ = say(format_args!("  {text}\n"));
    };
    let pool = crate::plugin::open_for_sweep(&network.place, &remark)?;
    let (mut taken, mut left) = (0, 0);
    for entry in fs::read_dir(from).map_err(Error::io("read", from))? {
        let entry = entry.map_err(Error::io("read", from))?;
        let Some(ip) = entry.file_name().to_str().and_then(|name| name.parse::<IpAddr>().ok()) else { continue };
        let text = fs::read_to_string(entry.path()).map_err(Error::io("read", &entry.path()))?;
        let Some(owner) = owner(&text) else {
            say(format_args!("  {ip}: left, because the file does not name a container and an interface\n"))?;
            left += 1;
            continue;
        };
        let said = match living.get(&ip) {
            None => Err("left, because no running container has this address".to_owned()),
            Some(netns) => import(&pool, &owner, *netns, ip).map_err(|error| format!("not taken over: {error}")),
        };
        match said {
            Ok(()) => {
                taken += 1;
                say(format_args!("  {ip}: taken over for {owner}\n"))?;
            }
            Err(said) => {
                left += 1;
                say(format_args!("  {ip}: {said}\n"))?;
            }
        }
    }
    say(format_args!("{taken} leases taken over, {left} left\n"))?;
    match left {
        0 => Ok(()),
        left => Err(Error::Left(left)),
    }
}

fn import(pool: &Pool<'_>, owner: &Owner, netns: u64, ip: IpAddr) -> Result<(), crate::Error> {
    pool.take_over(owner, netns, ip)
}

/// The two lines of a lease of host-local.
fn owner(text: &str) -> Option<Owner> {
    let mut lines = text.lines().map(str::trim);
    let owner = Owner { container_id: lines.next()?.to_owned(), ifname: lines.next()?.to_owned() };
    (!owner.container_id.is_empty() && !owner.ifname.is_empty()).then_some(owner)
}

/// The addresses of all containers, each with the inode of its namespace.
fn living() -> Result<BTreeMap<IpAddr, u64>, Error> {
    let own = NetnsId::current().map_err(crate::Error::from)?;
    let mut found = BTreeMap::new();
    let mut search = NetnsSearch::default();
    for place in Holder::ALL {
        search.find(place, |netns| {
            let addresses = || Rtnl::open_in(netns)?.all_addresses();
            // A namespace that ends in this moment has no address.
            for address in addresses().unwrap_or_default().iter().filter(|_| netns.id() != own) {
                found.insert(address.address.addr(), netns.id().inode());
            }
            None::<()>
        });
    }
    Ok(found)
}
