//! The setups ("ways") in which a container on one host reaches a container on another, or a host a container on it.
//! Each has its own hosts, and is built as the software of its name does it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use e2e::needs::Feature;
use e2e::patience::PATIENCE;
use e2e::traffic::readable;
use e2e::{Binaries, Namespace, Plugin};
use serde_json::json;
use tempfile::TempDir;

use crate::load::{FIRST_PORT, STREAM_PORT};
use crate::measure::PAIRS;
use crate::wire::{self, NIC, script};

/// The addresses of the hosts.
const HOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(192, 168, 50, 10)), IpAddr::V4(Ipv4Addr::new(192, 168, 50, 20))];
/// The address that a container sees if its host uses host access.
const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 255, 1));
const IFNAME: &str = "eth0";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Host,
    Macvlan,
    Ipvlan,
    Calico,
    HostGw,
    Nat,
    Vxlan,
    MacvlanPair,
    MacvlanAccess,
    VethAccess,
    IpvlanPair,
    IpvlanAccess,
}

impl Way {
    /// In the order of the tables: first those between two hosts, then those on one.
    pub(crate) const ALL: [Self; 12] = [
        Self::Host,
        Self::Macvlan,
        Self::Ipvlan,
        Self::Calico,
        Self::HostGw,
        Self::Nat,
        Self::Vxlan,
        Self::MacvlanPair,
        Self::MacvlanAccess,
        Self::VethAccess,
        Self::IpvlanPair,
        Self::IpvlanAccess,
    ];

    /// Returns the ways that are measured on this kind of wire.
    pub(crate) fn on(wire: wire::Kind) -> &'static [Self] {
        let (between, within) = Self::ALL.split_at(7);
        if wire == wire::Kind::Node { within } else { between }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host to host",
            Self::Macvlan => "macvlan bridge",
            Self::Ipvlan => "ipvlan l2",
            Self::Calico => "routed veth",
            Self::HostGw => "host-gw",
            Self::Nat => "bridge + NAT",
            Self::Vxlan => "VXLAN",
            Self::MacvlanPair => "macvlan pair",
            Self::MacvlanAccess => "host to macvlan",
            Self::VethAccess => "host to veth",
            Self::IpvlanPair => "ipvlan pair",
            Self::IpvlanAccess => "host to ipvlan",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Host => "the hosts themselves, without containers",
            Self::Macvlan => "Underlay: macvlan and host-local, default mode",
            Self::Ipvlan => "Underlay: ipvlan and host-local, default mode",
            Self::Calico => "as Calico without a tunnel: a veth, a /32 route and proxy ARP, without a bridge",
            Self::HostGw => "as Flannel with host-gw: a veth, a bridge, and a route to the other host's subnet",
            Self::Nat => "a veth, a bridge, masquerade on one host and DNAT on the other (nftables)",
            Self::Vxlan => "as Flannel with VXLAN: a veth, a bridge, VNI 1 on port 8472, permanent entries, MTU 1450",
            Self::MacvlanPair => "Underlay: two macvlan containers of one host",
            Self::MacvlanAccess => "Underlay: a host and its macvlan container, with `hostAccess`",
            Self::VethAccess => {
                "as Spiderpool's coordinator: a host and its macvlan container, with a veth pair between them"
            }
            Self::IpvlanPair => "Underlay: two ipvlan containers of one host",
            Self::IpvlanAccess => "Underlay: a host and its ipvlan container, with `hostAccess`",
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Macvlan | Self::Ipvlan | Self::MacvlanAccess | Self::IpvlanAccess)
    }

    pub(crate) fn is_here(self) -> bool {
        !matches!(self, Self::Ipvlan | Self::IpvlanPair | Self::IpvlanAccess) || Feature::Ipvlan.is_here()
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.name() == name)
    }
}

/// A setup that is built.
pub(crate) struct Built {
    hosts: [Namespace; 2],
    /// `None` if it is the first host itself.
    client: Option<Namespace>,
    /// `None` if it is the second host itself.
    server: Option<Namespace>,
    address: IpAddr,
    /// The address that the server sees.
    seen: IpAddr,
    /// A device that the packets must pass.
    passes: Device,
    /// The device whose frames are measured.
    counted: Device,
    _directory: Option<TempDir>,
}

#[derive(Clone, Debug)]
enum Device {
    OfFirstHost(String),
    OfClient(String),
}

