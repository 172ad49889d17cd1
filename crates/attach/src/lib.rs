//! The life of one sub-interface of a host NIC, whatever its kind: ADD, DEL, CHECK, STATUS and GC.
//!
//! An attachment is data before it is action: [`plan`] says what there shall be, without a kernel; [`add`](mod@add)
//! makes it, [`check`](mod@check) compares it, [`dismantle`] takes it apart. A plugin is a [`Kind`], no more.
#![forbid(unsafe_code)]

pub mod add;
pub mod check;
pub mod config;
pub mod container;
mod dad;
pub mod dismantle;
pub mod error;
mod held;
pub mod parent;
pub mod plan;

use cni::{AddResult, Attachment, Call, Code, Error, Ipam, Plugin};
use linux::{Link, LinkKind, Mac, Netns, NetnsLock, Rtnl};

/// What tells one kind of sub-interface from another.
pub trait Kind: Sync {
    /// The kernel's name for it, such as `macvlan`. (`IFLA_INFO_KIND`)
    fn name(&self) -> &'static str;
    /// What the plugin is, in a few words.
    fn about(&self) -> &'static str;
    /// Reads the keys that are this kind's own; what all kinds share is [`config::Keys`]. There is no attachment on
    /// STATUS. DEL never asks: a configuration edited since must not keep a container from going.
    fn choose(&self, call: &Call<'_>, attachment: Option<&Attachment>) -> Result<Choice, Error>;
    /// Whether an ADD takes from prevResult, as the next plugin of a chain, what its configuration does not say: the
    /// master, and the addresses where there is no IPAM.
    fn chains(&self) -> bool {
        false
    }
    /// Says no where the link would disturb others. The permit is held until the link is made.
    fn permit(&self, _choice: &Choice, _place: &mut Place<'_>) -> Result<Permit, Error> {
        Ok(Permit::default())
    }
}

/// Where a link is about to be made.
pub struct Place<'a> {
    /// A socket in the parent's netns.
    pub beside_parent: &'a mut Rtnl,
    /// The parent's netns.
    pub parent_netns: &'a Netns,
    /// The parent.
    pub parent: &'a Link,
    /// The container's netns.
    pub netns: &'a Netns,
    /// A name for a link that exists for an instant: DEL finds it, should the plugin be killed.
    pub temporary_name: String,
}

impl Place<'_> {
    /// Deletes the link of that name from the container.
    pub fn delete_temporary(&self) -> error::Result<()> {
        dismantle::delete_temporary(&mut Rtnl::open_in(self.netns)?, &self.temporary_name)
    }
}

/// What [`Kind::permit`] needs to be held while the link is made.
#[derive(Default)]
pub struct Permit {
    _lock: Option<NetnsLock>,
}

impl Permit {
    /// A permit that holds a lock.
    pub fn holding(lock: NetnsLock) -> Self {
        Self { _lock: Some(lock) }
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
        let keys = config::Keys::read(call)?;
        add::add(call, attachment, &self.0, &choice, keys)
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Error> {
        dismantle::del(call, attachment, self.0.name())
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Error> {
        let choice = self.0.choose(call, Some(attachment))?;
        check::check(call, attachment, &choice.link)
    }

    fn status(&self, call: &Call<'_>) -> Result<(), Error> {
        self.0.choose(call, None)?;
        let keys = config::Keys::read(call)?;
        // A parent in a container has to be judged there, and STATUS names no container. In a chain, prevResult names the
        // parent, and STATUS has no prevResult.
        let unknown = keys.link_in_container || (keys.master.is_none() && self.0.chains());
        if !unknown {
            parent::status(keys.master.as_deref())?;
        }
        match Ipam::find(call) {
            Ok(Some(ipam)) => ipam.status(),
            Ok(None) => Ok(()),
            Err(error) => Err(Error { code: Code::PLUGIN_NOT_AVAILABLE, ..error }),
        }
    }

    fn gc(&self, call: &Call<'_>) -> Result<(), Error> {
        // Links need none: a netns takes its own along, and those in a live one belong to a live container.
        match Ipam::find(call)? {
            Some(ipam) => ipam.gc(),
            None => Ok(()),
        }
    }
}
