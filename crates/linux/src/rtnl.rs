//! The handle for the links, addresses, routes and neighbours of one network namespace. Its methods are in `link`,
//! `address`, `route` and `neighbour`.

use std::os::fd::{AsFd, AsRawFd};

use crate::netlink::constants::{AF_UNSPEC, NETNSA_FD, NETNSA_NSID, RTM_GETNSID, RTM_NEWNSID};
use crate::netlink::{Attributes, Decode, Message, Request, Socket};
use crate::{Netns, Result};

/// Bytes of `struct rtgenmsg`, with padding.
const HEADER: usize = 4;

/// A netlink socket in one network namespace: that of the thread at the time when it opened the socket. One request is
/// answered before the next is sent.
#[derive(Debug)]
pub struct Rtnl {
    pub(crate) socket: Socket,
}

impl Rtnl {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open()? })
    }

    /// Opens a socket in another network namespace. The calling thread then returns to its own.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered, or the kernel gives no socket.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.enter(Self::open)?
    }

    /// Returns the cookie of the namespace of this socket, a number that no other namespace gets until the next boot.
    /// Returns `None` before Linux 5.14. (`SO_NETNS_COOKIE`)
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn netns_cookie(&self) -> Result<Option<u64>> {
        self.socket.netns_cookie()
    }

    /// Returns the number of another namespace in this one, as in [`crate::Link::parent_netnsid`]. Returns `None` if it
    /// has no number here. Then no link of this namespace has its parent there.
    pub fn nsid(&mut self, other: &Netns) -> Result<Option<i32>> {
        let mut request = Request::new(RTM_GETNSID, 0, &[AF_UNSPEC, 0, 0, 0]);
        // The kernel takes the number as a descriptor of the sending process.
        request.u32(NETNSA_FD, other.as_fd().as_raw_fd().cast_unsigned());
        self.socket.get(request, format_args!("find number of network namespace \"{}\"", other.path().display()), nsid)
    }
}

fn nsid(message: &Message<'_>) -> Decode<Option<i32>> {
    if message.kind != RTM_NEWNSID {
        return Err("not a namespace number");
    }
    for attribute in Attributes::after(message.payload, HEADER)? {
        let attribute = attribute?;
        if attribute.kind == NETNSA_NSID {
            // -1 is NETNSA_NSID_NOT_ASSIGNED.
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
        /// A negative number is read as none.
        #[test]
        fn the_number_of_a_namespace_reads_back(number in prop_oneof![-2..2_i32, any::<i32>()]) {
            let mut answer = Request::new(RTM_NEWNSID, 0, &[AF_UNSPEC, 0, 0, 0]);
            answer.u32(NETNSA_NSID, number.cast_unsigned());
            prop_assert_eq!(nsid(&only(answer.sealed(1, 2))), Ok((number >= 0).then_some(number)));
        }
    }
}
