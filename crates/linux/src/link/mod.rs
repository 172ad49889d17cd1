//! Links: finds, creates, changes and deletes them.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

pub use kind::{LinkInfo, LinkKind, VlanTag};
pub use words::{IpvlanFlag, IpvlanMode, MacvlanMode, ParseWordError, VlanProtocol};

use crate::netlink::constants::{
    AF_UNSPEC, ALTIFNAMSIZ, IFF_LOOPBACK, IFF_LOWER_UP, IFF_NOARP, IFF_UP, IFLA_ADDRESS, IFLA_ALT_IFNAME,
    IFLA_EXT_MASK, IFLA_GROUP, IFLA_IFALIAS, IFLA_IFNAME, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER,
    IFLA_MTU, IFLA_NET_NS_FD, IFLA_PROP_LIST, IFNAMSIZ, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL,
    RTEXT_FILTER_SKIP_STATS, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTM_NEWLINKPROP, RTM_SETLINK,
};
use crate::netlink::{Attributes, Decode, Message, Request};
use crate::{Error, Mac, Netns, Result, Rtnl};

mod kind;
#[cfg(test)]
mod tests;
mod words;

/// Bytes of `struct ifinfomsg`.
const HEADER: usize = 16;

/// A link as the kernel describes it. The default has no attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The ifindex, a number in its network namespace.
    pub ifindex: u32,
    /// The primary name, also if the link was found by an alternative name.
    pub name: String,
    /// The hardware address, if it has six bytes.
    pub mac: Option<Mac>,
    /// The largest packet in bytes, without the link-layer header.
    pub mtu: u32,
    /// True if the link is up. (`IFF_UP`)
    pub up: bool,
    /// True if there is a carrier. (`IFF_LOWER_UP`)
    pub carrier: bool,
    /// True for a loopback. (`IFF_LOOPBACK`)
    pub loopback: bool,
    /// The hardware type. 1 is Ethernet. (`ARPHRD_*`)
    pub arphrd: u16,
    /// All flags. (`IFF_*`)
    pub flags: u32,
    /// The kind of a virtual link, such as `macvlan`, `bridge` or `veth`.
    pub kind: Option<String>,
    /// The settings of that kind.
    pub info: LinkInfo,
    /// The ifindex of the parent, or of a veth's other end. For vxlan, it is the link that carries its packets. If
    /// `parent_netnsid` is set, it is an ifindex in that namespace. (`IFLA_LINK`)
    pub parent: Option<u32>,
    /// The number of the parent's namespace, if that is another one. (`IFLA_LINK_NETNSID`)
    pub parent_netnsid: Option<i32>,
    /// The ifindex of the bridge, bond or team that the link is a port of.
    pub master: Option<u32>,
    /// The kind of the master, such as `bridge` or `bond`.
    pub slave_kind: Option<String>,
    /// A number that users and programs choose; 0 by default. (`IFLA_GROUP`)
    pub group: u32,
    /// A text that users and programs choose; empty by default. (`IFLA_IFALIAS`)
    pub alias: String,
    /// The alternative names. (`IFLA_ALT_IFNAME`)
    pub alternative_names: Vec<String>,
}

/// A link to create. A new link is down.
#[derive(Clone, Copy, Debug)]
pub struct NewLink<'a> {
    /// The name in the namespace of the new link.
    pub name: &'a str,
    /// The kind, with its settings.
    pub kind: LinkKind,
    /// The ifindex of the parent in the namespace of the [`Rtnl`].
    pub parent: u32,
    /// In bytes. `None` is the parent's MTU.
    pub mtu: Option<u32>,
    /// If this is `None`, the kernel chooses a MAC.
    pub mac: Option<Mac>,
    /// See [`Link::group`].
    pub group: u32,
    /// False for a link that neither sends nor answers ARP. (`IFF_NOARP`)
    pub arp: bool,
    /// The namespace of the new link. `None` is the namespace of the [`Rtnl`].
    pub netns: Option<&'a Netns>,
}

