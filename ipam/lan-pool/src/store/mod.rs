//! The store of the leases, with the operations of the model in `protocol`.

pub mod kubernetes;

use std::net::IpAddr;
use std::time::Instant;

use crate::lease::{Block, Held, Lease, Uid};

/// A request to the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// Make this lease, if the address has none.
    Create(Lease),
    /// Read the lease of an address.
    Get(IpAddr),
    /// Delete the lease of an address, if it has this uid.
    Delete(IpAddr, Uid),
    /// List all leases of this node on this LAN. The list is complete and consistent: it shows the store at one time,
    /// which is after the request was sent.
    OfNode,
    /// List the leases of a block of addresses on this LAN. The list is complete and consistent too.
    InBlock(Block),
}

/// The answer to a request.
#[allow(clippy::large_enum_variant, reason = "only one exists at a time")]
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// To a create: the lease was made now.
    Made(Uid),
    /// To a create: the address has a lease already. It may be the same one, from an earlier request.
    Taken,
    /// To a get.
    Found(Option<Held>),
    /// To a delete: the store has no lease with that uid any more.
    Gone,
    /// To a list.
    Leases(Vec<Held>),
    /// The request was not carried out, and never will be. The text is the cause.
    Refused(String),
    /// Whether the request was carried out, or will be, is not known. The text is the cause.
    Lost(String),
}

/// A store of leases, for one LAN and one node.
pub trait Store {
    /// Sends a request, and waits for the answer until `deadline`. If the store is busy and says so, the request is sent
    /// again within that time. No other request is ever sent twice here.
    fn ask(&mut self, request: &Request, deadline: Instant) -> Answer;
}

/// A store that cannot be reached, because of this error.
pub(crate) struct Away(pub(crate) String);

impl Store for Away {
    fn ask(&mut self, _: &Request, _: Instant) -> Answer {
        Answer::Refused(self.0.clone())
    }
}
