//! Loads kernel modules without modprobe, because a guest has no /lib/modules.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

/// The modules of one kernel, as depmod(8) lists them in modules.dep.
#[derive(Debug)]
pub(crate) struct Modules<'a> {
    directory: &'a Path,
    /// For each name: the file, and the files that must be loaded before it.
    table: BTreeMap<String, (String, Vec<String>)>,
    loaded: HashSet<String>,
}

impl<'a> Modules<'a> {
    pub(crate) fn read(directory: &'a Path) -> Result<Self, String> {
        let path = directory.join("modules.dep");
        let text = fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        Ok(Self { directory, table: table(&text), loaded: HashSet::new() })
    }

    /// Loads a module and its dependencies. A module that is built into the kernel has no file.
    pub(crate) fn load(&mut self, name: &str) -> Result<(), String> {
        let Some((file, dependencies)) = self.table.get(name).cloned() else { return Ok(()) };
        // The nearest dependency is the first in the list.
        for file in dependencies.iter().rev().chain([&file]) {
            if self.loaded.insert(file.clone()) {
                let path = self.directory.join(file);
                let opened = File::open(&path).map_err(|e| format!("open {}: {e}", path.display()))?;
                match finit_module(&opened, c"", ModuleInitFlags::empty()) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(format!("load {}: {errno}", path.display())),
                }
            }
        }
        Ok(())
    }
}

fn table(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let entry = |line: &str| {
        let (file, dependencies) = line.split_once(':')?;
        let name = file.rsplit('/').next()?.split('.').next()?.replace('-', "_");
        Some((name, (file.to_owned(), dependencies.split_whitespace().map(str::to_owned).collect())))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_names_files_and_dependencies() {
        let table = table("kernel/net/802/stp.ko:\nkernel/net/bridge/bridge.ko: kernel/net/802/stp.ko a/llc.ko\n");
        assert_eq!(table["stp"], ("kernel/net/802/stp.ko".into(), vec![]));
        assert_eq!(table["bridge"].1, ["kernel/net/802/stp.ko", "a/llc.ko"]);
    }
}
