//! The files of `conf-examples/`, and those of them that are not CNI's own, read as their programs read them.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::runtime::PAUSE_IMAGE;
use toml::{Table, Value};

/// The name of containerd's side for Kubernetes in its configuration.
const CRI: &str = "io.containerd.grpc.v1.cri";

/// The path of an example.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf-examples").join(name)
}

/// The names of all examples.
pub fn names() -> Vec<String> {
    let directory = path("");
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let names = entries.map(|entry| entry.expect("read a directory").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name != "README.md").collect();
    names.sort();
    names
}

/// An example in TOML.
pub fn toml(name: &str) -> Table {
    let path = path(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The example for containerd, for this machine.
pub fn containerd() -> String {
    for_this_machine(&toml("containerd.toml").to_string())
}

/// A configuration of containerd, and what this machine needs besides: an image that need not be fetched, a snapshotter
/// that asks nothing of the file system, and no change of OOM scores, which not everybody may make.
pub fn for_this_machine(recipe: &str) -> String {
    let mut recipe: Table = recipe.parse().unwrap_or_else(|e| panic!("{recipe}: {e}"));
    let cri = table(table(&mut recipe, "plugins"), CRI);
    assert!(cri.contains_key("cni"), "the example has nothing to say of CNI");
    cri.insert("sandbox_image".into(), PAUSE_IMAGE.into());
    cri.insert("restrict_oom_score_adj".into(), true.into());
    cri.insert("containerd".into(), Value::Table(Table::from_iter([("snapshotter".into(), "native".into())])));
    recipe.to_string()
}

fn table<'a>(table: &'a mut Table, key: &str) -> &'a mut Table {
    table.get_mut(key).and_then(Value::as_table_mut).unwrap_or_else(|| panic!("the example has no {key}"))
}
