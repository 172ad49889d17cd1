//! Container runtimes as their own clients drive them: what it takes beyond `e2e`, where the Lab and the daemons are.
//!
//! A package of its own, since a client for gRPC is a good deal of code that nobody else here needs.
#![forbid(unsafe_code)]

pub mod cri;
pub mod example;
pub mod libcni;
mod messages;
pub mod recipe;

pub use cri::{Cri, Pod};
pub use libcni::Libcni;
