//! A router advertises itself during an ADD. The advertisement must not disturb the configuration, and must not be
//! lost.

use std::net::IpAddr;

use e2e::kernel::Route;
use e2e::lab::{Families, MACHINE_NIC, lan6};
use e2e::patience::await_that;
use e2e::traffic::advertise;
use e2e::{Binaries, Container, Lab, with};
use rtnetlink::packet_route::route::RouteProtocol;
use serde_json::{Value, json};

const ADVERTISED: &str = "fd99::/64";

fn defaults(container: &Container) -> Vec<Route> {
    let mut routes: Vec<Route> = container.routes();
    routes.retain(|route| route.dst == "::/0".parse().expect("a prefix"));
    routes
}

/// Advertised, or configured with an address that a router would name.
fn is_by_router(route: &Route) -> bool {
    matches!(route.gateway, Some(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

fn is_advertised(route: &Route) -> bool {
    route.protocol == RouteProtocol::Ra
}

/// The kernel listens as soon as the link is up, with a default route of the priority that ours will have. `judge` sees
/// the default routes at the end of every ADD beside which the router became known.
fn at_every_step_after_up(lab: &Lab, ipv6: &Value, judge: impl Fn(&[Route])) {
    let mut conf = lab.conf_with(lab.ipam(Families::Dual));
    conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, ipv6]);
    let container = lab.container();
    let add = lab.macvlan().add(&container, "eth0", &conf);
    let (outcome, trace) = add.run_stepwise(None);
    let expected = outcome.result();
    lab.macvlan().del(&container, "eth0", &conf).run().done();
    let mut moments = 0;
    for step in trace.steps.iter().filter(|step| !step.requests.is_empty()) {
        let mut advertised = false;
        // The wait for duplicate address detection asks as often as it is woken: the last steps may not come again.
        let (outcome, _) = add.run_held_at(step, || {
            if container.find_link("eth0").is_some_and(|link| link.up) {
                await_that("the router is known", || {
                    advertise(&lab.neighbour, MACHINE_NIC, ADVERTISED.parse().expect("a prefix"));
                    defaults(&container).iter().any(is_by_router)
                });
                advertised = true;
            }
        });
        let conf = with(conf.clone(), "prevResult", outcome.result());
        if advertised {
            moments += 1;
            assert_eq!(conf["prevResult"]["routes"], expected["routes"], "{step:?}");
            assert_eq!(outcome.stderr, "", "{step:?}");
            judge(&defaults(&container));
            lab.macvlan().check(&container, "eth0", &conf).run().done();
        }
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo"]);
    }
    assert!(moments > 3, "only {moments} of {}", trace.steps.len());
}

#[test]
fn its_default_route_and_the_configured_one_are_both_there_in_the_end() {
    let lab = Lab::new(Binaries::HardLinks);
    at_every_step_after_up(&lab, &json!({"dst": "::/0"}), |both| {
        assert!(both.len() == 2 && both.iter().any(is_advertised), "{both:?}");
        assert!(both.iter().any(|route| route.gateway == Some(lan6(1)) && !is_advertised(route)), "{both:?}");
    });
}

/// Its route was taken for the configured one, which was left out: the container's way out ended with the advertisement.
#[test]
fn where_it_is_the_configured_gateway_the_configured_route_alone_is_there_in_the_end() {
    let lab = Lab::new(Binaries::HardLinks);
    let addresses = lab.neighbour.all_addresses();
    let router = addresses.iter().find(|address| address.link_local()).expect("a link-local address").net.addr();
    at_every_step_after_up(&lab, &json!({"dst": "::/0", "gw": router}), |one| {
        assert!(one.len() == 1 && one[0].gateway == Some(router) && !is_advertised(&one[0]), "{one:?}");
    });
}

/// Of two networks of a container the first keeps its default route, who ever has told it.
#[test]
fn a_route_that_the_router_of_another_network_has_advertised_is_kept_alone() {
    let lab = Lab::new(Binaries::HardLinks);
    let container = lab.container();
    lab.plug(&container, "net0");
    await_that("the router is known", || {
        advertise(&lab.neighbour, MACHINE_NIC, ADVERTISED.parse().expect("a prefix"));
        !defaults(&container).is_empty()
    });
    let mut conf = lab.conf_with(lab.ipam(Families::V6));
    conf["ipam"]["routes"] = json!([{"dst": "::/0"}]);
    let outcome = lab.macvlan().add(&container, "eth0", &conf).run();
    assert_eq!(outcome.result()["routes"], json!(null));
    assert_eq!(outcome.stderr, "macvlan: ADD: the container already has a route to ::/0: it is kept\n");
    let kept = defaults(&container);
    assert!(kept.iter().all(is_advertised) && !kept.is_empty(), "{kept:?}");
}
