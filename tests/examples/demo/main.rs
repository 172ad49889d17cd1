//! `make demo`: the built programs attach two containers to a LAN, step by step.
//!
//! The LAN consists of network namespaces and ends with this process. The network of the machine is not touched. The
//! exit status is 0 if every step succeeded.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_macros, reason = "this program prints to a terminal")]

mod userns;

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use e2e::lab::{Families, LAN4, LAN6, NIC};
use e2e::traffic::ping;
use e2e::{Binaries, Call, Container, Lab, Namespace, Outcome};
use serde_json::{Value, json};

use userns::Power;

const IFNAME: &str = "eth0";
/// The time for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The time without an answer after which an address counts as silent.
const SILENCE: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let power = match userns::acquire() {
        Ok(power) => power,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let mut story = Story { untrue: 0 };
    tell(&mut story, &power);
    if story.untrue == 0 {
        println!("\nAll checks passed.");
        ExitCode::SUCCESS
    } else {
        println!("\n{} of it was NOT true.", story.untrue);
        ExitCode::FAILURE
    }
}

struct Story {
    untrue: u32,
}

impl Story {
    fn chapter(&self, title: &str) {
        println!("\n== {title}");
    }

    fn claim(&mut self, holds: bool, what: &str) {
        println!("   [{}] {what}", if holds { "ok" } else { "NO" });
        self.untrue += u32::from(!holds);
    }

    fn claim_ping(&mut self, who: &str, from: &Namespace, whom: &str, to: IpAddr) {
        match ping(from, to, ANSWER_WITHIN) {
            Some(time) => self.claim(true, &format!("{who} pings {whom} at {to} in {time:.0?}")),
            None => self.claim(false, &format!("{who} pings {whom} at {to}")),
        }
    }
}

/// A container with its result.
struct Attached {
    name: &'static str,
    container: Container,
    result: Value,
    addresses: Vec<IpAddr>,
}

fn tell(story: &mut Story, power: &Power) {
    story.chapter("The LAN");
    let lab = Lab::new(Binaries::HardLinks);
    describe_lan(&lab, power);

    story.chapter("The configuration of the plugin: in /etc/cni/net.d, it is an entry of \"plugins\"");
    let text = configuration(&lab);
    print_indented(&text);
    let conf: Value = serde_json::from_str(&text).expect("the configuration is JSON");

    let Some(first) = attach(story, &lab, &conf, "container-a", true) else {
        return;
    };
    let Some(second) = attach(story, &lab, &conf, "container-b", false) else {
        return;
    };
    claim_reachable(story, &lab, &[&first, &second]);
    time_without_ipv6(story, &lab);
    check(story, &lab, &conf, &first);
    detach(story, &lab, &conf, &[first, second]);
}

/// Text, because JSON values would sort the keys.
fn configuration(lab: &Lab) -> String {
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "lan",
  "type": "macvlan",
  "master": "{NIC}",
  "ipam": {{
    "type": "host-local",
    "ranges": [
      [{{ "subnet": "{LAN4}", "rangeStart": "192.168.50.100", "rangeEnd": "192.168.50.149" }}],
      [{{ "subnet": "{LAN6}", "rangeStart": "fd50::100", "rangeEnd": "fd50::149" }}]
    ],
    "dataDir": "{}"
  }}
}}"#,
        lab.data_dir().display()
    )
}

fn describe_lan(lab: &Lab, power: &Power) {
    match power {
        Power::Root => println!("   Running as root; in new network namespaces."),
        Power::UserNamespace => {
            println!("   Running as an ordinary user, in a new user namespace.");
        }
    }
    let (host, neighbour) = (&lab.host, &lab.neighbour);
    println!(
        "\n     host                 switch              neighbour\n\
         \x20    {NIC}  -------------- bridge --------------  {}\n\
         \x20    {:<34} {}\n\
         \x20    {:<34} {}\n",
        neighbour.nic,
        host.v4.to_string(),
        neighbour.v4,
        host.v6.to_string(),
        neighbour.v6,
    );
    println!("   Subnets {LAN4} and {LAN6}. Each of the three is a network namespace.");
    println!("   The plugins are the built ones: {}", lab.bin().display());
}

fn attach(story: &mut Story, lab: &Lab, conf: &Value, name: &'static str, first: bool) -> Option<Attached> {
    story.chapter(&format!("ADD: the runtime attaches {name} to it{}", if first { "" } else { ", likewise" }));
    let mut container = lab.container();
    container.id = name.to_owned();
    let call = lab.macvlan().add(&container, IFNAME, conf);
    if first {
        print_call(lab, &call);
    }
    let outcome = call.run();
    if !outcome.status.success() {
        story.claim(false, &format!("ADD succeeds: {}", outcome.text()));
        return None;
    }
    let result = outcome.json();
    if first {
        println!("   It prints its result on stdout:\n");
        print_json(&result);
    }
    let addresses = addresses(&result);
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    story.claim(
        addresses.len() == 2,
        &format!("{name} has {} after {:.1} ms", texts.join(" and "), outcome.wall.as_secs_f64() * 1e3),
    );
    claim_in_kernel(story, &container, &addresses);
    Some(Attached { name, container, result, addresses })
}

