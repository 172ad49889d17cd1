//! Kinds of links that not every kernel has: ipvlan, 802.1Q VLAN, dummy, bond.

use std::os::fd::AsRawFd;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoIpVlan, IpVlanFlags, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBond, LinkDummy, LinkIpVlan, LinkUnspec, LinkVlan};

use super::Errno;
use crate::Namespace;

/// The data of an ipvlan link: what the kernel keeps for its parent, and so for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipvlan {
    /// l2, l3 or l3s.
    pub mode: String,
    /// bridge, private or vepa.
    pub flag: String,
    /// `IFF_NOARP`: what l3 does to a link beside.
    pub noarp: bool,
}

impl Ipvlan {
    fn decode(message: &LinkMessage) -> Option<Self> {
        let infos = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })?;
        let data = infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::IpVlan(data)) => Some(data),
            _ => None,
        })?;
        let mut ipvlan =
            Self { mode: String::new(), flag: String::new(), noarp: message.header.flags.contains(LinkFlags::Noarp) };
        for info in data {
            match info {
                InfoIpVlan::Mode(mode) => ipvlan.mode = mode.to_string(),
                InfoIpVlan::Flags(flags) => ipvlan.flag = flag_name(*flags).to_owned(),
                _ => {}
            }
        }
        Some(ipvlan)
    }
}

fn flag_name(flags: IpVlanFlags) -> &'static str {
    match flags {
        flags if flags.contains(IpVlanFlags::Private) => "private",
        flags if flags.contains(IpVlanFlags::Vepa) => "vepa",
        _ => "bridge",
    }
}

fn flags_of(name: &str) -> IpVlanFlags {
    match name {
        "bridge" => IpVlanFlags::empty(),
        "private" => IpVlanFlags::Private,
        "vepa" => IpVlanFlags::Vepa,
        other => panic!("ipvlan has no flag {other}"),
    }
}

impl Namespace {
    /// Mode and flag of the ipvlan link of that name, which must be one.
    pub fn ipvlan(&self, name: &str) -> Ipvlan {
        let ifindex = self.link(name).ifindex;
        self.netlink(|netlink| netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())))
            .iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) if message.header.index == ifindex => Ipvlan::decode(message),
                _ => None,
            })
            .unwrap_or_else(|| panic!("{name} is no ipvlan link"))
    }

    /// An ipvlan link on our `parent`, created in another namespace; made by us, not by a plugin.
    pub fn try_create_ipvlan_in(
        &self,
        there: &Self,
        name: &str,
        parent: &str,
        mode: &str,
        flag: &str,
    ) -> Result<(), Errno> {
        let mode: IpVlanMode = mode.parse().unwrap_or_else(|_| panic!("ipvlan has no mode {mode}"));
        let link = LinkIpVlan::new(name, self.link(parent).ifindex, mode)
            .flag(flags_of(flag))
            .setns_by_fd(there.file().as_raw_fd());
        self.try_create_link(link.build())
    }

    /// As [`Namespace::try_create_ipvlan_in`], which must succeed.
    pub fn create_ipvlan_in(&self, there: &Self, name: &str, parent: &str, mode: &str, flag: &str) {
        self.try_create_ipvlan_in(there, name, parent, mode, flag)
            .unwrap_or_else(|errno| panic!("create ipvlan {name}: {errno}"));
    }

    /// An 802.1Q link on `parent`.
    pub fn try_create_vlan(&self, name: &str, parent: &str, id: u16) -> Result<(), Errno> {
        self.try_create_link(LinkVlan::new(name, self.link(parent).ifindex, id).build())
    }

    /// As [`Namespace::try_create_vlan`], and up.
    pub fn create_vlan(&self, name: &str, parent: &str, id: u16) {
        self.try_create_vlan(name, parent, id).unwrap_or_else(|errno| panic!("create VLAN {name}: {errno}"));
        self.set_up(name);
    }

    pub fn try_create_dummy(&self, name: &str) -> Result<(), Errno> {
        self.try_create_link(LinkDummy::new(name).build())
    }

    pub fn create_dummy(&self, name: &str) {
        self.try_create_dummy(name).unwrap_or_else(|errno| panic!("create dummy {name}: {errno}"));
        self.set_up(name);
    }

    pub fn try_create_bond(&self, name: &str) -> Result<(), Errno> {
        self.try_create_link(LinkBond::new(name).build())
    }

    /// A bond, up, whose one slave is `slave`.
    pub fn create_bond(&self, name: &str, slave: &str) {
        self.try_create_bond(name).unwrap_or_else(|errno| panic!("create bond {name}: {errno}"));
        // A bond takes a link only while it is down, and sets it up itself.
        self.set_down(slave);
        let enslave = LinkUnspec::new_with_index(self.link(slave).ifindex).controller(self.link(name).ifindex).build();
        self.netlink(|netlink| netlink.request(RouteNetlinkMessage::NewLink(enslave), 0))
            .unwrap_or_else(|errno| panic!("make {slave} a slave of {name}: {errno}"));
        self.set_up(name);
    }
}
