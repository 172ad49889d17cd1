//! `IFLA_LINKINFO`: the kind of a virtual link, with the settings of that kind.

use super::{IpvlanFlag, IpvlanMode, MacvlanMode, VlanProtocol};
use crate::netlink::constants::{
    IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_KIND, IFLA_IPVLAN_FLAGS, IFLA_IPVLAN_MODE, IFLA_LINKINFO,
    IFLA_MACVLAN_BC_QUEUE_LEN, IFLA_MACVLAN_BC_QUEUE_LEN_USED, IFLA_MACVLAN_MACADDR_MODE, IFLA_MACVLAN_MODE,
    IFLA_VLAN_ID, IFLA_VLAN_PROTOCOL, IFLA_VXLAN_LINK,
};
use crate::netlink::{Attribute, Attributes, Decode, Request};

/// A kind of link to create, with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// The link has its own MAC on the parent's wire.
    Macvlan {
        /// The mode of this link.
        mode: MacvlanMode,
        /// At most so many broadcast packets wait for the link. `None` is the kernel's default, 1000. Kernels before
        /// 5.11 ignore it.
        bcqueuelen: Option<u32>,
    },
    /// The link shares the parent's MAC.
    Ipvlan {
        /// Sets the mode of all ipvlan links on this parent.
        mode: IpvlanMode,
        /// Sets the flag of all ipvlan links on this parent.
        flag: IpvlanFlag,
    },
}

/// The tag of a VLAN. A parent has at most one link for each tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// The EtherType of the tag.
    pub protocol: VlanProtocol,
    /// The number of the VLAN, 1 to 4094. (IEEE 802.1Q)
    pub id: u16,
}

/// The settings of an existing link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkInfo {
    /// The link has no kind: it is a hardware NIC or the loopback.
    #[default]
    None,
    /// A macvlan link.
    Macvlan {
        /// The mode of this link.
        mode: MacvlanMode,
        /// The queue length that was asked for, in packets.
        bcqueuelen: Option<u32>,
        /// The queue length in use: the longest one that was asked for on this parent.
        bcqueuelen_used: Option<u32>,
    },
    /// An ipvlan link.
    Ipvlan {
        /// The mode of its parent.
        mode: IpvlanMode,
        /// The flag of its parent.
        flag: IpvlanFlag,
    },
    /// A VLAN link.
    Vlan(VlanTag),
    /// A link of another kind, or with a mode that this crate does not know.
    Other,
}

impl LinkKind {
    /// Returns the kernel's name of the kind. (`IFLA_INFO_KIND`)
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Macvlan { .. } => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
        }
    }

    pub(super) fn emit(&self, request: &mut Request) {
        request.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, self.name());
            info.nest(IFLA_INFO_DATA, |data| match *self {
                Self::Macvlan { mode, bcqueuelen } => {
                    data.u32(IFLA_MACVLAN_MODE, mode.number());
                    if let Some(length) = bcqueuelen {
                        data.u32(IFLA_MACVLAN_BC_QUEUE_LEN, length);
                    }
                }
                Self::Ipvlan { mode, flag } => {
                    data.u16(IFLA_IPVLAN_MODE, mode.number());
                    data.u16(IFLA_IPVLAN_FLAGS, flag.number());
                }
            });
        });
    }
}

pub(super) fn emit_vlan(request: &mut Request, tag: VlanTag) {
    request.nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "vlan");
        info.nest(IFLA_INFO_DATA, |data| {
            data.u16(IFLA_VLAN_ID, tag.id);
            data.bytes(IFLA_VLAN_PROTOCOL, &tag.protocol.number().to_be_bytes());
        });
    });
}

/// Limits a dump to the links of one kind.
pub(super) fn emit_filter(request: &mut Request, kind: &str) {
    request.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, kind));
}

/// `MACVLAN_MACADDR_FLUSH`, which is only for mode `source`. (include/uapi/linux/if_link.h)
const MACADDR_FLUSH: u32 = 2;

