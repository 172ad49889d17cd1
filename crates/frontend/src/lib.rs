//! The CNI front end of the crate `attach`: it reads the configuration and the call, and hands over a task with its settings.
//!
//! A plugin is a [`Kind`]: the keys that it alone has, and a guard where it needs one.
#![forbid(unsafe_code)]

mod ipam;
mod keys;

use std::fmt;

use attach::{Guard, Settings, Task};
use cni::{AddResult, Attachment, Call, Code, Error, Ipam, Plugin};
use linux::{LinkKind, Mac};

use crate::ipam::Asked;
pub use crate::keys::Keys;

/// What tells one kind of sub-interface from another.
pub trait Kind: Sync {
    /// The kernel's name for it, such as `macvlan`. (`IFLA_INFO_KIND`)
    fn name(&self) -> &'static str;
    /// What the plugin is, in a few words.
    fn about(&self) -> &'static str;
    /// Reads the keys that are this kind's own. There is no attachment on STATUS. DEL never asks: a configuration edited
    /// since must not keep a container from going.
    fn choose(&self, call: &Call<'_>, attachment: Option<&Attachment>) -> Result<Choice, Error>;
    /// Whether an ADD takes from prevResult, as the next plugin of a chain, what its configuration does not say: the
    /// master, and the addresses where there is no IPAM.
    fn chains(&self) -> bool {
        false
    }
    /// Who says no where a link would disturb others.
    fn guard(&self) -> Option<&dyn Guard> {
        None
    }
}

/// What the configuration chooses of a [`Kind`].
#[derive(Debug, Clone)]
pub struct Choice {
    /// The kind with its mode.
    pub link: LinkKind,
    /// The hardware address; none lets the kernel choose.
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
        let mut keys = Keys::read(call)?;
        let ipam = Asked::find(call, attachment)?;
        let reads_previous = self.0.chains() && (ipam.is_none() || keys.master.is_none());
        let previous = if reads_previous { call.prev_result()? } else { None };
        if let Some(previous) = &previous {
            keys.take_master(previous)?;
        }
        call.remark_on_unread(call.keys(), &cni::config::KEYS_OF_OTHERS);
        let settings = Settings {
            link: choice.link,
            mac: choice.mac,
            guard: self.0.guard(),
            master: keys.master.as_deref(),
            mtu: keys.mtu,
            link_in_container: keys.link_in_container,
            dns: &keys.dns,
            leased: previous.filter(|_| ipam.is_none()),
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
        let missing = || Error::new(Code::INVALID_NETWORK_CONFIG, "prevResult is missing: CHECK compares with it");
        // Not with the configuration: a meta plugin may have edited the result.
        let expected = call.prev_result()?.ok_or_else(missing)?;
        let ipam = Asked::find(call, attachment)?;
        with_task(call, "CHECK", attachment, ipam.as_ref(), |task| task.check(&choice.link, &expected))
    }

    fn status(&self, call: &Call<'_>) -> Result<(), Error> {
        self.0.choose(call, None)?;
        let keys = Keys::read(call)?;
        // A parent in a container has to be judged there, and STATUS names no container. In a chain, prevResult names the
        // parent, and STATUS has no prevResult.
        let unknown = keys.link_in_container || (keys.master.is_none() && self.0.chains());
        if !unknown {
            attach::status(keys.master.as_deref())?;
        }
        match Ipam::find(call) {
            Ok(Some(ipam)) => ipam.status(),
            Ok(None) => Ok(()),
            Err(error) => Err(Error { code: Code::PLUGIN_NOT_AVAILABLE, ..error }),
        }
    }

    fn gc(&self, call: &Call<'_>) -> Result<(), Error> {
        // Links need none: a namespace takes its own along, and those in a live one belong to a live container.
        match Ipam::find(call)? {
            Some(ipam) => ipam.gc(),
            None => Ok(()),
        }
    }
}

/// Works on the task of a call without IPAM.
pub fn bare_task<T>(
    call: &Call<'_>,
    command: &str,
    attachment: &Attachment,
    work: impl FnOnce(&Task<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    with_task(call, command, attachment, None, work)
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
    work(&Task { attachment, ipam, remark: &remark })
}
