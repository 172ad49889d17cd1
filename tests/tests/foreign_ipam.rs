//! The IPAM plugins of the reference with our macvlan and ipvlan: `static`, and `dhcp` with dnsmasq.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use e2e::binaries::peers;
use e2e::lab::lan4;
use e2e::patience::await_that;
use e2e::traffic::{Manner, Wire, assert_reaches};
use e2e::{Lab, Machine, Plugin, cases, with};
use serde_json::{Value, json};

/// The addresses of the DHCP server, and their netmask and lease time.
const DHCP_RANGE: &str = "192.168.50.200,192.168.50.220,255.255.255.0,1h";

/// A program that runs during the test and ends with it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A DHCP server on another machine, and the reference's `dhcp` daemon on the host.
struct Dhcp<'a> {
    lab: &'a Lab,
    client: Daemon,
    _server: (Machine, Daemon),
}

impl<'a> Dhcp<'a> {
    /// `options` are additional options of dnsmasq.
    fn start(lab: &'a Lab, options: &[&str]) -> Self {
        let machine = lab.machine(30);
        let pid_file = lab.path("dnsmasq.pid");
        let mut server = Command::new("/usr/sbin/dnsmasq");
        server
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping"])
            .args([format!("--interface={}", machine.nic), format!("--dhcp-range={DHCP_RANGE}")])
            .arg(format!("--dhcp-leasefile={}", leases(lab).display()))
            .arg(format!("--pid-file={}", pid_file.display()))
            .args(options)
            .stdin(Stdio::null())
            .stderr(fs::File::create(lab.path("dnsmasq.log")).expect("make a file"));
        let server = Daemon(machine.run(|| server.spawn()).expect("start dnsmasq (package dnsmasq-base)"));
        let mut client = Command::new(peers("reference").join("dhcp"));
        client
            .arg("daemon")
            .args(["-socketpath".into(), socket(lab)])
            .args(["-pidfile".into(), lab.path("dhcp.pid")])
            .stdin(Stdio::null())
            .stderr(fs::File::create(lab.path("dhcp.log")).expect("make a file"));
        let client = Daemon(lab.host.run(|| client.spawn()).expect("start the daemon of the reference's dhcp"));
        await_that("server and client run", || pid_file.exists() && socket(lab).exists());
        Self { lab, client, _server: (machine, server) }
    }

    fn conf(&self) -> Value {
        self.lab.conf_with(json!({"type": "dhcp", "daemonSocketPath": socket(self.lab)}))
    }

    fn table(&self) -> String {
        fs::read_to_string(leases(self.lab)).unwrap_or_default()
    }

    #[track_caller]
    fn await_empty_table(&self) {
        await_that("the server's lease table is empty", || self.table().is_empty());
    }
}

fn leases(lab: &Lab) -> PathBuf {
    lab.path("dnsmasq.leases")
}

fn socket(lab: &Lab) -> PathBuf {
    lab.path("dhcp.sock")
}

/// A plugin of the Lab that finds the reference's IPAM plugins first.
fn with_theirs<'a>(lab: &'a Lab, name: &str) -> Plugin<'a> {
    lab.plugin(name).search(format!("{}:{}", peers("reference").display(), lab.bin().display()))
}

/// ADD, CHECK and DEL with the address, route and name server that the configuration gives `static`.
fn live_with_static(lab: &Lab, mut conf: Value) {
    let name = conf["type"].as_str().expect("a type").to_owned();
    conf["ipam"] = json!({
        "type": "static",
        "addresses": [{"address": "192.168.50.77/24", "gateway": "192.168.50.1"}, {"address": "fd50::77/64"}],
        "routes": [{"dst": "10.20.0.0/16", "gw": "192.168.50.20"}],
        "dns": {"nameservers": ["192.168.50.1"]},
    });
    let plugin = with_theirs(lab, &name);
    let (container, conf) = plugin.attach(lab, &conf);
    assert_eq!(container.address_texts("eth0"), ["192.168.50.77/24", "fd50::77/64"]);
    assert_eq!(container.route_to("10.20.0.0/16").gateway, Some(lan4(20)));
    assert_reaches(&lab.neighbour, lan4(77));
    plugin.check(&container, "eth0", &conf).run().done();
    for _ in 0..2 {
        plugin.detach(lab, &container, &conf);
    }
}

