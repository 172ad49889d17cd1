//! Runs all decoders on one datagram. This file is compiled into `linux`, because the decoders are private. The program
//! is built without it.

use super::acknowledgement::{end_of_dump, verdict};
use super::{Attributes, Messages};

/// The messages of a datagram that were decoded.
#[allow(missing_docs, reason = "the names say enough")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Understood {
    /// Messages with a correct length.
    pub messages: usize,
    pub links: usize,
    pub addresses: usize,
    /// One message may have several routes.
    pub routes: usize,
    pub errors: usize,
}

/// Runs all decoders on each message.
pub fn datagram(bytes: &[u8]) -> Understood {
    let mut understood = Understood::default();
    for message in Messages::new(bytes).flatten() {
        understood.messages += 1;
        understood.errors += usize::from(matches!(verdict(&message), Ok(Err(_))));
        let _ = end_of_dump(&message);
        if let Ok(link) = crate::link::decode(&message) {
            assert!(!link.name.is_empty());
            understood.links += 1;
        }
        if let Ok(Some(address)) = crate::address::decode(&message) {
            assert!(address.peer != Some(address.address.addr()));
            understood.addresses += 1;
        }
        let mut routes = 0;
        let _ = crate::route::codec::decode(&message, |_| routes += 1);
        // A next hop has at least eight bytes.
        assert!(routes <= 1 + message.payload.len() / 8);
        understood.routes += routes;
        for attribute in Attributes::new(message.payload).flatten() {
            let _ = (attribute.text(), attribute.ip(), attribute.mac(), attribute.nested().count());
        }
    }
    assert!(understood.messages <= bytes.len() / super::message::HEADER);
    understood
}
