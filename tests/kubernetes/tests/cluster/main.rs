//! A Kubernetes cluster of two nodes whose only CNI plugins are ours. The tests share it and run one after the other.

mod daemonset;
mod leases;
mod pods;
mod services;
mod status;
mod whereabouts;
