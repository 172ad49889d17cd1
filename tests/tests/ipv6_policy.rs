//! `acceptRA`, `sysctl` and `slaacTimeout`, with a router that advertises every 50 ms from before the ADD (radvd).

use std::fs;
use std::process::{Child, Command, Stdio};

use e2e::lab::Families;
use e2e::patience::await_that;
use e2e::traffic::{Wire, assert_reaches};
use e2e::{Container, Lab, Namespace, cases, with};
use serde_json::{Value, json};

const PREFIX: &str = "2001:db8:50::";

/// A program that runs during the test and ends with it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(netns: &Namespace, command: &mut Command) -> Daemon {
    let program = command.get_program().to_string_lossy().into_owned();
    Daemon(netns.run(|| command.stdin(Stdio::null()).spawn()).unwrap_or_else(|e| panic!("start {program}: {e}")))
}

/// Starts a router on the neighbour, and waits for its first advertisement.
fn router(lab: &Lab) -> Daemon {
    router_with(lab, "", &format!("prefix {PREFIX}/64 {{ AdvOnLink on; AdvAutonomous on; }};"))
}

/// The same, with options of the interface and with other prefixes.
fn router_with(lab: &Lab, options: &str, prefixes: &str) -> Daemon {
    let machine = &lab.neighbour;
    machine.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    machine.ip(&format!("address replace {PREFIX}1/64 dev {} nodad", machine.nic));
    let conf = lab.path("radvd.conf");
    let text = format!(
        "interface {} {{ AdvSendAdvert on; MinRtrAdvInterval 0.03; MaxRtrAdvInterval 0.07; AdvIntervalOpt on; \
         {options} {prefixes} }};\n",
        machine.nic
    );
    fs::write(&conf, text).expect("write the configuration of radvd");
    let wire = Wire::open(&lab.host, lab.host.nic);
    let mut command = Command::new("/usr/sbin/radvd");
    command
        .args(["--nodaemon", "--logmethod=stderr"])
        .stderr(fs::File::create(lab.path("radvd.log")).expect("make a file"))
        .arg(format!("--config={}", conf.display()));
    command.arg(format!("--pidfile={}", lab.path("radvd.pid").display()));
    let daemon = spawn(machine, &mut command);
    let log = || fs::read_to_string(lab.path("radvd.log")).unwrap_or_default();
    assert!(wire.wait_for_router(), "radvd sends nothing (package radvd): {}", log());
    daemon
}

/// Notes all changes of IPv6 addresses and routes in a container.
struct Monitor {
    _daemon: Daemon,
    log: std::path::PathBuf,
}

impl Monitor {
    fn start(lab: &Lab, container: &Container) -> Self {
        let log = lab.path(&format!("monitor-{}", container.id));
        let file = fs::File::create(&log).expect("make a file");
        let mut command = Command::new("ip");
        command.args(["-6", "monitor", "address", "route"]);
        let daemon = spawn(container, command.stdout(file));
        let monitor = Self { _daemon: daemon, log };
        // It listens as soon as it notes a change.
        await_that("the monitor listens", || {
            container.ip("address replace fd99::1/128 dev lo");
            container.ip("address delete fd99::1/128 dev lo");
            monitor.text().contains("fd99::1")
        });
        monitor
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).expect("read the notes")
    }

    /// Asserts that no router has changed anything.
    #[track_caller]
    fn assert_untouched(&self) {
        let text = self.text();
        assert!(!text.contains(PREFIX.trim_end_matches(':')) && !text.contains("proto ra"), "{text}");
    }
}

/// Waits until the container has received advertisements since it is there.
fn after_advertisements(container: &Container) {
    let wire = Wire::open(container, "eth0");
    for _ in 0..3 {
        assert!(wire.wait_for_router(), "no advertisement");
    }
}

fn slaac_addresses(container: &Container) -> Vec<String> {
    let all = container.address_texts("eth0").into_iter();
    all.filter(|text| text.starts_with(PREFIX.trim_end_matches(':'))).collect()
}

/// An IPAM plugin as dhcp is: it sets the link up and takes its time.
fn slow_ipam(lab: &Lab) -> Value {
    lab.fake_ipam(
        "[ $CNI_COMMAND = ADD ] || exit 0\nnsenter --net=$CNI_NETNS ip link set $CNI_IFNAME up\nsleep 1\necho \"$answer\"",
    )
}

