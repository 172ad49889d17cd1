//! Links: finding, creating, changing and deleting them.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

pub use kind::{LinkInfo, LinkKind};
pub use words::{IpvlanFlag, IpvlanMode, MacvlanMode, ParseWordError};

use crate::netlink::constants::{
    AF_UNSPEC, ALTIFNAMSIZ, IFF_LOOPBACK, IFF_LOWER_UP, IFF_UP, IFLA_ADDRESS, IFLA_ALT_IFNAME, IFLA_EXT_MASK,
    IFLA_GROUP, IFLA_IFNAME, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, IFLA_NET_NS_FD,
    IFNAMSIZ, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, RTEXT_FILTER_SKIP_STATS, RTM_DELLINK, RTM_GETLINK,
    RTM_NEWLINK, RTM_SETLINK,
};
use crate::netlink::{Attributes, Decode, Message, Request};
use crate::{Error, Mac, Netns, Result, Rtnl};

mod kind;
#[cfg(test)]
mod tests;
mod words;

/// Bytes of `struct ifinfomsg`.
const HEADER: usize = 16;

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub ifindex: u32,
    /// Its name. A link found by an alternative name has its primary one here.
    pub name: String,
    /// Its hardware address, if that is an Ethernet one.
    pub mac: Option<Mac>,
    /// The largest packet, in bytes without the link-layer header.
    pub mtu: u32,
    /// Whether it was switched on (`IFF_UP`).
    pub up: bool,
    /// Whether the wire works (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Whether it is a loopback (`IFF_LOOPBACK`).
    pub loopback: bool,
    /// The hardware type (`ARPHRD_*`); 1 is Ethernet.
    pub arphrd: u16,
    /// All flags (`IFF_*`).
    pub flags: u32,
    /// The kind of a virtual link: `macvlan`, `bridge`, `veth`, ...
    pub kind: Option<String>,
    /// The settings of that kind.
    pub info: LinkInfo,
    /// The link it stands on, or a veth's other end (`IFLA_LINK`). It is a number in the
    /// other namespace when `parent_netnsid` is there.
    pub parent: Option<u32>,
    /// The namespace of `parent`, if that is another one (`IFLA_LINK_NETNSID`).
    pub parent_netnsid: Option<i32>,
    /// The bridge, bond, ... that it belongs to.
    pub master: Option<u32>,
    /// The kind of that master: `bridge`, `bond`, ...
    pub slave_kind: Option<String>,
    /// A number that anybody may give it, 0 by default. (`IFLA_GROUP`)
    pub group: u32,
}

/// A link to create. It comes into being down.
#[derive(Clone, Copy, Debug)]
pub struct NewLink<'a> {
    /// Its name in its own namespace.
    pub name: &'a str,
    /// What it shall be.
    pub kind: LinkKind,
    /// The link it shall stand on, in the namespace of the [`Rtnl`].
    pub parent: u32,
    /// The parent's when `None`.
    pub mtu: Option<u32>,
    /// One that the kernel makes up when `None`.
    pub mac: Option<Mac>,
    /// The group that it is in from the beginning: see [`Link::group`].
    pub group: u32,
    /// Where it shall live; the namespace of the [`Rtnl`] when `None`.
    pub netns: Option<&'a Netns>,
}