impl Rtnl {
    /// Finds a link by its name, or by an alternative name of at most 15 bytes.
    ///
    /// # Errors
    ///
    /// `InterfaceName` if no link can have this name; otherwise the kernel's error. Returns `None` if there is no such
    /// link.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        check_name(name)?;
        let mut request = get_request(0, 0);
        request.text(IFLA_IFNAME, name);
        self.one_link(request, format_args!("find link {name}"))
    }

    /// Finds a link by its name, or by an alternative name of at most 127 bytes.
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

    /// Finds a link by its ifindex. Returns `None` if there is no such link.
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

    /// Lists all links of the namespace.
    ///
    /// # Errors
    ///
    /// `EINTR` if the links changed during every dump.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let request = get_request(NLM_F_DUMP, 0);
        self.socket.dump(request, format_args!("list links"), |message, list| {
            list.push(decode(message)?);
            Ok(())
        })
    }

    /// Lists the links of one kind, such as `macvlan`. The kernel skips all others.
    ///
    /// # Errors
    ///
    /// As [`Rtnl::links`].
    pub fn links_of_kind(&mut self, kind: &str) -> Result<Vec<Link>> {
        let mut request = get_request(NLM_F_DUMP, 0);
        kind::emit_filter(&mut request, kind);
        self.socket.dump(request, format_args!("list {kind} links"), |message, list| {
            // The kernel sends all links if it does not know the kind, because its module is not loaded.
            list.extend(Some(decode(message)?).filter(|link| link.kind.as_deref() == Some(kind)));
            Ok(())
        })
    }

    /// Creates a link with its final name, in its final namespace. The link is down.
    ///
    /// # Errors
    ///
    /// `InterfaceName` if no link can have this name. `EEXIST` if the name is taken; before about Linux 6.2 also if the
    /// namespace of the [`Rtnl`] has a link with this name.
    pub fn new_link(&mut self, link: &NewLink<'_>) -> Result<()> {
        check_name(link.name)?;
        self.socket.acknowledge(
            new_request(link),
            format_args!("create {} {} on ifindex {}", link.kind.name(), link.name, link.parent),
        )
    }

    /// Creates a VLAN link with this tag on a parent, in the namespace of the [`Rtnl`]. The link is down, and has the
    /// parent's MTU and MAC.
    ///
    /// # Errors
    ///
    /// `InterfaceName` if no link can have this name. `EEXIST` if the name is taken, or if the parent has a link with
    /// this tag in any namespace. `EOPNOTSUPP` if the kernel has no VLANs.
    pub fn new_vlan(&mut self, name: &str, parent: u32, tag: VlanTag, group: u32) -> Result<()> {
        check_name(name)?;
        let mut request = create_request(name, parent, group, 0);
        kind::emit_vlan(&mut request, tag);
        self.socket.acknowledge(request, format_args!("create vlan {name} on ifindex {parent}"))
    }

    /// Returns true if a link cannot be the parent of a macvlan because something else receives all its frames: ipvlan
    /// links, a bridge or a bond. Creates nothing: asks for a macvlan that the kernel always refuses. The kernel checks
    /// the parent's frames first. (drivers/net/macvlan.c, `macvlan_common_newlink`)
    ///
    /// # Errors
    ///
    /// The kernel's error, if it is neither `EBUSY` nor `EINVAL`.
    pub fn is_taken_from_macvlan(&mut self, parent: u32) -> Result<bool> {
        let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header(0, 0, 0));
        request.u32(IFLA_LINK, parent);
        kind::emit_impossible_macvlan(&mut request);
        let operation = format_args!("check if a macvlan can be created on ifindex {parent}");
        match self.socket.acknowledge(request, operation) {
            Err(error) => match error.errno() {
                Some(Errno::EBUSY) => Ok(true),
                Some(Errno::EINVAL) => Ok(false),
                _ => Err(error),
            },
            Ok(()) => Err(Error::Malformed {
                operation: operation.to_string(),
                what: "it created a macvlan that it must refuse".into(),
            }),
        }
    }

    /// Sets a link up.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE` if another macvlan on the same parent has the same MAC.
    pub fn set_up(&mut self, ifindex: u32) -> Result<()> {
        self.socket.acknowledge(
            change_request(RTM_SETLINK, ifindex, IFF_UP, IFF_UP),
            format_args!("set link with ifindex {ifindex} up"),
        )
    }

    /// Sets a link down.
    pub fn set_down(&mut self, ifindex: u32) -> Result<()> {
        self.socket.acknowledge(
            change_request(RTM_SETLINK, ifindex, 0, IFF_UP),
            format_args!("set link with ifindex {ifindex} down"),
        )
    }

    /// Renames a link. Before Linux 6.2 the link must be down.
    ///
    /// # Errors
    ///
    /// `InterfaceName` if no link can have this name; otherwise the kernel's error.
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
    /// `ENODEV` if there is no such link.
    pub fn set_group(&mut self, ifindex: u32, group: u32) -> Result<()> {
        let mut request = change_request(RTM_SETLINK, ifindex, 0, 0);
        request.u32(IFLA_GROUP, group);
        self.socket.acknowledge(request, format_args!("put link with ifindex {ifindex} into group {group}"))
    }

    /// Sets the text of [`Link::alias`], of at most 255 bytes.
    pub fn set_alias(&mut self, ifindex: u32, alias: &str) -> Result<()> {
        let mut request = change_request(RTM_SETLINK, ifindex, 0, 0);
        request.text(IFLA_IFALIAS, alias);
        self.socket.acknowledge(request, format_args!("set the alias of link with ifindex {ifindex}"))
    }

    /// Gives a link one more name.
    ///
    /// # Errors
    ///
    /// `EEXIST` if a link of the namespace has this name. `EOPNOTSUPP` before Linux 5.5.
    pub fn add_alternative_name(&mut self, ifindex: u32, name: &str) -> Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let mut request = Request::new(RTM_NEWLINKPROP, flags, &header(ifindex, 0, 0));
        request.nest(IFLA_PROP_LIST | NLA_F_NESTED, |list| list.text(IFLA_ALT_IFNAME, name));
        self.socket.acknowledge(request, format_args!("name link with ifindex {ifindex} {name} too"))
    }

    /// Deletes a link.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such link.
    pub fn del_link(&mut self, ifindex: u32) -> Result<()> {
        self.socket
            .acknowledge(change_request(RTM_DELLINK, ifindex, 0, 0), format_args!("delete link with ifindex {ifindex}"))
    }
}

