//! The CNI front end of the crate `attach`: reads the call and its configuration, and calls `attach`.
//!
//! - Kind: a kind of sub-interface, with the keys that only its plugin has. Each plugin is a [`Kind`].
//! - Chain: several plugins in one configuration. A later plugin gets the result of the earlier ones as `prevResult`.
#![forbid(unsafe_code)]

mod ipam;
mod keys;
mod lan;

use std::fmt;

use attach::{Guard, Settings, Task, Wished};
use cni::config::valid_attachments;
use cni::{AddResult, Attachment, Call, Code, Error, Ipam, Plugin};
use linux::{IpvlanMode, LinkKind, Mac};

use crate::ipam::Asked;
pub use crate::keys::Keys;

/// A kind of sub-interface.
pub trait Kind: Sync {
    /// Returns the kernel's name of the kind, such as `macvlan`. (`IFLA_INFO_KIND`)
    fn name(&self) -> &'static str;
    /// Describes the plugin in a few words, for `--help`.
    fn about(&self) -> &'static str;
    /// Reads the keys that only this kind has. STATUS has no attachment. DEL does not call this, so that a later
    /// mistake in the configuration does not stop a DEL.
    fn choose(&self, call: &Call<'_>, attachment: Option<&Attachment>) -> Result<Choice, Error>;
    /// Returns true if ADD, in a chain, takes missing settings from `prevResult`: the master, and the addresses if
    /// there is no IPAM.
    fn chains(&self) -> bool {
        false
    }
    /// Returns the guard that decides if a link may be created. `None` allows every link.
    fn guard(&self) -> Option<&dyn Guard> {
        None
    }
}

/// The settings that only one [`Kind`] has.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The kind of the link, with its mode.
    pub link: LinkKind,
    /// If this is `None`, the kernel chooses a MAC.
    pub mac: Option<Mac>,
}

/// The plugin for a [`Kind`].
pub struct SubInterface<K>(pub K);

impl<K: Kind> Plugin for SubInterface<K> {
    fn about(&self) -> &'static str {
        self.0.about()
    }

    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<AddResult, Error> {
        let choice = self.0.choose(call, Some(attachment))?;
        let mut keys = Keys::read(call, Some(&attachment.ifname))?;
        judge_wait(call, &choice.link, &keys)?;
        let ipam = Asked::find(call, attachment)?;
        let reads_previous = self.0.chains() && (ipam.is_none() || keys.has_no_parent());
        let previous = if reads_previous { call.prev_result()? } else { None };
        if let Some(previous) = &previous {
            keys.take_parent(previous)?;
        }
        call.remark_on_unread(call.keys(), &cni::config::KEYS_OF_OTHERS);
        let settings = Settings {
            link: choice.link,
            mac: choice.mac,
            guard: self.0.guard(),
            parent: &keys.parent,
            vlan: keys.vlan,
            mtu: keys.mtu,
            link_in_container: keys.link_in_container,
            dns: &keys.dns,
            leased: previous.filter(|_| ipam.is_none()),
            host_access: keys.host_access.as_ref(),
            default_route: keys.default_route,
            sysctls: &keys.sysctls,
            slaac_timeout: keys.slaac_timeout,
            lan: keys.lan,
        };
        with_task(call, "ADD", attachment, ipam.as_ref(), |task| task.add(&settings))
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Error> {
        let ipam = Asked::find_for_del(call, attachment);
        let previous = || {
            call.prev_result().unwrap_or_else(|error| {
                call.warn(format_args!("DEL: ignored: {error}"));
                None
            })
        };
        with_task(call, "DEL", attachment, ipam.as_ref(), |task| task.del(self.0.name(), &previous))
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Error> {
        let choice = self.0.choose(call, Some(attachment))?;
        let missing =
            || Error::new(Code::INVALID_NETWORK_CONFIG, "prevResult is missing: CHECK needs the result of ADD");
        // CHECK compares with the result and not with the configuration: a meta plugin may have changed the result.
        let expected = call.prev_result()?.ok_or_else(missing)?;
        let ipam = Asked::find(call, attachment)?;
        let wished = Wished {
            link: &choice.link,
            parent: &keys::parent(call.keys())?,
            vlan: keys::vlan(call.keys())?,
            has_host_access: keys::host_access(call.keys())?.is_some(),
        };
        with_task(call, "CHECK", attachment, ipam.as_ref(), |task| task.check(&wished, &expected))
    }

    fn status(&self, call: &Call<'_>) -> Result<(), Error> {
        let choice = self.0.choose(call, None)?;
        let keys = Keys::read(call, None)?;
        judge_wait(call, &choice.link, &keys)?;
        if let Some(access) = &keys.host_access {
            access.judge(&choice.link, keys.link_in_container)?;
        }
        // STATUS has no container and no prevResult. So it cannot check a parent in a container, or one that prevResult
        // names.
        let unknown = keys.link_in_container || (keys.has_no_parent() && self.0.chains());
        if !unknown {
            attach::status(&keys.parent, &choice.link)?;
        }
        match Ipam::find(call) {
            Ok(Some(ipam)) => ipam.status(),
            Ok(None) => Ok(()),
            Err(error) => Err(Error { code: Code::PLUGIN_NOT_AVAILABLE, ..error }),
        }
    }

    fn gc(&self, call: &Call<'_>) -> Result<(), Error> {
        // The containers' links need no GC: the kernel deletes a namespace with its links, and other links belong to
        // running containers.
        let remark = |text: fmt::Arguments<'_>| call.warn(format_args!("GC: {text}"));
        let host = attach::gc(&call.conf.name, &|| valid_attachments(call.stdin), &remark);
        if let Some(ipam) = Ipam::find(call)? {
            ipam.gc()?;
        }
        host
    }
}

/// Runs `work` with a task that has no IPAM.
pub fn bare_task<T>(
    call: &Call<'_>,
    command: &str,
    attachment: &Attachment,
    work: impl FnOnce(&Task<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    with_task(call, command, attachment, None, work)
}

/// Refuses a wait for a router on a link that hears none. In layer 3 mode, ipvlan passes only packets to the addresses of
/// its links. (drivers/net/ipvlan/ipvlan_core.c)
fn judge_wait(call: &Call<'_>, link: &LinkKind, keys: &Keys) -> Result<(), Error> {
    match link {
        LinkKind::Ipvlan { mode: mode @ (IpvlanMode::L3 | IpvlanMode::L3s), .. } if keys.slaac_timeout.is_some() => {
            let cause =
                format!("cannot be met, because no router advertisement reaches ipvlan in mode {}", mode.as_str());
            Err(call.keys().refuse("slaacTimeout", &cause))
        }
        _ => Ok(()),
    }
}

fn with_task<T>(
    call: &Call<'_>,
    command: &str,
    attachment: &Attachment,
    ipam: Option<&Asked<'_>>,
    work: impl FnOnce(&Task<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let remark = |text: fmt::Arguments<'_>| call.warn(format_args!("{command}: {text}"));
    let attachment = attach::Attachment {
        container_id: &attachment.container_id,
        ifname: &attachment.ifname,
        netns: attachment.netns.as_deref(),
        may_be_home: call.variables.overrides_netns(),
    };
    let ipam = ipam.map(|ipam| -> &dyn attach::Ipam { ipam });
    work(&Task { attachment, network: &call.conf.name, ipam, remark: &remark })
}
