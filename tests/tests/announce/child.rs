//! The process that repeats announcements: it holds nothing up, keeps nothing alive, and falls silent with a DEL.

use std::time::{Duration, Instant, SystemTime};

use e2e::lab::{lan4, lan6};
use e2e::patience::await_within;
use e2e::plugin::slowness;
use e2e::samples::show;
use e2e::traffic::assert_reaches;
use e2e::{processes, with};
use serde_json::json;

use crate::site::{Site, announcements, await_announcements};

/// The time after which nothing of a call may be left.
const SOON: Duration = Duration::from_secs(3);

e2e::on_both_kinds! {
    /// libcni waits for the end of stdout and stderr, and Outcome::wall includes both.
    fn the_call_returns_at_once_while_announcements_follow(site) {
        let container = site.container();
        let plain = site.add(&container, &site.plain(e2e::lab::Families::Dual));
        plain.result();
        site.plugin().del(&container, "eth0", &site.conf(3, 2000)).run().done();
        let outcome = site.add(&container, &site.conf(3, 2000));
        let children = site.children(&container);
        outcome.result();
        show(&format!("{}: {:?} with repeats, {:?} without", site.kind, outcome.wall, plain.wall));
        assert!(outcome.wall < Duration::from_secs(1) * slowness(), "{}", outcome.text());
        assert_eq!(children.len(), 1, "not one child: {children:?}");
        // A lock of IPAM or of the host's side would stop all later calls.
        let held: Vec<_> = processes::descriptors(children[0]).into_iter().filter(|held| held != "/dev/null").collect();
        assert_eq!(held, [""; 0]);
        site.plugin().del(&container, "eth0", &site.conf(3, 2000)).run().done();
    }

    fn after_the_last_announcement_no_process_is_left(site) {
        let (wire, container) = (site.wire(), site.container());
        site.add(&container, &site.conf(2, 300)).result();
        await_announcements(&wire, 2);
        site.await_no_child(&container, SOON);
    }

    /// A namespace that is kept open keeps the links in it alive, which answer for a dead container.
    fn the_child_does_not_keep_the_namespace(site) {
        let container = site.container();
        container.create_veth("pair0", &site.host, "pair1");
        let conf = site.conf(2, 10_000);
        site.add(&container, &conf).result();
        assert_ne!(site.children(&container), [0; 0]);
        let start = Instant::now();
        drop(container);
        await_within(SOON * slowness(), "the kernel has deleted the namespace", || {
            if site.host.has_link("pair1") { Err("its veth is still there".into()) } else { Ok(()) }
        });
        show(&format!("{}: the namespace was gone after {:?}", site.kind, start.elapsed()));
    }

    /// The child ends by itself: at its next announcement it sees that the namespace is gone.
    fn the_child_ends_when_the_namespace_is_gone(site) {
        let (container, other) = (site.container(), site.container());
        site.add(&container, &site.conf(10, 500)).result();
        drop(container);
        site.await_no_child(&other, SOON);
    }

    fn a_del_silences_a_child_that_waits_for_the_carrier(site) {
        site.unplug();
        let (wire, container, conf) = (site.wire(), site.container(), site.conf(2, 100));
        site.add(&container, &conf).result();
        assert_ne!(site.children(&container), [0; 0]);
        site.plugin().del(&container, "eth0", &conf).run().done();
        site.assert_undone(&container);
        site.await_no_child(&container, SOON);
        site.plug_again();
        // The switch forwards again some time after the carrier has come.
        assert_reaches(&site.neighbour, site.host.v4);
        let seen = wire.seen();
        assert!(announcements(&seen, lan4(100)).is_empty(), "{seen:#?}");
    }

    fn a_del_silences_the_child(site) {
        let (wire, container, conf) = (site.wire(), site.container(), site.conf(10, 200));
        site.add(&container, &conf).result();
        await_announcements(&wire, 2);
        site.plugin().del(&container, "eth0", &conf).run().done();
        let deleted = SystemTime::now();
        site.assert_undone(&container);
        site.await_no_child(&container, SOON);
        let late: Vec<_> = wire.seen().into_iter().filter(|seen| seen.at > deleted).collect();
        for ip in [lan4(100), lan6(100)] {
            let after = announcements(&late, ip);
            assert!(after.is_empty(), "after the DEL: {after:#?}");
        }
    }

    /// The next container with the address is another machine for the LAN. The child of the first must not disturb it.
    fn the_child_does_not_announce_for_the_next_container_with_the_address(site) {
        let mut conf = site.conf(10, 200);
        conf["ipam"] = site.static_conf(&[lan4(100)])["ipam"].take();
        let (first, second) = (site.container(), site.container());
        let wire = site.wire();
        site.add(&first, &conf).result();
        let mac = first.link("eth0").mac;
        wire.seen_until(|frame| frame.announces(lan4(100)));
        site.plugin().del(&first, "eth0", &conf).run().done();
        let deleted = SystemTime::now();
        site.add(&second, &with(conf.clone(), "announce", json!({"count": 1}))).result();
        site.await_no_child(&first, SOON);
        let late: Vec<_> = site.seen(&wire).into_iter().filter(|seen| seen.at > deleted).collect();
        let all = announcements(&late, lan4(100));
        assert_eq!(all.len(), 1, "{all:#?}");
        if site.kind == "macvlan" {
            assert_ne!(all[0].source, mac);
        }
    }

    /// The address is moved away by hand. The container does not have it any more.
    fn an_address_that_is_off_the_link_is_not_announced(site) {
        let (wire, container) = (site.wire(), site.container());
        site.add(&container, &site.conf(10, 200)).result();
        await_announcements(&wire, 2);
        container.ip("address del 192.168.50.100/24 dev eth0");
        let removed = SystemTime::now();
        // The time of three more announcements. The child may end, or continue with the other family.
        let (seen, _) = wire.seen_within(Duration::from_millis(700), |_| false);
        let late: Vec<_> = seen.into_iter().filter(|seen| seen.at > removed).collect();
        let after = announcements(&late, lan4(100));
        assert!(after.is_empty(), "{after:#?}");
        site.plugin().del(&container, "eth0", &site.conf(10, 200)).run().done();
    }

    /// A DEL at each moment of the first announcements leaves no frame after it.
    fn no_frame_follows_a_del_at_any_moment(site) {
        for pause in [0, 20, 90, 110, 190, 210] {
            let (wire, container, conf) = (site.wire(), site.container(), site.conf(5, 100));
            site.add(&container, &conf).result();
            // The pause is a part of this test: it puts the DEL between two announcements, or into one.
            wire.seen_within(Duration::from_millis(pause), |_| false);
            site.plugin().del(&container, "eth0", &conf).run().done();
            let deleted = SystemTime::now();
            site.await_no_child(&container, SOON);
            let is_late = |seen: &&e2e::traffic::Seen| {
                seen.at > deleted && matches!(&seen.frame, e2e::traffic::Frame::Arp { sender, target, .. } if sender == target)
            };
            let seen = wire.seen();
            let late: Vec<_> = seen.iter().filter(is_late).collect();
            assert!(late.is_empty(), "with a pause of {pause} ms: {late:#?}");
        }
    }
}

/// A test of one address once found a process here: it was a child of another test, between fork and exec, with all
/// descriptors of the tests.
#[test]
fn a_command_that_another_test_starts_is_no_process_of_the_plugin() {
    let site = Site::new("macvlan");
    let container = site.container();
    let starts = std::thread::spawn(|| {
        for _ in 0..300 {
            let ended = std::process::Command::new("true").status().expect("run true");
            assert!(ended.success());
        }
    });
    while !starts.is_finished() {
        assert_eq!(site.children(&container), [0; 0]);
    }
    starts.join().expect("the thread that starts commands");
}