/// Refuses a name that the kernel would change or refuse without an explanation: it ends a name at a NUL, replaces `%d`
/// by a number, and answers `ERANGE` to a long name. The kernel checks its other rules itself.
pub(crate) fn check_name(name: &str) -> Result<()> {
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

/// Asks for a link without its statistics. They are the largest part of the answer, and are not needed.
fn get_request(flags: u16, ifindex: u32) -> Request {
    let mut request = Request::new(RTM_GETLINK, flags, &header(ifindex, 0, 0));
    request.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    request
}

fn change_request(kind: u16, ifindex: u32, flags: u32, change: u32) -> Request {
    Request::new(kind, NLM_F_ACK, &header(ifindex, flags, change))
}

/// Asks for a new link. The caller adds its kind.
fn create_request(name: &str, parent: u32, group: u32, flags: u32) -> Request {
    let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header(0, flags, flags));
    request.text(IFLA_IFNAME, name);
    request.u32(IFLA_LINK, parent);
    if group != 0 {
        request.u32(IFLA_GROUP, group);
    }
    request
}

fn new_request(link: &NewLink<'_>) -> Request {
    let mut request = create_request(link.name, link.parent, link.group, if link.arp { 0 } else { IFF_NOARP });
    if let Some(mtu) = link.mtu {
        request.u32(IFLA_MTU, mtu);
    }
    if let Some(mac) = link.mac {
        request.bytes(IFLA_ADDRESS, &mac.octets());
    }
    if let Some(netns) = link.netns {
        // The kernel takes the number as a descriptor of the sending process.
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
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        arphrd: u16::from_ne_bytes([header[2], header[3]]),
        flags,
        ..Link::default()
    };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_ADDRESS => link.mac = attribute.mac(),
            IFLA_IFNAME => link.name = attribute.text(),
            IFLA_MTU => link.mtu = attribute.u32()?,
            // 0 means that there is no parent, as with some IP tunnels.
            IFLA_LINK => link.parent = Some(attribute.u32()?).filter(|&parent| parent != 0).or(link.parent),
            IFLA_LINK_NETNSID => link.parent_netnsid = Some(attribute.i32()?),
            IFLA_GROUP => link.group = attribute.u32()?,
            IFLA_IFALIAS => link.alias = attribute.text(),
            IFLA_PROP_LIST => {
                for name in attribute.nested() {
                    let name = name?;
                    if name.kind == IFLA_ALT_IFNAME {
                        link.alternative_names.push(name.text());
                    }
                }
            }
            IFLA_MASTER => link.master = Some(attribute.u32()?).filter(|&master| master != 0),
            IFLA_LINKINFO => {
                let decoded = kind::decode(attribute)?;
                link.kind = decoded.kind;
                link.info = decoded.info;
                link.parent = link.parent.or(decoded.parent);
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
