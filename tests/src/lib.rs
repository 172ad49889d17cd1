//! The Lab: a throwaway LAN of network namespaces, owned whole by one test, and what a
//! test needs to run the built binaries in it and to see what they did to the kernel and to
//! the wire. It knows nothing of the plugins' code: it runs their files.
//!
//! Everything here panics instead of returning errors: in a test, and in the demo, a Lab
//! that cannot be built is the end of the matter.
#![forbid(unsafe_code)]

pub mod binaries;
pub mod cases;
pub mod chart;
pub mod compliance;
pub mod document;
pub mod faults;
pub mod interrupt;
pub mod kernel;
pub mod lab;
pub mod messages;
pub mod needs;
pub mod netns;
pub mod patience;
pub mod plugin;
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
pub use scenario::with;
