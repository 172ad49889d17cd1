//! `defaultRoute`: which interface of a container leads out, in all orders of ADD and DEL.

use std::process::Command;

use e2e::patience::await_that;
use e2e::traffic::advertise;
use e2e::{Container, Lab, Plugin, cases, with};
use serde_json::{Value, json};

const FAR: [&str; 2] = ["203.0.113.1", "2001:db8::1"];

/// A network of its own for each interface: `10.N.0.0/16` and `fd0N::/64`, each with a default route.
fn conf(lab: &Lab, number: usize, policy: Option<&str>) -> Value {
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    let ranges = json!([
        [{"subnet": format!("10.{number}.0.0/16"), "gateway": format!("10.{number}.0.1")}],
        [{"subnet": format!("fd0{number}::/64"), "gateway": format!("fd0{number}::1")}],
    ]);
    let ipam = json!({"type": "host-local", "dataDir": lab.data_dir(), "ranges": ranges, "routes": routes});
    let conf = with(lab.conf_with(ipam), "name", json!(format!("lan{number}")));
    match policy {
        Some(policy) => with(conf, "defaultRoute", json!(policy)),
        None => conf,
    }
}

fn name(number: usize) -> String {
    format!("net{number}")
}

/// Attaches an interface. Returns its configuration with the result.
#[track_caller]
fn attach(plugin: &Plugin<'_>, container: &Container, number: usize, conf: &Value) -> Value {
    let result = plugin.add(container, &name(number), conf).run().result();
    let checked = with(conf.clone(), "prevResult", result);
    plugin.check(container, &name(number), &checked).run().done();
    checked
}

/// The interface that the kernel uses for a far address of each family. Empty if there is none.
fn leads(container: &Container) -> [String; 2] {
    FAR.map(|far| {
        let output = container.run(|| Command::new("ip").args(["route", "get", far]).output()).expect("start ip");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace().skip_while(|word| *word != "dev").skip(1);
        words.next().unwrap_or_default().to_owned()
    })
}

#[track_caller]
fn assert_leads(container: &Container, number: usize) {
    let expected = if number == 0 { String::new() } else { name(number) };
    assert_eq!(leads(container), [expected.clone(), expected]);
}

