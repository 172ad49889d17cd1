//! Frames of a VLAN have its tag on the wire, and VLANs do not reach each other.

use std::io::Read;
use std::process::{Command, Stdio};

use e2e::lab::{Families, MACHINE_NIC, NIC};
use e2e::traffic::{arp_probe, assert_reaches, assert_silent, echo};
use e2e::with;
use serde_json::json;

use crate::site::{ID, Site, VLAN, address4, address6, addresses, assert_on_vlan, describe};

/// The longest time in which an answer would come.
const SOON: std::time::Duration = std::time::Duration::from_millis(300);

/// Asks for an address of the VLAN, and returns the frame with the question as tcpdump prints it on the neighbour's NIC.
fn captured(site: &Site, container: &e2e::Container, asked: &str) -> String {
    let filter = "arp or (vlan and arp)";
    let mut capture = site
        .neighbour
        .run(|| {
            Command::new("tcpdump")
                .args(["-i", MACHINE_NIC, "-e", "-n", "-l", "-Z", "root", "-c", "1", filter])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        })
        .expect("start tcpdump");
    // It says when it listens.
    let mut said = Vec::new();
    let mut stderr = capture.stderr.take().expect("a pipe");
    while !String::from_utf8_lossy(&said).contains("listening on") {
        let mut byte = [0];
        stderr.read_exact(&mut byte).expect("tcpdump listens");
        said.push(byte[0]);
    }
    let asked = asked.parse().expect("an address");
    assert_eq!(arp_probe(container, "eth0", "0.0.0.0".parse().expect("an address"), asked, SOON), None);
    let output = capture.wait_with_output().expect("tcpdump ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

e2e::on_both_kinds! {
    fn frames_have_the_tag_on_the_wire(site) {
        let (container, _) = site.attach(&site.conf(ID));
        let line = captured(site, &container, "10.0.100.77");
        assert!(line.contains("ethertype 802.1Q (0x8100)") && line.contains("vlan 100,"), "{line}");
        assert!(line.contains("10.0.100.77"), "{line}");
    }

    fn frames_have_the_tag_of_the_protocol_on_the_wire(site) {
        let conf = with(site.conf(ID), "vlanProtocol", json!("802.1ad"));
        let (container, _) = site.attach(&conf);
        let line = captured(site, &container, "10.0.100.77");
        assert!(line.contains("ethertype 802.1Q-QinQ (0x88a8)") && line.contains("vlan 100,"), "{line}");
        assert_eq!(describe(&site.host, VLAN)["altnames"], json!(["underlay-ens3-vlan100-802.1ad"]));
        site.detach(&container, &conf);
        site.assert_nothing_left();
    }

    fn two_vlans_and_the_untagged_lan_do_not_reach_each_other(site) {
        site.give_neighbour(ID);
        site.give_neighbour(200);
        let mut untagged = with(site.lab_conf(), "type", json!(site.kind));
        untagged["name"] = json!("untagged");
        let (plain, _) = site.attach(&untagged);
        let (first, _) = site.attach(&site.conf(ID));
        let (second, _) = site.attach(&site.conf(200));
        assert_on_vlan(site, &first, ID);
        assert_on_vlan(site, &second, 200);
        assert_reaches(&plain, site.neighbour.v4);
        // With a route, only the VLAN separates them.
        for (container, ip) in [
            (&first, addresses(&second)[0]),
            (&second, addresses(&first)[0]),
            (&first, addresses(&plain)[0]),
            (&plain, addresses(&first)[0]),
        ] {
            container.ip(&format!("route replace {ip}/32 dev eth0"));
            assert_silent(container, ip);
        }
        // And the neighbour does not see the frames of one VLAN on another.
        let source = addresses(&first)[0];
        assert_eq!(arp_probe(&site.neighbour, "eth0.200", "0.0.0.0".parse().expect("an address"), source, SOON), None);
    }

    /// The host itself is not on the VLAN: it has no address there, and answers no question.
    fn the_host_says_nothing_on_the_vlan(site) {
        site.give_neighbour(ID);
        let (_container, _) = site.attach(&site.conf(ID));
        assert_eq!(site.host.address_texts(VLAN), [""; 0]);
        let asked = arp_probe(&site.neighbour, "eth0.100", address4(ID, 2), site.host.v4, SOON);
        assert_eq!(asked, None, "the host answers for the address of its NIC");
    }

    /// Frames to the MAC of the VLAN link would pass firewall rules that name the NIC.
    fn a_machine_of_the_vlan_does_not_reach_the_host_through_the_link(site) {
        site.give_neighbour(ID);
        let (_container, _) = site.attach(&site.conf(ID));
        let mac = site.vlan_link().mac;
        let mut hosts = vec![site.host.v4];
        // The parent of ipvlan must receive IPv6. docs/security.md has a rule for it.
        if site.kind == "macvlan" {
            hosts.push(site.host.v6);
        }
        for ip in hosts {
            let length = if ip.is_ipv4() { 32 } else { 128 };
            site.neighbour.ip(&format!("route replace {ip}/{length} dev eth0.100"));
            site.neighbour.ip(&format!("neighbour replace {ip} lladdr {mac} dev eth0.100 nud permanent"));
            assert_silent(&site.neighbour, ip);
        }
    }

    /// The customer's VLAN 5 in the provider's VLAN 100.
    fn a_vlan_in_a_vlan_of_the_operator(site) {
        site.host.ip(&format!("link add link {NIC} name outer up type vlan proto 802.1ad id 100"));
        site.neighbour.ip(&format!("link add link {MACHINE_NIC} name outer up type vlan proto 802.1ad id 100"));
        site.neighbour.create_vlan("inner", "outer", 5);
        site.neighbour.ip(&format!("address add {}/24 dev inner", address4(5, 2)));
        site.neighbour.ip(&format!("address add {}/64 dev inner nodad", address6(5, 2)));
        let conf = with(site.conf(5), "master", json!("outer"));
        let (container, checked) = site.attach(&conf);
        assert_on_vlan(site, &container, 5);
        site.checks(&container, &checked);
        site.detach(&container, &conf);
        assert_eq!(site.host.link_names(), ["lo", NIC, "outer"]);
    }

    /// Both protocols of one number are two VLANs. The usual name is taken by the first.
    fn one_number_can_have_a_vlan_of_each_protocol(site) {
        site.give_neighbour(ID);
        let provider = with(site.conf(ID), "vlanProtocol", json!("802.1ad"));
        let (first, _) = site.attach(&site.conf(ID));
        let (second, _) = site.attach(&provider);
        assert_ne!(first.link("eth0").parent, second.link("eth0").parent);
        assert_on_vlan(site, &first, ID);
        assert_silent(&second, address4(ID, 2));
        site.detach(&first, &site.conf(ID));
        let links = site.host.links();
        let left: Vec<_> = links.iter().filter(|link| link.kind.as_deref() == Some("vlan")).map(|link| link.ifindex).collect();
        assert_eq!(left, [second.link("eth0").parent.expect("a parent")]);
        site.detach(&second, &provider);
        site.assert_nothing_left();
    }

    #[needs(Bond)]
    fn the_parent_can_be_a_bond(site) {
        site.give_neighbour(ID);
        site.host.create_bond("bond0", NIC);
        let before = site.host.link_names();
        let conf = with(site.conf(ID), "master", json!("bond0"));
        let (container, checked) = site.attach(&conf);
        assert!(site.host.has_link("bond0.100"));
        assert_on_vlan(site, &container, ID);
        site.checks(&container, &checked);
        site.detach(&container, &conf);
        assert_eq!(site.host.link_names(), before);
    }

    fn containers_of_one_vlan_reach_each_other(site) {
        let (first, _) = site.attach(&site.conf(ID));
        let (second, _) = site.attach(&site.conf(ID));
        for ip in addresses(&second) {
            echo(&first, &second, ip, 10_000);
        }
    }
}

/// The mode of ipvlan belongs to the parent. Two VLANs are two parents.
#[test]
fn ipvlan_in_two_modes_on_two_vlans_is_undisturbed() {
    if !e2e::needs::here(&[e2e::needs::Feature::Ipvlan, e2e::needs::Feature::Vlan]) {
        return;
    }
    let site = Site::new("ipvlan");
    site.give_neighbour(ID);
    let (first, _) = site.attach(&site.conf(ID));
    let (second, _) = site.attach(&with(site.conf(200), "mode", json!("l3")));
    assert_eq!(first.ipvlan("eth0").mode, "l2");
    assert_eq!(second.ipvlan("eth0").mode, "l3");
    assert_on_vlan(&site, &first, ID);
    site.plugin().refuses(&site, &with(site.conf(ID), "mode", json!("l3")), 7, &["ens3.100 carries ipvlan interfaces"]);
    assert_on_vlan(&site, &first, ID);
}

impl Site {
    fn lab_conf(&self) -> serde_json::Value {
        self.conf_with(self.ipam(Families::Dual))
    }
}
