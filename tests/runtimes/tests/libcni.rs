//! libcni uses every network of `conf-examples/`: ADD, CHECK, traffic on the LAN, and DEL with and without the cached
//! result.

use std::collections::BTreeSet;

use e2e::traffic::{assert_reaches, assert_silent};
use e2e::{Binaries, Container, Lab, cases};
use ipnet::IpNet;
use runtimes::recipe::list;
use runtimes::{Libcni, example, recipe};
use serde_json::{Value, json};

/// Makes tests of each example. [`TESTED`] has the names of all their files.
macro_rules! examples {
    ($(
        $(#[doc = $doc:literal])*
        $(#[needs($($feature:ident),+)])?
        #[reference($($mark:tt)+)]
        $name:ident: $file:literal $(by $runtime:ident)? $(where it $judge:ident)?;
    )+) => {
        const TESTED: &[&str] = &[$($file),+];

        cases! {
            $(
                $(#[doc = $doc])*
                $(#[needs($($feature),+)])?
                #[reference($($mark)+)]
                fn $name(lab) {
                    let list = example::settle(lab, list($file));
                    let runtime = Libcni::new(lab, &list);
                    $(let runtime = $runtime(runtime);)?
                    example::live(lab, &list, &runtime, |_container, _result| {
                        $($judge(lab, _container, _result);)?
                    });
                }
            )+
        }
    };
}

examples! {
    #[reference(not_run: "it ignores parent")]
    macvlan_any_nic: "macvlan-any-nic.conflist" where it is_on_the_nic_of_the_lan;

    #[reference(not_run: "it ignores defaultRoute")]
    macvlan_default_route: "macvlan-default-route.conflist" where it takes_the_default_route;

    #[reference(passes)]
    macvlan_fixed_address: "macvlan-fixed-address.conflist" where it has_the_fixed_address;

    #[reference(not_run: "it ignores acceptRA")]
    macvlan_no_router: "macvlan-no-router.conflist" where it ignores_routers;

    #[reference(passes)]
    macvlan_bridge: "macvlan-bridge.conflist";

    #[reference(passes)]
    macvlan_dual_stack: "macvlan-dual-stack.conflist" where it has_two_families;

    #[reference(not_run: "it ignores hostAccess")]
    macvlan_host_access: "macvlan-host-access.conflist" where it reaches_its_host;

    #[reference(passes)]
    macvlan_layer_2: "macvlan-layer-2.conflist";

    #[reference(passes)]
    macvlan_passthru: "macvlan-passthru.conflist" where it has_the_nic_for_itself;

    #[reference(passes)]
    macvlan_private: "macvlan-private.conflist" where it is_kept_from_its_siblings;

    /// The reference CHECK looks for routes that sbr has moved.
    #[reference(fails: "Failed to find Gateway")]
    macvlan_sbr: "macvlan-sbr.conflist" where it is_routed_by_source;

    #[reference(passes)]
    macvlan_several_ranges: "macvlan-several-ranges.conflist";

    #[reference(passes)]
    macvlan_static_ip: "macvlan-static-ip.conflist" by a_runtime_with_ips where it has_ip;

    #[reference(passes)]
    macvlan_static_mac: "macvlan-static-mac.conflist" by a_runtime_with_mac where it has_mac;

    #[reference(passes)]
    macvlan_tuning: "macvlan-tuning.conflist" where it is_tuned;

    #[needs(Vlan)]
    #[reference(not_run: "it ignores vlan")]
    macvlan_vlan: "macvlan-vlan.conflist" where it is_tagged;

    #[needs(Ipvlan)]
    #[reference(not_run: "it ignores hostAccess")]
    ipvlan_host_access: "ipvlan-host-access.conflist" where it reaches_its_host;

    #[needs(Ipvlan)]
    #[reference(passes)]
    ipvlan_l2: "ipvlan-l2.conflist";

    #[needs(Ipvlan)]
    #[reference(passes)]
    ipvlan_l3: "ipvlan-l3.conflist";

    #[needs(Ipvlan, Vlan)]
    #[reference(not_run: "it ignores vlan")]
    ipvlan_vlan: "ipvlan-vlan.conflist" where it is_tagged;

    #[reference(passes)]
    kubernetes_primary: "kubernetes-primary.conflist" by kubelet;

    #[reference(passes)]
    nerdctl: "nerdctl.conflist" by nerdctl_run where it has_both;

    #[reference(passes)]
    podman: "podman.conflist" by podman_run where it has_both;
}

#[test]
fn every_network_of_conf_examples_has_a_test_here() {
    let names = recipe::names().into_iter().filter(|name| name.ends_with(".conflist"));
    let tested: BTreeSet<String> = TESTED.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(names.collect::<BTreeSet<_>>(), tested);
}

const IP: &str = "192.168.50.230";
const MAC: &str = "02:00:5e:10:00:01";

fn a_runtime_with_ips(runtime: Libcni<'_>) -> Libcni<'_> {
    runtime.capabilities(json!({"ips": [format!("{IP}/24")]}))
}

fn a_runtime_with_mac(runtime: Libcni<'_>) -> Libcni<'_> {
    runtime.capabilities(json!({"mac": MAC}))
}

/// `podman run` with `--ip` and `--mac-address`.
fn podman_run(runtime: Libcni<'_>) -> Libcni<'_> {
    runtime.capabilities(json!({"ips": [IP], "mac": MAC}))
}

/// `nerdctl run` with the same two options.
fn nerdctl_run(runtime: Libcni<'_>) -> Libcni<'_> {
    runtime.args(&[("IgnoreUnknown", "1"), ("IP", IP), ("MAC", MAC)])
}

fn kubelet(runtime: Libcni<'_>) -> Libcni<'_> {
    let id = "8c2f0a52-9f2a-4c42-a6a8-d2b3d51be5b6";
    runtime.args(&[
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", "default"),
        ("K8S_POD_NAME", "web-0"),
        ("K8S_POD_INFRA_CONTAINER_ID", "container-1"),
        ("K8S_POD_UID", id),
    ])
}

fn has_ip(_: &Lab, container: &Container, result: &Value) {
    assert_eq!(result["ips"][0]["address"], format!("{IP}/24"));
    assert_eq!(container.address_texts("eth0"), [format!("{IP}/24")]);
}

fn has_mac(_: &Lab, container: &Container, result: &Value) {
    assert_eq!(result["interfaces"][0]["mac"], MAC);
    assert_eq!(container.link("eth0").mac, MAC);
}

fn has_both(lab: &Lab, container: &Container, result: &Value) {
    has_ip(lab, container, result);
    has_mac(lab, container, result);
}

fn has_two_families(_: &Lab, container: &Container, _: &Value) {
    let addresses = container.address_texts("eth0");
    let are = [addresses[0].starts_with("192.168.50.2"), addresses[1].starts_with("fd00:10::c:")];
    assert!(addresses.len() == 2 && are == [true; 2], "{addresses:?}");
}

fn has_the_nic_for_itself(lab: &Lab, container: &Container, _: &Value) {
    assert_eq!(container.link("eth0").mac, lab.host.link("ens4").mac);
}

fn is_kept_from_its_siblings(lab: &Lab, container: &Container, result: &Value) {
    let sibling = lab.container();
    let conf = example::settle(lab, list("macvlan-private.conflist"));
    let runtime = Libcni::new(lab, &conf);
    let other = runtime.add(&sibling);
    let ip = |result: &Value| result["ips"][0]["address"].as_str().and_then(|net| net.parse::<IpNet>().ok());
    let (own, other) = (ip(result).expect("an address"), ip(&other).expect("an address"));
    assert_reaches(&lab.neighbour, other.addr());
    assert_silent(&sibling, own.addr());
    assert_silent(container, other.addr());
    runtime.del(&sibling);
}

fn is_on_the_nic_of_the_lan(lab: &Lab, container: &Container, _: &Value) {
    assert_eq!(container.link("eth0").parent, Some(lab.host.link(lab.host.nic).ifindex));
}

/// The container gets it as a second interface.
fn takes_the_default_route(lab: &Lab, _: &Container, _: &Value) {
    let second = lab.container();
    lab.plug(&second, "net0");
    second.ip("address add 10.9.9.5/24 dev net0");
    second.ip("route add default via 10.9.9.1 dev net0");
    let conf = example::settle(lab, list("macvlan-default-route.conflist"));
    let runtime = Libcni::new(lab, &conf);
    runtime.add(&second);
    let defaults = |netns: &Container| {
        let all = netns.routes().into_iter().filter(|route| route.dst.prefix_len() == 0 && route.dst.addr().is_ipv4());
        all.map(|route| route.oif).collect::<Vec<_>>()
    };
    let [eth0, net0] = ["eth0", "net0"].map(|name| Some(second.link(name).ifindex));
    assert_eq!(defaults(&second), [eth0, net0]);
    runtime.del(&second);
    assert_eq!(defaults(&second), [net0]);
}

fn has_the_fixed_address(_: &Lab, container: &Container, _: &Value) {
    assert_eq!(container.address_texts("eth0"), ["192.168.50.240/24"]);
    let router = "192.168.50.1".parse().expect("an address");
    assert_eq!(container.route_to("0.0.0.0/0").gateway, Some(router));
}

fn ignores_routers(lab: &Lab, container: &Container, result: &Value) {
    has_two_families(lab, container, result);
    assert_eq!(container.sysctl("net/ipv6/conf/eth0/accept_ra"), "0");
}

fn reaches_its_host(lab: &Lab, container: &Container, _: &Value) {
    assert_reaches(container, lab.host.v4);
    assert_reaches(&lab.host, container.addresses("eth0")[0].net.addr());
}

fn is_tuned(_: &Lab, container: &Container, _: &Value) {
    assert_eq!(container.link("eth0").mtu, 1400);
    assert_eq!(container.sysctl("net/ipv4/conf/eth0/rp_filter"), "2");
}

/// Only packets with the source address of the container use table 100.
fn is_routed_by_source(_: &Lab, container: &Container, _: &Value) {
    let tables: BTreeSet<u32> = container.routes_of("eth0").into_iter().map(|route| route.table).collect();
    assert_eq!(tables, BTreeSet::from([100]));
}

fn is_tagged(lab: &Lab, container: &Container, result: &Value) {
    assert_eq!(container.link("eth0").parent, Some(lab.host.link("ens3.100").ifindex));
    // No other link has the address of the router, so the packets went through the VLAN.
    assert_eq!(result["ips"][0]["gateway"], "192.168.100.1");
    assert!(!lab.neighbour.address_texts(lab.neighbour.nic).contains(&"192.168.100.1/24".to_owned()));
}

/// `bandwidth` shapes the host's end of a veth pair, and a macvlan link has none. conf-examples/README.md says so. If
/// this test fails one day, write an example instead.
#[test]
fn the_reference_plugin_bandwidth_cannot_shape_a_macvlan_link() {
    let lab = Lab::new(Binaries::HardLinks);
    let mut list = example::settle(&lab, list("macvlan-bridge.conflist"));
    let plugins = list["plugins"].as_array_mut().expect("plugins");
    plugins.push(json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}));
    let container = lab.container();
    // Without a limit, bandwidth does nothing.
    let runtime = Libcni::new(&lab, &list);
    runtime.add(&container);
    runtime.del(&container);

    let limit = json!({"ingressRate": 1_000_000, "ingressBurst": 1_000_000});
    let runtime = runtime.capabilities(json!({"bandwidth": limit}));
    let error = runtime.try_add(&container).expect_err("bandwidth has nothing to shape");
    assert!(error.contains("has no veth peer"), "{error}");
    // Runtimes call DEL after a failed ADD.
    runtime.del(&container);
    lab.assert_gone(&container);
}

/// libcni calls the plugins even when it has no result for CHECK.
#[test]
fn check_without_a_result_says_that_prevresult_is_missing() {
    let lab = Lab::new(Binaries::HardLinks);
    let runtime = Libcni::new(&lab, &example::settle(&lab, list("macvlan-bridge.conflist")));
    let container = lab.container();
    runtime.add(&container);
    runtime.forget();
    let error = runtime.try_check(&container).expect_err("there is no result");
    assert!(error.contains("prevResult is missing"), "{error}");
    runtime.del(&container);
}