impl Built {
    /// Builds it on a wire of that kind, and tests the path of packets.
    pub(crate) fn new(way: Way, kind: wire::Kind) -> Result<Self, String> {
        let hosts = wire::hosts(HOSTS);
        let built = match way {
            Way::Host => between(hosts, None, (HOSTS[1], HOSTS[0]), NIC),
            Way::Macvlan => sub_interface(hosts, "macvlan"),
            Way::Ipvlan => sub_interface(hosts, "ipvlan"),
            Way::MacvlanPair => pair(hosts, "macvlan"),
            Way::IpvlanPair => pair(hosts, "ipvlan"),
            Way::MacvlanAccess => access(hosts, "macvlan"),
            Way::IpvlanAccess => access(hosts, "ipvlan"),
            Way::VethAccess => veth_access(hosts)?,
            Way::Calico => calico(hosts)?,
            Way::HostGw => host_gw(hosts)?,
            Way::Nat => nat(hosts)?,
            Way::Vxlan => vxlan(hosts)?,
        };
        for end in [built.client(), built.server()] {
            wire::tune(end);
        }
        kind.apply(&built.hosts)?;
        built.prove().map_err(|e| format!("{}: {e}", way.name()))?;
        Ok(built)
    }

    pub(crate) fn client(&self) -> &Namespace {
        self.client.as_ref().unwrap_or(&self.hosts[0])
    }

    pub(crate) fn server(&self) -> &Namespace {
        self.server.as_ref().unwrap_or(&self.hosts[1])
    }

    /// The address of a port of the server, for the client.
    pub(crate) fn to(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// Runs `f`, and returns the mean size of the frames that were sent to the server, with the Ethernet header.
    pub(crate) fn frame_size<T>(&self, f: impl FnOnce() -> T) -> (T, f64) {
        let before = self.sent(&self.counted);
        let value = f();
        let after = self.sent(&self.counted);
        (value, (after.bytes - before.bytes) as f64 / (after.packets - before.packets).max(1) as f64)
    }

    fn sent(&self, device: &Device) -> wire::Sent {
        match device {
            Device::OfFirstHost(name) => wire::sent(&self.hosts[0], name),
            Device::OfClient(name) => wire::sent(self.client(), name),
        }
    }

    /// Tests that a connection comes from the right address and passes the right device.
    fn prove(&self) -> Result<(), String> {
        let before = self.sent(&self.passes).packets;
        let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), STREAM_PORT);
        let listener = self.server().run(|| TcpListener::bind(at)).map_err(|e| format!("listen on {at}: {e}"))?;
        let to = self.to(STREAM_PORT);
        let seen = thread::scope(|scope| {
            let client = scope.spawn(|| self.client().run(|| TcpStream::connect_timeout(&to, PATIENCE)));
            let came = readable(&listener, Instant::now() + PATIENCE).map_err(|e| format!("wait on {at}: {e}"))?;
            let connected = client.join().map_err(|_| "the client panicked".to_owned())?;
            connected.map_err(|e| format!("connect to {to}: {e}"))?;
            if !came {
                return Err(format!("no connection comes to {at}"));
            }
            listener.accept().map(|(_, seen)| seen.ip()).map_err(|e| format!("accept on {at}: {e}"))
        })?;
        if seen != self.seen {
            return Err(format!("the server sees {seen} instead of {}", self.seen));
        }
        if self.sent(&self.passes).packets == before {
            return Err(format!("a connection does not pass {:?}", self.passes));
        }
        Ok(())
    }
}

/// A setup on two hosts, with the address of the server and that which it sees.
fn between(
    hosts: [Namespace; 2],
    containers: Option<[Namespace; 2]>,
    (address, seen): (IpAddr, IpAddr),
    passes: &str,
) -> Built {
    let (client, server) = containers.map_or((None, None), |[client, server]| (Some(client), Some(server)));
    let device = |name: &str| Device::OfFirstHost(name.to_owned());
    Built { hosts, client, server, address, seen, passes: device(passes), counted: device(NIC), _directory: None }
}

/// A setup on the first host. `client` is `None` if that is the client.
fn within(
    hosts: [Namespace; 2],
    client: Option<Namespace>,
    server: Namespace,
    (address, seen): (IpAddr, IpAddr),
    passes: Device,
) -> Built {
    Built { hosts, client, server: Some(server), address, seen, counted: passes.clone(), passes, _directory: None }
}

/// Attaches containers to hosts. Each host has its own range.
struct Attacher {
    directory: TempDir,
    kind: &'static str,
}

impl Attacher {
    fn new(kind: &'static str) -> Self {
        let directory = tempfile::Builder::new().prefix("underlay-bench-lan.").tempdir();
        Self { directory: directory.expect("make a directory for leases"), kind }
    }

