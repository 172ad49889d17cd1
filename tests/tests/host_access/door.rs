//! Frames that a machine of the LAN sends to the MAC of the host's link come in by that link, and so pass firewall
//! rules that name the parent.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use e2e::lab::NIC;
use e2e::patience::PATIENCE;

use crate::site::{DUAL, Site, addresses, assert_reach_each_other, connects};

/// The time for a connection that must not be made.
const SILENCE: Duration = Duration::from_millis(400);

const KUBELET: u16 = 10250;

/// Whether the neighbour reaches a port of the host if it sends to the host by the MAC of the host's link.
fn knock(site: &Site, address: IpAddr, patience: Duration) -> bool {
    let link = site.host_link();
    site.neighbour.ip(&format!("neighbour replace {address} lladdr {} dev {}", link.mac, site.neighbour.nic));
    connects(&site.neighbour, &site.host, address, KUBELET, patience)
}

/// A host whose firewall closes a port on the parent. Returns `None` if the kernel has no such firewall.
fn site() -> Option<Site> {
    if !e2e::needs::here(&[e2e::needs::Feature::Nftables]) {
        return None;
    }
    let site = Site::new("macvlan");
    nft(
        &site,
        &format!(
            "table inet host {{ chain input {{ type filter hook input priority 0; \
             iifname {NIC} tcp dport {KUBELET} drop; }}; }}"
        ),
    );
    for address in [site.host.v4, site.host.v6] {
        assert!(
            !connects(&site.neighbour, &site.host, address, KUBELET, SILENCE),
            "the firewall is open for {address}"
        );
    }
    Some(site)
}

fn nft(site: &Site, rules: &str) {
    let file = site.path("rules");
    std::fs::write(&file, rules).expect("write rules");
    let output = site.host.run(|| Command::new("nft").arg("-f").arg(&file).output()).expect("start nft");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Attaches a container, and asserts that a remark says `text`.
fn attach_with_remark(site: &Site, text: &str) -> e2e::Container {
    let container = site.container();
    let outcome = site.plugin().add(&container, "eth0", &site.conf(DUAL)).run();
    outcome.result();
    assert!(outcome.stderr.contains(text), "{}", outcome.text());
    container
}

#[test]
fn ipv4_does_not_come_in_by_it() {
    let Some(site) = site() else { return };
    let _container = site.attach(&site.conf(DUAL));
    assert!(!knock(&site, site.host.v4, SILENCE));
}

#[test]
fn ipv4_comes_in_by_it_if_all_rp_filter_is_2_and_a_remark_says_so() {
    let Some(site) = site() else { return };
    site.host.set_sysctl("net/ipv4/conf/all/rp_filter", "2");
    let text = "all.rp_filter is 2: machines of the LAN can reach the host through ";
    let _container = attach_with_remark(&site, text);
    assert!(knock(&site, site.host.v4, PATIENCE));
}

#[test]
fn ipv6_comes_in_by_it_and_a_remark_says_so() {
    let Some(site) = site() else { return };
    let _container =
        attach_with_remark(&site, "IPv6 has no rp_filter: machines of the LAN can reach the host through ");
    assert!(knock(&site, site.host.v6, PATIENCE));
}

/// docs/security.md says so. The answer goes to the container, so this works without a handshake only.
#[test]
fn a_packet_with_the_address_of_a_container_comes_in_by_it() {
    let site = Site::new("macvlan");
    let (container, _) = site.attach(&site.conf(DUAL));
    let link = site.host_link();
    for (ip, host) in addresses(&container).into_iter().zip([site.host.v4, site.host.v6]) {
        let nic = site.neighbour.nic;
        site.neighbour.ip(&format!("neighbour replace {host} lladdr {} dev {nic}", link.mac));
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        site.neighbour.ip(&format!("address add {ip}/{bits} dev {nic} {}", if ip.is_ipv4() { "" } else { "nodad" }));
        let server = site.host.run(|| UdpSocket::bind((host, 0))).expect("bind");
        server.set_read_timeout(Some(PATIENCE)).expect("set the timeout");
        let to = server.local_addr().expect("an address");
        site.neighbour.run(|| UdpSocket::bind((ip, 0)).and_then(|socket| socket.send_to(b"x", to))).expect("send");
        let (_, from) = server.recv_from(&mut [0; 8]).expect("the packet has arrived");
        assert_eq!(from.ip(), ip);
    }
}

/// systemd's 50-default.conf sets the filter of each new link, and `sysctl --system` that of all.
#[test]
fn the_file_for_sysctl_keeps_the_filter_of_the_link() {
    let site = Site::new("macvlan");
    let _container = site.attach(&site.conf(DUAL));
    let theirs = site.path("50-default.conf");
    std::fs::write(&theirs, "net.ipv4.conf.*.rp_filter = 2\n").expect("write a file");
    let ours = e2e::document::folder().join("../packaging/network/90-underlay-sysctl.conf");
    let filter = format!("net/ipv4/conf/{}/rp_filter", site.host_link().name);
    for (file, expected) in [(&theirs, "2"), (&ours, "1")] {
        let output = site.host.run(|| Command::new("sysctl").arg("-p").arg(file).output()).expect("start sysctl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(site.host.sysctl(&filter), expected, "{}", file.display());
    }
}

/// The rules stand in docs/security.md.
#[test]
fn the_rules_of_the_page_close_it_and_let_containers_in() {
    let page = std::fs::read_to_string(e2e::document::folder().join("security.md")).expect("read the page");
    let from = page.find("table inet underlay").expect("the page has the rules");
    let rules = &page[from..from + page[from..].find("```").expect("the end of the block")];
    let Some(site) = site() else { return };
    site.host.set_sysctl("net/ipv4/conf/all/rp_filter", "2");
    nft(&site, rules);
    let (container, _) = site.attach(&site.conf(DUAL));
    for address in [site.host.v4, site.host.v6] {
        assert!(!knock(&site, address, SILENCE), "{address} is reached");
    }
    assert_reach_each_other(&site, &container);
}
