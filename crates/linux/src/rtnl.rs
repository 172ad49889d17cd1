//! The handle on one network namespace's links, addresses and routes. Its methods live
//! beside the objects they are about: `link`, `address`, `route`.

use crate::netlink::Socket;
use crate::{Netns, Result};

/// A conversation with the kernel about one network namespace: that of the thread which
/// opened it, wherever the thread goes later. Not shared: one request is answered before
/// the next is sent.
#[derive(Debug)]
pub struct Rtnl {
    pub(crate) socket: Socket,
}

impl Rtnl {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// When the kernel has no socket to give.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open()? })
    }

    /// Opens a socket in another network namespace; the calling thread is back in its own
    /// when this returns.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or the kernel has no socket to give.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.enter(Self::open)?
    }
}