    /// Returns a container with its address.
    fn attach(&self, host: &Namespace, end: usize, id: &str, host_access: bool) -> (Namespace, IpAddr) {
        let bin = Binaries::HardLinks.directory(self.directory.path());
        let container = Namespace::new();
        let range = format!("192.168.50.1{end}0");
        let conf = json!({"cniVersion": "1.0.0", "name": "lan", "type": self.kind, "master": NIC,
            "hostAccess": host_access, "ipam": {
            "type": "host-local", "dataDir": self.directory.path().join(end.to_string()),
            "ranges": [[{"subnet": "192.168.50.0/24", "rangeStart": range}]],
        }});
        let plugin = Plugin::new(host, bin.join(self.kind)).search(&bin);
        let call = plugin.call("ADD", &conf).env("CNI_CONTAINERID", id).env("CNI_IFNAME", IFNAME);
        let result = call.env("CNI_NETNS", container.path()).run().result();
        let address = result["ips"][0]["address"].as_str().and_then(|address| address.split('/').next());
        let address = address.and_then(|address| address.parse().ok());
        (container, address.unwrap_or_else(|| panic!("no address in {result}")))
    }
}

fn sub_interface(hosts: [Namespace; 2], kind: &'static str) -> Built {
    let attacher = Attacher::new(kind);
    let [(client, seen), (server, address)] = [0, 1].map(|end| attacher.attach(&hosts[end], end, "bench", false));
    let built = between(hosts, Some([client, server]), (address, seen), NIC);
    Built { _directory: Some(attacher.directory), ..built }
}

fn pair(hosts: [Namespace; 2], kind: &'static str) -> Built {
    let attacher = Attacher::new(kind);
    let [(client, seen), (server, address)] = ["client", "server"].map(|id| attacher.attach(&hosts[0], 0, id, false));
    let built = within(hosts, Some(client), server, (address, seen), Device::OfClient(IFNAME.to_owned()));
    Built { _directory: Some(attacher.directory), ..built }
}

fn access(hosts: [Namespace; 2], kind: &'static str) -> Built {
    // The records are there.
    hosts[0].give_own_run();
    let attacher = Attacher::new(kind);
    let (server, address) = attacher.attach(&hosts[0], 0, "server", true);
    let link = hosts[0].link_names().into_iter().find(|name| name.starts_with("underlay")).expect("the host's link");
    let built = within(hosts, None, server, (address, PRIVATE), Device::OfFirstHost(link));
    Built { _directory: Some(attacher.directory), ..built }
}

/// The veth pair is only for packets between the container and its host.
fn veth_access(hosts: [Namespace; 2]) -> Result<Built, String> {
    let attacher = Attacher::new("macvlan");
    let (server, address) = attacher.attach(&hosts[0], 0, "server", false);
    hosts[0].create_veth("veth0", &server, "veth0");
    ip(&hosts[0], "link set veth0 up\n")?;
    ip(&server, "link set veth0 up\n")?;
    let [here, there] = [&hosts[0], &server].map(|end| end.link("veth0").mac);
    let leads = |to: IpAddr, mac: &str| {
        format!("route add {to} dev veth0 scope link\nneighbour add {to} lladdr {mac} dev veth0 nud permanent\n")
    };
    ip(&hosts[0], &leads(address, &there))?;
    ip(&server, &leads(HOSTS[0], &here))?;
    let built = within(hosts, None, server, (address, HOSTS[0]), Device::OfFirstHost("veth0".to_owned()));
    Ok(Built { _directory: Some(attacher.directory), ..built })
}

/// The address of the container of a host, in host-gw and VXLAN.
fn pod(end: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 244, u8::from(end == 1), 2))
}

fn routed(hosts: [Namespace; 2], containers: [Namespace; 2], passes: &str) -> Built {
    between(hosts, Some(containers), (pod(1), pod(0)), passes)
}

/// A container on a bridge in `10.244.<end>.0/24`. The bridge has the first address, the container the second.
fn bridged(host: &Namespace, end: usize, mtu: u32) -> Result<Namespace, String> {
    let container = Namespace::new();
    host.set_sysctl("net/ipv4/ip_forward", "1");
    host.create_veth("veth0", &container, IFNAME);
    ip(
        host,
        &format!(
            "link add cni0 mtu {mtu} type bridge\nlink set cni0 up\naddress add 10.244.{end}.1/24 dev cni0\n\
             link set veth0 mtu {mtu} master cni0 up\n"
        ),
    )?;
    ip(
        &container,
        &format!(
            "address add 10.244.{end}.2/24 dev {IFNAME}\nlink set {IFNAME} mtu {mtu} up\n\
             route add default via 10.244.{end}.1\n"
        ),
    )?;
    Ok(container)
}

