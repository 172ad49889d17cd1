//! The files of `conf-examples/`, read as their programs read them.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::runtime::PAUSE_IMAGE;
use toml::{Table, Value};

/// The two plugins of containerd 2 that are its side for Kubernetes.
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";

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

/// A configuration of containerd, with three additions for this machine. The sandbox's image is one that is not
/// downloaded. The snapshotter works on every file system. OOM scores are not changed, because that needs a privilege.
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
