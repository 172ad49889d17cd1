//! The announcements on the wire: how many, when, and from which MAC.

use std::time::{Duration, SystemTime};

use e2e::lab::{Families, NIC, lan4, lan6};
use e2e::patience::PATIENCE;
use e2e::plugin::slowness;
use e2e::samples::show;
use e2e::traffic::{Frame, Seen};
use e2e::with;
use serde_json::json;

use crate::site::{Site, announcements, await_announcements};

fn gaps(seen: &[Seen]) -> Vec<Duration> {
    seen.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at).unwrap_or_default()).collect()
}

fn assert_once(site: &Site, conf: &serde_json::Value, families: Families) {
    let wire = site.wire();
    let (container, _) = site.attach(conf);
    let seen = site.seen(&wire);
    assert_eq!(announcements(&seen, lan4(100)).len(), 1, "{seen:#?}");
    assert_eq!(announcements(&seen, lan4(100))[0].source, container.link("eth0").mac);
    if matches!(families, Families::Dual) {
        assert_eq!(announcements(&seen, lan6(100)).len(), 1, "{seen:#?}");
    }
    assert_eq!(site.children(&container), [0; 0]);
}

/// An IPAM plugin that sets the link up before it answers, as the reference's dhcp does.
fn raising_ipam(site: &Site) -> serde_json::Value {
    let raise = r#"nsenter --net="$CNI_NETNS" ip link set "$CNI_IFNAME" up"#;
    let body = format!("[ $CNI_COMMAND = ADD ] || exit 0\n{raise} || exit 1\necho $answer");
    with(site.fake_ipam(&body), "type", json!(site.kind))
}

