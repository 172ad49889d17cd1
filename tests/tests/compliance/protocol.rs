//! Environment, input and versions of the specification.

use std::rc::Rc;

use e2e::compliance;
use e2e::compliance::Rig;
use e2e::lab::Families;
use e2e::{Call, Container, with, without};
use serde_json::{Value, json};

/// A configuration whose result has all fields.
fn full(rig: &Rig, version: &str) -> Value {
    let mut ipam = rig.ipam(Families::Dual);
    ipam["routes"] = json!([{"dst": "10.20.0.0/16", "gw": "192.168.50.254"}, {"dst": "fd99::/48", "gw": "fd50::fe"}]);
    let dns = json!({
        "nameservers": ["192.168.50.1"], "domain": "lan.example", "search": ["lan.example"], "options": ["ndots:2"],
    });
    with(with(rig.conf_with(ipam), "cniVersion", json!(version)), "dns", dns)
}

fn full_life(rig: &Rig, version: &str) {
    let (container, conf) = (rig.container(), full(rig, version));
    let result = rig.add(&container, "eth0", &conf);
    let later = with(conf, "prevResult", result);
    rig.check(&container, "eth0", &later);
    rig.del(&container, "eth0", &later);
}

/// All commands in this version, also if the version does not have them.
fn version(rig: &Rig, version: &str) {
    full_life(rig, version);
    let (container, alone) = (rig.container(), with(without(rig.conf(), "ipam"), "cniVersion", json!(version)));
    rig.add(&container, "eth0", &alone);
    rig.del(&container, "eth0", &alone);
    let ipam = with(rig.conf_with(rig.ipam(Families::Dual)), "type", json!("host-local"));
    rig.live(&with(ipam, "cniVersion", json!(version)));
    rig.live(&with(with(rig.conf(), "cniVersion", json!(version)), "master", json!("nope0")));
}

/// The command VERSION of every program.
fn ask(rig: &Rig, stdin: &str) {
    for name in ["macvlan", "ipvlan", "host-local", "loopback"] {
        rig.see("VERSION", &rig.program("VERSION", name).call("VERSION", &json!({})).stdin(stdin));
    }
}

/// ADD, CHECK and DEL of both programs, each with the change.
fn each(rig: &Rig, change: impl Fn(Call<'_>) -> Call<'_>) {
    let container = rig.container();
    let ipam = with(rig.conf(), "type", json!("host-local"));
    for conf in [rig.conf(), ipam] {
        for command in ["ADD", "CHECK", "DEL"] {
            rig.see(command, &change(attachment(rig, command, &container, &conf)));
        }
    }
}

fn attachment<'a>(rig: &'a Rig, command: &str, container: &Container, conf: &Value) -> Call<'a> {
    let name = conf["type"].as_str().expect("a configuration has a type");
    rig.program(command, name).attachment(command, container, "eth0", conf)
}

/// A container whose loopback is down, and the configuration to bring it up.
fn loopback_down(rig: &Rig, version: &str) -> (Rc<Container>, Value) {
    let container = rig.container();
    container.set_down("lo");
    (container, json!({"cniVersion": version, "name": "lo", "type": "loopback"}))
}