cases! {
    #[reference(passes)]
    fn macvlan_works_with_the_reference_plugin_static(lab) {
        live_with_static(lab, lab.conf());
    }

    #[needs(Ipvlan)]
    #[reference(passes)]
    fn ipvlan_works_with_the_reference_plugin_static(lab) {
        live_with_static(lab, lab.ipvlan_conf("l2"));
    }

    /// The daemon sends DHCPRELEASE from the leased address. DEL had already removed that address from the link, so
    /// nothing was sent, and each container cost an address of the server.
    #[reference(passes)]
    fn del_returns_a_dhcp_lease(lab) {
        let dhcp = Dhcp::start(lab, &[]);
        let plugin = with_theirs(lab, "macvlan");
        let (container, conf) = plugin.attach(lab, &dhcp.conf());
        let address = container.address_texts("eth0").remove(0);
        assert_eq!(conf["prevResult"]["ips"][0]["address"], address);
        let address = address.trim_end_matches("/24");
        assert!(dhcp.table().contains(address), "{} has no {address}", dhcp.table());
        assert_reaches(&lab.neighbour, address.parse().expect("an address"));
        plugin.check(&container, "eth0", &conf).run().done();
        plugin.detach(lab, &container, &conf);
        dhcp.await_empty_table();
        plugin.del(&container, "eth0", &conf).run().done();
    }

    /// `dhcp` sets the link up before it asks, so the kernel does not announce the address. Switches kept the MAC of the
    /// container that had the address before.
    #[reference(fails: "1 announcement")]
    fn an_address_of_dhcp_is_announced(lab) {
        let dhcp = Dhcp::start(lab, &[]);
        let wire = Wire::open(&lab.neighbour, lab.neighbour.nic);
        let (container, conf) = with_theirs(lab, "macvlan").attach(lab, &dhcp.conf());
        let address = container.addresses("eth0").into_iter().find(|its| its.net.addr().is_ipv4()).expect("an address");
        let seen = wire.seen_before_answer(lab.neighbour.v4, lan4(30));
        let announced = seen.iter().filter(|seen| seen.frame.announces(address.net.addr())).count();
        assert_eq!(announced, 1, "not 1 announcement: {seen:?}");
        with_theirs(lab, "macvlan").detach(lab, &container, &conf);
    }

    /// The address is not ours to change, so the ADD fails after it has given the lease back.
    #[reference(fails: "did not fail")]
    fn an_address_of_dhcp_that_another_machine_has_is_refused(lab) {
        let dhcp = Dhcp::start(lab, &[]);
        let conf = with(dhcp.conf(), "detectIPConflict", json!(true));
        let all: Vec<_> = (200..=220).map(lan4).collect();
        let _holder = Manner::of(&all).start(&lab.neighbour, lab.neighbour.nic);
        let container = lab.container();
        let failed = with_theirs(lab, "macvlan").add(&container, "eth0", &conf).run();
        failed.fails(103, &["192.168.50.2", "eth0", "ens3"]);
        assert!(!container.has_link("eth0"), "the link stayed: {}", failed.text());
    }

    /// The kernel refuses a route of the server, so ADD fails after the address is on the link.
    #[reference(fails: "the link stayed")]
    fn a_failed_add_returns_its_dhcp_lease(lab) {
        let dhcp = Dhcp::start(lab, &["--dhcp-option-force=121,10.9.0.0/16,172.31.0.1"]);
        let container = lab.container();
        let failed = with_theirs(lab, "macvlan").add(&container, "eth0", &dhcp.conf()).run();
        assert!(!failed.status.success(), "{}", failed.text());
        assert!(!container.has_link("eth0"), "the link stayed: {}", failed.text());
        failed.fails(100, &["10.9.0.0/16", "172.31.0.1"]);
        dhcp.await_empty_table();
    }

    /// The lease expires by itself. A link with an address that is no longer renewed would disturb another machine.
    #[reference(fails: "the link stayed")]
    fn without_the_dhcp_daemon_del_fails_but_still_removes_the_link(lab) {
        let mut dhcp = Dhcp::start(lab, &[]);
        let (plugin, container) = (with_theirs(lab, "macvlan"), lab.container());
        plugin.add(&container, "eth0", &dhcp.conf()).run().result();
        dhcp.client.0.kill().expect("kill the daemon");
        dhcp.client.0.wait().expect("wait for the daemon");
        let failed = plugin.del(&container, "eth0", &dhcp.conf()).run();
        assert!(!container.has_link("eth0"), "the link stayed: {}", failed.text());
        failed.fails(999, &["error dialing DHCP daemon"]);
    }
}
