//! Creates, checks and removes one sub-interface of a host NIC in a container.
//!
//! - Parent: the interface whose LAN the container joins: a NIC, a VLAN, a bond or a bridge.
//! - Sub-interface: a macvlan or ipvlan link on the parent. In this crate, "the link" is the container's sub-interface.
//! - Attachment: one sub-interface of one container, with its addresses, routes and lease.
//! - Step: one part of an attachment. ADD applies it, CHECK compares it, DEL finds and undoes it. Each has a file in
//!   `steps`.
//! - Mark: the group number of a link. It identifies the attachment for which the link was created.
//! - Record: a file that names the effects of an attachment on the host.
//! - VLAN link: a link of the host that adds a VLAN tag to the frames of the links on it. It stands on a parent, and is
//!   itself the parent of the container's link.
//! - Home: the network namespace of this process, which is that of the host.
//! - Guard: decides if a link may be created. Permit: its consent, which may hold a lock. Site: the parent that it
//!   looks at.
//! - Front end: a crate that reads CNI's calls and configurations, and calls this crate with a [`Task`] and
//!   [`Settings`].
//!
//! Results and errors are those of the crate `cni`.
#![forbid(unsafe_code)]

mod container;
pub mod error;
mod host_link;
mod host_side;
mod lan;
mod life;
pub mod mark;
mod parent;
mod record;
mod repeat;
mod result;
mod steps;
mod vlan_link;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cni::config::ValidAttachment;
use cni::{AddResult, Conflict, Dns, Leased};
use ipnet::IpNet;
use linux::{IpvlanFlag, IpvlanMode, Link, LinkKind, Mac, MacvlanMode, Netns, Rtnl, VlanTag, file};

use crate::error::Error;

pub use lan::{Found, GatewayCheck, Lan, Supply};
pub use parent::{Properties, Wish, status};

/// The names of one attachment.
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// CNI_CONTAINERID.
    pub container_id: &'a str,
    /// CNI_IFNAME: the name of the link in the container.
    pub ifname: &'a str,
    /// CNI_NETNS: the container's network namespace. A DEL may have none.
    pub netns: Option<&'a Path>,
    /// True if `netns` may be the home namespace.
    pub may_be_home: bool,
}

/// An attachment, with its IPAM plugin and the output for remarks.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The names of the attachment.
    pub attachment: Attachment<'a>,
    /// `name` of the network.
    pub network: &'a str,
    /// Leases the addresses. `None` means that the attachment gets no addresses, or those in [`Settings::leased`].
    pub ipam: Option<&'a dyn Ipam>,
    /// Prints a text for the operator that is not an error.
    pub remark: &'a dyn Fn(fmt::Arguments<'_>),
}

/// The settings of an ADD.
pub struct Settings<'a> {
    /// The kind of the link, with its mode.
    pub link: LinkKind,
    /// If this is `None`, the kernel chooses a MAC.
    pub mac: Option<Mac>,
    /// Decides if the link may be created.
    pub guard: Option<&'a dyn Guard>,
    /// The parent.
    pub parent: &'a Wish,
    /// The link stands on this VLAN of the parent. Not possible for a parent in the container.
    pub vlan: Option<VlanTag>,
    /// In bytes. `None` is the parent's MTU.
    pub mtu: Option<u32>,
    /// True if the parent is in the container's network namespace.
    pub link_in_container: bool,
    /// Replaces IPAM's `dns` in the result, unless it is empty.
    pub dns: &'a Dns,
    /// Addresses and routes that an earlier plugin of a chain has leased. Used if there is no IPAM.
    pub leased: Option<AddResult>,
    /// Lets the host and the container reach each other.
    pub host_access: Option<&'a HostAccess>,
    /// What happens to the default routes of IPAM.
    pub default_route: DefaultRoute,
    /// Sysctls of the link with their values, such as `net/ipv6/conf/eth0/accept_ra`. They are written before IPAM is
    /// asked, and come before the values of this crate.
    pub sysctls: &'a [(String, String)],
    /// The longest wait for an address from a router advertisement. `None` means not to wait.
    pub slaac_timeout: Option<Duration>,
    /// The care for other machines on the LAN.
    pub lan: Lan,
}

