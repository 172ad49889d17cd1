//! Checks licences, sources and duplicates of dependencies against deny.toml, without cargo-deny and without a network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn rules() -> toml::Table {
    let text = std::fs::read_to_string(Path::new(ROOT).join("deny.toml")).expect("read deny.toml");
    text.parse().expect("deny.toml is TOML")
}

fn texts(rules: &toml::Table, table: &str, key: &str) -> Vec<String> {
    let list = rules[table][key].as_array().expect("a list");
    list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// The packages that are compiled for one of the targets of deny.toml.
fn packages(rules: &toml::Table) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--locked", "--format-version", "1", "--all-features"]).current_dir(ROOT);
    for target in texts(rules, "graph", "targets") {
        command.args(["--filter-platform", &target]);
    }
    let output = command.output().expect("start cargo");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or_default()
}

/// The packages whose licence is not allowed.
fn refused(packages: &[Value], allowed: &[String]) -> Vec<String> {
    let is_met = |package: &&Value| {
        let expression = Expression::parse_mode(text(package, "license"), ParseMode::LAX);
        // An exception only gives more rights.
        let is_allowed = |licence: &spdx::LicenseReq| {
            licence.license.id().is_some_and(|id| allowed.iter().any(|allowed| allowed == id.name))
        };
        !expression.is_ok_and(|expression| expression.evaluate(is_allowed))
    };
    let name = |package: &Value| format!("{} ({})", text(package, "name"), text(package, "license"));
    packages.iter().filter(is_met).map(name).collect()
}

#[test]
fn every_licence_is_allowed() {
    let rules = rules();
    let packages = packages(&rules);
    let allowed = texts(&rules, "licenses", "allow");
    assert!(packages.len() > 20, "{}", packages.len());
    assert_eq!(refused(&packages, &allowed), [""; 0]);
    // Each allowed licence is needed by a package.
    for missing in &allowed {
        let rest: Vec<_> = allowed.iter().filter(|one| *one != missing).cloned().collect();
        assert_ne!(refused(&packages, &rest), [""; 0], "no package needs {missing}: remove it from deny.toml");
    }
}

#[test]
fn every_package_is_ours_or_from_an_allowed_registry() {
    let rules = rules();
    let allowed: BTreeSet<_> =
        texts(&rules, "sources", "allow-registry").iter().map(|url| format!("registry+{url}")).collect();
    for package in packages(&rules) {
        match package["source"].as_str() {
            Some(source) => assert!(allowed.contains(source), "{} is from {source}", text(&package, "name")),
            None => {
                let path = Path::new(text(&package, "manifest_path")).to_owned();
                let root = Path::new(ROOT).canonicalize().expect("the repository");
                assert!(path.starts_with(&root), "{} is outside of the repository", path.display());
            }
        }
    }
}

#[test]
fn only_packages_with_a_reason_have_two_versions() {
    let rules = rules();
    let skipped = rules["bans"]["skip"].as_array().expect("a list");
    let skipped: BTreeSet<String> = skipped
        .iter()
        .map(|entry| entry.get("crate").unwrap_or(entry).as_str().expect("a crate").to_owned())
        .map(|text| text.split('@').next().unwrap_or_default().to_owned())
        .collect();
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages(&rules) {
        let of = versions.entry(text(&package, "name").to_owned()).or_default();
        of.insert(text(&package, "version").to_owned());
    }
    versions.retain(|_, versions| versions.len() > 1);
    let names: BTreeSet<_> = versions.keys().cloned().collect();
    assert_eq!(names, skipped, "{versions:?}");
}
