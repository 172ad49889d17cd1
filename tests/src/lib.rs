//! The Lab: a temporary LAN of network namespaces for one test. It runs the built programs, and reads the state of the
//! kernel and the frames on the wire. It shares no code with the plugins. All errors panic.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "only the tests of this repository use it")]

pub mod binaries;
pub mod cases;
pub mod chart;
pub mod compliance;
pub mod document;
pub mod faults;
pub mod gate;
pub mod host_site;
pub mod interrupt;
pub mod kernel;
pub mod lab;
pub mod messages;
pub mod mounts;
pub mod needs;
pub mod netns;
pub mod patience;
pub mod plugin;
pub mod processes;
pub mod runtime;
pub mod samples;
pub mod scenario;
pub mod snapshot;
pub mod trace;
pub mod traffic;

pub use binaries::Binaries;
pub use lab::{Container, Lab, Machine};
pub use netns::Namespace;
pub use plugin::{Call, CniError, Outcome, Plugin};
pub use samples::Samples;
pub use scenario::{with, without};
