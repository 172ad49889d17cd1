//! Our plugins as the only ones in a Kubernetes of two nodes. The tests share one cluster and take turns.

mod daemonset;
mod leases;
mod pods;
mod services;
mod status;
mod whereabouts;
