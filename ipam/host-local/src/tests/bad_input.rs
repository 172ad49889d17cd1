//! Bad input: each is refused with the key and the value named, and nothing is made.

use serde_json::{Value, json};

use super::{Network, addresses, failure};

fn refused(ipam: Value) -> (u32, String) {
    let network = Network::new(ipam);
    let failure = failure(network.add("c"));
    assert!(!network.data_dir().exists(), "something was made");
    failure
}

fn config(ipam: Value) -> String {
    let (code, message) = refused(ipam);
    assert_eq!(code, 7, "{message}");
    message
}

#[test]
fn ranges_that_make_no_sense() {
    let one = |range: Value| config(json!({"ranges": [[range]]}));
    let at = "ipam.ranges[0][0]";
    assert_eq!(one(json!({})), format!("{at}.subnet: is missing"));
    assert_eq!(one(json!({"subnet": "lan"})), format!("{at}.subnet \"lan\": is not a network such as 10.0.0.0/24"));
    assert_eq!(
        one(json!({"subnet": "10.0.0.1"})),
        format!("{at}.subnet \"10.0.0.1\": is not a network such as 10.0.0.0/24")
    );
    // F5: the blank could not be seen.
    assert_eq!(
        one(json!({"subnet": "10.0.0.0/24 "})),
        format!("{at}.subnet \"10.0.0.0/24 \": is not a network such as 10.0.0.0/24")
    );
    assert_eq!(
        one(json!({"subnet": "10.0.0.1/24"})),
        format!("{at}.subnet \"10.0.0.1/24\": has host bits set; the network is 10.0.0.0/24")
    );
    assert_eq!(
        one(json!({"subnet": "::ffff:10.0.0.0/120"})),
        format!(
            "{at}.subnet \"::ffff:10.0.0.0/120\": is an IPv4 network in the form of IPv6; write it in the form of IPv4"
        )
    );
    for subnet in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
        let cause = format!("{at}.subnet {subnet:?}: is too small for a gateway and a container");
        assert_eq!(one(json!({"subnet": subnet})), cause);
    }

    let of = |field: &str, value: &str| {
        let mut range = json!({"subnet": "10.0.0.0/24"});
        range[field] = json!(value);
        one(range)
    };
    assert_eq!(of("rangeStart", "10.0.0.300"), format!("{at}.rangeStart \"10.0.0.300\": is not an IP address"));
    assert_eq!(of("gateway", "router"), format!("{at}.gateway \"router\": is not an IP address"));
    for (field, ip) in [("rangeStart", "10.1.0.0"), ("rangeEnd", "10.1.0.0"), ("rangeEnd", "fd00::1")] {
        assert_eq!(of(field, ip), format!("{at}.{field} {ip}: is not in the subnet 10.0.0.0/24"));
    }
    assert_eq!(
        of("rangeStart", "10.0.0.255"),
        format!(
            "{at}.subnet 10.0.0.0/24: no address between rangeStart 10.0.0.255 and rangeEnd 10.0.0.254 can be leased"
        )
    );
    assert_eq!(
        config(json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"})),
        "ipam.rangeStart 10.0.0.9: is after rangeEnd 10.0.0.8"
    );
}

#[test]
fn sets_that_make_no_sense() {
    let missing =
        "ipam.ranges: is not set: there is no address to lease; set ipam.ranges, ipam.subnet or runtimeConfig.ipRanges";
    for ipam in [json!({}), json!({"ranges": []}), json!({"ranges": null, "subnet": ""})] {
        assert_eq!(config(ipam), missing);
    }
    assert_eq!(config(json!({"ranges": [[]]})), "ipam.ranges[0]: is empty; write at least one range into it");
    let subnet = |subnet: &str| json!({"subnet": subnet});
    assert_eq!(
        config(json!({"ranges": [[subnet("10.0.0.0/24"), subnet("10.0.0.0/25")]]})),
        "ipam.ranges[0][1].subnet 10.0.0.0/25: its addresses 10.0.0.1-10.0.0.126 overlap 10.0.0.1-10.0.0.254 of the \
         same set"
    );
    assert_eq!(
        config(json!({"subnet": "10.0.0.0/24", "ranges": [[subnet("10.0.0.0/25")]]})),
        "ipam.ranges[0]: its addresses 10.0.0.1-10.0.0.126 overlap 10.0.0.1-10.0.0.254 of ipam.subnet"
    );
    assert_eq!(
        config(json!({"ranges": [[subnet("10.0.0.0/24"), subnet("fd00::/64")]]})),
        "ipam.ranges[0][1].subnet fd00::/64: IPv4 and IPv6 are in one set; write each family in its own inner list"
    );
}