fn ip(netns: &Namespace, commands: &str) -> Result<(), String> {
    script(netns, &["ip", "-batch", "-"], commands)
}

fn host_gw(hosts: [Namespace; 2]) -> Result<Built, String> {
    let containers = [bridged(&hosts[0], 0, 1500)?, bridged(&hosts[1], 1, 1500)?];
    for (end, host) in hosts.iter().enumerate() {
        let other = 1 - end;
        let route = format!("route add 10.244.{other}.0/24 via {} dev {NIC}\n", HOSTS[other]);
        ip(host, &route)?;
    }
    Ok(routed(hosts, containers, "cni0"))
}

fn vxlan(hosts: [Namespace; 2]) -> Result<Built, String> {
    let containers = [bridged(&hosts[0], 0, 1450)?, bridged(&hosts[1], 1, 1450)?];
    for end in 0..2 {
        ip(
            &hosts[end],
            &format!(
                "link add flannel.1 mtu 1450 type vxlan id 1 dev {NIC} local {} dstport 8472 nolearning\n\
                 address add 10.244.{end}.0/32 dev flannel.1\nlink set flannel.1 up\n",
                HOSTS[end]
            ),
        )?;
    }
    for end in 0..2 {
        let other = 1 - end;
        let mac = hosts[other].link("flannel.1").mac;
        ip(
            &hosts[end],
            &format!(
                "neighbour add 10.244.{other}.0 lladdr {mac} dev flannel.1 nud permanent\n\
                 route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink\n"
            ),
        )?;
        let entry = format!("fdb add {mac} dev flannel.1 dst {} self permanent\n", HOSTS[other]);
        script(&hosts[end], &["bridge", "-batch", "-"], &entry)?;
    }
    Ok(routed(hosts, containers, "flannel.1"))
}

fn calico(hosts: [Namespace; 2]) -> Result<Built, String> {
    let containers = [Namespace::new(), Namespace::new()];
    for (end, (host, container)) in hosts.iter().zip(&containers).enumerate() {
        let other = 1 - end;
        host.set_sysctl("net/ipv4/ip_forward", "1");
        host.create_veth("cali0", container, IFNAME);
        host.set_sysctl("net/ipv4/conf/cali0/proxy_arp", "1");
        host.set_sysctl("net/ipv4/neigh/cali0/proxy_delay", "0");
        ip(
            host,
            &format!(
                "link set cali0 address ee:ee:ee:ee:ee:ee up\nroute add {}/32 dev cali0 scope link\n\
                 route add 10.244.{other}.0/26 via {} dev {NIC}\nroute add default via {} dev {NIC}\n",
                pod(end),
                HOSTS[other],
                // With a default route, the kernel answers ARP requests for 169.254.1.1.
                HOSTS[other]
            ),
        )?;
        ip(
            container,
            &format!(
                "address add {}/32 dev {IFNAME}\nlink set {IFNAME} up\nroute add 169.254.1.1 dev {IFNAME} scope link\n\
                 route add default via 169.254.1.1 dev {IFNAME}\n",
                pod(end)
            ),
        )?;
    }
    Ok(routed(hosts, containers, "cali0"))
}

/// The client uses the address of the server's host, and the server sees that of the client's host.
fn nat(hosts: [Namespace; 2]) -> Result<Built, String> {
    let containers = [bridged(&hosts[0], 0, 1500)?, bridged(&hosts[1], 1, 1500)?];
    let last = FIRST_PORT + PAIRS;
    for (end, host) in hosts.iter().enumerate() {
        let table = format!(
            "table ip nat {{\n\
               chain prerouting {{\n type nat hook prerouting priority dstnat;\n\
                 iifname {NIC} tcp dport {{ {STREAM_PORT}, {FIRST_PORT}-{last} }} dnat to {}\n }}\n\
               chain postrouting {{\n type nat hook postrouting priority srcnat;\n\
                 ip saddr 10.244.{end}.0/24 oifname {NIC} masquerade\n }}\n}}\n",
            pod(end)
        );
        script(host, &["nft", "-f", "-"], &table)?;
        // Otherwise finished connections stay in the table for two minutes, and fill it.
        host.set_sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1");
    }
    Ok(between(hosts, Some(containers), (HOSTS[1], HOSTS[0]), "cni0"))
}
