//! The host's link announces nothing to the LAN and answers nobody there.

use e2e::lab::{Families, NIC};
use e2e::traffic::{Frame, Wire};
use e2e::with;
use ipnet::IpNet;
use serde_json::json;

use crate::site::{DUAL, Site, address};

/// The kernel's MLD reports at link-up cannot be kept back (RFC 3810): ICMPv6 with a hop-by-hop header.
fn is_listener_report(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&0)
}

fn mac_of(text: &str) -> Vec<u8> {
    text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a MAC")).collect()
}

/// Whether the host's link has sent a frame, other than a listener report. On ipvlan, all links have one MAC.
fn is_from(site: &Site, mac: &str, frame: &[u8]) -> bool {
    let private = [&[169, 254, 255, 1][..], &[0xfd, 0, 0, 0x75, 0, 0x6c]];
    let names_it = private.iter().any(|private| frame.windows(private.len()).any(|part| part == *private));
    let has_its_mac = site.kind == "macvlan" && frame[6..12] == mac_of(mac);
    (has_its_mac || names_it) && !is_listener_report(frame)
}

/// Waits until all frames that were sent before have arrived: a container answers a request that is sent now.
fn until_answer(wire: &Wire, site: &Site, container: &e2e::Namespace) -> Vec<Vec<u8>> {
    let target = address(container);
    wire.ask(site.neighbour.v4, target);
    wire.frames_until(|frame| matches!(frame, Frame::Arp { operation: 2, sender, .. } if *sender == target))
}

e2e::on_both_kinds! {
    /// The link gets broadcasts as a container does, so a container's answer comes after anything that it would send.
    fn the_lan_gets_one_reply_to_a_request_and_to_a_probe(site) {
        let (container, _) = site.attach(&site.conf(DUAL));
        let nic = site.host.link(NIC).mac;
        let wire = Wire::open(&site.neighbour, site.neighbour.nic);
        for sender in [site.neighbour.v4, "0.0.0.0".parse().expect("an address")] {
            wire.ask(sender, site.host.v4);
            let answers: Vec<_> = until_answer(&wire, site, &container)
                .iter()
                .filter_map(|frame| Frame::decode(frame))
                .filter_map(|frame| match frame {
                    Frame::Arp { operation: 2, mac, sender, .. } if sender == site.host.v4 => Some(mac),
                    _ => None,
                })
                .collect();
            assert_eq!(answers, *std::slice::from_ref(&nic), "sender {sender}");
        }
    }

    /// With IPv6 on macvlan, the kernel sends one advertisement of the private address, which nobody asks for
    /// (`ndisc_send_unsol_na`). The links of other hosts drop it.
    #[needs(Bond)]
    fn at_a_bonds_failover_it_announces_no_more_than_the_kernel_insists_on(site) {
        site.plug(&site.host, "ens4");
        site.host.ip("link add bond0 type bond mode active-backup");
        for nic in [NIC, "ens4"] {
            site.host.ip(&format!("link set {nic} down"));
            site.host.ip(&format!("address flush dev {nic}"));
            site.host.ip(&format!("link set {nic} master bond0"));
        }
        site.host.ip(&format!("link set bond0 type bond active_slave {NIC}"));
        site.host.set_up("bond0");
        site.host.add_address("bond0", IpNet::new(site.host.v4, 24).expect("a prefix length"));
        for families in [Families::V4, DUAL] {
            let (container, conf) = site.attach(&with(site.conf(families), "master", json!("bond0")));
            let link = site.host_link();
            for slave in ["ens4", NIC] {
                let wire = Wire::open(&site.neighbour, site.neighbour.nic);
                site.host.ip(&format!("link set bond0 type bond active_slave {slave}"));
                let mut frames = wire.frames_until(|frame| frame.announces(site.host.v4));
                frames.extend(until_answer(&wire, site, &container));
                let sent: Vec<_> = frames.iter().filter(|frame| is_from(site, &link.mac, frame)).collect();
                let is_its = |frame: &&&Vec<u8>| {
                    let decoded = Frame::decode(frame);
                    decoded.is_some_and(|frame| frame.announces("fd00:75:6c::1".parse().expect("an address")))
                };
                let expected = usize::from(site.kind == "macvlan" && matches!(families, Families::Dual));
                assert_eq!(sent.iter().filter(is_its).count(), sent.len(), "{sent:02x?}");
                assert!(sent.len() <= expected, "{sent:02x?}");
            }
            site.detach(&container, &conf);
        }
    }

    /// The host has a route to each container. With `proxy_arp`, it answers for all that it has a route to.
    fn with_proxy_arp_the_lan_gets_two_replies_and_a_remark_says_so(site) {
        site.host.set_sysctl("net/ipv4/ip_forward", "1");
        site.host.set_sysctl(&format!("net/ipv4/conf/{NIC}/proxy_arp"), "1");
        site.host.set_sysctl(&format!("net/ipv4/neigh/{NIC}/proxy_delay"), "0");
        let container = site.container();
        let outcome = site.plugin().add(&container, "eth0", &site.conf(Families::V4)).run();
        outcome.result();
        let said = format!("proxy_arp of {NIC} is 1: the host also answers the LAN for the addresses of its containers");
        assert!(outcome.stderr.contains(&said), "{}", outcome.text());
        let (wire, target) = (Wire::open(&site.neighbour, site.neighbour.nic), address(&container));
        wire.ask(site.neighbour.v4, target);
        let is_answer = |frame: &Frame| matches!(frame, Frame::Arp { operation: 2, sender, .. } if *sender == target);
        for _ in 0..2 {
            wire.frames_until(is_answer);
        }
    }

    fn it_announces_nothing_when_it_comes_and_goes(site) {
        for key in ["all", "default", NIC] {
            site.host.set_sysctl(&format!("net/ipv4/conf/{key}/arp_notify"), "1");
            site.host.set_sysctl(&format!("net/ipv6/conf/{key}/ndisc_notify"), "1");
        }
        let wire = Wire::open(&site.neighbour, site.neighbour.nic);
        let (container, _) = site.attach(&site.conf(DUAL));
        let link = site.host_link();
        let mut frames = until_answer(&wire, site, &container);
        let (second, conf) = site.attach(&site.conf(DUAL));
        site.detach(&second, &conf);
        frames.extend(until_answer(&wire, site, &container));
        for frame in &frames {
            assert!(!is_from(site, &link.mac, frame), "from the host's link: {frame:02x?}");
        }
        let announced = frames.iter().filter_map(|frame| Frame::decode(frame)).any(|frame| frame.announces(address(&container)));
        assert!(announced, "not even the container's announcement was seen");
    }
}