impl Rtnl {
    /// Finds a link by its name, or by an alternative name of at most 15 bytes.
    ///
    /// # Errors
    ///
    /// `InterfaceName` when no link can have that name, else what the kernel says. That
    /// there is no such link is not an error.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        check_name(name)?;
        let mut request = get_request(0, 0);
        request.text(IFLA_IFNAME, name);
        self.one_link(request, format_args!("find link {name}"))
    }

    /// Finds a link by its name, or by any alternative name, which may have 127 bytes.
    ///
    /// # Errors
    ///
    /// As [`Rtnl::link`].
    pub fn link_by_any_name(&mut self, name: &str) -> Result<Option<Link>> {
        if name.len() < IFNAMSIZ {
            return self.link(name);
        }
        let reason = if name.len() >= ALTIFNAMSIZ { "longer than 127 bytes" } else { "contains NUL" };
        if name.len() >= ALTIFNAMSIZ || name.contains('\0') {
            return Err(Error::InterfaceName { name: name.to_owned(), reason });
        }
        let mut request = get_request(0, 0);
        request.text(IFLA_ALT_IFNAME, name);
        self.one_link(request, format_args!("find link {name}"))
    }

    /// Finds a link by its number.
    ///
    /// # Errors
    ///
    /// What the kernel says. That there is no such link is not an error.
    pub fn link_by_index(&mut self, ifindex: u32) -> Result<Option<Link>> {
        if ifindex == 0 {
            return Ok(None);
        }
        let request = get_request(0, ifindex);
        self.one_link(request, format_args!("find link with ifindex {ifindex}"))
    }

    fn one_link(&mut self, request: Request, operation: fmt::Arguments<'_>) -> Result<Option<Link>> {
        match self.socket.get(request, operation, decode) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links of the namespace.
    ///
    /// # Errors
    ///
    /// What the kernel says; `EINTR` when the links never stop changing.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let request = get_request(NLM_F_DUMP, 0);
        self.socket.dump(request, format_args!("list links"), |message, list| {
            list.push(decode(message)?);
            Ok(())
        })
    }

    /// Creates a link, down, under its final name and in its final namespace. Before Linux
    /// 6.2 or so this is `EEXIST` also when the namespace of the [`Rtnl`] has a link of
    /// that name.
    ///
    /// # Errors
    ///
    /// `InterfaceName` when no link can have that name, else what the kernel says.
    pub fn new_link(&mut self, link: &NewLink<'_>) -> Result<()> {
        check_name(link.name)?;
        self.socket.acknowledge(
            new_request(link),
            format_args!("create {} {} on ifindex {}", link.kind.name(), link.name, link.parent),
        )
    }

    /// Returns true if a macvlan could not stand on a link, since something else takes all its frames: ipvlan interfaces, a
    /// bridge or a bond. Makes nothing: the kernel is asked for a macvlan that it refuses, and sees to the frames before it
    /// sees that. (drivers/net/macvlan.c, `macvlan_common_newlink`)
    ///
    /// # Errors
    ///
    /// What the kernel says, if it says neither.
    pub fn is_taken_from_macvlan(&mut self, parent: u32) -> Result<bool> {
        let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header(0, 0, 0));
        request.u32(IFLA_LINK, parent);
        kind::emit_impossible_macvlan(&mut request);
        let operation = format_args!("ask whether a macvlan can stand on ifindex {parent}");
        match self.socket.acknowledge(request, operation) {
            Err(error) => match error.errno() {
                Some(Errno::EBUSY) => Ok(true),
                Some(Errno::EINVAL) => Ok(false),
                _ => Err(error),
            },
            Ok(()) => Err(Error::Malformed {
                operation: operation.to_string(),
                what: "a macvlan that cannot be was made".into(),
            }),
        }
    }

    /// Switches a link on.
    ///
    /// # Errors
    ///
    /// What the kernel says: `EADDRINUSE` when another macvlan on the same parent has the
    /// same hardware address, for one.
    pub fn set_up(&mut self, ifindex: u32) -> Result<()> {
        self.socket.acknowledge(
            change_request(RTM_SETLINK, ifindex, IFF_UP, IFF_UP),
            format_args!("set up link with ifindex {ifindex}"),
        )
    }

    /// Switches a link off.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn set_down(&mut self, ifindex: u32) -> Result<()> {
        self.socket.acknowledge(
            change_request(RTM_SETLINK, ifindex, 0, IFF_UP),
            format_args!("set down link with ifindex {ifindex}"),
        )
    }

    /// Gives a link another name. It should be down: before Linux 6.2 it must be.
    ///
    /// # Errors
    ///
    /// `InterfaceName` when no link can have that name, else what the kernel says.
    pub fn rename(&mut self, ifindex: u32, name: &str) -> Result<()> {
        check_name(name)?;
        let mut request = change_request(RTM_SETLINK, ifindex, 0, 0);
        request.text(IFLA_IFNAME, name);
        self.socket.acknowledge(request, format_args!("rename link with ifindex {ifindex} to {name}"))
    }

    /// Puts a link into a group.
    ///
    /// # Errors
    ///
    /// `ENODEV` when there is no such link.
    pub fn set_group(&mut self, ifindex: u32, group: u32) -> Result<()> {
        let mut request = change_request(RTM_SETLINK, ifindex, 0, 0);
        request.u32(IFLA_GROUP, group);
        self.socket.acknowledge(request, format_args!("put link with ifindex {ifindex} into group {group}"))
    }

    /// Deletes a link.
    ///
    /// # Errors
    ///
    /// What the kernel says; `ENODEV` when there is none.
    pub fn del_link(&mut self, ifindex: u32) -> Result<()> {
        self.socket
            .acknowledge(change_request(RTM_DELLINK, ifindex, 0, 0), format_args!("delete link with ifindex {ifindex}"))
    }
}

