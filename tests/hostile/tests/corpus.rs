//! Reads all files in `fuzz/seeds` as untrusted input. None may panic or take long.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hostile::KINDS;

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds");
const TARGETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/fuzz_targets");

/// Far more than any seed takes in a debug build on a busy machine.
const AT_MOST: Duration = Duration::from_secs(10);

fn names(folder: &str) -> Vec<String> {
    let mut names: Vec<_> =
        files(Path::new(folder)).iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn every_kind_has_a_fuzz_target_and_seeds() {
    let kinds = KINDS.map(|(name, _)| name);
    assert_eq!(names(SEEDS), kinds);
    assert_eq!(names(TARGETS), kinds);
}

#[test]
fn every_seed_is_read_and_answered() {
    for (name, read) in KINDS {
        let folder = Path::new(SEEDS).join(name);
        let (mut taken, mut refused) = (0, 0);
        for path in files(&folder) {
            let bytes = fs::read(&path).expect("read a seed");
            let begun = Instant::now();
            match read(&bytes) {
                true => taken += 1,
                false => refused += 1,
            }
            let took = begun.elapsed();
            assert!(took < AT_MOST, "{} took {took:?}", path.display());
        }
        // A fuzzer needs seeds that are accepted.
        assert!(taken > 2, "{name}: {taken} taken, {refused} refused");
        assert!(refused > 0, "{name}: {taken} taken, {refused} refused");
    }
}

/// Input is truncated on a full disk, or after the writer was killed.
#[test]
fn every_truncated_seed_is_read_and_answered() {
    for (name, read) in KINDS.iter().filter(|(name, _)| *name != "directory") {
        for path in files(&Path::new(SEEDS).join(name)) {
            let bytes = fs::read(path).expect("read a seed");
            let step = bytes.len() / 200 + 1;
            for end in (0..bytes.len()).step_by(step) {
                read(&bytes[..end]);
            }
        }
    }
}
