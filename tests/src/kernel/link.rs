//! The links of a namespace.

use std::os::fd::AsRawFd;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoBridge, InfoData, InfoMacVlan, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use rtnetlink::{LinkBridge, LinkMacVlan, LinkUnspec, LinkVeth};

use crate::Namespace;

/// The state of one link, without counters and other values that change by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    /// `IFLA_INFO_KIND`, such as "macvlan". None for `lo`.
    pub kind: Option<String>,
    pub macvlan: Option<Macvlan>,
    pub mtu: u32,
    /// Lower case, with colons.
    pub mac: String,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_LOWER_UP`.
    pub carrier: bool,
    /// `IFLA_LINK`: the ifindex of the parent or the peer, which may be in another namespace.
    pub parent: Option<u32>,
    /// The number of users of promiscuous mode.
    pub promiscuity: u32,
}

/// The data of a macvlan link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Macvlan {
    /// private, vepa, bridge or passthru.
    pub mode: String,
    pub bcqueuelen: Option<u32>,
}

impl Link {
    fn decode(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            kind: None,
            macvlan: None,
            mtu: 0,
            mac: String::new(),
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            parent: None,
            promiscuity: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(mac) => link.mac = format_mac(mac),
                LinkAttribute::Link(parent) => link.parent = Some(*parent),
                LinkAttribute::Promiscuity(users) => link.promiscuity = *users,
                LinkAttribute::LinkInfo(infos) => link.decode_info(infos),
                _ => {}
            }
        }
        link
    }

    fn decode_info(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::MacVlan(data)) => {
                    self.macvlan = Some(Macvlan::decode(data));
                }
                _ => {}
            }
        }
    }
}

impl Macvlan {
    fn decode(data: &[InfoMacVlan]) -> Self {
        let mut macvlan = Self { mode: String::new(), bcqueuelen: None };
        for info in data {
            match info {
                InfoMacVlan::Mode(mode) => macvlan.mode = mode.to_string(),
                InfoMacVlan::BcQueueLen(length) => macvlan.bcqueuelen = Some(*length),
                _ => {}
            }
        }
        macvlan
    }
}

/// Lower case, with colons.
pub(crate) fn format_mac(mac: &[u8]) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

impl Namespace {
    /// All links, in the order of their ifindexes.
    pub fn links(&self) -> Vec<Link> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links: Vec<Link> = self
            .netlink(|netlink| netlink.dump(request))
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(Link::decode(message)),
                _ => None,
            })
            .collect();
        links.sort_by_key(|link| link.ifindex);
        links
    }

    /// The names of all links, in the order of their ifindexes.
    pub fn link_names(&self) -> Vec<String> {
        self.links().into_iter().map(|link| link.name).collect()
    }

    pub fn find_link(&self, name: &str) -> Option<Link> {
        self.links().into_iter().find(|link| link.name == name)
    }

    pub fn link(&self, name: &str) -> Link {
        self.find_link(name).unwrap_or_else(|| panic!("there is no {name}, but {:?}", self.link_names()))
    }

    pub fn has_link(&self, name: &str) -> bool {
        self.find_link(name).is_some()
    }

    fn create_link(&self, what: &str, message: LinkMessage) {
        self.netlink(|netlink| netlink.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL))
            .unwrap_or_else(|errno| panic!("create {what}: {errno}"));
    }

    fn change_link(&self, what: &str, message: LinkMessage) {
        self.netlink(|netlink| netlink.request(RouteNetlinkMessage::NewLink(message), 0))
            .unwrap_or_else(|errno| panic!("{what}: {errno}"));
    }

    /// Creates a bridge that forwards from its first frame, without a delay and without multicast snooping.
    pub fn create_bridge(&self, name: &str) {
        let bridge = LinkBridge::new(name)
            .append_info_data(InfoBridge::ForwardDelay(0))
            .append_info_data(InfoBridge::MulticastSnooping(false));
        self.create_link(name, bridge.build());
    }

    /// Creates a veth pair: one end here, and the other in `there`. Both are down.
    pub fn create_veth(&self, name: &str, there: &Namespace, name_there: &str) {
        let peer = LinkUnspec::new_with_name(name_there).setns_by_fd(there.file().as_raw_fd()).build();
        let veth = LinkVeth::new(name, name_there).set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        self.create_link(name, veth.build());
    }

    /// Creates a macvlan link in bridge mode on our `parent` in another namespace, without a plugin.
    pub fn create_macvlan_in(&self, there: &Namespace, name: &str, parent: &str) {
        let parent = self.link(parent).ifindex;
        let link = LinkMacVlan::new(name, parent, MacVlanMode::Bridge).setns_by_fd(there.file().as_raw_fd());
        self.create_link(name, link.build());
    }

    pub fn make_port(&self, port: &str, bridge: &str) {
        let bridge_index = self.link(bridge).ifindex;
        let enslave = LinkUnspec::new_with_index(self.link(port).ifindex).controller(bridge_index);
        self.change_link(&format!("make {port} a port of {bridge}"), enslave.build());
    }

    pub fn set_up(&self, name: &str) {
        let index = self.link(name).ifindex;
        self.change_link(&format!("set {name} up"), LinkUnspec::new_with_index(index).up().build());
    }

    pub fn set_down(&self, name: &str) {
        let index = self.link(name).ifindex;
        self.change_link(&format!("set {name} down"), LinkUnspec::new_with_index(index).down().build());
    }

    /// Sets a link down and gives it another name.
    #[track_caller]
    pub fn rename(&self, name: &str, new: &str) {
        self.ip(&format!("link set {name} down"));
        self.ip(&format!("link set {name} name {new}"));
    }

    #[track_caller]
    pub fn delete_link(&self, name: &str) {
        self.ip(&format!("link delete {name}"));
    }

    /// Creates a link without a parent, with any kernel: a veth pair `name` and `name`+"p".
    pub fn create_stray(&self, name: &str) {
        self.create_veth(name, self, &format!("{name}p"));
    }
}
