//! Clients of container runtimes. The Lab and the daemons are in `e2e`. This is a separate package, because its gRPC
//! client has many dependencies.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "only the tests of this repository use it")]

pub mod cri;
pub mod example;
pub mod libcni;
mod messages;
pub mod recipe;

pub use cri::{Cri, Pod};
pub use libcni::Libcni;
