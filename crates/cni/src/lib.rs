//! The CNI protocol: what a runtime says to a plugin, what a plugin answers, and how one plugin calls another.
//!
//! Nothing here knows Linux networking or which plugins exist: a [`Plugin`] does the work, and the program hands its
//! table of plugins to [`run`]. The specification is <https://www.cni.dev/docs/spec/>; "spec" below means that text.
#![forbid(unsafe_code)]

pub mod config;
pub mod delegate;
pub mod env;
pub mod error;
pub mod object;
pub mod plugin;
pub mod result;
pub mod version;
pub mod wire;

pub use config::NetConf;
pub use delegate::Ipam;
pub use env::{Args, Attachment};
pub use error::{Code, Error};
pub use object::Object;
pub use plugin::{Call, Plugin, Program, run};
pub use result::{AddResult, Dns, Interface, Ip, Route};
pub use version::Version;
