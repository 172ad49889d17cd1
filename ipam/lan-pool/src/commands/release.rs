//! `lan-pool release`: frees the leases of a node that is gone. This is the only way in which anything but the node itself
//! frees its leases, so it asks for evidence, and it asks the LAN.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::words::Words;
use super::{Error, lan, networks, say};
use crate::store::kubernetes::{Access, Client, Evidence};
use crate::store::{Answer, Request, Store};

/// The time for each request.
const WITHIN: Duration = Duration::from_secs(30);

/// The kubeconfig of kubeadm's administrator.
const ADMIN: &str = "/etc/kubernetes/admin.conf";

pub(crate) fn run(words: &Words) -> Result<(), Error> {
    let node = words.node.as_deref().ok_or_else(|| Error::Usage("say --node NODE: the node that is gone".into()))?;
    let network = networks::one(&words.conf)?;
    let interface = words.interface.clone().or(network.master);
    let interface = interface
        .ok_or_else(|| Error::Usage("say --interface IF: through it, the LAN is asked for each address".into()))?;
    let from_environment = || std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let kubeconfig = words.kubeconfig.clone().or_else(from_environment).unwrap_or_else(|| ADMIN.into());
    let access = Access { kubeconfig: Some(kubeconfig), context: None };
    let deadline = || Instant::now() + WITHIN;
    let lan = &network.place.lan;
    let mut client = Client::open(&access, lan, Some(node), None, deadline())?;

    let evidence = client.node_evidence(node, deadline())?;
    match evidence {
        Evidence::Missing => say(format_args!("{node}: the cluster has no such node\n"))?,
        Evidence::OutOfService => say(format_args!("{node}: has the taint node.kubernetes.io/out-of-service\n"))?,
        Evidence::Alive { ready: true } => {
            return Err(Error::Pool(format!("{node} is Ready: its containers use the addresses")));
        }
        Evidence::Alive { ready: false } if words.off => {
            say(format_args!("{node}: is not Ready; you say that it is off\n"))?
        }
        Evidence::Alive { ready: false } => {
            return Err(Error::Pool(format!(
                "{node} is not Ready, but its containers may still run. If the machine is off, set the taint \
                 node.kubernetes.io/out-of-service, delete the Node object, or say --off"
            )));
        }
    }
    let leases = client.leases_of(node, deadline())?;
    let addresses: Vec<_> = leases.iter().map(|held| held.lease.address).collect();
    say(format_args!("{node}: {} leases; asking the LAN of {interface}\n", leases.len()))?;
    let holders = if addresses.is_empty() { Default::default() } else { lan::holders(&interface, &addresses)? };
    let mut kept = 0;
    for held in &leases {
        let ip = held.lease.address;
        let said = match holders.get(&ip) {
            Some(mac) => Err(format!("kept: {mac} answers for it")),
            None => match client.ask(&Request::Delete(ip, held.uid.clone()), deadline()) {
                Answer::Gone => Ok("freed"),
                Answer::Refused(cause) | Answer::Lost(cause) => Err(format!("kept: {cause}")),
                _ => Err("kept: the store has answered another request".to_owned()),
            },
        };
        let lease = &held.lease;
        match said {
            Ok(said) => say(format_args!("  {ip}  {lease}: {said}\n"))?,
            Err(said) => {
                kept += 1;
                say(format_args!("  {ip}  {lease}: {said}\n"))?;
            }
        }
    }
    say(format_args!("{} leases freed, {kept} kept\n", leases.len() - kept))?;
    match kept {
        0 => Ok(()),
        kept => Err(Error::Kept(kept)),
    }
}
