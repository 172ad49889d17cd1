//! A router on the LAN advertises itself just while an ADD is at work. What it tells the kernel is neither in the way of
//! what was configured nor lost.

use std::net::IpAddr;

use e2e::kernel::Route;
use e2e::lab::{Families, MACHINE_NIC, lan6};
use e2e::patience::await_that;
use e2e::traffic::advertise;
use e2e::{Binaries, Container, Lab};
use serde_json::json;

const ADVERTISED: &str = "fd99::/64";

fn defaults(container: &Container) -> Vec<Option<IpAddr>> {
    let mut routes: Vec<Route> = container.routes();
    routes.retain(|route| route.dst == "::/0".parse().expect("a prefix"));
    routes.iter().map(|route| route.gateway).collect()
}

fn is_link_local(gateway: &Option<IpAddr>) -> bool {
    matches!(gateway, Some(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

/// The kernel listens as soon as the link is up, with a default route of the priority that ours will have.
#[test]
fn at_every_step_after_up_its_default_route_and_the_configured_one_are_both_there_in_the_end() {
    let lab = Lab::new(Binaries::HardLinks);
    let mut conf = lab.conf_with(lab.ipam(Families::Dual));
    conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
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
                    defaults(&container).iter().any(is_link_local)
                });
                advertised = true;
            }
        });
        let mut conf = conf.clone();
        conf["prevResult"] = outcome.result();
        if advertised {
            moments += 1;
            assert_eq!(conf["prevResult"]["routes"], expected["routes"], "{step:?}");
            assert_eq!(outcome.stderr, "", "{step:?}");
            let both = defaults(&container);
            assert!(both.len() == 2 && both.iter().any(is_link_local), "{both:?} {step:?}");
            assert!(both.contains(&Some(lan6(1))), "{both:?} {step:?}");
            lab.macvlan().check(&container, "eth0", &conf).run().done();
        }
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert_eq!(container.link_names(), ["lo"]);
    }
    assert!(moments > 3, "only {moments} of {}", trace.steps.len());
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
    assert!(kept.iter().all(is_link_local) && !kept.is_empty(), "{kept:?}");
}
