use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const BOOT: &str = "5f0a1c9e-8d1b-4a7e-9c55-000000000001";

fn ip(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn kept(ip: IpAddr, seconds: u64) -> Kept {
    Kept { ip, mac: Some(Mac::from([0x52, 0x54, 0, 0, 0, 7])), seconds }
}

fn slots(file: &File, boot: &str, now: u64) -> Slots {
    Slots::read(file, &Front::read(file), boot, now)
}

fn live(file: &File, now: u64) -> Vec<IpAddr> {
    slots(file, BOOT, now).live().iter().map(|kept| kept.ip).collect()
}

#[test]
fn an_address_is_kept_until_its_time_is_over_and_has_one_slot() {
    let file = tempfile::tempfile().unwrap();
    slots(&file, BOOT, 100).keep(&file, &[kept(ip(1), 60), Kept { mac: None, ..kept(ip(2), 10) }]).unwrap();
    let both = [kept(ip(1), 55), Kept { mac: None, ..kept(ip(2), 5) }];
    assert_eq!(slots(&file, BOOT, 105).live(), both);
    assert_eq!(live(&file, 109), [ip(1), ip(2)]);
    assert_eq!(live(&file, 110), [ip(1)]);
    assert!(live(&file, 160).is_empty());
    // A new report replaces the old one, and uses a slot again.
    slots(&file, BOOT, 110).keep(&file, &[kept(ip(1), 90), kept(ip(3), 90)]).unwrap();
    assert_eq!(Front::read(&file).kept(), 2);
    assert_eq!(live(&file, 199), [ip(1), ip(3)]);
    clear(&file).unwrap();
    assert_eq!(Front::read(&file).kept(), 0);
    assert!(live(&file, 110).is_empty());
}

#[test]
fn a_reboot_ends_the_time_and_another_machine_loses_nothing() {
    let file = tempfile::tempfile().unwrap();
    let other = "5f0a1c9e-8d1b-4a7e-9c54-000000000002";
    slots(&file, BOOT, 100).keep(&file, &[kept(ip(1), 600)]).unwrap();
    assert!(!slots(&file, BOOT, 100).has_foreign());
    let mut theirs = slots(&file, other, 5);
    assert!(theirs.live().is_empty() && theirs.has_foreign());
    theirs.keep(&file, &[kept(ip(1), 600), kept(ip(2), 600)]).unwrap();
    assert_eq!(live(&file, 100), [ip(1)]);
    assert_eq!(slots(&file, other, 5).live(), [kept(ip(1), 600), kept(ip(2), 600)]);
}

#[test]
fn if_all_slots_are_in_use_the_address_whose_time_ends_first_gives_way() {
    let file = tempfile::tempfile().unwrap();
    let all: Vec<_> = (0..SLOTS as u32).map(|number| kept(ip(number), 1000 - u64::from(number))).collect();
    slots(&file, BOOT, 0).keep(&file, &all).unwrap();
    slots(&file, BOOT, 0).keep(&file, &[kept(ip(999), 600)]).unwrap();
    let live = live(&file, 0);
    assert_eq!((live.len(), live.contains(&ip(255)), live.contains(&ip(999))), (SLOTS, false, true));
}

#[test]
fn a_file_without_slots_and_a_count_that_cannot_be_right_have_no_addresses() {
    let file = tempfile::tempfile().unwrap();
    assert!(live(&file, 0).is_empty());
    for count in [1, SLOTS as u64, SLOTS as u64 + 1, u64::MAX] {
        file.write_all_at(&count.to_le_bytes(), KEPT_COUNT_AT).unwrap();
        assert!(live(&file, 0).is_empty());
    }
    // A slot of a file with other content is of no boot.
    file.write_all_at(&[b'x'; 2 * SLOT], KEPT_AT).unwrap();
    write_count(&file, 2).unwrap();
    assert!(live(&file, 0).is_empty());
}

/// A slot is written before the count.
#[test]
fn a_call_that_is_killed_before_the_count_has_written_nothing() {
    assert_eq!(KEPT_AT % SLOT as u64, 0);
    let file = tempfile::tempfile().unwrap();
    let slot = Slot { ip: ip(1), mac: None, until: 600, boot: prefix(BOOT) };
    file.write_all_at(&slot.bytes(), KEPT_AT).unwrap();
    assert!(live(&file, 0).is_empty());
    write_count(&file, 1).unwrap();
    assert_eq!(live(&file, 0), [ip(1)]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Fewer addresses than slots, so that none gives way.
    #[test]
    fn what_is_kept_reads_back(
        steps in prop::collection::vec((any::<bool>(), 0..100_u32, any::<Option<[u8; 6]>>(), 0..50_u64, 0..9_u64), 1..200),
    ) {
        let (file, mut now, mut model) = (tempfile::tempfile().unwrap(), 0, HashMap::new());
        for (v4, number, mac, seconds, wait) in steps {
            let ip = if v4 { ip(number) } else { Ipv6Addr::from_bits((0xfd << 120) + u128::from(number)).into() };
            let mac = mac.map(Mac::from);
            slots(&file, BOOT, now).keep(&file, &[Kept { ip, mac, seconds }]).unwrap();
            model.insert(ip, (mac, now + seconds));
            now += wait;
            model.retain(|_, (_, until)| *until > now);
            let live = slots(&file, BOOT, now).live();
            let found: HashMap<_, _> = live.iter().map(|its| (its.ip, (its.mac, now + its.seconds))).collect();
            prop_assert_eq!(live.len(), found.len());
            prop_assert_eq!(&found, &model);
        }
    }
}
