//! A LAN: a switch, a host with a NIC and containers, and another machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Binaries, Namespace, Plugin};

/// The IPv4 subnet of the LAN. All Labs have the same, because they are in different namespaces.
pub const LAN4: &str = "192.168.50.0/24";
/// The IPv6 subnet of the LAN.
pub const LAN6: &str = "fd50::/64";
/// The NIC of the host, with a name that no container uses.
pub const NIC: &str = "ens3";
const BRIDGE: &str = "br0";
/// The names of its ports begin with this.
const PORT: &str = "port";
/// The NIC of all other machines.
pub const MACHINE_NIC: &str = "eth0";
/// The last part of both addresses of the host. In IPv6, "10" is hexadecimal.
const HOST: u8 = 10;
const NEIGHBOUR: u8 = 20;

/// A machine on the LAN.
#[derive(Debug)]
pub struct Machine {
    netns: Namespace,
    /// The name of its NIC.
    pub nic: &'static str,
    pub v4: IpAddr,
    pub v6: IpAddr,
}

impl Deref for Machine {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.netns
    }
}

/// A container on the host: a network namespace and an ID.
#[derive(Debug)]
pub struct Container {
    netns: Namespace,
    /// The value of `CNI_CONTAINERID`.
    pub id: String,
}

impl Deref for Container {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.netns
    }
}

/// One LAN, its machines, and a directory for all files of the test.
#[derive(Debug)]
pub struct Lab {
    /// Plugins run on the host, and its NIC is the parent of their links.
    pub host: Machine,
    pub neighbour: Machine,
    switch: Namespace,
    containers: AtomicU32,
    binaries: Binaries,
    bin: PathBuf,
    directory: TempDir,
}

impl Lab {
    /// A LAN with a host and a neighbour. Neither has a default route.
    pub fn new(binaries: Binaries) -> Self {
        let directory =
            tempfile::Builder::new().prefix("underlay-lab.").tempdir().expect("make a directory for the Lab");
        let bin = binaries.directory(directory.path());
        let switch = Namespace::new();
        switch.create_bridge(BRIDGE);
        Self {
            host: machine(&switch, NIC, HOST),
            neighbour: machine(&switch, MACHINE_NIC, NEIGHBOUR),
            switch,
            containers: AtomicU32::new(0),
            binaries,
            bin,
            directory,
        }
    }

    /// Adds a machine, with `last` as the last part of both addresses.
    pub fn machine(&self, last: u8) -> Machine {
        machine(&self.switch, MACHINE_NIC, last)
    }

    /// Adds a NIC on the LAN to a machine or a container. It is up and has no addresses.
    pub fn plug(&self, netns: &Namespace, nic: &str) {
        plug(&self.switch, netns, nic);
    }

    /// Takes the carrier from the NIC of the host, which stays up.
    pub fn unplug(&self) {
        self.cut_off(&self.host);
    }

    /// Gives the carrier back that [`Lab::unplug`] has taken.
    pub fn plug_again(&self) {
        self.connect(&self.host);
    }

    /// Takes the carrier from the NIC of a machine. The NIC stays up and keeps its addresses.
    pub fn cut_off(&self, machine: &Machine) {
        self.switch.set_down(&self.port(machine));
    }

    /// Gives the carrier back that [`Lab::cut_off`] has taken.
    pub fn connect(&self, machine: &Machine) {
        self.switch.set_up(&self.port(machine));
    }

    /// The port of the switch for the NIC of a machine.
    fn port(&self, machine: &Machine) -> String {
        let peer = machine.link(machine.nic).parent;
        let mut links = self.switch.links().into_iter();
        links.find(|link| Some(link.ifindex) == peer).expect("the NIC is plugged in").name
    }

    /// Makes the switch send frames back through the port on which they arrived, if their destination is there. The
    /// mode vepa needs this. (reflective relay in IEEE 802.1Qbg)
    pub fn reflect(&self) {
        for port in self.switch.link_names().iter().filter(|name| name.starts_with(PORT)) {
            self.switch.ip(&format!("link set {port} type bridge_slave hairpin on"));
        }
    }

    /// Gives the host an IPv4 default route through its NIC.
    pub fn add_default_route(&self) {
        self.host.ip(&format!("route add default via 192.168.50.1 dev {NIC}"));
    }

    /// Gives the host an IPv6 default route through its NIC.
    pub fn add_default_route6(&self) {
        self.host.ip(&format!("route add default via fd50::1 dev {NIC}"));
    }

    /// Creates a container on the host.
    pub fn container(&self) -> Container {
        let number = self.containers.fetch_add(1, Ordering::Relaxed) + 1;
        let netns = Namespace::new().name(self.path(&format!("netns-{number}")));
        Container { netns, id: format!("container-{number}") }
    }

    pub fn binaries(&self) -> Binaries {
        self.binaries
    }

