//! `lan-pool release`: frees the leases of a node that is gone. This is the only way in which anything but the node itself
//! frees its leases, so it asks for evidence, and it asks the LAN.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::words::Words;
use super::{Error, lan, networks, say};
use crate::store::kubernetes::{Api, Kubernetes};
use crate::store::{Answer, Request, Store};

/// The time for each request.
const WITHIN: Duration = Duration::from_secs(30);

/// The taint of an administrator who knows that the machine is off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A node that is not Ready has one of these taints.
const NOT_READY: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

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
    let deadline = || Instant::now() + WITHIN;
    let api = Api::open(Some(&kubeconfig), deadline()).map_err(crate::Error::from)?;
    let mut client = Kubernetes::new(api, &network.place.lan, node);
    judge(&mut client, node, words.off)?;
    let leases = match client.ask(&Request::OfNode, deadline()) {
        Answer::Leases(leases) => leases,
        Answer::Refused(cause) | Answer::Lost(cause) => return Err(Error::Pool(cause)),
        other => return Err(Error::Pool(format!("a list is answered by {other:?}"))),
    };
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

/// Asks for the evidence that the node is gone.
fn judge(client: &mut Kubernetes, node: &str, is_off: bool) -> Result<(), Error> {
    let Some(object) = client.node(node, Instant::now() + WITHIN).map_err(Error::Pool)? else {
        return say(format_args!("{node}: the cluster has no such node\n"));
    };
    let has = |keys: &[&str]| object.taints.iter().any(|taint| keys.contains(&taint.key.as_str()));
    if has(&[OUT_OF_SERVICE]) {
        return say(format_args!("{node}: has the taint {OUT_OF_SERVICE}\n"));
    }
    match (has(&NOT_READY), is_off) {
        (false, _) => Err(Error::Pool(format!("{node} is Ready: its containers use the addresses"))),
        (true, true) => say(format_args!("{node}: is not Ready; you say that it is off\n")),
        (true, false) => Err(Error::Pool(format!(
            "{node} is not Ready, but its containers may still run. If the machine is off, set the taint {OUT_OF_SERVICE}, \
             delete the Node object, or say --off"
        ))),
    }
}
