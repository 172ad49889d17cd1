//! The crate against a real kernel. Every test runs in a thread of its own, in a network
//! namespace of its own that dies with it; root is needed to make one.

mod addresses;
mod hostile;
mod links;
mod namespaces;
mod routes;
mod sandbox;
mod sysctls;
