//! Waits for events until IPv6 addresses can be used.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::{Address, decode};
use crate::netlink::constants::{AF_INET6, RTM_DELADDR, RTM_NEWADDR, RTNLGRP_IPV6_IFADDR};
use crate::netlink::{Messages, Socket};
use crate::{Error, Netns, Result, Rtnl};

/// Receives the events about IPv6 addresses in one network namespace. Open it before the addresses are added, so that
/// no event is missed.
#[derive(Debug)]
pub struct AddressWatch {
    socket: Socket,
}

impl AddressWatch {
    /// Begins to receive events.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered, or a socket cannot be opened.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        let mut socket = netns.enter(Socket::open)??;
        socket.subscribe(RTNLGRP_IPV6_IFADDR)?;
        Ok(Self { socket })
    }

    /// Waits until duplicate address detection has succeeded for all `addresses` of a link. `rtnl` must belong to the
    /// same namespace.
    ///
    /// After each event, the kernel is asked for the state of the addresses. So a lost or an old event does no harm.
    ///
    /// # Errors
    ///
    /// `DadFailed` if the detection failed for an address, or if the kernel no longer has it. `Timeout` with the first
    /// address that is still tentative at the deadline.
    pub fn wait_usable(
        &mut self,
        rtnl: &mut Rtnl,
        ifindex: u32,
        addresses: &[Ipv6Addr],
        deadline: Instant,
    ) -> Result<()> {
        while let Some(waiting) = first_tentative(rtnl, ifindex, addresses)? {
            let operation = format_args!("wait for duplicate address detection of {waiting}");
            self.next_event(ifindex, operation, deadline)?;
        }
        Ok(())
    }

    /// Waits until `look` finds something among the IPv6 addresses of a link. `rtnl` must belong to the same namespace.
    /// Returns `None` at the deadline.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn wait_until<T>(
        &mut self,
        rtnl: &mut Rtnl,
        ifindex: u32,
        deadline: Instant,
        look: impl Fn(&[Address]) -> Option<T>,
    ) -> Result<Option<T>> {
        loop {
            if let Some(found) = look(&rtnl.addresses_of(AF_INET6, ifindex)?) {
                return Ok(Some(found));
            }
            match self.next_event(ifindex, format_args!("wait for an address"), deadline) {
                Err(Error::Timeout { .. }) => return Ok(None),
                event => event?,
            }
        }
    }

    /// Returns after an event that may be about the addresses of the link.
    fn next_event(&mut self, ifindex: u32, operation: fmt::Arguments<'_>, deadline: Instant) -> Result<()> {
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

/// Returns true if an event may be about the link. If it is not known, the addresses are listed once more, which is
/// harmless.
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
