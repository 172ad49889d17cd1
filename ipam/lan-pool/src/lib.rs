//! The IPAM plugin lan-pool: one pool of addresses for all nodes that share a LAN. The leases are objects in a store, such
//! as the API server of a Kubernetes cluster.
//!
//! - A *lease* is one object in the store. Its name is made of the LAN and the address, so its creation is the lock. A lease
//!   is never changed.
//! - A *uid* names one creation of a lease. A lease is deleted by uid only: so a late delete never frees the successor.
//! - An *owner* is one interface of one container.
//! - The *journal* is a directory on the node, with one file for each owner. It names a lease before the store has it.
#![forbid(unsafe_code)]

mod choose;
pub mod commands;
mod config;
mod error;
pub mod journal;
pub mod lease;
mod machine;
mod plugin;
pub mod pool;
pub mod protocol;
pub mod store;

pub use error::Error;
pub use lease::{Held, Lease, Node, Owner, Uid};
pub use plugin::LanPool;
pub use store::{Answer, Request, Store};
