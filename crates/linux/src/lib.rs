//! The Linux kernel as the plugins need it: links, addresses, routes, network
//! namespaces and sysctls. Knows nothing of CNI, prints nothing, starts no thread.

pub use absence::retain_gone;
pub use address::{Address, AddressWatch};
pub use error::{Error, Result, errno};
pub use link::{IpvlanFlag, IpvlanMode, Link, LinkInfo, LinkKind, MacvlanMode, NewLink, ParseWordError};
pub use mac::{Mac, ParseMacError};
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub use netlink::fuzz;
pub use netns::{Netns, NetnsId};
pub use nix::errno::Errno;
pub use patience::Patience;
pub use route::{Route, RouteKind};
pub use rtnl::Rtnl;
pub use search::{Holder, NetnsSearch};

mod absence;
mod address;
mod descriptor;
mod error;
pub mod file;
mod link;
mod mac;
mod mounts;
mod netlink;
mod netns;
mod patience;
pub mod process;
mod route;
mod rtnl;
mod search;
pub mod sysctl;
