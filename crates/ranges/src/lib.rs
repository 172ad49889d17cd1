//! The addresses that an IPAM plugin may lease: ranges, excluded addresses, requested addresses, and the routes and the
//! resolv.conf of the result. host-local and lan-pool read the same keys.
//!
//! - Range: consecutive addresses of one subnet.
//! - Set: ranges of one family, of which a container gets one address.
//! - Span: consecutive addresses that may be leased: a part of a range without the excluded addresses.
#![forbid(unsafe_code)]

mod config;
mod error;
mod range;
mod request;
pub mod resolv;

pub use config::Ranges;
pub use error::Error;
pub use range::{Excluded, Range, Set, Span, edges};
pub use request::Requested;
