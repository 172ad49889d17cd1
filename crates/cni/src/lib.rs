//! The CNI protocol: what a runtime says to a plugin, what a plugin answers, and how one plugin calls another.
//!
//! Nothing here knows Linux networking or which plugins exist: a [`Plugin`] does the work, and the program hands its
//! table of plugins to [`run`]. The specification is <https://www.cni.dev/docs/spec/>; "spec" below means that text.
//!
//! # A plugin of your own
//!
//! Implement [`Plugin`] and name it in a [`Program`]; `examples/fixed-address.rs` is a whole one in under 60 lines. What
//! [`run`] does for it:
//!
//! 1. It reads the CNI_* variables, and names all that is wrong with them at once (code 4).
//! 2. It reads the network configuration from stdin (code 6 where it is no JSON) and the keys that every plugin shares
//!    (codes 1 and 7): [`NetConf`].
//! 3. It calls the method for the command. CHECK needs cniVersion 0.4.0, STATUS and GC 1.1.0; earlier ones are code 1.
//! 4. It writes the result in the shape of the version that was asked for, all seven of them, in one write; or the error
//!    object, and exits with 1. Where nobody takes an ADD's result, it calls DEL, so that nothing is left of it. (That
//!    stdout was closed before the start only a program notices whose first call is `linux::process::begin`.)
//! 5. A panic becomes an error with code 999, after the plugin's own destructors have run.
//!
//! What a plugin has to see to: that a failed ADD leaves nothing, that a DEL of what is gone succeeds, and that DEL asks
//! of the configuration no more than it needs.
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
//! Keys of its own a plugin reads with [`Call::keys`]: an [`Object`] gives each in the type that it has to have, and
//! every error names path and value, `ipam.address "here": is not an address such as 10.0.0.5/24`. Null, and "" for text,
//! mean "not set". A plugin that delegates to an IPAM plugin finds it with [`Ipam::find`], which calls it as a function
//! where it is part of the same program, and else starts it.
#![forbid(unsafe_code)]

pub mod config;
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
pub use delegate::{Ipam, RUN_NOTHING, Run};
pub use env::{Args, Attachment};
pub use error::{Code, Error};
pub use network::Network;
pub use object::Object;
pub use plugin::{Call, Plugin, Program, run};
pub use result::{AddResult, Dns, GiveBack, Interface, Ip, Leased, Route};
pub use version::Version;