/// The part of the configuration with which a CHECK compares an attachment.
pub struct Wished<'a> {
    /// The kind of the link, with its mode.
    pub link: &'a LinkKind,
    /// The parent.
    pub parent: &'a Wish,
    /// The VLAN of the parent.
    pub vlan: Option<VlanTag>,
    /// True if `hostAccess` is set: the host and the container reach each other.
    pub has_host_access: bool,
}

/// What happens to the default routes that IPAM names for table main.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DefaultRoute {
    /// They are added, unless the container has one with the same priority.
    #[default]
    Usual,
    /// They are added, unless another interface of the container has one.
    Keep,
    /// They are added before all others.
    Take,
    /// They are not added.
    None,
}

/// The settings of host access.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostAccess {
    /// Networks that the container reaches through the host, such as those of Kubernetes Services.
    pub services: Vec<IpNet>,
    /// More addresses that the container reaches through the host.
    pub addresses: Vec<IpAddr>,
    /// The private addresses of the host's link, at most one of each family. If there is none of a family, a usual one
    /// is chosen.
    pub private_addresses: Vec<IpAddr>,
}

impl HostAccess {
    /// Refuses a kind of link that does not pass frames to the host's link.
    ///
    /// # Errors
    ///
    /// Code 7.
    pub fn judge(&self, kind: &LinkKind, link_in_container: bool) -> Result<(), cni::Error> {
        Ok(self.judge_kind(kind, link_in_container)?)
    }

    pub(crate) fn judge_kind(&self, kind: &LinkKind, link_in_container: bool) -> error::Result<()> {
        let cause = match kind {
            _ if link_in_container => {
                "needs the parent on the host, and linkInContainer puts it into the container".to_owned()
            }
            LinkKind::Macvlan { mode: MacvlanMode::Bridge, .. }
            | LinkKind::Ipvlan { mode: IpvlanMode::L2, flag: IpvlanFlag::Bridge } => return Ok(()),
            LinkKind::Macvlan { mode, .. } => {
                format!(
                    "needs mode bridge: in mode {mode}, macvlan passes no frames between the container and the host"
                )
            }
            LinkKind::Ipvlan { mode, flag } => format!(
                "needs mode l2 with flag bridge: in mode {mode} with flag {flag}, ipvlan passes no frames between the \
                 container and the host"
            ),
        };
        Err(Error::Config { key: "hostAccess", value: "is set".to_owned(), cause })
    }

    /// Refuses a parent of the same kind. The kernel puts the new links on the interface below it, and the host's link
    /// would not be found there again.
    pub(crate) fn judge_parent(kind: &LinkKind, parent: &Link) -> error::Result<()> {
        if parent.kind.as_deref() != Some(kind.name()) {
            return Ok(());
        }
        let cause = format!(
            "{} is {} itself, and the kernel puts all such interfaces on the one below it; set master to that one",
            parent.name,
            kind.name()
        );
        Err(Error::Config { key: "hostAccess", value: "is set".to_owned(), cause })
    }
}