cases! {
    #[reference(not_run: "it has no such key")]
    fn an_interface_that_takes_the_default_route_gives_it_back(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        let first = attach(&plugin, &container, 1, &conf(lab, 1, None));
        let second = attach(&plugin, &container, 2, &conf(lab, 2, Some("take")));
        assert_leads(&container, 2);
        // The first one is as before.
        plugin.check(&container, "net1", &first).run().done();
        plugin.del(&container, "net2", &second).run().done();
        assert_leads(&container, 1);
        plugin.check(&container, "net1", &first).run().done();
        plugin.del(&container, "net1", &first).run().done();
        assert_leads(&container, 0);
    }

    #[reference(not_run: "it has no such key")]
    fn the_one_that_has_taken_it_keeps_it_when_the_other_goes(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        let first = attach(&plugin, &container, 1, &conf(lab, 1, None));
        let second = attach(&plugin, &container, 2, &conf(lab, 2, Some("take")));
        plugin.del(&container, "net1", &first).run().done();
        assert_leads(&container, 2);
        plugin.check(&container, "net2", &second).run().done();
        plugin.del(&container, "net2", &second).run().done();
        assert_leads(&container, 0);
    }

    #[reference(not_run: "it has no such key")]
    fn it_works_again_if_the_interface_is_deleted_without_a_del(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        attach(&plugin, &container, 1, &conf(lab, 1, None));
        let second = attach(&plugin, &container, 2, &conf(lab, 2, Some("take")));
        container.delete_link("net2");
        assert_leads(&container, 1);
        plugin.del(&container, "net2", &second).run().done();
        assert_leads(&container, 1);
    }

    #[reference(not_run: "it has no such key")]
    fn of_three_the_last_that_takes_it_has_it_and_any_may_go(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        let confs = [None, Some("take"), Some("take")];
        for order in [[3, 2, 1], [1, 2, 3], [2, 3, 1], [2, 1, 3]] {
            let mut there = Vec::new();
            for (at, policy) in confs.iter().enumerate() {
                attach(&plugin, &container, at + 1, &conf(lab, at + 1, *policy));
                there.push(at + 1);
                assert_leads(&container, at + 1);
            }
            for gone in order {
                plugin.del(&container, &name(gone), &conf(lab, gone, None)).run().done();
                there.retain(|number| *number != gone);
                assert_leads(&container, there.last().copied().unwrap_or(0));
            }
        }
    }

    /// For IPv4, the route of the interface that came later was not added, so there was none when the other one went.
    #[reference(not_run: "it has no such key")]
    fn the_order_of_the_adds_makes_no_difference(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        let policy = |number: usize| if number == 1 { None } else { Some("take") };
        for order in [[2, 1, 3], [3, 2, 1]] {
            for gone in [[1, 2, 3], [2, 3, 1], [3, 2, 1]] {
                let mut there: Vec<usize> = Vec::new();
                for number in order {
                    attach(&plugin, &container, number, &conf(lab, number, policy(number)));
                    there.push(number);
                }
                // The last one that takes it comes first, and the one that does not take it comes last.
                there.sort_by_key(|number| (*number != 1).then(|| order.iter().position(|its| its == number)));
                assert_leads(&container, there[2]);
                for number in gone {
                    plugin.del(&container, &name(number), &conf(lab, number, None)).run().done();
                    there.retain(|its| *its != number);
                    assert_leads(&container, there.last().copied().unwrap_or(0));
                }
            }
        }
        // Of two that do not take it, the first one keeps it.
        for number in [2, 1] {
            attach(&plugin, &container, number, &conf(lab, number, policy(number)));
        }
        let outcome = plugin.add(&container, "net3", &conf(lab, 3, None)).run();
        assert_eq!(outcome.result()["routes"], json!(null));
        assert!(outcome.stderr.contains("the container already has a route to 0.0.0.0/0: it is kept"), "{}", outcome.text());
        plugin.del(&container, "net2", &conf(lab, 2, None)).run().done();
        assert_leads(&container, 1);
    }

    /// Of default routes with the same priority and scope, the kernel uses one whose gateway has answered lately. So the
    /// taken one was not used while its gateway was silent for a moment. For IPv6, the kernel does this with all
    /// default routes, but only if the gateway has not answered at all.
    #[reference(not_run: "it has no such key")]
    fn it_is_used_whatever_the_kernel_knows_of_the_gateways(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        let confs = [None, Some("take"), Some("take")];
        for (at, policy) in confs.iter().enumerate() {
            attach(&plugin, &container, at + 1, &conf(lab, at + 1, *policy));
        }
        let knows = |number: usize, state: &str| {
            // Without an answer, the kernel soon leaves the states delay and probe. For IPv6, this makes a difference.
            let of_v6 = if matches!(state, "delay" | "probe") { "stale" } else { state };
            for (gateway, state) in [(format!("10.{number}.0.1"), state), (format!("fd0{number}::1"), of_v6)] {
                container.ip(&format!("neigh replace {gateway} lladdr 02:00:00:00:00:99 dev net{number} nud {state}"));
            }
        };
        for (own, others) in [("stale", "reachable"), ("delay", "reachable"), ("stale", "stale"), ("probe", "permanent")] {
            for number in 1..=3 {
                knows(number, if number == 3 { own } else { others });
            }
            // The kernel notes its choice, and then prefers another one.
            for _ in 0..3 {
                assert_leads(&container, 3);
            }
        }
        container.ip("neigh replace 10.3.0.1 dev net3 nud failed");
        assert_eq!(leads(&container), ["net3", "net3"]);
        container.ip("neigh replace fd03::1 dev net3 nud failed");
        assert_eq!(leads(&container), ["net3", "net2"], "as the page says");
        plugin.del(&container, "net3", &conf(lab, 3, None)).run().done();
        for (own, other) in [("stale", "reachable"), ("reachable", "reachable"), ("stale", "permanent")] {
            knows(2, own);
            knows(1, other);
            for _ in 0..3 {
                assert_leads(&container, 2);
            }
        }
    }

    /// The scope is in the result, so that the result is true. A route of the same scope that comes later is not mixed up.
    #[reference(not_run: "it has no such key")]
    fn the_scope_of_a_taken_route_is_in_the_result(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        let conf_of = |number, policy| with(conf(lab, number, policy), "cniVersion", json!("1.1.0"));
        attach(&plugin, &container, 1, &conf_of(1, None));
        for (number, scope) in [(2, 200), (3, 199)] {
            let checked = attach(&plugin, &container, number, &conf_of(number, Some("take")));
            let routes = &checked["prevResult"]["routes"];
            assert_eq!(routes[0], json!({"dst": "0.0.0.0/0", "scope": scope}));
            assert!(routes[1].get("scope").is_none(), "{routes}");
        }
        plugin.del(&container, "net2", &conf_of(2, None)).run().done();
        let again = attach(&plugin, &container, 2, &conf_of(2, Some("take")));
        assert_eq!(again["prevResult"]["routes"][0]["scope"], json!(200));
        assert_leads(&container, 2);
    }

    /// A route such as "unreachable" has no interface. It had the priority of the new route, so the kernel refused that.
    #[reference(not_run: "it has no such key")]
    fn a_default_route_that_leads_nowhere_comes_behind_it(lab) {
        for kind in ["unreachable", "blackhole", "prohibit"] {
            let (plugin, container) = (lab.macvlan(), lab.container());
            container.ip(&format!("route add {kind} default"));
            container.ip(&format!("-6 route add {kind} default"));
            let checked = attach(&plugin, &container, 2, &conf(lab, 2, Some("take")));
            assert_leads(&container, 2);
            plugin.del(&container, "net2", &checked).run().done();
            assert_leads(&container, 0);
        }
    }

    /// Other programs give their routes a priority.
    #[reference(not_run: "it has no such key")]
    fn routes_with_any_priority_come_behind_it(lab) {
        let plugin = lab.macvlan();
        let mut containers = Vec::new();
        for (v4, v6) in [("", ""), ("metric 100", "metric 100"), ("metric 5000", "metric 5000"), ("metric 1", "metric 2")] {
            let container = lab.container();
            lab.plug(&container, "net1");
            container.ip("address add 10.1.0.5/16 dev net1");
            container.ip("address add fd01::5/64 dev net1 nodad");
            container.ip(&format!("route add default via 10.1.0.1 dev net1 {v4}"));
            container.ip(&format!("-6 route add default via fd01::1 dev net1 {v6}"));
            attach(&plugin, &container, 2, &conf(lab, 2, Some("take")));
            assert_leads(&container, 2);
            plugin.del(&container, "net2", &conf(lab, 2, None)).run().done();
            assert_leads(&container, 1);
            // The name of the switch's port follows from the number of ports.
            containers.push(container);
        }
    }

    #[reference(not_run: "it has no such key")]
    fn a_route_with_several_next_hops_comes_behind_it(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        lab.plug(&container, "net1");
        container.ip("address add 10.1.0.5/16 dev net1");
        container.ip("route add default nexthop via 10.1.0.1 dev net1 nexthop via 10.1.0.2 dev net1");
        container.ip("address add fd01::5/64 dev net1 nodad");
        container.ip("-6 route add default nexthop via fd01::1 dev net1 nexthop via fd01::2 dev net1");
        attach(&plugin, &container, 2, &conf(lab, 2, Some("take")));
        assert_leads(&container, 2);
        plugin.del(&container, "net2", &conf(lab, 2, None)).run().done();
        assert_leads(&container, 1);
    }

    #[reference(not_run: "it has no such key")]
    fn priority_1_of_ipv6_cannot_be_taken_and_the_message_says_so(lab) {
        let container = lab.container();
        lab.plug(&container, "net1");
        container.ip("address add fd01::5/64 dev net1 nodad");
        container.ip("-6 route add default via fd01::1 dev net1 metric 1");
        let conf = conf(lab, 2, Some("take"));
        let said = "defaultRoute \"take\": cannot be taken: no route can come before the container's default route of priority 1";
        lab.macvlan().add(&container, "net2", &conf).run().fails(7, &[said]);
        assert_eq!(container.link_names(), ["lo", "net1"]);
        assert_eq!(lab.leases_in("lan2"), [""; 0]);
    }

    /// A router that speaks later does not take it away.
    #[reference(not_run: "it has no such key")]
    fn a_router_advertisement_comes_behind_it(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        attach(&plugin, &container, 2, &conf(lab, 2, Some("take")));
        container.set_sysctl("net/ipv6/conf/net2/accept_ra", "2");
        let routes = || container.routes_of("net2").iter().filter(|route| route.dst.to_string() == "::/0").count();
        advertise(&lab.neighbour, lab.neighbour.nic, "fd77::/64".parse().expect("a prefix"));
        await_that("the container has the route of the router", || routes() == 2);
        let get = container.run(|| Command::new("ip").args(["route", "get", FAR[1]]).output()).expect("start ip");
        let text = String::from_utf8_lossy(&get.stdout).into_owned();
        assert!(text.contains("via fd02::1"), "{text}");
    }

    #[reference(not_run: "it has no such key")]
    fn a_remark_says_that_there_is_none_to_take(lab) {
        let said = "defaultRoute is take: the routes of ipam have no default route, so there is none to take";
        let add = |policy: &str, routes: Value| {
            let mut conf = conf(lab, 1, Some(policy));
            conf["ipam"]["routes"] = routes;
            let container = lab.container();
            let outcome = lab.macvlan().add(&container, "net1", &conf).run();
            outcome.result();
            lab.macvlan().del(&container, "net1", &conf).run().done();
            outcome.stderr.contains(said)
        };
        for routes in [json!([]), json!([{"dst": "10.200.0.0/16"}]), json!([{"dst": "0.0.0.0/0", "table": 100}])] {
            assert!(add("take", routes.clone()), "{routes}");
            assert!(!add("keep", routes.clone()) && !add("none", routes));
        }
        assert!(!add("take", json!([{"dst": "::/0"}])));
    }

    #[reference(not_run: "it has no such key")]
    fn none_sets_no_default_route_and_the_result_has_none(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        let mut conf = conf(lab, 1, Some("none"));
        conf["ipam"]["routes"].as_array_mut().expect("routes").push(json!({"dst": "10.200.0.0/16"}));
        let checked = attach(&plugin, &container, 1, &conf);
        assert_leads(&container, 0);
        assert_eq!(checked["prevResult"]["routes"], json!([{"dst": "10.200.0.0/16"}]));
        assert_eq!(container.route_to("10.200.0.0/16").oif, Some(container.link("net1").ifindex));
        attach(&plugin, &container, 2, &self::conf(lab, 2, None));
        assert_leads(&container, 2);
    }

    #[reference(not_run: "it has no such key")]
    fn keep_adds_none_if_there_is_one_of_any_priority(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        lab.plug(&container, "net1");
        container.ip("address add 10.1.0.5/16 dev net1");
        container.ip("route add default via 10.1.0.1 dev net1 metric 100");
        let conf = conf(lab, 2, Some("keep"));
        let outcome = plugin.add(&container, "net2", &conf).run();
        assert_eq!(outcome.result()["routes"], json!([{"dst": "::/0"}]));
        assert!(outcome.stderr.contains("defaultRoute is keep: the container has a default route of another interface, so 0.0.0.0/0 via 10.2.0.1 is not added"), "{}", outcome.text());
        assert_eq!(leads(&container), ["net1", "net2"]);
    }

    /// A default route of another table is not the default route of the container.
    #[reference(not_run: "it has no such key")]
    fn default_routes_of_other_tables_are_added_in_any_case(lab) {
        for policy in ["none", "keep", "take"] {
            let container = lab.container();
            let mut conf = conf(lab, 1, Some(policy));
            conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0", "table": 100}]);
            attach(&lab.macvlan(), &container, 1, &conf);
            let tables: Vec<u32> = container.routes_of("net1").iter().map(|route| route.table).collect();
            assert_eq!(tables, [100], "{policy}");
        }
    }

    /// For the kernel too, table 0 is table main, and IPv6 priority 0 is 1024.
    #[reference(not_run: "it has no such key")]
    fn table_0_is_the_main_table_and_priority_0_the_usual_one(lab) {
        for policy in [None, Some("none"), Some("keep"), Some("take")] {
            let container = lab.container();
            attach(&lab.macvlan(), &container, 1, &conf(lab, 1, None));
            let mut conf = conf(lab, 2, policy);
            let zero = json!([{"dst": "0.0.0.0/0", "table": 0}, {"dst": "::/0", "table": 0, "priority": 0}, {"dst": "10.200.0.0/16", "table": 0, "priority": 0}, {"dst": "fd77::/64", "table": 0, "priority": 0}]);
            conf["ipam"]["routes"] = zero;
            attach(&lab.macvlan(), &container, 2, &conf);
            assert_leads(&container, if policy == Some("take") { 2 } else { 1 });
            let mut conf = self::conf(lab, 3, policy);
            conf["ipam"]["routes"] = json!([{"dst": "::/0", "priority": 0}]);
            attach(&lab.macvlan(), &container, 3, &conf);
            let defaults = container.routes_of("net3").into_iter().filter(|route| route.dst.to_string() == "::/0").count();
            assert_eq!(defaults, usize::from(policy == Some("take")), "{policy:?}");
        }
    }

    /// CHECK took the default route of the other interface for the one that is gone.
    #[reference(not_run: "it has no such key")]
    fn check_names_a_taken_route_that_has_gone(lab) {
        for family in ["-4", "-6"] {
            let (plugin, container) = (lab.macvlan(), lab.container());
            attach(&plugin, &container, 1, &conf(lab, 1, None));
            let checked = attach(&plugin, &container, 2, &conf(lab, 2, Some("take")));
            container.ip(&format!("{family} route delete default dev net2"));
            let outcome = plugin.check(&container, "net2", &checked).run();
            outcome.fails(102, &["has no route to ", "as ADD made it"]);
        }
    }

    /// Multus calls each network by itself. ADD has no prevResult, and DEL has the stored one.
    #[reference(not_run: "it has no such key")]
    fn as_multus_calls_it(lab) {
        let (plugin, container) = (lab.macvlan(), lab.container());
        attach(&plugin, &container, 1, &conf(lab, 1, None));
        let runtime = json!({"ips": ["10.2.0.77/16", "fd02::77/64"], "mac": "02:00:00:00:00:77"});
        let conf = with(conf(lab, 2, Some("take")), "runtimeConfig", runtime);
        let stored = attach(&plugin, &container, 2, &conf);
        assert_eq!(container.address_texts("net2"), ["10.2.0.77/16", "fd02::77/64"]);
        assert_eq!(container.link("net2").mac, "02:00:00:00:00:77");
        assert_leads(&container, 2);
        plugin.del(&container, "net2", &stored).run().done();
        assert_leads(&container, 1);
    }

    #[reference(not_run: "it has no such key")]
    fn another_word_is_refused(lab) {
        for (value, said) in [(json!("yes"), "defaultRoute \"yes\": is neither keep, nor take, nor none"), (json!(true), "defaultRoute true: is not text")] {
            lab.macvlan().refuses(lab, &with(lab.conf(), "defaultRoute", value), 7, &[said]);
        }
    }
}
