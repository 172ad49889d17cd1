//! Random sequences of commands, compared with a model of the directory: no address is leased twice, outside of the
//! ranges or to a gateway, and no lease of a container is lost.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Network, attachment};

const OWNERS: u8 = 8;
const SETS: [&[&str]; 2] = [&["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.1.0.2"], &["fd00::2", "fd00::3"]];

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    /// Asks for one of the addresses of the first set.
    AddRequested(u8, usize),
    Del(u8),
    /// The owners that are valid, as bits.
    Gc(u8),
    /// A crash of the reference between creating a file and writing it, where nothing is there yet.
    Torn(usize, usize),
    /// A crash of ours before the link.
    Temporary(u8),
    /// An edit by hand.
    Hint(String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = || 0..OWNERS;
    let hints = vec!["10.0.0.4", "10.1.0.2", "10.9.9.9", "fd00::1", "", "nonsense"];
    let step = prop_oneof![
        8 => owner().prop_map(Step::Add),
        2 => (owner(), 0..SETS[0].len()).prop_map(|(owner, at)| Step::AddRequested(owner, at)),
        5 => owner().prop_map(Step::Del),
        1 => any::<u8>().prop_map(Step::Gc),
        2 => (0..SETS.len(), 0..SETS[1].len()).prop_map(|(set, at)| Step::Torn(set, at)),
        1 => owner().prop_map(Step::Temporary),
        1 => prop::sample::select(hints).prop_map(|hint| Step::Hint(hint.into())),
    ];
    prop::collection::vec(step, 1..40)
}

/// Address to owner. `None` for an incomplete lease.
type Model = BTreeMap<String, Option<u8>>;

fn id(owner: u8) -> String {
    format!("c{owner}")
}

/// Compares an ADD with the model, and updates the model.
fn add(network: &Network, model: &mut Model, owner: u8, request: Option<&str>) -> Result<(), TestCaseError> {
    let args = request.map(|ip| format!("IP={ip}")).unwrap_or_default();
    let held = |model: &Model, set: &[&str]| -> Option<String> {
        model.iter().find(|(ip, its)| **its == Some(owner) && set.contains(&ip.as_str())).map(|(ip, _)| ip.clone())
    };
    match network.call(|call| crate::add(&network.machine, call, &attachment(&id(owner), "eth0", &args))) {
        Ok(result) => {
            prop_assert_eq!(result.ips.len(), SETS.len());
            for (set, ip) in SETS.iter().zip(result.ips) {
                let ip = ip.address.addr().to_string();
                prop_assert!(set.contains(&ip.as_str()), "{} is not for leasing", ip);
                if let Some(held) = held(model, set) {
                    prop_assert_eq!(&held, &ip);
                }
                if let Some(request) = request.filter(|request| set.contains(request)) {
                    prop_assert_eq!(request, &ip);
                }
                let free = set.iter().any(|ip| !model.contains_key(*ip));
                match model.get(&ip) {
                    Some(Some(other)) => prop_assert_eq!(*other, owner, "{} twice", ip),
                    // An incomplete lease is freed only if the range is full, or if its address was requested.
                    Some(None) => prop_assert!(!free || request == Some(ip.as_str()), "{} was reclaimed early", ip),
                    None => {}
                }
                if !free && model.get(&ip) == Some(&None) && request != Some(ip.as_str()) {
                    model.retain(|ip, its| its.is_some() || !set.contains(&ip.as_str()));
                }
                model.insert(ip, Some(owner));
            }
        }
        Err(error) => {
            let taken = |ip: &str| model.get(ip).is_some_and(|its| its.is_some_and(|its| its != owner));
            let full = |set: &&&[&str]| held(model, set).is_none() && set.iter().all(|ip| taken(ip));
            let other = request.is_some() && held(model, SETS[0]).is_some_and(|held| Some(held.as_str()) != request);
            match error.code.0 {
                101 => prop_assert!(request.is_some_and(taken) || SETS.iter().any(|set| full(&set)), "{}", error),
                7 => prop_assert!(other, "{}", error),
                _ => prop_assert!(false, "{}", error),
            }
            // Incomplete leases may have been freed.
            let left = network.leases();
            model.retain(|ip, its| its.is_some() || left.contains_key(ip));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn directory_and_model_agree(steps in steps()) {
        let mut network = Network::new(json!({"ranges": [
            [{"subnet": "10.0.0.0/29", "rangeEnd": "10.0.0.4"}, {"subnet": "10.1.0.0/30"}],
            [{"subnet": "fd00::/64", "rangeEnd": "fd00::3"}],
        ]}));
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Add(owner) => add(&network, &mut model, owner, None)?,
                Step::AddRequested(owner, at) => add(&network, &mut model, owner, Some(SETS[0][at]))?,
                Step::Del(owner) => {
                    network.del(&id(owner)).unwrap();
                    model.retain(|_, its| *its != Some(owner));
                }
                Step::Gc(valid) => {
                    let valid: BTreeSet<u8> = (0..OWNERS).filter(|owner| valid & (1 << owner) != 0).collect();
                    let entry = |owner: &u8| json!({"containerID": id(*owner), "ifname": "eth0"});
                    network.conf["cni.dev/valid-attachments"] = valid.iter().map(entry).collect::<Value>();
                    network.gc().unwrap();
                    model.retain(|_, its| its.is_some_and(|its| valid.contains(&its)));
                }
                Step::Torn(set, at) => {
                    if let std::collections::btree_map::Entry::Vacant(free) = model.entry(SETS[set][at].to_owned()) {
                        network.put(free.key(), "");
                        free.insert(None);
                    }
                }
                Step::Temporary(owner) => network.put(".lease.tmp", &format!("{}\r\neth0", id(owner))),
                Step::Hint(hint) => network.put("last_reserved_ip.0", &hint),
            }
            let content = |its: &Option<u8>| its.map(|owner| format!("{}\r\neth0", id(owner))).unwrap_or_default();
            let expected: BTreeMap<_, _> = model.iter().map(|(ip, its)| (ip.clone(), content(its))).collect();
            prop_assert_eq!(network.leases(), expected);
        }
    }
}