/// Writes a macvlan that the kernel always refuses: mode `private` has no list of addresses that could be flushed.
pub(super) fn emit_impossible_macvlan(request: &mut Request) {
    request.nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "macvlan");
        info.nest(IFLA_INFO_DATA, |data| {
            data.u32(IFLA_MACVLAN_MODE, MacvlanMode::Private.number());
            data.u32(IFLA_MACVLAN_MACADDR_MODE, MACADDR_FLUSH);
        });
    });
}

/// The content of `IFLA_LINKINFO`.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) kind: Option<String>,
    pub(super) info: LinkInfo,
    /// The parent, if the kernel tells it only here.
    pub(super) parent: Option<u32>,
    pub(super) slave_kind: Option<String>,
}

pub(super) fn decode(linkinfo: Attribute<'_>) -> Decode<Decoded> {
    let mut decoded = Decoded::default();
    let mut data = Attributes::new(&[]);
    for attribute in linkinfo.nested() {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_INFO_KIND => decoded.kind = Some(attribute.text()),
            IFLA_INFO_DATA => data = attribute.nested(),
            IFLA_INFO_SLAVE_KIND => decoded.slave_kind = Some(attribute.text()),
            _ => {}
        }
    }
    decoded.info = match decoded.kind.as_deref() {
        None => LinkInfo::None,
        Some("macvlan") => macvlan(data)?,
        Some("ipvlan") => ipvlan(data)?,
        Some("vlan") => vlan(data)?,
        Some("vxlan") => {
            decoded.parent = vxlan_parent(data)?;
            LinkInfo::Other
        }
        Some(_) => LinkInfo::Other,
    };
    Ok(decoded)
}

fn macvlan(data: Attributes<'_>) -> Decode<LinkInfo> {
    let (mut mode, mut asked, mut used) = (None, None, None);
    for attribute in data {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_MACVLAN_MODE => mode = MacvlanMode::from_number(attribute.u32()?),
            IFLA_MACVLAN_BC_QUEUE_LEN => asked = Some(attribute.u32()?),
            IFLA_MACVLAN_BC_QUEUE_LEN_USED => used = Some(attribute.u32()?),
            _ => {}
        }
    }
    Ok(mode.map_or(LinkInfo::Other, |mode| LinkInfo::Macvlan { mode, bcqueuelen: asked, bcqueuelen_used: used }))
}

fn ipvlan(data: Attributes<'_>) -> Decode<LinkInfo> {
    // Kernels before 4.15 have no flags. Their links behave as with `bridge`.
    let (mut mode, mut flag) = (None, Some(IpvlanFlag::Bridge));
    for attribute in data {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_IPVLAN_MODE => mode = IpvlanMode::from_number(attribute.u16()?),
            IFLA_IPVLAN_FLAGS => flag = IpvlanFlag::from_number(attribute.u16()?),
            _ => {}
        }
    }
    Ok(match (mode, flag) {
        (Some(mode), Some(flag)) => LinkInfo::Ipvlan { mode, flag },
        _ => LinkInfo::Other,
    })
}

fn vlan(data: Attributes<'_>) -> Decode<LinkInfo> {
    let (mut id, mut protocol) = (None, None);
    for attribute in data {
        let attribute = attribute?;
        match attribute.kind {
            IFLA_VLAN_ID => id = Some(attribute.u16()?),
            // It has the order of the network.
            IFLA_VLAN_PROTOCOL => protocol = VlanProtocol::from_number(u16::from_be(attribute.u16()?)),
            _ => {}
        }
    }
    Ok(match (protocol, id) {
        (Some(protocol), Some(id)) => LinkInfo::Vlan(VlanTag { protocol, id }),
        _ => LinkInfo::Other,
    })
}

/// The kernel deletes a vxlan link with its parent, and does not name the parent in `IFLA_LINK`.
fn vxlan_parent(data: Attributes<'_>) -> Decode<Option<u32>> {
    for attribute in data {
        let attribute = attribute?;
        if attribute.kind == IFLA_VXLAN_LINK {
            return Ok(Some(attribute.u32()?).filter(|&parent| parent != 0));
        }
    }
    Ok(None)
}
