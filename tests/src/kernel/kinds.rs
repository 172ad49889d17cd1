//! Links that not all kernels have: ipvlan, 802.1Q VLAN and bond.

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoIpVlan, IpVlanFlags, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::Namespace;

/// The data of an ipvlan link. The kernel stores it with the parent, so all slaves of a parent share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipvlan {
    /// l2, l3 or l3s.
    pub mode: String,
    /// bridge, private or vepa.
    pub flag: String,
    /// `IFF_NOARP`. The kernel sets it in modes l3 and l3s.
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

impl Namespace {
    /// The data of an ipvlan link.
    pub fn ipvlan(&self, name: &str) -> Ipvlan {
        let ifindex = self.link(name).ifindex;
        self.netlink(|netlink| netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())))
            .iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) if message.header.index == ifindex => Ipvlan::decode(message),
                _ => None,
            })
            .unwrap_or_else(|| panic!("{name} is not an ipvlan link"))
    }

    /// Creates an ipvlan link on our `parent` in another namespace, without a plugin.
    pub fn try_create_ipvlan_in(
        &self,
        there: &Self,
        name: &str,
        parent: &str,
        mode: &str,
        flag: &str,
    ) -> Result<(), String> {
        let netns = there.path().display();
        self.try_ip(&format!("link add name {name} link {parent} netns {netns} type ipvlan mode {mode} {flag}"))
    }

    /// As [`Namespace::try_create_ipvlan_in`], which must succeed.
    #[track_caller]
    pub fn create_ipvlan_in(&self, there: &Self, name: &str, parent: &str, mode: &str, flag: &str) {
        self.try_create_ipvlan_in(there, name, parent, mode, flag).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Creates an 802.1Q link on `parent` and sets it up.
    #[track_caller]
    pub fn create_vlan(&self, name: &str, parent: &str, id: u16) {
        self.ip(&format!("link add link {parent} name {name} up type vlan id {id}"));
    }

    /// Creates a bond with one slave, and sets both up.
    #[track_caller]
    pub fn create_bond(&self, name: &str, slave: &str) {
        self.ip(&format!("link add {name} type bond"));
        // Only a link that is down can become a slave.
        self.ip(&format!("link set {slave} down"));
        self.ip(&format!("link set {slave} master {name}"));
        self.ip(&format!("link set {name} up"));
    }
}
