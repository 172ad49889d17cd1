//! Tests this crate on a real kernel. Needs root: each test runs in a thread and a network namespace of its own.

mod addresses;
mod hostile;
mod links;
mod namespaces;
mod routes;
mod sandbox;
mod sysctls;
