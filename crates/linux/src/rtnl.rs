//! The handle on one network namespace's links, addresses and routes. Its methods live
//! beside the objects they are about: `link`, `address`, `route`.

use std::os::fd::{AsFd, AsRawFd};

use crate::netlink::constants::{AF_UNSPEC, NETNSA_FD, NETNSA_NSID, RTM_GETNSID, RTM_NEWNSID};
use crate::netlink::{Attributes, Decode, Message, Request, Socket};
use crate::{Netns, Result};

/// `struct rtgenmsg`, padded.
const HEADER: usize = 4;

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

    /// The number by which this namespace knows another one, as in [`crate::Link::parent_netnsid`]; `None` when it has
    /// given it none, so that none of its links has its parent there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn nsid(&mut self, other: &Netns) -> Result<Option<i32>> {
        let mut request = Request::new(RTM_GETNSID, 0, &[AF_UNSPEC, 0, 0, 0]);
        // The kernel reads a descriptor number of the sending process.
        request.u32(NETNSA_FD, other.as_fd().as_raw_fd().cast_unsigned());
        self.socket.get(request, format_args!("find number of network namespace {}", other.path().display()), nsid)
    }
}

fn nsid(message: &Message<'_>) -> Decode<Option<i32>> {
    if message.kind != RTM_NEWNSID {
        return Err("not a namespace number");
    }
    for attribute in Attributes::after(message.payload, HEADER)? {
        let attribute = attribute?;
        if attribute.kind == NETNSA_NSID {
            // -1: NETNSA_NSID_NOT_ASSIGNED.
            return Ok(Some(attribute.i32()?).filter(|&number| number >= 0));
        }
    }
    Err("namespace number is missing")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::reference::only;

    proptest! {
        /// Lost is which negative number it was: all of them mean none.
        #[test]
        fn a_namespace_number_reads_back(number in prop_oneof![-2..2_i32, any::<i32>()]) {
            let mut answer = Request::new(RTM_NEWNSID, 0, &[AF_UNSPEC, 0, 0, 0]);
            answer.u32(NETNSA_NSID, number.cast_unsigned());
            prop_assert_eq!(nsid(&only(answer.sealed(1, 2))), Ok((number >= 0).then_some(number)));
        }
    }
}
