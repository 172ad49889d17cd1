//! The life of one sub-interface of a host NIC in a container, whatever its kind.
//!
//! An attachment is a list of steps, which stands in `life.rs`: the link and its mark, the lease, sysctls, addresses, routes.
//! Each step is one file in `steps`. It knows how it is applied, compared, found again and undone.
//!
//! Nothing here knows CNI's calls, its environment or its configuration: a front end reads them, and hands over a [`Task`]
//! and [`Settings`]. Results and errors are those of the crate `cni`.
#![forbid(unsafe_code)]

mod container;
pub mod error;
mod life;
pub mod mark;
mod parent;
mod result;
mod steps;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use cni::{AddResult, Dns, Leased};
use linux::{Link, LinkKind, Mac, Netns, Rtnl, file};

pub use parent::status;

/// One interface of one container.
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// The container.
    pub container_id: &'a str,
    /// The name of the interface in it.
    pub ifname: &'a str,
    /// The container's network namespace. A DEL may come without it.
    pub netns: Option<&'a Path>,
    /// Whether that may be the namespace of this process, which is the host's.
    pub may_be_home: bool,
}

/// An attachment, and those who take part in it.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// Which interface of which container.
    pub attachment: Attachment<'a>,
    /// Who leases its addresses; none means that it gets none, or has them already.
    pub ipam: Option<&'a dyn Ipam>,
    /// Where the operator is told something that is no failure.
    pub remark: &'a dyn Fn(fmt::Arguments<'_>),
}

/// What an ADD makes.
pub struct Settings<'a> {
    /// The kind of the link with its mode.
    pub link: LinkKind,
    /// The hardware address; none lets the kernel choose.
    pub mac: Option<Mac>,
    /// Who has to be asked before the link is made.
    pub guard: Option<&'a dyn Guard>,
    /// The name of the parent; none means the interface of the default route.
    pub master: Option<&'a str>,
    /// In bytes; none means the parent's.
    pub mtu: Option<u32>,
    /// Whether the parent is in the container's network namespace.
    pub link_in_container: bool,
    /// Goes into the result in place of IPAM's where it says anything.
    pub dns: &'a Dns,
    /// Addresses and routes that somebody else has leased, in place of IPAM.
    pub leased: Option<AddResult>,
}

/// Who leases the addresses of one attachment.
pub trait Ipam {
    /// Leases addresses. A failure may leave something leased all the same.
    ///
    /// # Errors
    ///
    /// What IPAM says.
    fn add(&self) -> Result<Leased<'_>, cni::Error>;
    /// Releases everything that the attachment has.
    ///
    /// # Errors
    ///
    /// What IPAM says.
    fn del(&self) -> Result<(), cni::Error>;
    /// Compares what the attachment has with what it should have.
    ///
    /// # Errors
    ///
    /// What IPAM says.
    fn check(&self) -> Result<(), cni::Error>;
    /// Whether the attachment still has its addresses. `None` where the question may change something, or is not to be
    /// trusted: the CHECK of another program may do anything.
    fn is_held(&self) -> Option<bool>;
    /// Whether [`Ipam::del`] sends from the leased address, and so needs it on the link.
    fn releases_from_its_address(&self) -> bool;
}

/// Says no where a link would disturb others.
pub trait Guard {
    /// Permits a link. The permit is held until the link is made.
    ///
    /// # Errors
    ///
    /// The reason why it must not be made.
    fn permit(&self, link: &LinkKind, site: &mut Site<'_>) -> Result<Permit, cni::Error>;
}

/// Where a link is about to be made.
pub struct Site<'a> {
    /// A socket in the parent's namespace.
    pub beside_parent: &'a mut Rtnl,
    /// The parent's namespace.
    pub parent_netns: &'a Netns,
    /// The parent.
    pub parent: &'a Link,
}

/// What a [`Guard`] needs to be held while the link is made.
#[derive(Debug, Default)]
pub struct Permit {
    _lock: Option<file::Lock>,
}

impl Permit {
    /// A permit that holds a lock.
    pub fn holding(lock: file::Lock) -> Self {
        Self { _lock: Some(lock) }
    }
}

/// Where callers on one host agree with each other. It is root's alone, and on a file system that a reboot empties.
const AGREEMENTS: &str = "/run/underlay";

/// Takes a lock of the host, of this name.
///
/// # Errors
///
/// Code 11 if somebody else still has it after `within`, code 5 if it cannot be had.
pub fn lock(name: &str, within: Duration) -> Result<file::Lock, cni::Error> {
    let path = Path::new(AGREEMENTS).join(format!("{name}.lock"));
    Ok(file::Lock::take(&path, within).map_err(error::Error::from)?)
}

/// Judges a result of IPAM for a link with an MTU of so many bytes, as an ADD does before it configures anything.
///
/// # Errors
///
/// If no ADD could succeed with it.
pub fn judge(ifname: &str, mtu: u32, leased: &AddResult) -> Result<(), cni::Error> {
    Ok(life::judge(ifname, mtu, leased)?)
}

impl Task<'_> {
    /// Makes an attachment. Fails without a trace, or succeeds whole.
    ///
    /// # Errors
    ///
    /// The first failure, and in its details what could not be undone.
    pub fn add(&self, settings: &Settings<'_>) -> Result<AddResult, cni::Error> {
        life::add(self, settings)
    }

    /// Takes an attachment apart. What is gone already is a success. Needs neither the parent nor `previous`, which is
    /// what ADD has returned: it is asked for only where a link has no mark.
    ///
    /// # Errors
    ///
    /// All failures. What could be undone all the same is undone.
    pub fn del(&self, kind: &str, previous: &dyn Fn() -> Option<AddResult>) -> Result<(), cni::Error> {
        life::del(self, kind, previous)
    }

    /// Opens the container's namespace. The host's own is refused, unless the attachment may be there.
    ///
    /// # Errors
    ///
    /// Code 8 if there is none, or if it is the host's.
    pub fn open_netns(&self) -> Result<Netns, cni::Error> {
        Ok(container::open(self)?.0)
    }

    /// Opens the container's namespace for a DEL; `None` where there is none any more, or where it is the host's.
    ///
    /// # Errors
    ///
    /// If one that is there cannot be opened.
    pub fn open_netns_if_there(&self) -> Result<Option<Netns>, cni::Error> {
        Ok(container::open_if_there(self)?)
    }

    /// Compares an attachment with what its ADD has returned. Changes nothing.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub fn check(&self, kind: &LinkKind, expected: &AddResult) -> Result<(), cni::Error> {
        life::check(self, kind, expected)
    }
}
