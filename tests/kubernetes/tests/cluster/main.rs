//! Our plugins as the only ones of a Kubernetes of two nodes.
//!
//! The tests share one cluster and take turns in it.

mod daemonset;
mod leases;
mod pods;
mod services;
mod status;
mod whereabouts;