e2e::on_both_kinds! {
    fn an_address_is_announced_once_by_default(site) {
        assert_once(site, &site.plain(Families::V4), Families::V4);
    }

    fn both_addresses_are_announced_once_by_default(site) {
        assert_once(site, &site.plain(Families::Dual), Families::Dual);
    }

    fn a_count_of_one_is_the_default(site) {
        assert_once(site, &site.conf(1, 300), Families::Dual);
    }

    fn after_detection_addresses_are_announced_once(site) {
        assert_once(site, &with(site.plain(Families::Dual), "detectIPConflict", json!(true)), Families::Dual);
    }

    fn three_announcements_have_their_interval_and_the_first_is_sent_at_once(site) {
        let (wire, container) = (site.wire(), site.container());
        let outcome = site.add(&container, &site.conf(3, 300));
        let returned = SystemTime::now();
        outcome.result();
        let mut seen = await_announcements(&wire, 3);
        site.await_no_child(&container, Duration::from_secs(3));
        seen.extend(site.seen(&wire));
        let mac = container.link("eth0").mac;
        let late = Duration::from_millis(150) * slowness();
        for ip in [lan4(100), lan6(100)] {
            let all = announcements(&seen, ip);
            assert_eq!(all.len(), 3, "{all:#?}");
            assert!(all[0].at <= returned, "the first came after the end of the call: {all:#?}");
            assert!(all.iter().all(|seen| seen.source == mac), "{all:#?}");
            // The first ARP announcement is sent when the link comes up, and the first of IPv6 after the kernel's
            // detection. So the first pause of ARP may be longer.
            let detection = Duration::from_millis(300);
            for (gap, more) in gaps(&all).into_iter().zip([detection, Duration::ZERO]) {
                let most = Duration::from_millis(300) + more + late;
                assert!(gap >= Duration::from_millis(250) && gap <= most, "{gap:?}: {all:#?}");
            }
        }
    }

    /// RFC 5227, 2.3: a request for the own address, to all. RFC 4861, 7.2.6: an advertisement that overrides.
    fn repeated_announcements_are_like_the_first(site) {
        let wire = site.wire();
        let (container, _) = site.attach(&site.conf(2, 100));
        let seen = await_announcements(&wire, 2);
        let mac = container.link("eth0").mac;
        for seen in announcements(&seen, lan4(100)) {
            assert!(seen.is_broadcast(), "{seen:?}");
            assert!(matches!(&seen.frame, Frame::Arp { mac: sender, .. } if *sender == mac), "{seen:?}");
        }
        for seen in announcements(&seen, lan6(100)) {
            assert_eq!(seen.destination, "33:33:00:00:00:01", "{seen:?}");
            assert!(matches!(&seen.frame, Frame::Advertisement { mac: Some(own), .. } if *own == mac), "{seen:?}");
        }
    }

    /// The kernel announces an address only if it is there when the link comes up.
    fn an_address_on_a_link_that_ipam_has_set_up_is_announced_once(site) {
        let (wire, container) = (site.wire(), site.container());
        let conf = raising_ipam(site);
        site.plugin_with_fake(site.kind).add(&container, "eth0", &conf).run().result();
        let seen = wire.seen_before_answer(site.neighbour.v4, lan4(77));
        let all = announcements(&seen, lan4(77));
        assert_eq!(all.len(), 1, "{seen:#?}");
        assert!(all[0].is_broadcast() && all[0].source == container.link("eth0").mac, "{all:#?}");
    }

    fn an_address_on_a_link_that_ipam_has_set_up_is_announced_once_after_detection(site) {
        let (wire, container) = (site.wire(), site.container());
        let conf = with(raising_ipam(site), "detectIPConflict", json!(true));
        site.plugin_with_fake(site.kind).add(&container, "eth0", &conf).run().result();
        let seen = wire.seen_before_answer(site.neighbour.v4, lan4(77));
        assert_eq!(announcements(&seen, lan4(77)).len(), 1, "{seen:#?}");
        let probe = seen.iter().find(|seen| seen.frame.probes(lan4(77))).expect("a probe");
        let claim = seen.iter().find(|seen| seen.frame.comes_from(lan4(77))).expect("a claim");
        let listened = claim.at.duration_since(probe.at).unwrap_or_default();
        assert!(listened >= Duration::from_millis(180), "{listened:?}");
    }

    fn announcements_repeat_on_a_link_that_ipam_has_set_up(site) {
        let (wire, container) = (site.wire(), site.container());
        let conf = with(raising_ipam(site), "announce", json!({"count": 2, "interval": 100}));
        site.plugin_with_fake(site.kind).add(&container, "eth0", &conf).run().result();
        for _ in 0..2 {
            assert!(wire.wait_for(PATIENCE, |frame| frame.announces(lan4(77))).is_some());
        }
    }

    /// Its kernel announces IPv6 when the carrier comes, and does nothing for IPv4.
    fn a_carrier_that_comes_late_is_waited_for(site) {
        site.unplug();
        let (wire, container) = (site.wire(), site.container());
        let outcome = site.add(&container, &site.conf(2, 300));
        outcome.result();
        assert!(outcome.wall < Duration::from_secs(3) * slowness(), "{}", outcome.text());
        // The time without a carrier is a part of this test. Nothing may be sent in it.
        let (early, _) = wire.seen_within(Duration::from_secs(3), |_| false);
        let early = announcements(&early, lan4(100));
        assert!(early.is_empty(), "{early:#?}");
        assert_ne!(site.children(&container), [0; 0], "the child has given up");
        let plugged = SystemTime::now();
        site.plug_again();
        let seen = wire.seen_until(|frame| frame.announces(lan4(100)));
        let waited = seen[seen.len() - 1].at.duration_since(plugged).unwrap_or_default();
        show(&format!("{}: announced {waited:?} after the carrier", site.kind));
        assert!(waited < Duration::from_secs(2) * slowness(), "{waited:?}");
        site.await_no_child(&container, Duration::from_secs(3));
        let all = announcements(&[seen, site.seen(&wire)].concat(), lan4(100));
        assert_eq!(all.len(), 2, "{all:#?}");
        assert!(wire_has_both(site, &container), "{:?}", container.address_texts("eth0"));
    }

    /// Without a carrier, ADD cannot ask for the address. The announcement made all machines of the LAN send the packets of
    /// the other machine to the container.
    fn an_address_in_use_is_not_announced_after_a_late_carrier(site) {
        let other = site.machine(100);
        site.unplug();
        let (wire, container) = (site.wire(), site.container());
        let conf = with(site.conf(2, 300), "detectIPConflict", json!(true));
        site.add(&container, &conf).result();
        site.plug_again();
        wire.seen_until(|frame| frame.probes(lan4(100)));
        site.await_no_child(&container, Duration::from_secs(5));
        let mac = container.link("eth0").mac;
        let seen = wire.seen_before_answer(site.neighbour.v4, lan4(100));
        let claims: Vec<_> = announcements(&seen, lan4(100)).into_iter().filter(|seen| seen.source == mac).collect();
        assert!(claims.is_empty(), "{claims:#?}");
        drop(other);
    }

    fn a_free_address_is_announced_after_a_late_carrier_and_a_question(site) {
        site.unplug();
        let (wire, container) = (site.wire(), site.container());
        let conf = with(site.conf(2, 300), "detectIPConflict", json!(true));
        site.add(&container, &conf).result();
        site.plug_again();
        let seen = wire.seen_until(|frame| frame.announces(lan4(100)));
        assert!(seen.iter().any(|seen| seen.frame.probes(lan4(100))), "{seen:#?}");
        site.await_no_child(&container, Duration::from_secs(5));
    }
}

/// Returns true if the container has both addresses and the host has its carrier.
fn wire_has_both(site: &Site, container: &e2e::Container) -> bool {
    site.host.link(NIC).carrier && [lan4(100), lan6(100)].iter().all(|ip| container.has_address(*ip))
}
