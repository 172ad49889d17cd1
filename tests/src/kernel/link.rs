//! Links of a namespace: listing, creation, change, removal.

use std::os::fd::AsRawFd;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoBridge, InfoData, InfoMacVlan, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use rtnetlink::{LinkBridge, LinkMacVlan, LinkUnspec, LinkVeth};

use crate::Namespace;

/// What the kernel says about one link, without what changes by itself (counters, state of
/// the queue).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, in its namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// `IFLA_INFO_KIND`, e.g. "macvlan"; none for `lo`.
    pub kind: Option<String>,
    pub macvlan: Option<Macvlan>,
    /// In bytes.
    pub mtu: u32,
    /// Lower case, with colons.
    pub mac: String,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_LOWER_UP`.
    pub carrier: bool,
    /// `IFLA_LINK`: the parent's (or the peer's) number, in whatever namespace that is.
    pub parent: Option<u32>,
    /// How many users want promiscuous mode.
    pub promiscuity: u32,
}

/// The data of a macvlan link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Macvlan {
    /// In the kernel's spelling: private, vepa, bridge, passthru.
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
    /// All links, in the order of their numbers.
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

    /// The names of all links, in the order of their numbers.
    pub fn link_names(&self) -> Vec<String> {
        self.links().into_iter().map(|link| link.name).collect()
    }

    pub fn find_link(&self, name: &str) -> Option<Link> {
        self.links().into_iter().find(|link| link.name == name)
    }

    /// The link of that name, which must be there.
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

    /// A bridge, up, that forwards from the first frame on: no spanning tree, no delay, no
    /// multicast snooping.
    pub fn create_bridge(&self, name: &str) {
        let bridge = LinkBridge::new(name)
            .append_info_data(InfoBridge::ForwardDelay(0))
            .append_info_data(InfoBridge::MulticastSnooping(false));
        self.create_link(name, bridge.build());
    }

    /// A veth pair: one end here, the other in `there`. Both are down.
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

    /// Makes `port` a port of the bridge `bridge`.
    pub fn make_port(&self, port: &str, bridge: &str) {
        let bridge_index = self.link(bridge).ifindex;
        let enslave = LinkUnspec::new_with_index(self.link(port).ifindex).controller(bridge_index);
        self.change_link(&format!("make {port} a port of {bridge}"), enslave.build());
    }

    /// `ip link set NAME up`.
    pub fn set_up(&self, name: &str) {
        let index = self.link(name).ifindex;
        self.change_link(&format!("set {name} up"), LinkUnspec::new_with_index(index).up().build());
    }

    /// `ip link set NAME down`.
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

    /// `ip link del NAME`.
    pub fn delete_link(&self, name: &str) {
        let mut message = LinkMessage::default();
        message.header.index = self.link(name).ifindex;
        self.netlink(|netlink| netlink.request(RouteNetlinkMessage::DelLink(message), 0))
            .unwrap_or_else(|errno| panic!("delete {name}: {errno}"));
    }

    /// A dummy-like link that needs no parent: an unattached veth pair `name`, `name`+"p".
    pub fn create_stray(&self, name: &str) {
        self.create_veth(name, self, &format!("{name}p"));
    }
}
