//! Builds the test executables with cargo, and reads their paths from cargo's output.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lane::Lane;

/// One test executable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Executable {
    /// Package and target: `e2e/macvlan` for integration tests, `attach/lib` and `e2e/bin/lanes` for unit tests.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
}

/// Builds the executables of a lane, or of all lanes, that can have tests with one of these words in their names.
///
/// cargo always gets all packages, because it selects the features of dependencies by the given packages. Otherwise it
/// would compile the dependencies twice.
pub(crate) fn build(lane: Option<Lane>, words: &[String]) -> Result<Vec<Executable>, String> {
    let mut arguments =
        vec!["test", "--locked", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"];
    let metadata = cargo(&["metadata", "--locked", "--no-deps", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    let selected = selected(&metadata, lane, words);
    if selected.as_ref().is_some_and(BTreeSet::is_empty) {
        return Ok(Vec::new());
    }
    if selected.is_some() && lane.is_none_or(|lane| lane == Lane::Unit) {
        // A test runs an example. If targets are selected, cargo does not build examples.
        cargo(&["build", "--locked", "--workspace", "--examples"])?;
    }
    arguments.extend(selected.iter().flatten().map(String::as_str));
    let output = cargo(&arguments)?;
    let mut executables: Vec<_> = output.lines().filter_map(|line| artifact(line.trim())).collect();
    executables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(executables)
}

/// Returns the standard output of cargo. Its progress and its errors go to the terminal.
fn cargo(arguments: &[&str]) -> Result<String, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("start {}: {e}", cargo.to_string_lossy()))?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", arguments[0], output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The options of cargo that select targets. `None` selects all.
fn selected(metadata: &Value, lane: Option<Lane>, words: &[String]) -> Option<BTreeSet<String>> {
    let named: Option<Vec<&str>> = words.iter().map(|word| executable_in(word)).collect();
    let named = named.filter(|named| !named.is_empty());
    if lane.is_none() && named.is_none() {
        return None;
    }
    let mut options = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let Some(name) = name_of(package["name"].as_str(), target) else { continue };
            let is_wanted = lane.is_none_or(|lane| lane.runs(&name))
                && named.as_ref().is_none_or(|named| named.iter().any(|part| name.ends_with(part)));
            if is_wanted {
                options.insert(match target["kind"][0].as_str() {
                    Some("test") => format!("--test={}", target["name"].as_str().unwrap_or_default()),
                    Some("bin") => "--bins".into(),
                    _ => "--lib".into(),
                });
            }
        }
    }
    Some(options)
}

/// The executable in a word such as `e2e/macvlan:` or `e2e/macvlan: mode_vepa`.
fn executable_in(word: &str) -> Option<&str> {
    let name = word.split_once(": ").map(|(name, _)| name).or_else(|| word.strip_suffix(':'))?;
    (!name.contains(':')).then_some(name)
}

/// The name of the executable with a target's tests. `None` if the target has no tests.
fn name_of(package: Option<&str>, target: &Value) -> Option<String> {
    if target["test"] == false {
        return None;
    }
    let (package, target, kind) = (package?, target["name"].as_str()?, target["kind"][0].as_str()?);
    match kind {
        "lib" => Some(format!("{package}/lib")),
        "bin" => Some(format!("{package}/bin/{target}")),
        "test" => Some(format!("{package}/{target}")),
        _ => None,
    }
}

/// The executable in a line of cargo's output. (The Cargo Book, "External tools", artifact messages)
fn artifact(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["profile"]["test"] != true {
        return None;
    }
    let program = message["executable"].as_str()?;
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let folder = manifest.parent()?;
    let name = name_of(Some(package(message["package_id"].as_str()?, folder)?), &message["target"])?;
    Some(Executable { name, program: program.into(), folder: folder.to_owned() })
}

/// The name of a package. Its ID only has the name if the folder has another. (The Cargo Book, "Package ID
/// Specifications")
fn package<'a>(id: &'a str, folder: &'a Path) -> Option<&'a str> {
    let fragment = id.rsplit_once('#')?.1;
    match fragment.split_once('@') {
        Some((name, _)) => Some(name),
        None => folder.file_name()?.to_str(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_test_executables_are_selected() {
        let line = |kind: &str, test: bool| {
            json!({
                "reason": "compiler-artifact",
                "package_id": "path+file:///src/crates/linux#0.1.0",
                "manifest_path": "/src/crates/linux/Cargo.toml",
                "target": {"kind": [kind], "name": "kernel"},
                "profile": {"test": test},
                "executable": "/target/debug/deps/kernel-1",
            })
            .to_string()
        };
        let expected = Executable {
            name: "linux/kernel".into(),
            program: "/target/debug/deps/kernel-1".into(),
            folder: "/src/crates/linux".into(),
        };
        assert_eq!(artifact(&line("test", true)), Some(expected));
        assert_eq!(artifact(&line("bin", true)).map(|bin| bin.name), Some("linux/bin/kernel".into()));
        assert_eq!(artifact(&line("bin", false)), None);
        assert_eq!(artifact(&line("bin", true).replace("\"kind\"", "\"test\":false,\"kind\"")), None);
        assert_eq!(artifact("   Compiling linux"), None);
    }

    #[test]
    fn a_package_has_its_name_if_its_folder_has_another() {
        let name = |id: &'static str| package(id, Path::new("/src/tests"));
        assert_eq!(name("path+file:///src/tests#e2e@0.1.0"), Some("e2e"));
        assert_eq!(name("path+file:///src/tests#0.1.0"), Some("tests"));
    }

    #[test]
    fn only_the_targets_of_the_lane_and_of_the_words_are_built() {
        let target = |kind: &str, name: &str| json!({"kind": [kind], "name": name});
        let metadata = json!({"packages": [
            {"name": "attach", "targets": [target("lib", "attach"), target("test", "panic")]},
            {"name": "e2e", "targets": [target("lib", "e2e"), target("bin", "lanes"), target("test", "macvlan"),
                target("test", "del"), target("test", "compliance")]},
        ]});
        let options = |lane: Option<Lane>, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            selected(&metadata, lane, &words).map(|options| options.into_iter().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(options(None, &[]), None);
        assert_eq!(options(None, &["mtu"]), None);
        assert_eq!(options(None, &["hard_links::mtu"]), None);
        assert_eq!(options(None, &["e2e/no-such:"]).as_deref(), Some(""));
        assert_eq!(options(None, &["e2e/macvlan:"]).as_deref(), Some("--test=macvlan"));
        assert_eq!(options(None, &["macvlan: hard_links::mtu", "del:"]).as_deref(), Some("--test=del --test=macvlan"));
        assert_eq!(options(Some(Lane::Native), &[]).as_deref(), Some("--test=del --test=macvlan"));
        assert_eq!(options(Some(Lane::Native), &["mtu"]).as_deref(), Some("--test=del --test=macvlan"));
        assert_eq!(options(Some(Lane::Unit), &[]).as_deref(), Some("--bins --lib --test=panic"));
    }
}
