//! One datagram through every decoder. This file is compiled into `linux`, because the decoders are private there; the
//! program is built without it.

use super::acknowledgement::{end_of_dump, verdict};
use super::{Attributes, Messages};

/// What was understood of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Understood {
    /// Messages whose length fits.
    pub messages: usize,
    /// Those that are links.
    pub links: usize,
    /// Those that are addresses.
    pub addresses: usize,
    /// Routes, of which one message may hold many.
    pub routes: usize,
    /// Errors of the kernel, with or without its words.
    pub errors: usize,
}

/// Reads a datagram as whatever it may be: each message goes through each decoder.
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
        // A next hop has eight bytes at the least.
        assert!(routes <= 1 + message.payload.len() / 8);
        understood.routes += routes;
        for attribute in Attributes::new(message.payload).flatten() {
            let _ = (attribute.text(), attribute.ip(), attribute.mac(), attribute.nested().count());
        }
    }
    assert!(understood.messages <= bytes.len() / super::message::HEADER);
    understood
}
