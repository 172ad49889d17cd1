//! The frames of detection, as another machine sees them.

use std::time::Duration;

use e2e::lab::{Families, lan4, lan6};
use e2e::traffic::{Frame, Seen, Wire};

use crate::site::Site;

/// The time between two frames.
fn between(first: &Seen, second: &Seen) -> Duration {
    second.at.duration_since(first.at).unwrap_or_default()
}

/// Attaches a container with .100, and returns all frames that another machine saw.
fn attach_and_watch(site: &Site, families: Families) -> (e2e::Container, Vec<Seen>) {
    let wire = Wire::open(&site.neighbour, site.neighbour.nic);
    let (container, _) = site.attach(&site.conf(families));
    let seen = wire.seen_before_answer(site.neighbour.v4, lan4(100));
    (container, seen)
}

e2e::on_both_kinds! {
    fn three_probes_are_sent_to_all_from_0_0_0_0(site) {
        let (container, seen) = attach_and_watch(site, Families::V4);
        let probes: Vec<&Seen> = seen.iter().filter(|seen| seen.frame.probes(lan4(100))).collect();
        assert_eq!(probes.len(), 3, "{probes:#?}");
        let mac = container.link("eth0").mac;
        for probe in &probes {
            assert!(probe.is_broadcast() && probe.source == mac, "{probe:?}");
            assert!(matches!(&probe.frame, Frame::Arp { mac: sender, .. } if *sender == mac), "{probe:?}");
        }
        // At 0, 60 and 120 ms, with some jitter.
        let slow = Duration::from_millis(60) * (e2e::plugin::slowness() - 1);
        for pair in probes.windows(2) {
            let gap = between(pair[0], pair[1]);
            assert!(gap > Duration::from_millis(20) && gap < Duration::from_millis(110) + slow, "{gap:?}");
        }
    }

    /// A frame with our address as sender would make other machines send their packets to us.
    fn no_frame_has_the_address_as_sender_before_the_verdict(site) {
        let (_container, seen) = attach_and_watch(site, Families::Dual);
        let first = seen.iter().find(|seen| seen.frame.probes(lan4(100))).expect("a probe");
        let claimed = seen.iter().find(|seen| seen.frame.comes_from(lan4(100))).expect("the answer");
        assert!(between(first, claimed) >= Duration::from_millis(180), "{:?} after the first probe", between(first, claimed));
    }

    fn one_announcement_follows_the_verdict(site) {
        let (container, seen) = attach_and_watch(site, Families::Dual);
        let announcements: Vec<&Seen> = seen.iter().filter(|seen| seen.frame.announces(lan4(100))).collect();
        assert_eq!(announcements.len(), 1, "{seen:#?}");
        assert!(announcements[0].is_broadcast(), "{announcements:#?}");
        assert_eq!(announcements[0].source, container.link("eth0").mac);
        let advertised = seen.iter().filter(|seen| seen.frame.announces(lan6(100))).count();
        assert_eq!(advertised, 1, "{seen:#?}");
    }

    /// The address in use is never claimed, and no frame of ours makes anyone doubt who has it.
    fn an_address_in_use_is_probed_and_nothing_else(site) {
        let machine = site.machine(100);
        let wire = Wire::open(&site.neighbour, site.neighbour.nic);
        let (_container, _) = site.gets(&site.conf(Families::V4), &[lan4(101)]);
        let seen = wire.seen_before_answer(site.neighbour.v4, lan4(101));
        let mac = machine.link(machine.nic).mac;
        let about = seen.iter().filter(|seen| seen.frame.comes_from(lan4(100)));
        assert!(about.clone().all(|seen| seen.source == mac), "{:#?}", about.collect::<Vec<_>>());
        assert!(seen.iter().any(|seen| seen.frame.probes(lan4(100))));
    }
}
