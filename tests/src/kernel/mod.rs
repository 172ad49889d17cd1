//! The state of the kernel in one namespace: links, addresses, routes. It is created and read with rtnetlink's
//! messages, which share no code with the program under test.

mod address;
mod kinds;
pub(crate) mod link;
mod neighbour;
mod route;
mod socket;

pub use address::Address;
pub use kinds::Ipvlan;
pub use link::{Link, Macvlan};
pub use route::{NewRoute, Route};
pub use socket::Netlink;

/// The kernel's refusal of a request: its errno.
pub type Errno = nix::errno::Errno;
