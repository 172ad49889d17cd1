//! The time that detection takes.

use std::time::{Duration, Instant};

use e2e::lab::Families;
use e2e::plugin::slowness;
use e2e::samples::show;
use e2e::{Container, with};
use serde_json::{Value, json};

use crate::site::{Site, without_detection};

const TIMEOUT: Duration = Duration::from_millis(200);
const ROUNDS: usize = 7;

/// The median of some ADDs.
fn median(site: &Site, conf: &Value) -> Duration {
    let mut walls: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let (container, outcome) = site.add(conf);
            outcome.result();
            site.detach(&container, conf);
            outcome.wall
        })
        .collect();
    walls.sort();
    walls[ROUNDS / 2]
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

e2e::on_both_kinds! {
    fn detection_costs_its_timeout_and_little_more(site) {
        let conf = site.conf(Families::V4);
        let (plain, detecting) = (median(site, &without_detection(&conf)), median(site, &conf));
        let more = detecting.saturating_sub(plain);
        show(&format!("{}: without {plain:?}, with {detecting:?}, more {more:?}", site.kind));
        assert!(more < TIMEOUT + Duration::from_millis(60) * slowness(), "{more:?} more than {plain:?}");
        assert!(more > TIMEOUT / 2, "only {more:?} more: nothing was detected");
    }

    fn detect_timeout_is_the_time(site) {
        let conf = with(site.conf(Families::V4), "detectTimeout", json!(50));
        let short = median(site, &conf).saturating_sub(median(site, &without_detection(&conf)));
        show(&format!("{}: 50 ms cost {short:?}", site.kind));
        assert!(short < Duration::from_millis(110) * slowness(), "{short:?}");
    }

    /// Both families are examined at the same time.
    fn dual_stack_takes_no_longer_than_its_slower_family(site) {
        let conf = site.conf(Families::Dual);
        let least = (0..5).map(|_| {
            let (container, outcome) = site.add(&conf);
            outcome.result();
            assert_eq!(container.address_texts("eth0").len(), 2, "{}", outcome.text());
            assert!(container.addresses("eth0").iter().all(|address| !address.tentative()), "{}", outcome.text());
            site.detach(&container, &conf);
            outcome.wall
        });
        let least = least.min().expect("some calls");
        show(&format!("{}: dual stack {least:?}", site.kind));
        assert!(least < Duration::from_millis(350) * slowness(), "{least:?}");
    }

    /// The times to listen overlap. Only the kernel's work on links is done one after the other.
    fn sixty_four_at_once_take_little_longer_than_without_detection(site) {
        if site.kind == "ipvlan" {
            // See containers_come_and_go_at_once in tests/host_access/many.rs.
            site.host.ip(&format!("link add keep0 link {} type ipvlan mode l2", e2e::lab::NIC));
        }
        let mut conf = site.conf(Families::V4);
        conf["ipam"]["ranges"][0][0]["rangeEnd"] = json!("192.168.50.250");
        let single = median(site, &conf);
        let (plain, detecting) = (together(site, &without_detection(&conf), 64), together(site, &conf, 64));
        show(&format!("{}: one {single:?}, 64 without {plain:?}, 64 with {detecting:?}", site.kind));
        assert!(detecting < 2 * plain + 2 * single, "{detecting:?} with, {plain:?} without, one {single:?}");
    }
}
