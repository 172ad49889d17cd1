//! The time of detection, and detection under load. These tests run one after the other and apart from the others, because
//! load makes answers late.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use e2e::host_site::addresses;
use e2e::lab::{Families, MACHINE_NIC, NIC};
use e2e::plugin::slowness;
use e2e::samples::show;
use e2e::{Container, Outcome, with, without};
use serde_json::{Value, json};

use site::Site;

/// Only one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A failed test leaves nothing behind that matters to the next one.
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

mod site {
    use std::ops::Deref;

    use e2e::host_site::HostSite;
    use e2e::needs::Feature;

    /// All tests of macvlan run on every kernel.
    pub(crate) const NEEDS: &[Feature] = &[];

    pub(crate) struct Site(HostSite);

    impl Site {
        pub(crate) fn new(kind: &'static str) -> Self {
            Self(HostSite::new(kind))
        }
    }

    impl Deref for Site {
        type Target = HostSite;

        fn deref(&self) -> &HostSite {
            &self.0
        }
    }
}

impl Site {
    fn conf(&self, families: Families) -> Value {
        with(self.conf_with(self.ipam(families)), "detectIPConflict", json!(true))
    }
}

mod cost {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);
    const ROUNDS: usize = 7;

    fn without_detection(conf: &Value) -> Value {
        without(conf.clone(), "detectIPConflict")
    }

    /// The times of some ADDs, sorted.
    fn walls(site: &Site, conf: &Value) -> Vec<Duration> {
        let mut walls: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let container = site.container();
                let outcome = site.plugin().add(&container, "eth0", conf).run();
                outcome.result();
                site.detach(&container, conf);
                outcome.wall
            })
            .collect();
        walls.sort();
        walls
    }

    fn median(site: &Site, conf: &Value) -> Duration {
        walls(site, conf)[ROUNDS / 2]
    }

    /// The time of so many ADDs at once.
    fn together(site: &Site, conf: &Value, count: usize) -> Duration {
        let containers: Vec<Container> = (0..count).map(|_| site.container()).collect();
        let start = Instant::now();
        let outcomes = site.all_at_once("ADD", &containers, conf);
        let wall = start.elapsed();
        for outcome in outcomes {
            outcome.result();
        }
        site.all_at_once("DEL", &containers, conf);
        wall
    }

    #[test]
    fn detection_costs_its_timeout_and_little_more() {
        let (_alone, site) = (alone(), Site::new("macvlan"));
        let conf = site.conf(Families::V4);
        let plain = median(&site, &without_detection(&conf));
        for (timeout, conf) in
            [(TIMEOUT, conf.clone()), (Duration::from_millis(50), with(conf.clone(), "detectTimeout", json!(50)))]
        {
            let detecting = median(&site, &conf);
            let more = detecting.saturating_sub(plain);
            show(&format!("without {plain:?}, with {detecting:?}, {more:?} more for a timeout of {timeout:?}"));
            assert!(more > timeout / 2 && more < timeout + Duration::from_millis(60), "{more:?} more than {plain:?}");
        }
    }

    /// Both families are examined at the same time.
    #[test]
    fn dual_stack_takes_no_longer_than_its_slower_family() {
        let (_alone, site) = (alone(), Site::new("macvlan"));
        let least = walls(&site, &site.conf(Families::Dual))[0];
        show(&format!("dual stack {least:?}"));
        assert!(least < Duration::from_millis(350), "{least:?}");
    }

    /// The times to listen overlap. Only the kernel's work on links is done one after the other.
    #[test]
    fn sixty_four_at_once_take_little_longer_than_without_detection() {
        let (_alone, site) = (alone(), Site::new("macvlan"));
        let mut conf = site.conf(Families::V4);
        conf["ipam"]["ranges"][0][0]["rangeEnd"] = json!("192.168.50.250");
        let single = median(&site, &conf);
        let (plain, detecting) = (together(&site, &without_detection(&conf), 64), together(&site, &conf, 64));
        show(&format!("one {single:?}, 64 without {plain:?}, 64 with {detecting:?}"));
        assert!(detecting < 2 * plain + 2 * single, "{detecting:?} with, {plain:?} without, one {single:?}");
    }
}

