//! A Kubernetes of two nodes on a Lab's LAN: the fixture that the tests of this package share. Everything runs natively,
//! each node in namespaces of its own, with the built plugins as the only CNI plugins.
#![forbid(unsafe_code)]

pub mod api;
pub mod cluster;
pub mod containerd;
pub mod expected;
mod group;
pub mod init;
pub mod kubelet;
pub mod node;
pub mod pods;
pub mod wait;

pub use api::Api;
pub use cluster::Cluster;
pub use expected::expected_to_fail;
pub use node::Node;
