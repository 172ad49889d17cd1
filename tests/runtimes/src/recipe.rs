//! Reads the files of `conf-examples/`.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::runtime::PAUSE_IMAGE;
use toml::{Table, Value};

/// The two plugins of containerd 2 for the CRI.
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";

/// The path of an example.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf-examples").join(name)
}

pub fn names() -> Vec<String> {
    let directory = path("");
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let names = entries.map(|entry| entry.expect("read a directory").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name != "README.md").collect();
    names.sort();
    names
}

pub fn text(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// An example in JSON.
pub fn list(name: &str) -> serde_json::Value {
    serde_json::from_str(&text(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// An example in TOML.
pub fn toml(name: &str) -> Table {
    text(name).parse().unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub fn containerd() -> String {
    for_this_machine(&toml("containerd.toml").to_string())
}

/// Adds three settings to a configuration of containerd: a sandbox image that need not be downloaded, a snapshotter for
/// every file system, and no change of OOM scores, which would need a privilege.
pub fn for_this_machine(recipe: &str) -> String {
    let mut recipe: Table = recipe.parse().unwrap_or_else(|e| panic!("{recipe}: {e}"));
    let plugins = table(&mut recipe, "plugins");
    let runtime = table(plugins, CRI_RUNTIME);
    assert!(runtime.contains_key("cni"), "the configuration says nothing about CNI");
    runtime.insert("restrict_oom_score_adj".into(), true.into());
    let pinned = Table::from_iter([("sandbox".into(), PAUSE_IMAGE.into())]);
    let images = [("pinned_images".into(), Value::Table(pinned)), ("snapshotter".into(), "native".into())];
    plugins.insert(CRI_IMAGES.into(), Value::Table(Table::from_iter(images)));
    recipe.to_string()
}

fn table<'a>(table: &'a mut Table, key: &str) -> &'a mut Table {
    table.get_mut(key).and_then(Value::as_table_mut).unwrap_or_else(|| panic!("the example has no {key}"))
}
