//! Many calls at once agree about the VLAN link.

use std::thread;

use e2e::lab::NIC;

use crate::site::{self, ID, addresses, assert_on_vlan};

const MANY: usize = 64;

e2e::on_both_kinds! {
    fn sixty_four_at_once_share_one_link_and_the_last_removes_it(site) {
        site.give_neighbour(ID);
        let conf = site.conf(ID);
        let containers: Vec<_> = (0..MANY).map(|_| site.container()).collect();
        // The guard of ipvlan finds a container with a process at once. It would search all descriptors for the others.
        let (first, _) = site.attach(&conf);
        let process = site::Process::sleep(&first);
        for outcome in site.all_at_once("ADD", &containers, &conf) {
            outcome.result();
        }
        drop(process);
        site.detach(&first, &conf);
        let link = site.vlan_link();
        assert_eq!(site.host.link_names(), ["lo", NIC, "ens3.100"]);
        assert_eq!(site.records().len(), MANY);
        for container in &containers {
            assert_eq!(container.link("eth0").parent, Some(link.ifindex));
            e2e::traffic::assert_reaches(&site.neighbour, addresses(container)[0]);
        }
        for outcome in site.all_at_once("DEL", &containers, &conf) {
            outcome.done();
        }
        site.assert_nothing_left();
    }

    /// Containers of two VLANs come while others go. No container ever loses its link.
    fn containers_come_and_go_at_once(site) {
        site.give_neighbour(ID);
        site.give_neighbour(200);
        // The guard of ipvlan finds a container with a process at once. It would search all descriptors for the others.
        let kept = [ID, 200].map(|id| (id, site.attach(&site.conf(id)).0));
        let processes: Vec<_> = kept.iter().map(|(_, container)| site::Process::sleep(container)).collect();
        thread::scope(|scope| {
            for worker in 0..6 {
                scope.spawn(move || {
                    let id = if worker % 2 == 0 { ID } else { 200 };
                    let conf = site.conf(id);
                    for _ in 0..4 {
                        let (container, _) = site.attach(&conf);
                        assert_on_vlan(site, &container, id);
                        site.detach(&container, &conf);
                    }
                });
            }
        });
        for (id, container) in &kept {
            assert_on_vlan(site, container, *id);
            site.detach(container, &site.conf(*id));
        }
        drop(processes);
        site.assert_nothing_left();
    }
}

/// The last container goes while another one comes: the link is removed and created again and again.
#[test]
fn the_last_goes_while_the_first_comes() {
    if !e2e::needs::here(site::NEEDS) {
        return;
    }
    let site = site::Site::new("macvlan");
    site.give_neighbour(ID);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let conf = site.conf(ID);
                for _ in 0..8 {
                    let (container, _) = site.attach(&conf);
                    assert_on_vlan(&site, &container, ID);
                    site.detach(&container, &conf);
                }
            });
        }
    });
    site.assert_nothing_left();
}
