//! A router sends an advertisement during an ADD. The configured routes must not change, and the route of the
//! advertisement must not be lost.

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

/// The gateway is a link-local address, as in an advertisement.
fn is_by_router(route: &Route) -> bool {
    matches!(route.gateway, Some(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

fn is_advertised(route: &Route) -> bool {
    route.protocol == RouteProtocol::Ra
}

/// Sends an advertisement at each step of an ADD after the link is up. The kernel adds a default route with the same
/// priority as ours. `judge` gets the default routes after each ADD.
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
        // The number of requests during duplicate address detection varies, so the last steps may not come again.
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
fn the_advertised_and_the_configured_default_route_are_both_set() {
    let lab = Lab::new(Binaries::HardLinks);
    at_every_step_after_up(&lab, &json!({"dst": "::/0"}), |both| {
        assert!(both.len() == 2 && both.iter().any(is_advertised), "{both:?}");
        assert!(both.iter().any(|route| route.gateway == Some(lan6(1)) && !is_advertised(route)), "{both:?}");
    });
}

/// ADD took the advertised route for the configured one, so the default route was lost when the advertisement expired.
#[test]
fn if_the_router_is_the_configured_gateway_only_the_configured_route_is_set() {
    let lab = Lab::new(Binaries::HardLinks);
    let addresses = lab.neighbour.all_addresses();
    let router = addresses.iter().find(|address| address.link_local()).expect("a link-local address").net.addr();
    at_every_step_after_up(&lab, &json!({"dst": "::/0", "gw": router}), |one| {
        assert!(one.len() == 1 && one[0].gateway == Some(router) && !is_advertised(&one[0]), "{one:?}");
    });
}

/// The first network of a container keeps its default route.
#[test]
fn a_default_route_advertised_on_another_network_is_kept() {
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