compliance! {
    #[differs("E1": "answer end: error 999 | error 7", "P4": "4 ADD: answer end: error 999 | success")]
    fn v0_1_0(rig) { version(rig, "0.1.0"); }
    #[differs("E1": "answer end: error 999 | error 7", "P4": "4 ADD: answer end: error 999 | success")]
    fn v0_2_0(rig) { version(rig, "0.2.0"); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn v0_3_0(rig) { version(rig, "0.3.0"); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn v0_3_1(rig) { version(rig, "0.3.1"); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn v0_4_0(rig) { version(rig, "0.4.0"); }
    #[differs("E1": "answer end: error 999 | error 7")]
    fn v1_0_0(rig) { version(rig, "1.0.0"); }
    #[differs("R2": "answer result.interfaces[0].mtu: - | 1500")]
    fn v1_1_0(rig) { full_life(rig, "1.1.0"); }
    fn no_version(rig) { rig.live(&without(rig.conf(), "cniVersion")); }
    fn an_unknown_version(rig) { rig.live(&with(rig.conf(), "cniVersion", json!("2.0.0"))); }
    fn a_version_that_is_not_a_version(rig) { rig.live(&with(rig.conf(), "cniVersion", json!("nonsense"))); }

    #[differs("P3": "result.cniVersion: \"1.1.0\" | \"0.")]
    fn the_command_version(rig) {
        ask(rig, "{}");
        ask(rig, r#"{"cniVersion": "0.3.1"}"#);
        ask(rig, "");
    }

    #[differs(
        "U9": "2 GC: file leases/lan/192.168.50.120: here | -",
        "R2": "answer result.interfaces[0].mtu: - | 1500",
    )]
    fn gc(rig) {
        let conf = with(rig.conf(), "cniVersion", json!("1.1.0"));
        let container = rig.container();
        rig.add(&container, "eth0", &conf);
        rig.write_lease("192.168.50.120", "nowhere\r\neth0");
        let valid = json!([{"containerID": container.id, "ifname": "eth0"}]);
        let conf = with(conf, "cni.dev/valid-attachments", valid);
        rig.see("GC", &rig.program("GC", "macvlan").call("GC", &conf));
    }

    #[differs("U9": "2 GC: file leases/lan/192.168.50.100: - | here")]
    fn gc_of_host_local_with_a_list_that_lacks_a_container(rig) {
        let conf = with(with(rig.conf(), "type", json!("host-local")), "cniVersion", json!("1.1.0"));
        rig.add(&rig.container(), "eth0", &conf);
        let conf = with(conf, "cni.dev/valid-attachments", json!([]));
        rig.see("GC", &rig.program("GC", "host-local").call("GC", &conf));
    }

    #[differs("U9": "GC: answer end: success | error 7", "U9": "2 GC: file leases/lan/192.168.50.100: - | here")]
    fn gc_of_host_local_without_a_list(rig) {
        let conf = with(with(rig.conf(), "type", json!("host-local")), "cniVersion", json!("1.1.0"));
        rig.add(&rig.container(), "eth0", &conf);
        rig.see("GC", &rig.program("GC", "host-local").call("GC", &conf));
    }

    fn status(rig) {
        let conf = with(rig.conf(), "cniVersion", json!("1.1.0"));
        rig.see("STATUS", &rig.program("STATUS", "macvlan").call("STATUS", &conf));
    }

    #[differs("U10": "answer end: success | error 50")]
    fn status_without_the_parent(rig) {
        let conf = with(with(rig.conf(), "cniVersion", json!("1.1.0")), "master", json!("nope0"));
        rig.see("STATUS", &rig.program("STATUS", "macvlan").call("STATUS", &conf));
    }

    #[differs("E1": "answer end: error 999 | error 50")]
    fn status_without_the_ipam_plugin(rig) {
        let conf = with(rig.conf_with(json!({"type": "no-such-ipam"})), "cniVersion", json!("1.1.0"));
        rig.see("STATUS", &rig.program("STATUS", "macvlan").call("STATUS", &conf));
    }

    fn an_unknown_command(rig) {
        let macvlan = rig.program("UNKNOWN", "macvlan");
        rig.see("UNKNOWN", &macvlan.attachment("UNKNOWN", &rig.container(), "eth0", &rig.conf()));
    }

    #[differs("P1": "answer end: success | error 4")]
    fn no_command(rig) { each(rig, |call| call.without("CNI_COMMAND")); }
    fn no_container_id(rig) { each(rig, |call| call.without("CNI_CONTAINERID")); }
    fn no_ifname(rig) { each(rig, |call| call.without("CNI_IFNAME")); }
    fn no_netns(rig) { each(rig, |call| call.without("CNI_NETNS")); }

    fn no_path(rig) {
        let container = rig.container();
        rig.see("ADD", &attachment(rig, "ADD", &container, &rig.conf()).without("CNI_PATH"));
        rig.see("DEL", &attachment(rig, "DEL", &container, &rig.conf()).without("CNI_PATH"));
    }

    #[differs("P5": "answer end: error 4 | success", "P5": "file leases*: - | here")]
    fn no_path_for_host_local(rig) {
        let container = rig.container();
        let conf = with(rig.conf(), "type", json!("host-local"));
        rig.see("ADD", &attachment(rig, "ADD", &container, &conf).without("CNI_PATH"));
    }

    fn a_container_id_with_a_slash(rig) { each(rig, |call| call.env("CNI_CONTAINERID", "../escape")); }
    fn an_ifname_of_sixteen_characters(rig) { each(rig, |call| call.env("CNI_IFNAME", "sixteen-letters-")); }
    fn an_ifname_with_a_slash(rig) { each(rig, |call| call.env("CNI_IFNAME", "a/b")); }
    #[differs("E1": "answer end: error 999 | error 7", "E1": "answer end: error 999 | error 8")]
    fn a_netns_that_is_missing(rig) { each(rig, |call| call.env("CNI_NETNS", "/run/netns/there-is-none")); }
    #[differs(
        "E1": "answer end: error 999 | error 7",
        "E1": "answer end: error 999 | error 8",
        "D1": "DEL: answer end: error 999 | success",
    )]
    fn a_netns_that_is_not_a_netns(rig) { each(rig, |call| call.env("CNI_NETNS", "/dev/null")); }

    #[differs(
        "E1": "answer end: error 999 | error 7",
        "P2": "1 ADD: answer end: error 0 | error 8",
        "P2": "4 ADD: answer end: exit 1 | success",
        "P2": "[ours*: host *: here | -",
        "P2": "192.168.50.10",
        "P2": "last_reserved_ip.0: here | -",
        "D2": "DEL: answer end: error 8 | success",
    )]
    fn the_netns_of_the_host(rig) {
        let host = rig.host.path().to_owned();
        each(rig, |call| call.env("CNI_NETNS", &host));
    }

    fn no_input(rig) { each(rig, |call| call.stdin("")); }
    fn input_that_is_not_json(rig) { each(rig, |call| call.stdin("{")); }
    fn input_that_is_not_an_object(rig) { each(rig, |call| call.stdin("[]")); }

    fn input_with_a_byte_order_mark(rig) {
        let conf = rig.conf().to_string();
        let container = rig.container();
        rig.see("ADD", &attachment(rig, "ADD", &container, &rig.conf()).stdin(format!("\u{feff}{conf}")));
    }

    fn input_with_text_after_it(rig) {
        let conf = rig.conf().to_string();
        let container = rig.container();
        rig.see("ADD", &attachment(rig, "ADD", &container, &rig.conf()).stdin(format!("{conf}\n\n")));
        rig.see("DEL", &attachment(rig, "DEL", &container, &rig.conf()).stdin(format!("{conf} x")));
    }

    fn no_name(rig) { rig.live(&without(rig.conf(), "name")); }
    fn a_name_with_a_slash(rig) { rig.live(&with(rig.conf(), "name", json!("../escape"))); }
    fn a_name_with_odd_characters(rig) { rig.live(&with(rig.conf(), "name", json!("lan-1.a_B"))); }

    fn no_type(rig) {
        let container = rig.container();
        let conf = without(rig.conf(), "type");
        rig.see("ADD", &rig.program("ADD", "macvlan").add(&container, "eth0", &conf));
        rig.see("DEL", &rig.program("DEL", "macvlan").del(&container, "eth0", &conf));
    }

    fn keys_that_runtimes_add(rig) {
        let mut conf = rig.conf();
        conf["capabilities"] = json!({"ips": true, "mac": true});
        conf["runtimeConfig"] = json!({"portMappings": [{"hostPort": 80}], "dns": {"servers": ["192.0.2.1"]}});
        conf["args"] = json!({"labels": [{"key": "app", "value": "web"}]});
        conf["disableCheck"] = json!(true);
        rig.live(&conf);
    }

    fn args_as_podman_and_kubernetes_write_them(rig) {
        rig.live_with(&rig.conf(), |call| {
            call.args("IgnoreUnknown=true;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=d")
        });
    }

    fn null_means_not_set(rig) {
        let mut conf = rig.conf();
        for key in ["mode", "mtu", "mac", "dns", "prevResult", "runtimeConfig", "args", "linkInContainer"] {
            conf[key] = Value::Null;
        }
        rig.live(&conf);
    }

    #[differs("H1": "CHECK: answer end: error 999 | success")]
    fn a_prev_result_of_another_version(rig) {
        let (container, conf) = (rig.container(), rig.conf());
        let mut result = rig.add(&container, "eth0", &with(conf.clone(), "cniVersion", json!("0.4.0")));
        result["cniVersion"] = json!("0.4.0");
        rig.check(&container, "eth0", &with(conf.clone(), "prevResult", result.clone()));
        rig.del(&container, "eth0", &with(conf, "prevResult", result));
    }

    #[differs("E1": "CHECK: answer end: error 999 | error 102")]
    fn loopback(rig) {
        let (container, conf) = loopback_down(rig, "1.0.0");
        let result = rig.add(&container, "lo", &conf);
        let later = with(conf.clone(), "prevResult", result);
        rig.check(&container, "lo", &later);
        rig.del(&container, "lo", &later);
        rig.check(&container, "lo", &later);
        rig.del(&container, "lo", &conf);
    }

    fn loopback_with_unknown_cni_args(rig) {
        for args in ["none", "K8S_POD_NAME=x", "IgnoreUnknown=yes"] {
            let (container, conf) = loopback_down(rig, "1.0.0");
            for command in ["ADD", "CHECK", "DEL"] {
                rig.see(command, &attachment(rig, command, &container, &conf).args(args));
            }
        }
    }

    fn loopback_after_another_plugin(rig) {
        let (container, conf) = loopback_down(rig, "0.4.0");
        let previous = json!({"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.0.5/16"}]});
        rig.add(&container, "lo", &with(conf.clone(), "prevResult", previous));
        rig.del(&container, "lo", &conf);
    }

    #[differs(
        "P6": "answer result.dns: - | {}",
        "P6": "answer result.interfaces[0]",
        "P6": "answer result.ips[*: \"* | -",
        "P6": "answer result.ips[*interface: 0 | -",
        "P6": "result.ip4.ip: - | \"127.0.0.1/8\"",
        "P6": "result.ip6.ip: - | \"::1/128\"",
        "P6": "version: - | \"",
    )]
    fn loopback_in_old_versions(rig) {
        for version in ["0.1.0", "0.2.0", "0.3.1"] {
            let (container, conf) = loopback_down(rig, version);
            rig.add(&container, "lo", &conf);
            rig.del(&container, "lo", &conf);
        }
    }

    #[differs("E1": "answer end: error 999 | error 8")]
    fn loopback_of_a_netns_that_is_gone(rig) {
        let (container, gone) = (rig.container(), rig.path("gone"));
        let conf = json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"});
        for command in ["ADD", "DEL"] {
            let call = rig.program(command, "loopback").attachment(command, &container, "lo", &conf);
            rig.see(command, &call.env("CNI_NETNS", &gone));
        }
    }
}
