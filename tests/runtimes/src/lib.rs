//! Clients of container runtimes. The Lab and the daemons are in `e2e`. This is a package of its own, because a gRPC
//! client is large.
#![forbid(unsafe_code)]

pub mod cri;
pub mod example;
pub mod libcni;
mod messages;
pub mod recipe;

pub use cri::{Cri, Pod};
pub use libcni::Libcni;
