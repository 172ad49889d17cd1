//! `IFLA_LINKINFO`: what kind of virtual link it is, and the settings of that kind.

use super::{IpvlanFlag, IpvlanMode, MacvlanMode};
use crate::netlink::constants::{
    IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_KIND, IFLA_IPVLAN_FLAGS, IFLA_IPVLAN_MODE, IFLA_LINKINFO,
    IFLA_MACVLAN_BC_QUEUE_LEN, IFLA_MACVLAN_BC_QUEUE_LEN_USED, IFLA_MACVLAN_MACADDR_MODE, IFLA_MACVLAN_MODE,
};
use crate::netlink::{Attribute, Attributes, Decode, Request};

/// A kind of link to create, with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// An interface with a hardware address of its own on the parent's wire.
    Macvlan {
        /// What it may say to its siblings.
        mode: MacvlanMode,
        /// How many broadcast packets may wait for it; the kernel's 1000 when `None`.
        /// Kernels before 5.11 ignore it.
        bcqueuelen: Option<u32>,
    },
    /// An interface that shares the parent's hardware address.
    Ipvlan {
        /// Sets the mode of all ipvlan interfaces on that parent.
        mode: IpvlanMode,
        /// Sets the flag of all ipvlan interfaces on that parent.
        flag: IpvlanFlag,
    },
}

/// The settings of an existing link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkInfo {
    /// The link has no kind: a hardware NIC, or the loopback.
    #[default]
    None,
    /// A macvlan interface.
    Macvlan {
        /// What it may say to its siblings.
        mode: MacvlanMode,
        /// The queue length it asked for.
        bcqueuelen: Option<u32>,
        /// The queue length in force: the longest that any interface on the parent asked
        /// for.
        bcqueuelen_used: Option<u32>,
    },
    /// An ipvlan interface.
    Ipvlan {
        /// The mode of its parent.
        mode: IpvlanMode,
        /// The flag of its parent.
        flag: IpvlanFlag,
    },
    /// Any other kind, or a mode that has no word here.
    Other,
}

impl LinkKind {
    /// The name under which the kernel knows the kind.
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

/// `MACVLAN_MACADDR_FLUSH`, a deed for mode `source` alone. (include/uapi/linux/if_link.h)
const MACADDR_FLUSH: u32 = 2;

/// A macvlan that the kernel never makes: in mode `private` there is no list of addresses to flush.
pub(super) fn emit_impossible_macvlan(request: &mut Request) {
    request.nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "macvlan");
        info.nest(IFLA_INFO_DATA, |data| {
            data.u32(IFLA_MACVLAN_MODE, MacvlanMode::Private.number());
            data.u32(IFLA_MACVLAN_MACADDR_MODE, MACADDR_FLUSH);
        });
    });
}

/// `IFLA_LINKINFO`, decoded.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) kind: Option<String>,
    pub(super) info: LinkInfo,
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
    // Kernels before 4.15 have no flags: theirs behave as `bridge` does.
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
