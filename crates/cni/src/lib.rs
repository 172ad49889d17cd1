//! The CNI protocol: the input of a plugin, its answers, and calls from one plugin to another.
//!
//! This crate does not know Linux networking, nor which plugins exist. A [`Plugin`] does the work, and the program
//! gives its table of plugins to [`run`]. "spec" means the specification, <https://www.cni.dev/docs/spec/>.
//!
//! # A plugin of your own
//!
//! Implement [`Plugin`], and add it to a [`Program`]. `examples/fixed-address.rs` is a complete one. [`run`] does
//! this for it:
//!
//! 1. It reads the CNI_* variables, and names all mistakes at once (code 4).
//! 2. It reads the network configuration from stdin (code 6 if it is not JSON), and the keys that every plugin shares
//!    (codes 1 and 7): [`NetConf`].
//! 3. It calls the method for the command. CHECK needs cniVersion 0.4.0, STATUS and GC 1.1.0; earlier ones are code 1.
//! 4. It writes the result in the shape of the requested version, with one write. If there is an error, it writes the
//!    error object and returns 1. If the result of ADD cannot be written, it calls DEL. (Only a program that calls
//!    `linux::process::begin` first can detect that its stdout was already closed.)
//! 5. A panic becomes an error with code 999, after the plugin's own destructors have run.
//!
//! The plugin must ensure three things. A failed ADD leaves nothing. A DEL of an attachment that is gone succeeds.
//! DEL reads only those keys that it needs.
//!
//! ```
//! use cni::{AddResult, Attachment, Call, Error, Plugin};
//!
//! struct Nothing;
//!
//! impl Plugin for Nothing {
//!     fn about(&self) -> &'static str {
//!         "attaches nothing"
//!     }
//!     fn add(&self, call: &Call<'_>, _: &Attachment) -> Result<AddResult, Error> {
//!         // In a chain, what came before is the result.
//!         Ok(call.prev_result()?.unwrap_or_default())
//!     }
//!     fn del(&self, _: &Call<'_>, _: &Attachment) -> Result<(), Error> {
//!         Ok(())
//!     }
//!     fn check(&self, _: &Call<'_>, _: &Attachment) -> Result<(), Error> {
//!         Ok(())
//!     }
//!     fn status(&self, _: &Call<'_>) -> Result<(), Error> {
//!         Ok(())
//!     }
//!     fn gc(&self, _: &Call<'_>) -> Result<(), Error> {
//!         Ok(())
//!     }
//! }
//! ```
//!
//! A plugin reads its own keys with [`Call::keys`]. An [`Object`] returns each key in its type. Every error names
//! path and value: `ipam.address "here": is not an address such as 10.0.0.5/24`. null, and "" for text, mean "not
//! set". A plugin that delegates to an IPAM plugin finds it with [`Ipam::find`].
#![forbid(unsafe_code)]

pub mod config;
pub mod conflict;
pub mod delegate;
pub mod env;
pub mod error;
pub mod network;
pub mod object;
pub mod plugin;
pub mod result;
pub mod version;
pub mod wire;

pub use config::NetConf;
pub use conflict::Conflict;
pub use delegate::{Ipam, RUN_NOTHING, Run};
pub use env::{Args, Attachment};
pub use error::{Code, Error};
pub use network::Network;
pub use object::Object;
pub use plugin::{Call, Plugin, Program, run};
pub use result::{AddResult, Dns, GiveBack, Interface, Ip, Leased, Route};
pub use version::Version;