/// The rules without which the kernel would see another name than the caller means: a
/// longer one is refused with a bare `ERANGE`, a NUL would end it, `%d` be replaced by a
/// number. The rest of its rules the kernel may explain itself.
fn check_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "empty"
    } else if name.len() >= IFNAMSIZ {
        "longer than 15 bytes"
    } else if name.contains(['\0', '%']) {
        "contains NUL or %"
    } else {
        return Ok(());
    };
    Err(Error::InterfaceName { name: name.to_owned(), reason })
}

fn header(ifindex: u32, flags: u32, change: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = AF_UNSPEC;
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Without the statistics, which nobody here reads and which are most of the answer.
fn get_request(flags: u16, ifindex: u32) -> Request {
    let mut request = Request::new(RTM_GETLINK, flags, &header(ifindex, 0, 0));
    request.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    request
}

fn change_request(kind: u16, ifindex: u32, flags: u32, change: u32) -> Request {
    Request::new(kind, NLM_F_ACK, &header(ifindex, flags, change))
}

fn new_request(link: &NewLink<'_>) -> Request {
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut request = Request::new(RTM_NEWLINK, flags, &header(0, 0, 0));
    request.text(IFLA_IFNAME, link.name);
    request.u32(IFLA_LINK, link.parent);
    if let Some(mtu) = link.mtu {
        request.u32(IFLA_MTU, mtu);
    }
    if let Some(mac) = link.mac {
        request.bytes(IFLA_ADDRESS, &mac.octets());
    }
    if link.group != 0 {
        request.u32(IFLA_GROUP, link.group);
    }
    if let Some(netns) = link.netns {
        // The kernel reads a descriptor number of the sending process.
        let descriptor = netns.as_fd().as_raw_fd().cast_unsigned();
        request.u32(IFLA_NET_NS_FD, descriptor);
    }
    link.kind.emit(&mut request);
    request
}

pub(crate) fn decode(message: &Message<'_>) -> Decode<Link> {
    if message.kind != RTM_NEWLINK {
        return Err("not a link");
    }
    let attributes = Attributes::after(message.payload, HEADER)?;
    let Some(header) = message.payload.first_chunk::<HEADER>() else {
        return Err("message shorter than its header");
    };
    let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
    let flags = u32::from_ne_bytes(word(8));
    let mut link = Link {
        ifindex: u32::from_ne_bytes(word(4)),
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        arphrd: u16::from_ne_bytes([header[2], header[3]]),
        flags,
        kind: None,
        info: LinkInfo::None,
        parent: None,
        parent_netnsid: None,
        master: None,
        slave_kind: None,
        group: 0,
    };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_ADDRESS => link.mac = attribute.mac(),
            IFLA_IFNAME => link.name = attribute.text(),
            IFLA_MTU => link.mtu = attribute.u32()?,
            // 0: it stands on nothing, as an ip tunnel may.
            IFLA_LINK => link.parent = Some(attribute.u32()?).filter(|&parent| parent != 0),
            IFLA_LINK_NETNSID => link.parent_netnsid = Some(attribute.i32()?),
            IFLA_GROUP => link.group = attribute.u32()?,
            IFLA_MASTER => link.master = Some(attribute.u32()?).filter(|&master| master != 0),
            IFLA_LINKINFO => {
                let decoded = kind::decode(attribute)?;
                link.kind = decoded.kind;
                link.info = decoded.info;
                link.slave_kind = decoded.slave_kind;
            }
            _ => {}
        }
    }
    if link.name.is_empty() {
        return Err("link without a name");
    }
    Ok(link)
}