#[test]
fn two_sets_of_one_family_need_a_result_that_holds_them() {
    for version in ["0.1.0", "0.2.0"] {
        let network = Network::of(&[&["10.0.0.0/24"], &["10.1.0.0/24"]]).with("cniVersion", json!(version));
        let cause = format!(
            "ipam.ranges[1]: is the second set of this address family (after ipam.ranges[0]), and a result of cniVersion \
             {version} has one address of each family; use cniVersion 0.3.0 or later"
        );
        assert_eq!(failure(network.add("c")), (7, cause));
        let network = Network::of(&[&["10.0.0.0/24"], &["fd00::/64"]]).with("cniVersion", json!(version));
        assert_eq!(addresses(network.add("c")), ["10.0.0.2/24", "fd00::2/64"]);
    }
    let network = Network::of(&[&["10.0.0.0/24"], &["10.1.0.0/24"]]).with("cniVersion", json!("0.3.0"));
    assert_eq!(addresses(network.add("c")), ["10.0.0.2/24", "10.1.0.2/24"]);
}

#[test]
fn keys_of_the_wrong_type_are_named_with_their_path() {
    for (ipam, place) in [
        (json!({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": 7}]]}), "ipam.ranges[0][1].subnet 7: is not text"),
        (json!({"ranges": {}}), "ipam.ranges {}: is not a list"),
        (json!({"ranges": [["10.0.0.0/24"]]}), "ipam.ranges[0][0] \"10.0.0.0/24\": is not an object"),
        (json!({"subnet": ["10.0.0.0/24"]}), "ipam.subnet [\"10.0.0.0/24\"]: is not text"),
        (
            json!({"subnet": "10.0.0.0/24", "routes": [{"dst": "x"}]}),
            "ipam.routes[0].dst \"x\": is not a network such as 10.0.0.0/8",
        ),
        (json!({"subnet": "10.0.0.0/24", "resolvConf": {}}), "ipam.resolvConf {}: is not text"),
        (json!({"dataDir": 7}), "ipam.dataDir 7: is not text"),
    ] {
        assert_eq!(config(ipam), place);
    }
}

#[test]
fn null_and_zero_values_mean_not_set() {
    let ipam = json!({"subnet": "", "rangeStart": null, "gateway": "", "routes": null, "resolvConf": "",
                      "ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "", "rangeEnd": null, "gateway": null}]],
                      "unknown": {"key": 7}});
    let network = Network::new(ipam).with("args", Value::Null).with("runtimeConfig", json!({"ips": null, "mac": "x"}));
    assert_eq!(addresses(network.add_with("c", "IP=")), ["10.0.0.2/24"]);
}

#[test]
fn routes_and_resolver_are_judged_before_anything_is_leased() {
    assert_eq!(
        config(json!({"subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.1.5/24"}]})),
        "ipam.routes[1].dst 10.9.1.5/24: has host bits set; the network is 10.9.1.0/24"
    );
    assert_eq!(
        refused(json!({"subnet": "10.0.0.0/24", "resolvConf": "/nonexistent"})),
        (5, "read /nonexistent: No such file or directory (os error 2)".into())
    );
}

#[test]
fn requests_that_no_set_can_serve() {
    let of = |args: &str| {
        let network = Network::of(&[&["10.0.0.0/29"]]);
        let failure = failure(network.add_with("c", args));
        assert!(!network.data_dir().exists(), "something was made");
        failure
    };
    assert_eq!(of("IP=lan"), (4, "CNI_ARGS IP \"lan\": is not an IP address".into()));
    for (ip, cause) in [
        ("10.0.0.0", "is the network address of 10.0.0.0/29"),
        ("10.0.0.1", "is the gateway of 10.0.0.0/29"),
        ("10.0.0.7", "is the broadcast address of 10.0.0.0/29"),
        ("10.0.0.8", "is in no range: ipam.ranges[0] (10.0.0.1-10.0.0.6)"),
        ("fd00::2", "is in no range: ipam.ranges[0] (10.0.0.1-10.0.0.6)"),
    ] {
        assert_eq!(of(&format!("IP={ip}")), (7, format!("CNI_ARGS IP {ip}: {cause}")));
    }
    let in_conf = |key: &str, value: Value| failure(Network::of(&[&["10.0.0.0/29"]]).with(key, value).add("c"));
    assert_eq!(
        in_conf("args", json!({"cni": {"ips": ["lan"]}})),
        (7, "args.cni.ips[0] \"lan\": is not an IP address".into())
    );
    assert_eq!(
        in_conf("runtimeConfig", json!({"ips": ["10.0.0.3", "10.0.0.4"]})),
        (
            7,
            "runtimeConfig.ips[1] 10.0.0.4: runtimeConfig.ips[0] 10.0.0.3 is in ipam.ranges[0] too, and each set gives \
             only one address"
                .into()
        )
    );
}

#[test]
fn a_word_for_the_status_of_a_full_range_that_is_neither_of_the_two() {
    let with = |word: Value| json!({"subnet": "10.0.0.0/24", "statusWhenFull": word});
    let cause = "ipam.statusWhenFull \"Unavailable\": is neither available nor unavailable";
    assert_eq!(config(with(json!("Unavailable"))), cause);
    assert_eq!(failure(Network::new(with(json!("Unavailable"))).status()), (7, cause.to_owned()));
    assert_eq!(config(with(json!(50))), "ipam.statusWhenFull 50: is not text");
    let network = Network::new(with(json!("Unavailable")));
    network.del("c1").unwrap();
}

/// 010.0.0.0/24 was read as 10.0.0.0/24, and 010.0.0.5 was refused. To some programs, both are octal numbers.
#[test]
fn leading_zeros_are_refused_with_a_prefix_length_as_without() {
    assert_eq!(
        config(json!({"subnet": "010.0.0.0/24"})),
        "ipam.subnet \"010.0.0.0/24\": is not a network such as 10.0.0.0/24"
    );
    assert_eq!(
        config(json!({"subnet": "10.0.0.0/24", "exclude": ["10.0.0.016/28"]})),
        "ipam.exclude[0] \"10.0.0.016/28\": is neither an IP address nor a network such as 10.0.0.64/28"
    );
    assert_eq!(
        config(json!({"subnet": "10.0.0.0/24", "routes": [{"dst": "010.9.0.0/16"}]})),
        "ipam.routes[0].dst \"010.9.0.0/16\": is not a network such as 10.0.0.0/8"
    );
    let network = || Network::new(json!({"subnet": "10.0.0.0/24"}));
    for ip in ["10.0.0.010", "10.0.0.010/24", "10.0.0.10/33"] {
        let cause = format!("CNI_ARGS IP \"{ip}\": is not an IP address");
        assert_eq!(failure(network().add_with("c", &format!("IP={ip}"))), (4, cause));
        let cause = format!("runtimeConfig.ips[0] \"{ip}\": is not an IP address");
        assert_eq!(failure(network().with("runtimeConfig", json!({"ips": [ip]})).add("c")), (7, cause));
    }
    // Before a prefix length they change nothing, and the reference accepts them.
    assert_eq!(addresses(Network::new(json!({"subnet": "10.0.0.0/024"})).add("c")), ["10.0.0.2/24"]);
}

/// It was passed over, and the container got another address than its user had meant to ask for.
#[test]
fn an_empty_text_is_not_an_address_that_can_be_asked_for() {
    let network = || Network::new(json!({"subnet": "10.0.0.0/24"}));
    let of = |key: &str, value: Value| failure(network().with(key, value).add("c"));
    let cause = "runtimeConfig.ips[1] \"\": is not an IP address";
    assert_eq!(of("runtimeConfig", json!({"ips": ["10.0.0.5", ""]})), (7, cause.into()));
    assert_eq!(of("args", json!({"cni": {"ips": [""]}})), (7, "args.cni.ips[0] \"\": is not an IP address".into()));
}