cases! {
    #[reference(not_run: "it has no such key")]
    fn without_acceptance_there_is_nothing_of_the_router_at_any_instant(lab) {
        let _router = router(lab);
        for conf in [lab.conf_with(lab.ipam(Families::Dual)), lab.conf(), lab.conf_with(json!({})), slow_ipam(lab)] {
            let container = lab.container();
            let monitor = Monitor::start(lab, &container);
            lab.plugin_with_fake("macvlan").add(&container, "eth0", &with(conf, "acceptRA", json!(false))).run().result();
            container.set_up("eth0");
            after_advertisements(&container);
            monitor.assert_untouched();
            assert_eq!(container.sysctl("net/ipv6/conf/eth0/accept_ra"), "0");
        }
    }

    /// Otherwise the test above could not fail.
    #[reference(not_run: "it has no such key")]
    fn with_acceptance_the_router_is_used(lab) {
        let _router = router(lab);
        let container = lab.container();
        let conf = with(lab.conf_with(lab.ipam(Families::Dual)), "acceptRA", json!(true));
        lab.macvlan().add(&container, "eth0", &conf).run().result();
        await_that("the container has an address of the router", || !slaac_addresses(&container).is_empty());
        assert_eq!(container.sysctl("net/ipv6/conf/eth0/accept_ra"), "2");
        // If it is not set, it is as the kernel has it.
        let container = lab.container();
        lab.macvlan().add(&container, "eth0", &lab.conf_with(lab.ipam(Families::Dual))).run().result();
        assert_eq!(container.sysctl("net/ipv6/conf/eth0/accept_ra"), "1");
    }

    #[reference(not_run: "it has no such key")]
    fn sysctls_are_written_before_ipam_is_asked(lab) {
        let conf = lab.fake_ipam(
            "[ $CNI_COMMAND = ADD ] || exit 0\nnsenter --net=$CNI_NETNS cat /proc/sys/net/ipv6/conf/eth0/autoconf \
             >$LAB/seen\necho \"$answer\"",
        );
        let sysctl = json!({
            "net.ipv6.conf.IFNAME.autoconf": "0", "net/ipv4/conf/IFNAME/rp_filter": "2",
            "net.ipv4.neigh.IFNAME.base_reachable_time_ms": "20000", "net.ipv4.conf.IFNAME.arp_notify": "0",
        });
        let container = lab.container();
        lab.plugin_with_fake("macvlan").add(&container, "eth0", &with(conf, "sysctl", sysctl)).run().result();
        assert_eq!(fs::read_to_string(lab.path("seen")).expect("IPAM was asked").trim(), "0");
        for (key, value) in [
            ("net/ipv6/conf/eth0/autoconf", "0"),
            ("net/ipv4/conf/eth0/rp_filter", "2"),
            ("net/ipv4/neigh/eth0/base_reachable_time_ms", "20000"),
            // The plugin sets it to 1 otherwise.
            ("net/ipv4/conf/eth0/arp_notify", "0"),
        ] {
            assert_eq!(container.sysctl(key), value, "{key}");
        }
    }

    #[reference(not_run: "it has no such key")]
    fn only_sysctls_of_the_interface_are_accepted(lab) {
        let one = |key: &str, value: Value| with(lab.conf(), "sysctl", json!({key: value}));
        for key in [
            "net.ipv4.ip_forward", "net.ipv6.conf.all.accept_ra", "kernel.panic", "net.ipv6.conf.eth0.autoconf", "",
            "net.ipv6.conf.IFNAME", "net.ipv6.route.IFNAME.autoconf", "net/ipv6/conf/IFNAME/../lo/mtu",
        ] {
            let said = format!("sysctl.{key} \"0\": is not a sysctl of the container's interface, such as net.ipv6.conf.IFNAME.autoconf");
            lab.macvlan().refuses(lab, &one(key, json!("0")), 7, &[&said]);
        }
        lab.macvlan().refuses(lab, &one("net/ipv6/conf/IFNAME/..", json!("0")), 7, &["is not the name of a sysctl"]);
        lab.macvlan().refuses(lab, &one("net.ipv6.conf.IFNAME.autoconf", json!(0)), 7, &["sysctl.net.ipv6.conf.IFNAME.autoconf 0: is not text"]);
        for empty in ["", " "] {
            let said = format!("sysctl.net.ipv6.conf.IFNAME.autoconf \"{empty}\": is empty; the kernel would ignore it");
            lab.macvlan().refuses(lab, &one("net.ipv6.conf.IFNAME.autoconf", json!(empty)), 7, &[&said]);
        }
        let twice = json!({"net.ipv6.conf.IFNAME.autoconf": "0", "net/ipv6/conf/IFNAME/autoconf": "1"});
        let said = "sysctl.net/ipv6/conf/IFNAME/autoconf \"1\": is the same sysctl as another key; remove one of them";
        lab.macvlan().refuses(lab, &with(lab.conf(), "sysctl", twice), 7, &[said]);
        let disabled = with(lab.conf_with(lab.ipam(Families::Dual)), "sysctl", json!({"net.ipv6.conf.IFNAME.disable_ipv6": "1"}));
        let said = "sysctl net.ipv6.conf.IFNAME.disable_ipv6 \"1\": IPAM gives the interface an IPv6 address, which it then cannot have";
        let container = lab.container();
        lab.macvlan().add(&container, "eth0", &disabled).run().fails(7, &[said]);
        assert_eq!((container.link_names(), lab.leases()), (vec!["lo".to_owned()], Vec::new()));
        let unknown = one("net.ipv6.conf.IFNAME.nonsense", json!("0"));
        lab.macvlan().refuses(lab, &unknown, 5, &["write /proc/sys/net/ipv6/conf/eth0/nonsense: "]);
        let both = with(one("net.ipv6.conf.IFNAME.accept_ra", json!("0")), "acceptRA", json!(false));
        lab.macvlan().refuses(lab, &both, 7, &["acceptRA false: sets a sysctl that sysctl sets too; remove one of them"]);
        lab.macvlan().refuses(lab, &with(lab.conf(), "acceptRA", json!("no")), 7, &["acceptRA \"no\": is neither true nor false"]);
    }

    /// The kernel answers a read with an error until the secret is set.
    #[reference(not_run: "it has no such key")]
    fn a_sysctl_that_cannot_be_read_before_it_is_set_is_written(lab) {
        let secret = "2001:0db8:0000:0000:0000:0000:0000:0007";
        let conf = with(lab.conf(), "sysctl", json!({"net.ipv6.conf.IFNAME.stable_secret": secret}));
        let (container, _) = lab.macvlan().attach(lab, &conf);
        assert_eq!(container.sysctl("net/ipv6/conf/eth0/stable_secret"), secret);
    }

    /// With such an MTU, the kernel has no IPv6 on the link, and no sysctls of it.
    #[reference(not_run: "it has no such key")]
    fn routers_are_also_ignored_where_the_interface_has_no_ipv6(lab) {
        let conf = with(lab.conf(), "mtu", json!(1000));
        let (container, _) = lab.macvlan().attach(lab, &with(conf.clone(), "acceptRA", json!(false)));
        let there = container.run(|| fs::exists("/proc/sys/net/ipv6/conf/eth0")).expect("look into /proc/sys");
        assert!(!there, "otherwise this test shows nothing");
        // An interface without IPv6 cannot accept routers.
        lab.macvlan().refuses(lab, &with(conf, "acceptRA", json!(true)), 5, &["write /proc/sys/net/ipv6/conf/eth0/accept_ra: "]);
    }

    /// ADD would wait for an address that cannot come.
    #[reference(not_run: "it has no such key")]
    fn a_wait_for_a_router_that_is_ignored_is_refused(lab) {
        let wait = with(lab.conf_with(json!({})), "slaacTimeout", json!(300));
        let said = |cause: &str| format!("slaacTimeout 300: cannot be met, because {cause}");
        lab.macvlan().refuses(lab, &with(wait.clone(), "acceptRA", json!(false)), 7, &[&said("acceptRA is false")]);
        for (key, value, more) in [
            ("accept_ra", "0", ""), ("accept_ra_pinfo", "0", ""), ("autoconf", "0", ""), ("disable_ipv6", "1", ""),
            ("forwarding", "1", ", and acceptRA is not true"),
        ] {
            let conf = with(wait.clone(), "sysctl", json!({format!("net.ipv6.conf.IFNAME.{key}"): value}));
            let said = said(&format!("sysctl net.ipv6.conf.IFNAME.{key} is {value}{more}"));
            lab.macvlan().refuses(lab, &conf, 7, &[&said]);
        }
        // These do not switch it off, so ADD waits.
        let forwarding = with(wait.clone(), "sysctl", json!({"net.ipv6.conf.IFNAME.forwarding": "1"}));
        let others = with(wait, "sysctl", json!({"net.ipv6.conf.IFNAME.accept_ra": "2", "net.ipv4.conf.IFNAME.forwarding": "1"}));
        for conf in [with(forwarding, "acceptRA", json!(true)), others] {
            lab.macvlan().refuses(lab, &conf, 11, &["no router advertised an address within 300ms"]);
        }
    }

    #[reference(not_run: "it has no such key")]
    fn the_address_and_the_router_are_in_the_result(lab) {
        let _router = router(lab);
        for conf in [lab.conf(), lab.conf_with(json!({})), lab.conf_with(lab.ipam(Families::Dual))] {
            let conf = with(conf, "slaacTimeout", json!(5000));
            let (container, checked) = lab.macvlan().attach(lab, &conf);
            let ips = checked["prevResult"]["ips"].as_array().expect("addresses").clone();
            let own = slaac_addresses(&container);
            let last = ips.last().expect("an address");
            assert_eq!(json!(own[0]), last["address"]);
            let gateway = last["gateway"].as_str().expect("a gateway");
            assert!(gateway.starts_with("fe80:"), "{gateway}");
            assert_reaches(&lab.neighbour, own[0].trim_end_matches("/64").parse().expect("an address"));
            lab.macvlan().check(&container, "eth0", &checked).run().done();
            lab.macvlan().detach(lab, &container, &checked);
        }
    }

    /// A router with lifetime 0 gives a prefix for addresses. It forwards no packets to other networks. (RFC 4861, 6.2.3)
    #[reference(not_run: "it has no such key")]
    fn a_router_that_is_no_default_router_is_not_the_gateway(lab) {
        let prefix = format!("prefix {PREFIX}/64 {{ AdvValidLifetime infinity; AdvPreferredLifetime infinity; }};");
        let _router = router_with(lab, "AdvDefaultLifetime 0;", &prefix);
        let (container, checked) = lab.macvlan().attach(lab, &with(lab.conf_with(json!({})), "slaacTimeout", json!(5000)));
        let ip = &checked["prevResult"]["ips"][0];
        assert_eq!(ip["address"], json!(slaac_addresses(&container)[0]));
        assert!(ip.get("gateway").is_none(), "{ip}");
        lab.macvlan().check(&container, "eth0", &checked).run().done();
    }

    /// All ipvlan interfaces of a parent have its MAC, and still need addresses of their own.
    #[needs(Ipvlan)]
    #[reference(not_run: "it has no such key")]
    fn ipvlan_ignores_a_router_or_waits_for_it(lab) {
        let _router = router(lab);
        let ipvlan = |conf: Value| with(conf, "type", json!("ipvlan"));
        let container = lab.container();
        let monitor = Monitor::start(lab, &container);
        let ignoring = with(ipvlan(lab.conf_with(lab.ipam(Families::Dual))), "acceptRA", json!(false));
        lab.ipvlan().add(&container, "eth0", &ignoring).run().result();
        after_advertisements(&container);
        monitor.assert_untouched();
        let waiting = with(ipvlan(lab.conf_with(json!({}))), "slaacTimeout", json!(5000));
        let mut seen = Vec::new();
        let attached: Vec<_> = (0..2).map(|_| lab.ipvlan().attach(lab, &waiting)).collect();
        for (container, checked) in &attached {
            let own = slaac_addresses(container);
            assert_eq!(json!(own[0]), checked["prevResult"]["ips"][0]["address"]);
            assert_reaches(&lab.neighbour, own[0].trim_end_matches("/64").parse().expect("an address"));
            assert!(!seen.contains(&own), "{own:?}");
            lab.ipvlan().check(container, "eth0", checked).run().done();
            seen.push(own);
        }
    }

    #[needs(Ipvlan)]
    #[reference(not_run: "it has no such key")]
    fn ipvlan_in_layer_3_mode_does_not_wait_for_a_router(lab) {
        let _router = router(lab);
        for mode in ["l3", "l3s"] {
            let conf = with(with(lab.ipvlan_conf(mode), "slaacTimeout", json!(300)), "ipam", json!({}));
            let said = format!("slaacTimeout 300: cannot be met, because no router advertisement reaches ipvlan in mode {mode}");
            lab.ipvlan().refuses(lab, &conf, 7, &[&said]);
            lab.ipvlan().call("STATUS", &with(conf, "cniVersion", json!("1.1.0"))).run().fails(7, &[&said]);
        }
    }

    /// Some runtimes disable IPv6 in new namespaces. The second sysctl accepts the addresses of a router only.
    #[reference(not_run: "it has no such key")]
    fn a_wait_for_a_router_enables_ipv6_and_may_be_for_the_address_only(lab) {
        let _router = router(lab);
        let container = lab.container();
        for key in ["all", "default"] {
            container.set_sysctl(&format!("net/ipv6/conf/{key}/disable_ipv6"), "1");
        }
        let conf = with(lab.conf_with(json!({})), "slaacTimeout", json!(5000));
        let conf = with(conf, "sysctl", json!({"net.ipv6.conf.IFNAME.accept_ra_defrtr": "0"}));
        let result = lab.macvlan().add(&container, "eth0", &conf).run().result();
        assert_eq!(result["ips"][0]["address"], json!(slaac_addresses(&container)[0]));
        assert!(result["ips"][0].get("gateway").is_none(), "{result}");
        assert!(container.routes_of("eth0").iter().all(|route| route.dst.to_string() != "::/0"));
    }

    /// A network that is being renumbered still has the old prefix. New connections must not use it.
    #[reference(not_run: "it has no such key")]
    fn an_address_that_is_deprecated_is_not_reported(lab) {
        let old = "prefix 2001:db8:49::/64 { AdvPreferredLifetime 0; };";
        let new = format!("prefix {PREFIX}/64 {{ }};");
        for prefixes in [format!("{old} {new}"), format!("{new} {old}")] {
            let _router = router_with(lab, "", &prefixes);
            let conf = with(lab.conf_with(json!({})), "slaacTimeout", json!(5000));
            let (container, checked) = lab.macvlan().attach(lab, &conf);
            assert_eq!(checked["prevResult"]["ips"][0]["address"], json!(slaac_addresses(&container)[0]));
        }
    }

    /// The result then has a gateway that the routes of IPAM did not have. CHECK looked for it in these routes.
    #[reference(not_run: "it has no such key")]
    fn the_gateway_of_a_router_is_not_that_of_routes_without_one(lab) {
        let _router = router(lab);
        let ipam = json!({"type": "static", "addresses": [{"address": "fd50::77/64"}], "routes": [{"dst": "fd51::/64"}]});
        let (container, checked) = lab.macvlan().attach(lab, &with(lab.conf_with(ipam), "slaacTimeout", json!(5000)));
        assert!(checked["prevResult"]["ips"][1]["gateway"].is_string(), "{checked}");
        lab.macvlan().check(&container, "eth0", &checked).run().done();
        container.ip("-6 route delete fd51::/64 dev eth0");
        lab.macvlan().differs(lab, &container, &checked, 102, &["has no route to fd51::/64"]);
    }

    /// The result has the gateway of the moment of the ADD.
    #[reference(not_run: "it has no such key")]
    fn check_succeeds_when_another_router_has_come(lab) {
        let router = router(lab);
        let conf = with(lab.conf_with(lab.ipam(Families::Dual)), "slaacTimeout", json!(5000));
        let (container, checked) = lab.macvlan().attach(lab, &conf);
        drop(router);
        lab.neighbour.ip(&format!("address add fe80::99/64 dev {} nodad", lab.neighbour.nic));
        let old = checked["prevResult"]["ips"][2]["gateway"].as_str().expect("a gateway").to_owned();
        lab.neighbour.ip(&format!("address delete {old}/64 dev {}", lab.neighbour.nic));
        let _router = self::router(lab);
        let gateways = || {
            let routes = container.routes_of("eth0").into_iter().filter(|route| route.dst.to_string() == "::/0");
            routes.filter_map(|route| route.gateway).map(|gateway| gateway.to_string()).collect::<Vec<_>>()
        };
        await_that("the other router is known", || gateways().contains(&"fe80::99".to_owned()));
        await_that("the first router is forgotten", || {
            container.ip(&format!("-6 route flush default via {old} dev eth0"));
            !gateways().contains(&old)
        });
        lab.macvlan().check(&container, "eth0", &checked).run().done();
    }

    #[reference(not_run: "it has no such key")]
    fn without_a_router_it_is_a_remark_or_an_error_where_it_was_the_only_address(lab) {
        let container = lab.container();
        let conf = with(lab.conf(), "slaacTimeout", json!(300));
        let outcome = lab.macvlan().add(&container, "eth0", &conf).run();
        assert_eq!(outcome.result()["ips"].as_array().map(Vec::len), Some(1));
        let said = "eth0: no router advertised an address within 300ms";
        assert!(outcome.stderr.contains(&format!("{said}, so the result has none")), "{}", outcome.text());
        let alone = with(lab.conf_with(json!({})), "slaacTimeout", json!(300));
        lab.macvlan().refuses(lab, &alone, 11, &[said]);
        for (conf, said) in [
            (with(alone.clone(), "slaacTimeout", json!(600_000)), "slaacTimeout 600000: is more than 60000 milliseconds"),
            (with(alone, "slaacTimeout", json!("1s")), "slaacTimeout \"1s\": is not a whole number"),
        ] {
            lab.macvlan().refuses(lab, &conf, 7, &[said]);
        }
    }
}
