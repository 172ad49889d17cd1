//! Netlink: a blocking socket, and the encoding of messages. The meaning of the messages is in `link`, `address` and
//! `route`.

pub(crate) use attribute::{Attribute, Attributes, ip as attribute_ip};
pub(crate) use exchange::DUMP_ATTEMPTS;
pub(crate) use message::{Message, Messages, Request};
pub(crate) use socket::Socket;

mod acknowledgement;
mod attribute;
pub(crate) mod constants;
mod exchange;
#[cfg(feature = "fuzz")]
#[path = "../../../../tests/hostile/inside/linux.rs"]
pub mod fuzz;
mod message;
#[cfg(test)]
pub(crate) mod reference;
mod socket;

/// A decoded part of a message, or the mistake in it.
pub(crate) type Decode<T> = std::result::Result<T, &'static str>;

/// Messages and attributes start at multiples of four bytes. (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`)
const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}