/// One of two hosts with the same pools, which do not know of each other.
struct Member<'a> {
    netns: &'a e2e::Namespace,
    nic: &'static str,
    leases: &'static str,
}

impl Member<'_> {
    fn conf(&self, site: &Site, conf: &Value) -> Value {
        let mut conf = with(conf.clone(), "master", json!(self.nic));
        conf["ipam"]["dataDir"] = json!(site.path(self.leases));
        conf
    }
}

/// The same pool in IPv4 only, and in both families: two networks.
fn networks(site: &Site) -> [Value; 2] {
    let v4 = json!([{"subnet": "192.168.50.0/24", "rangeStart": "192.168.50.30", "rangeEnd": "192.168.50.254"}]);
    let v6 = json!([{"subnet": "fd50::/64", "rangeStart": "fd50::1000", "rangeEnd": "fd50::1fff"}]);
    [("lan", json!([v4])), ("dual", json!([v4, v6]))].map(|(name, ranges)| {
        // A guest has one processor for all machines. With 50 at once, some answered after more than a second.
        let conf = with(site.conf(Families::V4), "detectTimeout", json!(if slowness() > 1 { 2000 } else { 200 }));
        let mut conf = with(conf, "name", json!(name));
        conf["ipam"]["ranges"] = ranges;
        conf
    })
}

/// The addresses of all containers, each with the containers that have it.
fn holders(ends: &[(Container, Outcome)]) -> BTreeMap<IpAddr, Vec<&str>> {
    let mut holders: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    for (container, outcome) in ends {
        if outcome.status.success() {
            for address in addresses(container) {
                holders.entry(address).or_default().push(&container.id);
            }
        } else {
            outcome.error();
            assert_eq!(container.link_names(), ["lo"], "{}", outcome.text());
        }
    }
    holders
}

e2e::on_both_kinds! {
    /// Four networks have the same pool by mistake. Some ADDs fail after ten conflicts. In a guest, there are fewer
    /// at once.
    fn two_hundred_at_once_on_two_hosts_share_no_address(site) {
        let (_alone, other) = (alone(), site.machine(11));
        other.give_own_run();
        let members = [
            Member { netns: &site.host, nic: NIC, leases: "leases" },
            Member { netns: &other, nic: MACHINE_NIC, leases: "leases-of-the-other" },
        ];
        if site.kind == "ipvlan" {
            // See containers_come_and_go_at_once in tests/host_access/many.rs.
            for member in &members {
                member.netns.ip(&format!("link add keep0 link {} type ipvlan mode l2", member.nic));
            }
        }
        let count = if slowness() > 1 { 20 } else { 200 };
        let networks = networks(site);
        let containers: Vec<Container> = (0..count).map(|_| site.container()).collect();
        let ends: Vec<(Container, Outcome)> = thread::scope(|scope| {
            let calls: Vec<_> = containers
                .into_iter()
                .enumerate()
                .map(|(number, container)| {
                    let member = &members[number % 2];
                    let conf = member.conf(site, &networks[number / 2 % 2]);
                    let call = site.plugin().on(member.netns).add(&container, "eth0", &conf);
                    (container, scope.spawn(move || call.run()))
                })
                .collect();
            calls.into_iter().map(|(container, call)| (container, call.join().expect("a call"))).collect()
        });
        let succeeded = ends.iter().filter(|(_, outcome)| outcome.status.success()).count();
        show(&format!("{}: {succeeded} of {count} succeeded", site.kind));
        let holders = holders(&ends);
        let twice: Vec<_> = holders.iter().filter(|(_, ids)| ids.len() > 1).collect();
        assert!(twice.is_empty(), "twice on the LAN: {twice:?}");
        assert!(succeeded >= count / 4, "only {succeeded} succeeded: {}", ends[0].1.text());
    }
}
