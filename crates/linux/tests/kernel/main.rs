//! Tests of this crate with the kernel. They need root. Each test runs in its own thread and network namespace.
#![allow(clippy::unwrap_used, reason = "all of this is test code")]

mod addresses;
mod arp;
mod detached;
mod hostile;
mod links;
mod namespaces;
mod ndp;
mod neighbours;
mod routes;
mod sandbox;
mod sysctls;
mod wire;
