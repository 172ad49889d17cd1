//! Golden texts of every shape, and that decoding what was encoded gives the same result.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{self, NetConf};
use crate::env::Variables;
use crate::plugin::{Call, Program};
use crate::result::{Dns, Interface, Ip, Route};

fn sample() -> AddResult {
    AddResult {
        interfaces: vec![Interface {
            name: "eth0".into(),
            mac: Some("02:00:00:00:00:01".into()),
            mtu: Some(1500),
            sandbox: Some("/run/netns/a".into()),
            ..Interface::default()
        }],
        ips: vec![
            Ip {
                interface: Some(0),
                address: "10.0.0.2/24".parse().unwrap(),
                gateway: Some("10.0.0.1".parse().unwrap()),
            },
            Ip { interface: Some(0), address: "fd00::2/64".parse().unwrap(), gateway: None },
        ],
        routes: vec![
            Route {
                mtu: Some(1400),
                priority: Some(10),
                ..Route::new("0.0.0.0/0".parse().unwrap(), Some("10.0.0.1".parse().unwrap()))
            },
            Route::new("::/0".parse().unwrap(), None),
        ],
        dns: Dns { nameservers: vec!["10.0.0.53".into()], ..Dns::default() },
    }
}

fn encoded(version: Version) -> String {
    String::from_utf8(encode(&sample(), version)).unwrap()
}

const ROUTES: &str = r#""routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1","mtu":1400,"priority":10},{"dst":"::/0"}]"#;
const DNS: &str = r#""dns":{"nameservers":["10.0.0.53"]}"#;

#[test]
fn shape_of_0_1_and_0_2_has_a_family_each() {
    for version in [Version::V0_1_0, Version::V0_2_0] {
        let expected = format!(
            r#"{{"cniVersion":"{version}","ip4":{{"ip":"10.0.0.2/24","gateway":"10.0.0.1","routes":[{{"dst":"0.0.0.0/0","gw":"10.0.0.1","mtu":1400,"priority":10}}]}},"ip6":{{"ip":"fd00::2/64","routes":[{{"dst":"::/0"}}]}},{DNS}}}"#
        );
        assert_eq!(encoded(version), expected + "\n");
    }
}

#[test]
fn shape_of_0_3_and_0_4_names_the_family_of_each_address() {
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let expected = format!(
            r#"{{"cniVersion":"{version}","interfaces":[{{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/run/netns/a"}}],"ips":[{{"version":"4","interface":0,"address":"10.0.0.2/24","gateway":"10.0.0.1"}},{{"version":"6","interface":0,"address":"fd00::2/64"}}],{ROUTES},{DNS}}}"#
        );
        assert_eq!(encoded(version), expected + "\n");
    }
}