fn claim_in_kernel(story: &mut Story, container: &Container, addresses: &[IpAddr]) {
    let link = container.find_link(IFNAME);
    let kind = link.as_ref().and_then(|link| link.kind.as_deref());
    story.claim(
        kind == Some("macvlan") && addresses.iter().all(|&ip| container.has_address(ip)),
        &format!("its {IFNAME} is a macvlan link of the host's {NIC}, with these addresses on it"),
    );
    let tentative = container
        .all_addresses()
        .into_iter()
        .any(|address| addresses.contains(&address.net.addr()) && address.tentative());
    story.claim(!tentative, "IPv6 is usable at once: ADD has waited for duplicate address detection");
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().map_or(&[][..], Vec::as_slice);
    ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
}

fn claim_reachable(story: &mut Story, lab: &Lab, attached: &[&Attached]) {
    story.chapter("Traffic: no bridge on the host, no NAT, no tunnel");
    for each in attached {
        for &ip in &each.addresses {
            story.claim_ping("the neighbour", &lab.neighbour, each.name, ip);
        }
    }
    if let [a, b] = attached {
        for &ip in &b.addresses {
            story.claim_ping(a.name, &a.container, b.name, ip);
        }
    }
    for each in attached {
        story.claim_ping(each.name, &each.container, "the neighbour", lab.neighbour.v4);
        story.claim_ping(each.name, &each.container, "the neighbour", lab.neighbour.v6);
    }
}

/// Most of the time of a dual-stack ADD is duplicate address detection in the kernel. The rest is the time of the
/// plugin.
fn time_without_ipv6(story: &mut Story, lab: &Lab) {
    story.chapter("The same ADD without IPv6, so without duplicate address detection");
    let container = lab.container();
    let conf = lab.conf_with(lab.ipam(Families::V4));
    let outcome = lab.macvlan().add(&container, IFNAME, &conf).run();
    story.claim(outcome.status.success(), &format!("a third container is attached after {}", millis(&outcome)));
    let outcome = lab.macvlan().del(&container, IFNAME, &conf).run();
    story.claim(outcome.status.success(), "and detached again");
}

fn millis(outcome: &Outcome) -> String {
    format!("{:.1} ms", outcome.wall.as_secs_f64() * 1e3)
}

fn check(story: &mut Story, lab: &Lab, conf: &Value, attached: &Attached) {
    story.chapter("CHECK: is everything still as ADD left it?");
    let conf = with_prev_result(conf, &attached.result);
    let call = lab.macvlan().check(&attached.container, IFNAME, &conf);
    let outcome = call.run();
    story.claim(outcome.status.success(), &format!("CHECK of {} finds no difference", attached.name));
    attached.container.set_down(IFNAME);
    let outcome = call.run();
    story.claim(
        outcome.status.code() == Some(1),
        &format!("with its {IFNAME} set down, CHECK says: {}", outcome.json()["msg"].as_str().unwrap_or("nothing")),
    );
    attached.container.set_up(IFNAME);
}

fn detach(story: &mut Story, lab: &Lab, conf: &Value, attached: &[Attached]) {
    story.chapter("DEL: the containers are detached");
    let leased = lab.leases();
    println!("   Leased until now, one file each: {}", leased.join(" "));
    for each in attached {
        let conf = with_prev_result(conf, &each.result);
        let outcome = lab.macvlan().del(&each.container, IFNAME, &conf).run();
        story.claim(
            outcome.status.success(),
            &format!("DEL of {} took {:.1} ms", each.name, outcome.wall.as_secs_f64() * 1e3),
        );
        story.claim(!each.container.has_link(IFNAME), "its link is gone");
        for &ip in &each.addresses {
            let silent = ping(&lab.neighbour, ip, SILENCE).is_none();
            story.claim(silent, &format!("no machine answers for {ip}"));
        }
    }
    story.claim(lab.leases().is_empty(), "no address is leased");
}

fn with_prev_result(conf: &Value, result: &Value) -> Value {
    let mut conf = conf.clone();
    conf["prevResult"] = json!(result);
    conf
}

fn print_call(lab: &Lab, call: &Call<'_>) {
    println!("   The runtime runs this in the host's namespace, with the configuration above on stdin:\n");
    for (name, value) in call.environment() {
        println!("     {}={} \\", name.display(), value.display());
    }
    println!("     {}\n", lab.bin().join("macvlan").display());
}

fn print_json(value: &Value) {
    print_indented(&format!("{value:#}"));
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("     {line}");
    }
    println!();
}
