//! ADD, DEL and CHECK in all seven versions of the specification.

use e2e::lab::{Families, lan4, lan6};
use e2e::traffic::assert_reaches;
use e2e::{Container, Lab, with, without};
use serde_json::{Value, json};

/// All cases below for one version and one kind of installation.
macro_rules! cases {
    ($version:literal on $binaries:ident) => {
        cases!(
            $version on $binaries:
            add_prints_the_result_in_the_shape_of_the_version,
            without_ipam_add_prints_a_result_without_addresses,
            del_after_add_leaves_nothing_and_prints_nothing,
            del_works_with_and_without_prev_result,
            check_answers_as_the_version_allows,
            check_of_a_link_that_is_gone_fails,
            an_error_object_has_the_version,
        );
    };
    ($version:literal on $binaries:ident: $($case:ident,)+) => {
        $(
            #[test]
            fn $case() {
                crate::$case(&e2e::Lab::new(e2e::Binaries::$binaries), $version);
            }
        )+
    };
}

macro_rules! version_tests {
    ($($module:ident = $version:literal;)+) => {
        $(
            mod $module {
                mod hard_links {
                    cases!($version on HardLinks);
                }
                mod plain_copies {
                    cases!($version on PlainCopies);
                }
            }
        )+
    };
}

version_tests! {
    v0_1_0 = "0.1.0";
    v0_2_0 = "0.2.0";
    v0_3_0 = "0.3.0";
    v0_3_1 = "0.3.1";
    v0_4_0 = "0.4.0";
    v1_0_0 = "1.0.0";
    v1_1_0 = "1.1.0";
}

/// The reference knows all versions but the last. Three cases are not run on it: its error objects have no version, it
/// has no code for an attachment that is gone, and below 0.3.0 it fails without addresses and leaves the link.
mod reference {
    macro_rules! since_0_1 {
        ($($module:ident = $version:literal;)+) => {
            $(
                mod $module {
                    cases!(
                        $version on Reference:
                        add_prints_the_result_in_the_shape_of_the_version,
                        del_after_add_leaves_nothing_and_prints_nothing,
                        del_works_with_and_without_prev_result,
                    );
                }
            )+
        };
    }
    macro_rules! since_0_3 {
        ($($module:ident = $version:literal;)+) => {
            $(
                mod $module {
                    cases!($version on Reference: without_ipam_add_prints_a_result_without_addresses,);
                }
            )+
        };
    }
    macro_rules! since_0_4 {
        ($($module:ident = $version:literal;)+) => {
            $(
                mod $module {
                    cases!($version on Reference: check_answers_as_the_version_allows,);
                }
            )+
        };
    }
    since_0_1! {
        v0_1_0 = "0.1.0";
        v0_2_0 = "0.2.0";
        v0_3_0 = "0.3.0";
        v0_3_1 = "0.3.1";
        v0_4_0 = "0.4.0";
        v1_0_0 = "1.0.0";
    }
    mod layer_2 {
        since_0_3! {
            v0_3_0 = "0.3.0";
            v0_3_1 = "0.3.1";
            v0_4_0 = "0.4.0";
            v1_0_0 = "1.0.0";
        }
    }
    mod check {
        since_0_4! {
            v0_4_0 = "0.4.0";
            v1_0_0 = "1.0.0";
        }
    }
}

/// A configuration whose result has all fields.
fn full_conf(lab: &Lab, version: &str) -> Value {
    let mut ipam = lab.ipam(Families::Dual);
    ipam["routes"] = json!([
        {"dst": "10.20.0.0/16", "gw": "192.168.50.254"},
        {"dst": "fd99::/48", "gw": "fd50::fe"},
    ]);
    let mut conf = lab.conf_with(ipam);
    conf["cniVersion"] = json!(version);
    conf["dns"] = dns();
    conf
}

fn plain_conf(lab: &Lab, version: &str) -> Value {
    with(lab.conf(), "cniVersion", json!(version))
}

/// The result of 0.1.0 and 0.2.0: one address of each family, with its routes.
fn old_result(version: &str) -> Value {
    json!({
        "cniVersion": version,
        "ip4": {
            "ip": "192.168.50.100/24",
            "gateway": "192.168.50.1",
            "routes": [{"dst": "10.20.0.0/16", "gw": "192.168.50.254"}],
        },
        "ip6": {
            "ip": "fd50::100/64",
            "gateway": "fd50::1",
            "routes": [{"dst": "fd99::/48", "gw": "fd50::fe"}],
        },
        "dns": dns(),
    })
}

