//! A case, the differences that it must show, and the comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::rig::{Rig, Roles, Step};
use super::rows::EVERYWHERE;
use crate::Binaries;

/// The same calls for both implementations.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub script: fn(&Rig),
    /// The expected differences: a row of docs/migrating.md, and words of the difference, with `*` between them. Each
    /// entry may match several differences, and must match at least one.
    pub differs: &'static [(&'static str, &'static str)],
}

impl Case {
    pub fn rows(&self) -> Vec<&'static str> {
        let mut rows: Vec<_> = self.differs.iter().map(|(row, _)| *row).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

/// The runs that are compared with the one in which the reference makes every call.
const RUNS: [(&str, Roles); 3] = [
    ("ours", Roles { adds: Binaries::HardLinks, ends: Binaries::HardLinks }),
    ("ours adds", Roles { adds: Binaries::HardLinks, ends: Binaries::Reference }),
    ("ours ends", Roles { adds: Binaries::Reference, ends: Binaries::HardLinks }),
];
const REFERENCE: Roles = Roles { adds: Binaries::Reference, ends: Binaries::Reference };

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    run: &'static str,
    step: String,
    key: String,
    theirs: Option<String>,
    ours: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, step, key, theirs, ours } = self;
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        write!(f, "[{run}] {step}: {key}: {} | {}", value(theirs), value(ours))
    }
}

/// Marks a difference that is not in every run, because the reference iterates over a Go map.
const PERHAPS: &str = "perhaps ";

/// Returns true if all words are in the text, in their order.
pub(super) fn matches(words: &str, text: &str) -> bool {
    let mut rest = text;
    words.trim_start_matches(PERHAPS).split('*').all(|word| match rest.find(word) {
        Some(at) => {
            rest = &rest[at + word.len()..];
            true
        }
        None => false,
    })
}

/// Runs a case in all combinations of the implementations. Panics if the differences are not the expected ones.
pub fn judge(case: &Case) {
    let theirs = run(case, REFERENCE);
    let differences: Vec<String> = RUNS
        .iter()
        .flat_map(|(name, roles)| compare(name, &theirs, &run(case, *roles)))
        .map(|one| one.to_string())
        .collect();
    let mut faults = Vec::new();
    // A difference in several calls or runs is reported once.
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for difference in &differences {
        let known = case.differs.iter().chain(EVERYWHERE).any(|(_, words)| matches(words, difference));
        if let (false, Some((place, what))) = (known, difference.split_once(": ")) {
            unknown.entry(what).or_default().push(place);
        }
    }
    faults.extend(unknown.iter().map(|(what, places)| format!("no row explains  {what}  {}", places.join(", "))));
    for (row, words) in case.differs.iter().filter(|(_, words)| !words.starts_with(PERHAPS)) {
        if !differences.iter().any(|difference| matches(words, difference)) {
            faults.push(format!("{row} no longer differs  {words}"));
        }
    }
    let known = differences.len();
    assert!(faults.is_empty(), "{} (reference | ours), {known} differences:\n{}", case.name, faults.join("\n"));
}

fn run(case: &Case, roles: Roles) -> Vec<Step> {
    let rig = Rig::new(roles);
    (case.script)(&rig);
    let steps = rig.into_steps();
    assert!(!steps.is_empty(), "{} makes no call", case.name);
    steps
}