    /// The directory of the plugins.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A path in the directory of the Lab, which is deleted with the Lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The plugin with that name, on the host.
    pub fn plugin(&self, name: &str) -> Plugin<'_> {
        Plugin::new(&self.host, self.bin.join(name)).search(&self.bin)
    }

    pub fn macvlan(&self) -> Plugin<'_> {
        self.plugin("macvlan")
    }

    pub fn ipvlan(&self) -> Plugin<'_> {
        self.plugin("ipvlan")
    }

    pub fn host_local(&self) -> Plugin<'_> {
        self.plugin("host-local")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path("leases")
    }

    /// The path of a file in the lease directory of the network `lan`.
    pub fn lease_file(&self, name: &str) -> PathBuf {
        self.data_dir().join("lan").join(name)
    }

    /// Writes a file into the lease directory of the network `lan`.
    pub fn write_lease(&self, name: &str, content: &str) {
        fs::create_dir_all(self.data_dir().join("lan")).expect("make a directory");
        fs::write(self.lease_file(name), content).expect("write a lease");
    }

    /// The leased addresses of the network `lan`, sorted as text.
    pub fn leases(&self) -> Vec<String> {
        self.leases_in("lan")
    }

    /// The leased addresses of a network, sorted as text.
    pub fn leases_in(&self, network: &str) -> Vec<String> {
        self.files_in(network).into_iter().filter(|name| name.parse::<IpAddr>().is_ok()).collect()
    }

    /// The sorted names of all files in the lease directory of the network `lan`. Owners' records and caches are links
    /// that lead nowhere, and are left out.
    pub fn lease_files(&self) -> Vec<String> {
        self.files_in("lan")
    }

    fn files_in(&self, network: &str) -> Vec<String> {
        let mut names: Vec<String> = match fs::read_dir(self.data_dir().join(network)) {
            Ok(entries) => entries
                .map(|entry| entry.expect("read a directory"))
                .filter(|entry| !entry.file_type().expect("read a directory").is_symlink())
                .map(|entry| entry.file_name())
                .map(|name| name.to_string_lossy().into_owned())
                .collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => panic!("read the lease directory: {e}"),
        };
        names.sort();
        names
    }

    /// A configuration of host-local with the ranges 192.168.50.100-149 and fd50::100-149.
    pub fn ipam(&self, families: Families) -> Value {
        let v4 = json!([{"subnet": LAN4, "rangeStart": "192.168.50.100", "rangeEnd": "192.168.50.149"}]);
        let v6 = json!([{"subnet": LAN6, "rangeStart": "fd50::100", "rangeEnd": "fd50::149"}]);
        let ranges = match families {
            Families::V4 => json!([v4]),
            Families::V6 => json!([v6]),
            Families::Dual => json!([v4, v6]),
        };
        json!({"type": "host-local", "dataDir": self.data_dir(), "ranges": ranges})
    }

    /// As [`Lab::conf`], with these `ranges`.
    pub fn conf_over(&self, ranges: Value) -> Value {
        self.conf_with(json!({"type": "host-local", "dataDir": self.data_dir(), "ranges": ranges}))
    }

    /// As [`Lab::conf`], with a range of the LAN.
    pub fn conf_of(&self, first: &str, last: &str) -> Value {
        self.conf_over(json!([[{"subnet": LAN4, "rangeStart": first, "rangeEnd": last}]]))
    }

    /// As [`Lab::conf`], with so many addresses from 10.0.0.10, and the old form of the keys.
    pub fn conf_of_ten(&self, addresses: usize) -> Value {
        self.conf_with(json!({
            "type": "host-local", "dataDir": self.data_dir(), "subnet": "10.0.0.0/24",
            "rangeStart": "10.0.0.10", "rangeEnd": format!("10.0.0.{}", 9 + addresses),
        }))
    }

    /// As [`Lab::conf`], for ipvlan.
    pub fn ipvlan_conf(&self, mode: &str) -> Value {
        let mut conf = self.conf();
        conf["type"] = json!("ipvlan");
        conf["mode"] = json!(mode);
        conf
    }

    /// A configuration of macvlan: the network `lan` on the NIC of the host, with IPv4 from host-local.
    pub fn conf(&self) -> Value {
        self.conf_with(self.ipam(Families::V4))
    }

    /// As [`Lab::conf`], with that `ipam`.
    pub fn conf_with(&self, ipam: Value) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "lan",
            "type": "macvlan",
            "master": NIC,
            "ipam": ipam,
        })
    }
}

/// The addresses that a configuration leases.
#[derive(Clone, Copy, Debug)]
pub enum Families {
    V4,
    V6,
    /// One address of each family.
    Dual,
}

pub fn lan4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 50, last))
}

/// The IPv6 address of the LAN whose text ends with these digits.
pub fn lan6(last: u8) -> IpAddr {
    let address: Ipv6Addr = format!("fd50::{last}").parse().expect("an address");
    IpAddr::V6(address)
}

fn machine(switch: &Namespace, nic: &'static str, last: u8) -> Machine {
    let netns = Namespace::new();
    // The addresses are unique, so duplicate address detection would only cost time.
    netns.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
    netns.set_sysctl("net/ipv6/conf/all/accept_dad", "0");
    plug(switch, &netns, nic);
    let (v4, v6) = (lan4(last), lan6(last));
    netns.add_address(nic, IpNet::new(v4, 24).expect("a prefix length"));
    netns.add_address(nic, IpNet::new(v6, 64).expect("a prefix length"));
    Machine { netns, nic, v4, v6 }
}

fn plug(switch: &Namespace, netns: &Namespace, nic: &str) {
    // A machine that is gone has taken its port with it.
    let taken = switch.link_names();
    let port = (1..).map(|number| format!("{PORT}{number}")).find(|name| !taken.contains(name)).expect("a free name");
    switch.create_veth(&port, netns, nic);
    switch.make_port(&port, BRIDGE);
    switch.set_up(&port);
    netns.set_up(nic);
}