/// The result from 0.3.0 on. Before 1.0.0, each address has its family.
fn new_result(version: &str, container: &Container) -> Value {
    let mut ips = [
        json!({"address": "192.168.50.100/24", "gateway": "192.168.50.1", "interface": 0}),
        json!({"address": "fd50::100/64", "gateway": "fd50::1", "interface": 0}),
    ];
    if version.starts_with("0.") {
        ips[0]["version"] = json!("4");
        ips[1]["version"] = json!("6");
    }
    json!({
        "cniVersion": version,
        "interfaces": [interface(version, container)],
        "ips": ips,
        "routes": [
            {"dst": "10.20.0.0/16", "gw": "192.168.50.254"},
            {"dst": "fd99::/48", "gw": "fd50::fe"},
        ],
        "dns": dns(),
    })
}

fn interface(version: &str, container: &Container) -> Value {
    let link = container.link("eth0");
    let mut interface = json!({"name": "eth0", "mac": link.mac, "sandbox": container.path()});
    if version == "1.1.0" {
        interface["mtu"] = json!(link.mtu);
    }
    interface
}

fn dns() -> Value {
    json!({
        "nameservers": ["192.168.50.1"],
        "domain": "lan.example",
        "search": ["lan.example", "example"],
        "options": ["ndots:2"],
    })
}

/// An empty `dns` means the same as no `dns`.
fn without_empty_dns(result: Value) -> Value {
    if result["dns"] == json!({}) { without(result, "dns") } else { result }
}

fn has_check(version: &str) -> bool {
    ["0.4.0", "1.0.0", "1.1.0"].contains(&version)
}

fn add_prints_the_result_in_the_shape_of_the_version(lab: &Lab, version: &str) {
    let (container, result) = lab.macvlan().attached(lab, &full_conf(lab, version));
    let expected = match version {
        "0.1.0" | "0.2.0" => old_result(version),
        _ => new_result(version, &container),
    };
    assert_eq!(result, expected);
    assert_reaches(&lab.neighbour, lan4(100));
    assert_reaches(&lab.neighbour, lan6(100));
}

fn without_ipam_add_prints_a_result_without_addresses(lab: &Lab, version: &str) {
    let conf = with(lab.conf_with(json!({})), "cniVersion", json!(version));
    let (container, result) = lab.macvlan().attached(lab, &conf);
    let expected = match version {
        "0.1.0" | "0.2.0" => json!({"cniVersion": version}),
        _ => json!({"cniVersion": version, "interfaces": [interface(version, &container)]}),
    };
    assert_eq!(without_empty_dns(result), expected);
    assert_eq!(container.address_texts("eth0"), [""; 0]);
}

fn del_after_add_leaves_nothing_and_prints_nothing(lab: &Lab, version: &str) {
    let conf = plain_conf(lab, version);
    let (container, _) = lab.macvlan().attach(lab, &conf);
    assert_eq!(lab.leases(), ["192.168.50.100"]);
    lab.macvlan().detach(lab, &container, &conf);
}

fn del_works_with_and_without_prev_result(lab: &Lab, version: &str) {
    let conf = plain_conf(lab, version);
    let ((told, with_result), (untold, _)) = (lab.macvlan().attach(lab, &conf), lab.macvlan().attach(lab, &conf));
    lab.macvlan().del(&told, "eth0", &with_result).run().done();
    assert_eq!(lab.leases(), ["192.168.50.101"]);
    assert_eq!((told.link_names().len(), untold.link_names().len()), (1, 2));
    lab.macvlan().detach(lab, &untold, &conf);
}

fn check_answers_as_the_version_allows(lab: &Lab, version: &str) {
    let (container, conf) = lab.macvlan().attach(lab, &plain_conf(lab, version));
    let outcome = lab.unchanged(&[&container], || lab.macvlan().check(&container, "eth0", &conf).run());
    if has_check(version) {
        outcome.done();
    } else {
        outcome.fails(1, &["CHECK"]);
    }
}

fn check_of_a_link_that_is_gone_fails(lab: &Lab, version: &str) {
    let (container, conf) = lab.macvlan().attach(lab, &plain_conf(lab, version));
    container.delete_link("eth0");
    let outcome = lab.macvlan().check(&container, "eth0", &conf).run();
    if has_check(version) {
        outcome.fails(3, &["eth0"]);
    } else {
        outcome.fails(1, &["CHECK"]);
    }
}

fn an_error_object_has_the_version(lab: &Lab, version: &str) {
    let conf = with(plain_conf(lab, version), "master", json!("nope0"));
    let outcome = lab.macvlan().add(&lab.container(), "eth0", &conf).run();
    outcome.fails(7, &["master", "nope0"]);
    assert_eq!(outcome.json()["cniVersion"], version);
}