#[test]
fn shape_of_1_0_names_no_family_and_1_1_adds_the_mtu_of_a_link() {
    for (version, mtu) in [(Version::V1_0_0, ""), (Version::V1_1_0, r#""mtu":1500,"#)] {
        let expected = format!(
            r#"{{"cniVersion":"{version}","interfaces":[{{"name":"eth0","mac":"02:00:00:00:00:01",{mtu}"sandbox":"/run/netns/a"}}],"ips":[{{"interface":0,"address":"10.0.0.2/24","gateway":"10.0.0.1"}},{{"interface":0,"address":"fd00::2/64"}}],{ROUTES},{DNS}}}"#
        );
        assert_eq!(encoded(version), expected + "\n");
    }
}

#[test]
fn an_empty_result_has_the_keys_that_readers_of_its_version_expect() {
    let text = |version| String::from_utf8(encode(&AddResult::default(), version)).unwrap();
    assert_eq!(text(Version::V0_2_0), "{\"cniVersion\":\"0.2.0\",\"dns\":{}}\n");
    assert_eq!(text(Version::V0_4_0), "{\"cniVersion\":\"0.4.0\",\"dns\":{}}\n");
    assert_eq!(text(Version::V1_0_0), "{\"cniVersion\":\"1.0.0\"}\n");
    assert_eq!(text(Version::V1_1_0), "{\"cniVersion\":\"1.1.0\"}\n");
}

#[test]
fn its_own_version_says_the_shape_and_the_expected_one_does_where_it_has_none() {
    let json = br#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24"}}"#;
    assert_eq!(decode(json, Version::V1_0_0, "it").unwrap().ips.len(), 1);
    let json = br#"{"ip4":{"ip":"10.0.0.2/24"}}"#;
    assert_eq!(decode(json, Version::V0_2_0, "it").unwrap().ips.len(), 1);
    assert_eq!(decode(json, Version::V1_0_0, "it").unwrap().ips.len(), 0);
    let error = decode(br#"{"cniVersion":"9.0.0"}"#, Version::V1_0_0, "it").unwrap_err();
    assert_eq!((error.code, error.msg.as_str()), (Code::INCOMPATIBLE_VERSION, "it: cniVersion \"9.0.0\" is not known"));
}

#[test]
fn what_other_writers_say_for_nothing_is_read_as_nothing() {
    let json = br#"{"cniVersion":"1.0.0","interfaces":null,"routes":null,"dns":null,
                    "ips":[{"interface":-1,"address":"10.0.0.2/24","gateway":""}]}"#;
    let result = decode(json, Version::V1_0_0, "it").unwrap();
    assert_eq!(result.ips, [Ip { interface: None, address: "10.0.0.2/24".parse().unwrap(), gateway: None }]);
}

#[test]
fn a_bad_address_is_named_with_its_place() {
    let json = br#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2"}]}"#;
    let error = decode(json, Version::V1_0_0, "result of x").unwrap_err();
    assert_eq!(error.code, Code::DECODING_FAILURE);
    let expected =
        "result of x: ips[0].address \"10.0.0.2\": is not an address with a prefix length such as 10.0.0.2/24";
    assert!(error.msg.starts_with(expected), "{error}");
}

/// The result without what the shape of this version cannot hold.
fn reduced(mut result: AddResult, version: Version) -> AddResult {
    if version < Version::V1_1_0 {
        for link in &mut result.interfaces {
            (link.mtu, link.socket_path, link.pci_id) = (None, None, None);
        }
    }
    if version < Version::V0_3_0 {
        result.interfaces.clear();
        let first = |v4: bool| result.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4).cloned();
        let (v4, v6) = (first(true), first(false));
        // A family's routes go with its address, those of IPv4 first.
        let mut routes = Vec::new();
        for (v4, ip) in [(true, &v4), (false, &v6)] {
            let of_family = result.routes.iter().filter(|route| route.dst.addr().is_ipv4() == v4);
            routes.extend(of_family.filter(|_| ip.is_some()).cloned());
        }
        result.routes = routes;
        result.ips = [v4, v6].into_iter().flatten().map(|ip| Ip { interface: None, ..ip }).collect();
    }
    result
}

fn any_net() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0u8..=128).prop_map(|(ip, prefix)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, prefix.min(longest)).unwrap()
    })
}

fn number() -> impl Strategy<Value = Option<u32>> {
    proptest::option::of(1u32..)
}

fn text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[a-zA-Z0-9:/ü\" ]{1,12}")
}

prop_compose! {
    fn any_interface()(name in "[a-z0-9.]{0,15}", mac in text(), mtu in number(), sandbox in text(),
                       socket_path in text(), pci_id in text()) -> Interface {
        Interface { name, mac, mtu, sandbox, socket_path, pci_id }
    }
}

prop_compose! {
    fn any_ip()(interface in proptest::option::of(0usize..9), address in any_net(), gateway in any::<Option<IpAddr>>())
                -> Ip {
        Ip { interface, address, gateway }
    }
}

