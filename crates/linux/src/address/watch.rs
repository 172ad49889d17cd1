//! Waiting for IPv6 addresses to become usable, by event.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::decode;
use crate::netlink::constants::{AF_INET6, RTM_DELADDR, RTM_NEWADDR, RTNLGRP_IPV6_IFADDR};
use crate::netlink::{Messages, Socket};
use crate::{Error, Netns, Result, Rtnl};

/// Watches the IPv6 addresses of one network namespace, from the moment it is opened.
/// Open it before the addresses are added, lest an event be missed.
#[derive(Debug)]
pub struct AddressWatch {
    socket: Socket,
}

impl AddressWatch {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or the kernel has no socket to give.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        let mut socket = netns.enter(Socket::open)??;
        socket.subscribe(RTNLGRP_IPV6_IFADDR)?;
        Ok(Self { socket })
    }

    /// Waits until duplicate address detection has ended well for all `addresses` of a
    /// link. `rtnl` belongs to the same namespace as the watch.
    ///
    /// An event only says that it is time to look: what counts is what the kernel lists
    /// then, so neither a lost event nor one from before can mislead.
    ///
    /// # Errors
    ///
    /// `DadFailed` when the kernel has marked one of them so, or no longer has it;
    /// `Timeout` naming the first one that is still tentative at the deadline.
    pub fn wait_usable(
        &mut self,
        rtnl: &mut Rtnl,
        ifindex: u32,
        addresses: &[Ipv6Addr],
        deadline: Instant,
    ) -> Result<()> {
        while let Some(waiting) = first_tentative(rtnl, ifindex, addresses)? {
            self.next_event(ifindex, waiting, deadline)?;
        }
        Ok(())
    }

    /// Returns when something may have happened to the addresses of the link.
    fn next_event(&mut self, ifindex: u32, waiting: Ipv6Addr, deadline: Instant) -> Result<()> {
        let operation = format_args!("wait for duplicate address detection of {waiting}");
        loop {
            let Some(datagram) = self.socket.event(deadline, operation)? else {
                return Ok(());
            };
            if Messages::new(datagram).any(|message| concerns(message, ifindex)) {
                return Ok(());
            }
        }
    }
}

/// In doubt, it does: looking once too often is harmless.
fn concerns(message: crate::netlink::Decode<crate::netlink::Message<'_>>, ifindex: u32) -> bool {
    let Ok(message) = message else {
        return true;
    };
    matches!(message.kind, RTM_NEWADDR | RTM_DELADDR)
        && decode(&message).is_ok_and(|address| address.is_none_or(|a| a.ifindex == ifindex))
}

fn first_tentative(rtnl: &mut Rtnl, ifindex: u32, addresses: &[Ipv6Addr]) -> Result<Option<Ipv6Addr>> {
    if addresses.is_empty() {
        return Ok(None);
    }
    let present = rtnl.addresses_of(AF_INET6, ifindex)?;
    let mut waiting = None;
    for &address in addresses {
        let found = present.iter().find(|present| present.address.addr() == IpAddr::V6(address));
        match found {
            None => {
                return Err(Error::DadFailed { address, removed: true });
            }
            Some(present) if present.dad_failed() => {
                return Err(Error::DadFailed { address, removed: false });
            }
            Some(present) if present.tentative() => waiting = waiting.or(Some(address)),
            Some(_) => {}
        }
    }
    Ok(waiting)
}