/// Removes the host's routes to containers that are gone. `valid` reads the runtime's list of attachments of `network`;
/// it is called only if there are such routes.
///
/// # Errors
///
/// Code 5 if a record cannot be read, code 11 if another call holds the lock, code 100 if the kernel refuses.
pub fn gc(
    network: &str,
    valid: &dyn Fn() -> Result<Vec<ValidAttachment>, cni::Error>,
    remark: &dyn Fn(fmt::Arguments<'_>),
) -> Result<(), cni::Error> {
    Ok(host_side::gc(network, valid, remark)?)
}

/// Leases the addresses of one attachment.
pub trait Ipam {
    /// Leases addresses. After an error, addresses may be leased nevertheless.
    fn add(&self) -> Result<Leased<'_>, cni::Error>;
    /// Releases all addresses of the attachment, and tells IPAM which of them other machines have. If IPAM can, it keeps
    /// these from others for some time.
    fn reject(&self, conflicts: &[Conflict]) -> Result<(), cni::Error>;
    /// Returns whether an ADD after [`Ipam::reject`] can give another address in place of this one.
    fn supply(&self, address: IpAddr) -> Supply;
    /// Returns true if [`Ipam::add`] may set the link up.
    fn may_set_up(&self) -> bool;
    /// Releases all addresses of the attachment.
    fn del(&self) -> Result<(), cni::Error>;
    /// Returns an error if the leases are not as they should be.
    fn check(&self) -> Result<(), cni::Error>;
    /// Returns true if the attachment still has its leases. `None` if IPAM cannot be asked, because the CHECK of
    /// another program might change something.
    fn is_held(&self) -> Option<bool>;
    /// Returns true if [`Ipam::del`] sends packets from the leased address, and so needs it on the link.
    fn releases_from_its_address(&self) -> bool;
}

/// Refuses a link that would disturb other containers.
pub trait Guard {
    /// Permits a link, or returns the reason for the refusal. The caller keeps the permit until the link is created.
    fn permit(&self, link: &LinkKind, site: &mut Site<'_>) -> Result<Permit, cni::Error>;
}

/// The place where a link is about to be created.
pub struct Site<'a> {
    /// A socket in the parent's namespace.
    pub beside_parent: &'a mut Rtnl,
    /// The parent's namespace.
    pub parent_netns: &'a Netns,
    /// The parent.
    pub parent: &'a Link,
}

/// The consent of a [`Guard`]. It may hold a lock until the link is created.
#[derive(Debug, Default)]
pub struct Permit {
    _lock: Option<file::Lock>,
}

impl Permit {
    /// Returns a permit that holds a lock.
    pub fn holding(lock: file::Lock) -> Self {
        Self { _lock: Some(lock) }
    }
}

/// The directory with the locks of this host. Only root can open it. Its file system is empty after a reboot.
pub(crate) const LOCKS: &str = "/run/underlay";

/// Takes the lock with this name, which all plugins on the host share.
///
/// # Errors
///
/// Code 11 if another process still holds it after `within`. Code 5 if the file cannot be opened or locked.
pub fn lock(name: &str, within: Duration) -> Result<file::Lock, cni::Error> {
    let path = Path::new(LOCKS).join(format!("{name}.lock"));
    Ok(file::Lock::take(&path, within).map_err(error::Error::from)?)
}

/// Checks a result of IPAM, as an ADD does before it configures anything. `mtu` is that of the link, in bytes.
///
/// # Errors
///
/// The reason why every ADD with this result fails.
pub fn judge(ifname: &str, mtu: u32, leased: &AddResult) -> Result<(), cni::Error> {
    Ok(life::judge(ifname, mtu, leased)?)
}

impl Task<'_> {
    /// Creates an attachment. If this fails, everything is undone.
    ///
    /// # Errors
    ///
    /// The first error. Its details name everything that could not be undone.
    pub fn add(&self, settings: &Settings<'_>) -> Result<AddResult, cni::Error> {
        life::add(self, settings)
    }

    /// Removes an attachment, or the rest of it. Does not need the parent. `previous` returns the result of ADD; it is
    /// called only if the link has no mark.
    ///
    /// # Errors
    ///
    /// The first error, with the others in its details. After an error, DEL still undoes the other steps.
    pub fn del(&self, kind: &str, previous: &dyn Fn() -> Option<AddResult>) -> Result<(), cni::Error> {
        life::del(self, kind, previous)
    }

    /// Opens the container's namespace. Refuses the home namespace, unless `may_be_home` is true.
    ///
    /// # Errors
    ///
    /// Code 4 if CNI_NETNS is not set. Code 8 if it is not a network namespace, or is refused.
    pub fn open_netns(&self) -> Result<Netns, cni::Error> {
        Ok(container::open(self)?.0)
    }

    /// Opens the container's namespace for a DEL. Returns `None` if there is none, or if it is refused.
    ///
    /// # Errors
    ///
    /// If the namespace exists and cannot be opened.
    pub fn open_netns_if_there(&self) -> Result<Option<Netns>, cni::Error> {
        Ok(container::open_if_there(self)?)
    }

    /// Compares an attachment with the result of its ADD, and with the configuration. Changes nothing. The parent may have
    /// another name now, so it is compared only if the wish for it has properties, and one link has them.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub fn check(&self, wished: &Wished<'_>, expected: &AddResult) -> Result<(), cni::Error> {
        life::check(self, wished, expected)
    }
}
