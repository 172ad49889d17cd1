//! The library of this package: a Kubernetes cluster of two nodes on the LAN of a Lab. Each node is a set of processes
//! in namespaces of its own. The built plugins are its only CNI plugins.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "only the tests of this repository use it")]

pub mod api;
pub mod cluster;
pub mod containerd;
mod group;
pub mod init;
pub mod kube_proxy;
pub mod kubectl;
pub mod kubelet;
pub mod node;
pub mod pods;

pub use api::Api;
pub use cluster::Cluster;
pub use node::Node;
