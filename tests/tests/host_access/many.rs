//! Many calls at once agree about the host's link.

use std::thread;

use e2e::lab::NIC;

use crate::site::{DUAL, addresses};

const MANY: usize = 64;

e2e::on_both_kinds! {
    fn sixty_four_at_once_share_one_link_and_the_last_removes_it(site) {
        let conf = site.conf(e2e::lab::Families::V4);
        let mut conf = conf;
        conf["ipam"]["ranges"][0][0]["rangeEnd"] = serde_json::json!("192.168.50.190");
        let containers: Vec<_> = (0..MANY).map(|_| site.container()).collect();
        for outcome in site.all_at_once("ADD", &containers, &conf) {
            outcome.result();
        }
        site.host_link();
        assert_eq!(site.host_routes().len(), MANY);
        assert_eq!(site.records().len(), MANY);
        for container in &containers {
            e2e::traffic::assert_reaches(&site.host, addresses(container)[0]);
        }
        for outcome in site.all_at_once("DEL", &containers, &conf) {
            outcome.done();
        }
        site.assert_nothing_left();
    }

    /// Half of the containers come while the other half goes. The link is never taken from one that uses it.
    fn containers_come_and_go_at_once(site) {
        if site.kind == "ipvlan" {
            // The guard of ipvlan finds a link on the host at once. Otherwise it searches for one in all namespaces, and
            // waits for those of containers that are just ending.
            site.host.ip(&format!("link add keep0 link {NIC} type ipvlan mode l2"));
        }
        let mut conf = site.conf(DUAL);
        conf["ipam"]["ranges"][0][0]["rangeEnd"] = serde_json::json!("192.168.50.190");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        let (container, _) = site.attach(&conf);
                        for address in addresses(&container) {
                            e2e::traffic::assert_reaches(&site.host, address);
                        }
                        site.detach(&container, &conf);
                    }
                });
            }
        });
        site.assert_nothing_left();
    }
}
