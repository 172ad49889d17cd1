//! The library of this package: a Kubernetes cluster of two nodes on the LAN of a Lab. Each node is a set of processes
//! in namespaces of its own. The built plugins are its only CNI plugins. An [`ApiServer`] is without nodes.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "only the tests of this repository use it")]

pub mod api;
pub mod api_server;
pub mod cluster;
pub mod containerd;
mod control_plane;
pub mod daemon;
mod group;
pub mod init;
pub mod kube_proxy;
pub mod kubectl;
pub mod kubelet;
pub mod node;
pub mod pods;

pub use api::Api;
pub use api_server::ApiServer;
pub use cluster::Cluster;
pub use daemon::Daemon;
pub use node::Node;
