//! A host whose containers have host access, and the questions that all tests ask.

use std::io::Read;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use e2e::host_site::HostSite;
pub(crate) use e2e::host_site::{RECORDS, addresses};
use e2e::kernel::Link;
use e2e::lab::{Families, NIC};
use e2e::needs::Feature;
use e2e::patience::PATIENCE;
use e2e::traffic::echo;
use e2e::{Container, Namespace, with};
use rtnetlink::packet_route::route::RouteProtocol;
use serde_json::{Value, json};

/// All tests run on every kernel.
pub(crate) const NEEDS: &[Feature] = &[];
/// The protocol of our routes.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(117);
pub(crate) const DUAL: Families = Families::Dual;

pub(crate) struct Site(HostSite);

impl Deref for Site {
    type Target = HostSite;

    fn deref(&self) -> &HostSite {
        &self.0
    }
}

impl Site {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self(HostSite::new(kind))
    }

    /// A configuration with host access.
    pub(crate) fn conf(&self, families: Families) -> Value {
        self.conf_with(families, json!(true))
    }

    pub(crate) fn conf_with(&self, families: Families, access: Value) -> Value {
        let conf = self.lab().conf_with(self.ipam(families));
        with(with(conf, "type", json!(self.kind)), "hostAccess", access)
    }

    /// The host's links of all parents.
    pub(crate) fn host_links(&self) -> Vec<Link> {
        self.host.links().into_iter().filter(|link| link.name.starts_with("underlay")).collect()
    }

    /// The host's link of the only parent.
    #[track_caller]
    pub(crate) fn host_link(&self) -> Link {
        let mut links = self.host_links();
        assert_eq!(links.len(), 1, "not one link: {links:?}");
        links.remove(0)
    }

    /// The private addresses of the host's links, sorted as text.
    pub(crate) fn private(&self) -> Vec<String> {
        let links = self.host_links();
        let all = self.host.all_addresses().into_iter();
        let its = all.filter(|address| links.iter().any(|link| link.ifindex == address.ifindex));
        let mut texts: Vec<_> = its.map(|address| address.net.to_string()).collect();
        texts.sort();
        texts
    }

    /// The destinations of our routes on the host, sorted as text.
    pub(crate) fn host_routes(&self) -> Vec<String> {
        routes_of_ours(&self.host)
    }

    /// Asserts that nothing of host access is left on the host.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.host_routes(), [""; 0]);
        assert!(self.host_links().is_empty(), "{:?}", self.host_links());
        assert_eq!(self.records(), [""; 0]);
    }

    /// Asserts that CHECK fails with this text.
    #[track_caller]
    pub(crate) fn differs(&self, container: &Container, conf: &Value, text: &str) {
        self.plugin().check(container, "eth0", conf).run().fails(102, &[text]);
    }
}

/// The destinations of the routes with our protocol, sorted as text.
pub(crate) fn routes_of_ours(netns: &Namespace) -> Vec<String> {
    let ours = netns.routes().into_iter().filter(|route| route.protocol == PROTOCOL);
    let mut destinations: Vec<_> = ours.map(|route| route.dst.addr().to_string()).collect();
    destinations.sort();
    destinations
}

/// Whether a machine reaches a TCP port of the host.
pub(crate) fn connects(from: &Namespace, to: &Namespace, ip: IpAddr, port: u16, patience: Duration) -> bool {
    let listener = to.run(|| TcpListener::bind((ip, port))).expect("listen");
    let address = listener.local_addr().expect("a listener has an address");
    from.run(|| TcpStream::connect_timeout(&address, patience)).is_ok()
}

/// The first address of `eth0`.
pub(crate) fn address(container: &Namespace) -> IpAddr {
    addresses(container)[0]
}

/// Asserts that the host reaches each address of the container, and the container both addresses of the host's NIC.
#[track_caller]
pub(crate) fn assert_reach_each_other(site: &Site, container: &Container) {
    for address in addresses(container) {
        echo(&site.host, container, address, 10_000);
        let host = if address.is_ipv4() { site.host.v4 } else { site.host.v6 };
        echo(container, &site.host, host, 10_000);
    }
}

/// The source of a connection from `from`, as the listener in `server` sees it.
pub(crate) fn source(from: &Namespace, server: &Namespace, ip: IpAddr) -> IpAddr {
    let listener = server.run(|| TcpListener::bind((ip, 0))).expect("listen");
    let address = listener.local_addr().expect("a listener has an address");
    let connected = from.run(|| TcpStream::connect_timeout(&address, PATIENCE)).expect("connect");
    let (mut stream, peer) = listener.accept().expect("accept a connection");
    drop(connected);
    stream.read_to_end(&mut Vec::new()).expect("the end of the connection");
    peer.ip()
}

/// A machine that is connected with the host by a NIC of its own. The host has `host` there, and the machine `there`.
pub(crate) fn other_lan(site: &Site, nic: &str, host: &str, there: &str) -> Namespace {
    let machine = Namespace::new();
    site.host.create_veth(nic, &machine, "eth0");
    site.host.add_address(nic, host.parse().expect("an address"));
    machine.add_address("eth0", there.parse().expect("an address"));
    site.host.set_up(nic);
    machine.set_up("eth0");
    machine
}

/// The NIC of the host has another address in place of its own.
pub(crate) fn change_host_address(site: &Site, new: &str) {
    site.host.ip(&format!("address delete {}/24 dev {NIC}", site.host.v4));
    site.host.ip(&format!("address add {new}/24 dev {NIC}"));
}
