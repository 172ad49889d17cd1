//! The Linux kernel as the plugins need it: links, addresses, routes, network namespaces, sysctls, files and processes.
//! This crate knows nothing of CNI.
//!
//! - Netns: a network namespace.
//! - Parent: the link whose wire a macvlan or ipvlan link uses.
//! - Master: the bridge, bond or team that a link is a port of.
//! - Holder: a mount, process, thread, descriptor or socket that keeps a namespace alive.
//! - Dump: a netlink request for all objects of a kind.

pub use absence::retain_gone;
pub use address::{Address, AddressWatch};
pub use arp::{Arp, ArpOperation, ArpSocket, HeardArp};
pub use driver::Driver;
pub use error::{Error, Result, errno};
pub use link::{
    IpvlanFlag, IpvlanMode, Link, LinkInfo, LinkKind, MacvlanMode, NewLink, ParseWordError, VlanProtocol, VlanTag,
};
pub use living::Living;
pub use mac::{Mac, ParseMacError};
pub use ndp::{Advertisement, NdpSocket};
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub use netlink::fuzz;
pub use netns::{Netns, NetnsFile, NetnsId};
pub use nix::errno::Errno;
pub use patience::Patience;
pub use route::{Route, RouteKind};
pub use rtnl::Rtnl;
pub use search::{Holder, NetnsSearch};

mod absence;
mod address;
mod arp;
mod descriptor;
mod driver;
mod error;
pub mod file;
mod link;
pub mod living;
mod mac;
mod mounts;
mod ndp;
mod neighbour;
mod netlink;
mod netns;
mod patience;
pub mod process;
mod route;
mod rtnl;
mod search;
pub mod sysctl;