fn compare(run: &'static str, theirs: &[Step], ours: &[Step]) -> Vec<Difference> {
    let names = |steps: &[Step]| steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>().join(", ");
    if names(theirs) != names(ours) {
        let (theirs, ours) = (Some(names(theirs)), Some(names(ours)));
        return vec![Difference { run, step: "all".to_owned(), key: "calls".to_owned(), theirs, ours }];
    }
    let mut differences = Vec::new();
    for (theirs, ours) in theirs.iter().zip(ours) {
        let mut found = |thing: &str, key: &str, theirs_value: Option<&String>, ours_value: Option<&String>| {
            let key = if key.is_empty() { thing.to_owned() } else { format!("{thing} {key}") };
            let (theirs_value, ours_value) = (theirs_value.cloned(), ours_value.cloned());
            differences.push(Difference {
                run,
                step: theirs.name.clone(),
                key,
                theirs: theirs_value,
                ours: ours_value,
            });
        };
        for thing in union(&theirs.facts.0, &ours.facts.0) {
            let here = "here".to_owned();
            match (theirs.facts.0.get(thing), ours.facts.0.get(thing)) {
                (Some(one), Some(other)) => {
                    let end = |facts: &BTreeMap<String, String>| facts.get("end").map(|end| end == "success");
                    // If one call failed and the other did not, only that is reported.
                    let all = end(one) == end(other);
                    for key in union(one, other)
                        .into_iter()
                        .filter(|key| (all || *key == "end") && one.get(*key) != other.get(*key))
                    {
                        found(thing, key, one.get(key), other.get(key));
                    }
                }
                (one, other) => found(thing, "", one.map(|_| &here), other.map(|_| &here)),
            }
        }
    }
    differences
}

fn union<'a, T>(one: &'a BTreeMap<String, T>, other: &'a BTreeMap<String, T>) -> BTreeSet<&'a String> {
    one.keys().chain(other.keys()).collect()
}

/// Makes a test of each body, and a table `CASES` of all of them.
///
/// `#[needs(Ipvlan)]` is as in [`crate::cases!`]. `#[differs("U17": "words*of it", ...)]` lists the expected
/// differences.
#[macro_export]
macro_rules! compliance {
    ($(
        $(#[doc = $doc:literal])*
        $(#[needs($($feature:ident),+)])?
        $(#[differs($($row:literal: $words:literal),+ $(,)?)])?
        fn $name:ident($rig:ident) $body:block
    )+) => {
        mod script {
            #[allow(unused_imports)]
            use super::*;
            $(
                $(#[doc = $doc])*
                pub(super) fn $name($rig: &$crate::compliance::Rig) $body
            )+
        }
        mod case {
            $(
                #[allow(non_upper_case_globals)]
                pub(super) const $name: $crate::compliance::Case = $crate::compliance::Case {
                    name: stringify!($name),
                    script: super::script::$name,
                    differs: &[$($(($row, $words)),+)?],
                };
            )+
        }
        pub(crate) const CASES: &[$crate::compliance::Case] = &[$(case::$name),+];
        $(
            #[test]
            fn $name() {
                if $crate::needs::here(&[$($($crate::needs::Feature::$feature),+)?]) {
                    $crate::compliance::judge(&case::$name);
                }
            }
        )+
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compliance::state::Facts;

    #[test]
    fn words_are_found_in_their_order() {
        let text = "[ours] 1 ADD: error.code: 999 | 7";
        assert!(matches("error.code: 999 | 7", text));
        assert!(matches("ADD*code*7", text));
        assert!(!matches("code*ADD", text));
        assert!(!matches("7*7", text));
    }

    #[test]
    fn a_difference_is_reported_with_both_values() {
        let step = |pairs: &[(&str, &str)]| {
            let mut facts = Facts::default();
            pairs.iter().for_each(|(key, value)| facts.add("link", key, (*value).to_owned()));
            vec![Step { name: "1 ADD".to_owned(), facts }]
        };
        let found =
            compare("ours", &step(&[("a", "1"), ("b", "2"), ("d", "4")]), &step(&[("b", "3"), ("c", "5"), ("d", "4")]));
        let found: Vec<_> = found.iter().map(Difference::to_string).collect();
        assert_eq!(
            found,
            ["[ours] 1 ADD: link a: 1 | -", "[ours] 1 ADD: link b: 2 | 3", "[ours] 1 ADD: link c: - | 5"]
        );
        let gone = compare("ours", &step(&[("a", "1"), ("b", "2")]), &step(&[]));
        assert_eq!(gone.iter().map(Difference::to_string).collect::<Vec<_>>(), ["[ours] 1 ADD: link: here | -"]);
        assert_eq!(compare("ours", &step(&[]), &[])[0].key, "calls");
    }
}
