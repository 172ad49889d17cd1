//! A Kubernetes cluster of two nodes whose only CNI plugins are ours. The tests share it and run one after the other.

mod daemonset;
mod host_port;
mod kubelet;
mod leases;
mod node_port;
mod page;
mod pods;
mod pool;
mod second;
mod services;
mod status;
mod taken;
mod web;
mod whereabouts;
