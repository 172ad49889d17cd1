use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use ranges::Range;

const BOOT: &str = "boot-1";

fn ip(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(number).into()
}

/// All addresses from `first` to `last`.
fn set(first: IpAddr, last: IpAddr) -> Set {
    let subnet = ipnet::IpNet::new(first, 0).unwrap();
    Set::new("ipam.subnet".into(), vec![Range { subnet, first, last, typed: (first, last), gateway: first }])
}

fn whole(set: &Set) -> Span {
    set.turn(None)[0]
}

fn written(index: &mut Index, file: &File, released: &[(IpAddr, u64)]) -> Head {
    let old = Head::read(&Front::read(file), Some(BOOT)).unwrap_or_default();
    index.write(file, &old, 946_684_800, BOOT, released).unwrap()
}

fn read(file: &File) -> Index {
    Index::read(file, &Head::read(&Front::read(file), Some(BOOT)).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Marked and cleared in any order, over several blocks, written and read back on the way, it says what a set of
    /// addresses says.
    #[test]
    fn it_knows_what_is_taken(
        steps in prop::collection::vec((0u32..1200, any::<bool>(), prop::bool::weighted(0.1)), 1..300),
        // Up to anywhere, or to the end of a block.
        dense in prop_oneof![0u32..1200, (1..5u32).prop_map(|blocks| blocks * 256 - 16)],
        first in 0u32..1200, length in 0u32..1200, v6 in any::<bool>(),
    ) {
        let at = |number: u32| match v6 {
            true => Ipv6Addr::from_bits((0xfd << 120) + 0x10 + u128::from(number)).into(),
            false => ip(0x0a00_0010 + number),
        };
        let file = tempfile::tempfile().unwrap();
        let (mut index, mut model) = (Index::empty(), BTreeSet::new());
        for number in 0..dense {
            index.mark(at(number));
            model.insert(number);
        }
        for (number, taken, write) in steps {
            match taken {
                true => { index.mark(at(number)); model.insert(number); }
                false => { index.clear(at(number)); model.remove(&number); }
            }
            if write {
                written(&mut index, &file, &[]);
                index = read(&file);
            }
        }
        let set = set(at(first), at(first + length));
        let expected = (first..=first + length).find(|number| !model.contains(number)).map(at);
        prop_assert_eq!(index.first_free(&set, whole(&set)), expected);
    }

    /// Property: the last 1,024 releases read back, each address once. IPv4-mapped addresses read back as IPv4.
    #[test]
    fn what_was_released_reads_back(
        calls in prop::collection::vec((0..9_u64, prop::collection::vec(any::<u8>(), 0..500)), 1..6),
        spread in any::<bool>(), stamp in any::<i64>(), unrecorded in any::<bool>(), delay in 1..30_u64,
    ) {
        let (file, mut index, mut head) = (tempfile::tempfile().unwrap(), Index::empty(), Head::default());
        index.unrecorded = unrecorded;
        let (mut now, mut all) = (0, Vec::new());
        for (wait, released) in calls {
            now += wait;
            let start = if spread { all.len() as u32 } else { 0 };
            let address = |(at, byte): (usize, &u8)| match byte & 1 {
                0 => ip(start + at as u32),
                _ => Ipv6Addr::from_bits((0xfd << 120) + u128::from(*byte)).into(),
            };
            let released: Vec<_> = released.iter().enumerate().map(address).map(|ip| (ip, now)).collect();
            let written = index.write(&file, &head, stamp, BOOT, &released).unwrap();
            all.extend(released);
            head = Head::read(&Front::read(&file), Some(BOOT)).unwrap();
            prop_assert_eq!(format!("{head:?}"), format!("{written:?}"));
        }
        let fields = (head.stamp, head.boot.as_str(), head.unrecorded, head.blocks, head.rests);
        prop_assert_eq!(fields, (stamp, BOOT, unrecorded, 0, all.len() as u64));
        let mut expected: Vec<IpAddr> = Vec::new();
        for (ip, _) in all.iter().rev().take(1024).filter(|(_, second)| second + delay > now) {
            if !expected.contains(ip) {
                expected.insert(0, *ip);
            }
        }
        prop_assert_eq!(head.resting(&file, now, delay), expected);
    }
}

#[test]
fn both_families_have_their_own_places_up_to_the_very_last() {
    let mut index = Index::empty();
    let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
    let top = set(ip(u32::MAX - 1), ip(u32::MAX));
    index.mark(ip(u32::MAX));
    index.mark(ip(u32::MAX - 1));
    assert_eq!(index.first_free(&top, whole(&top)), None);
    let top = set(v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"), v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    assert_eq!(index.first_free(&top, whole(&top)), Some(v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe")));
    index.mark(v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"));
    assert_eq!(index.first_free(&top, whole(&top)), Some(v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
}

#[test]
fn scattered_addresses_take_bounded_room_and_dense_ones_stay_known() {
    let mut index = Index::empty();
    for number in 0..2000u32 {
        index.mark(ip(0x0a00_0000 + number));
    }
    for number in 0..3 * MAX_BLOCKS as u128 {
        index.mark(Ipv6Addr::from_bits(number << 64).into());
    }
    assert!(index.blocks.len() <= MAX_BLOCKS);
    let dense = set(ip(0x0a00_0000), ip(0x0a00_ffff));
    assert_eq!(index.first_free(&dense, whole(&dense)), Some(ip(0x0a00_0000 + 2000)));
    let file = tempfile::tempfile().unwrap();
    written(&mut index, &file, &[]);
    assert_eq!(read(&file).blocks, index.blocks);
}

#[test]
fn another_boot_or_a_broken_file_is_no_index() {
    let file = tempfile::tempfile().unwrap();
    assert!(Head::read(&Front::read(&file), Some(BOOT)).is_none());
    let mut index = Index::empty();
    index.mark(ip(7));
    let head = written(&mut index, &file, &[]);
    assert!(
        Head::read(&Front::read(&file), Some("boot-2")).is_none() && Head::read(&Front::read(&file), None).is_none()
    );
    assert!(Index::read(&file, &Head { blocks: 2, ..head.clone() }).is_none());
    assert!(Index::read(&file, &head).is_some());
    Head::erase(&file).unwrap();
    assert!(Head::read(&Front::read(&file), Some(BOOT)).is_none());
}

#[test]
fn a_count_of_releases_that_would_run_over_is_no_index() {
    let file = tempfile::tempfile().unwrap();
    let head = written(&mut Index::empty(), &file, &[]);
    for (rests, is_one) in [(u64::MAX / 2, true), (u64::MAX / 2 + 1, false), (u64::MAX, false)] {
        Head { rests, ..head.clone() }.write(&file).unwrap();
        assert_eq!(Head::read(&Front::read(&file), Some(BOOT)).is_some(), is_one, "{rests}");
    }
}

#[test]
fn releases_are_remembered_for_a_while_and_in_their_order() {
    let file = tempfile::tempfile().unwrap();
    let mut index = Index::empty();
    let head = written(&mut index, &file, &[(ip(1), 10), (ip(2), 20), (ip(1), 30)]);
    assert_eq!(head.resting(&file, 35, 20), [ip(2), ip(1)]);
    assert_eq!(head.resting(&file, 40, 20), [ip(1)]);
    assert!(head.resting(&file, 50, 20).is_empty());
    let many: Vec<_> = (0..RESTS as u32 + 5).map(|number| (ip(100 + number), 60)).collect();
    let resting = written(&mut index, &file, &many).resting(&file, 60, 100);
    assert_eq!((resting.len() as u64, resting[0]), (RESTS, ip(105)));
}