prop_compose! {
    fn any_route()(dst in any_net(), gw in any::<Option<IpAddr>>(), mtu in number(), advmss in number(),
                   priority in number(), table in any::<Option<u32>>(), scope in any::<Option<u8>>()) -> Route {
        Route { dst, gw, mtu, advmss, priority, table, scope }
    }
}

prop_compose! {
    fn any_dns()(nameservers in proptest::collection::vec("[a-z0-9.:]{0,9}", 0..3), domain in text(),
                 search in proptest::collection::vec("[a-z.]{0,9}", 0..3),
                 options in proptest::collection::vec("[a-z:0-9]{0,9}", 0..3)) -> Dns {
        Dns { nameservers, domain, search, options }
    }
}

prop_compose! {
    fn any_result()(interfaces in proptest::collection::vec(any_interface(), 0..3),
                    ips in proptest::collection::vec(any_ip(), 0..4),
                    routes in proptest::collection::vec(any_route(), 0..4), dns in any_dns()) -> AddResult {
        AddResult { interfaces, ips, routes, dns }
    }
}

/// Reads a result as prevResult.
#[test]
fn error_object_reads_back() {
    let error = Error::new(Code::KERNEL, "create macvlan eth0: no").with_detail("a").with_detail("b");
    let json = error.to_json(Version::V1_0_0);
    assert_eq!(
        String::from_utf8_lossy(&json),
        "{\"cniVersion\":\"1.0.0\",\"code\":100,\"msg\":\"create macvlan eth0: no\",\"details\":\"a; b\"}\n"
    );
    assert_eq!(Error::from_json(&json), Some(error));
    assert_eq!(Error::from_json(b"{\"cniVersion\":\"1.0.0\"}"), None);
}

fn previous(version: Version, result: &Value) -> Result<Option<AddResult>, Error> {
    let conf = json!({"cniVersion": version.as_str(), "name": "lan", "prevResult": result}).to_string();
    let map = config::parse(conf.as_bytes()).unwrap();
    let conf = NetConf::read(Object::root(&map)).unwrap();
    let program = Program { name: "test", release: "0", plugins: &[], commands: "", run: crate::delegate::RUN_NOTHING };
    let variables = Variables::default();
    Call { plugin: "test", program: &program, variables: &variables, stdin: b"", conf: &conf }.prev_result()
}

proptest! {
    /// As an IPAM plugin's answer and as a prevResult, with and without a `cniVersion` of its own. Lost is what
    /// [`reduced`] takes away, and the difference between none and "" in a text, or none and 0 in a route's `mtu`,
    /// `advmss` and `priority` and an interface's `mtu`: the results here have none.
    #[test]
    fn decode_of_encode_is_what_the_shape_can_hold(result in any_result()) {
        for version in Version::ALL {
            let expected = reduced(result.clone(), version);
            let json = encode(&result, version);
            prop_assert_eq!(decode(&json, Version::NEWEST, "it"), Ok(expected.clone()), "{}", version);

            let mut shape: Value = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(previous(version, &shape), Ok(Some(expected.clone())), "{}", version);
            shape.as_object_mut().unwrap().remove("cniVersion");
            prop_assert_eq!(decode(shape.to_string().as_bytes(), version, "it"), Ok(expected.clone()), "{}", version);
            prop_assert_eq!(previous(version, &shape), Ok(Some(expected)), "{}", version);
        }
    }

    #[test]
    fn every_error_object_reads_back(code in any::<u32>(), msg in any::<String>(), details in any::<String>()) {
        let error = Error { code: Code(code), msg, details };
        for version in Version::ALL {
            prop_assert_eq!(Error::from_json(&error.to_json(version)), Some(error.clone()));
        }
    }

    #[test]
    fn a_result_is_never_taken_for_an_error(result in any_result()) {
        for version in Version::ALL {
            prop_assert_eq!(Error::from_json(&encode(&result, version)), None);
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, Version::NEWEST, "it");
    }
}
