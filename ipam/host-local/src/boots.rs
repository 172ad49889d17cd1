//! Which boot a lease is from: the running one, an earlier one of this machine, or one of another machine that shares the
//! directory.

use std::cell::{Cell, OnceCell};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::record::{Record, is_prefix};

/// The number of boots that are noted. Leases from earlier boots are freed by DEL and GC only.
const NOTED: usize = 100;

/// The boots that a lease in one directory can be from.
#[derive(Debug)]
pub(crate) struct Boots {
    /// The id of the running boot.
    now: Option<String>,
    folder: PathBuf,
    list: PathBuf,
    is_shared: OnceCell<bool>,
    noted: OnceCell<io::Result<Vec<String>>>,
    has_noted: Cell<bool>,
}

/// The file with the identity of this machine, which a clone of its disk does not have.
const IDENTITY: &str = "/sys/class/dmi/id/product_uuid";

/// The beginning of the line with that identity.
const MACHINE: &str = "machine ";

impl Boots {
    /// `folder` is the directory of leases. `list` is the file in which this machine notes its boots.
    pub(crate) fn new(now: Option<String>, folder: &Path, list: &Path) -> Self {
        Self {
            now,
            folder: folder.to_owned(),
            list: list.to_owned(),
            is_shared: OnceCell::new(),
            noted: OnceCell::new(),
            has_noted: Cell::new(false),
        }
    }

    /// The id of the running boot.
    pub(crate) fn now(&self) -> Option<&str> {
        self.now.as_deref()
    }

    /// The id for a lease that has no record yet. `None` if another machine may have made the lease.
    pub(crate) fn of_unrecorded(&self) -> Option<&str> {
        self.now().filter(|_| !self.is_shared())
    }

    /// Returns true if the leases are from before a reboot of this machine, so that their containers are gone.
    pub(crate) fn is_past(&self, record: &Record) -> bool {
        let (Some(then), Some(now)) = (&record.boot, self.now()) else { return false };
        !is_prefix(then, now) && self.was_here(record, then)
    }

    /// Returns true if the lease with this record may be of another machine.
    pub(crate) fn may_be_foreign(&self, record: Option<&Record>) -> bool {
        match record.and_then(|record| Some((record, record.boot.as_deref()?))) {
            Some((record, then)) => !self.now().is_some_and(|now| is_prefix(then, now)) && !self.was_here(record, then),
            None => self.is_shared(),
        }
    }

    /// The owner's network namespace, if the record is of the running boot. Another boot gives the number to others.
    pub(crate) fn netns(&self, record: &Record) -> Option<u64> {
        let (Some(then), Some(now)) = (&record.boot, self.now()) else { return None };
        record.netns.filter(|_| is_prefix(then, now))
    }

    /// Notes the running boot, if other machines may share the directory. Does nothing if it is noted already.
    pub(crate) fn note(&self) -> Result<(), Error> {
        let Some(now) = self.now().filter(|_| self.is_shared() && !self.has_noted.get()) else { return Ok(()) };
        let failed = |error: io::Error| Error::io("write", &self.list)(error);
        // If the list cannot be read, a new one would not have the boots before.
        let noted = self.noted().as_ref().map_err(|error| failed(io::Error::new(error.kind(), error.to_string())))?;
        if !noted.iter().any(|boot| boot == now) {
            let kept = &noted[noted.len().saturating_sub(NOTED - 1)..];
            let boots = kept.iter().map(String::as_str).chain([now]).map(|boot| format!("{boot}\n"));
            let text = format!("{MACHINE}{}\n{}", identity(), boots.collect::<String>());
            replace(&self.list, &text).map_err(failed)?;
        }
        self.has_noted.set(true);
        Ok(())
    }

    /// Returns true if other machines may share the directory. In doubt, they may.
    pub(crate) fn is_shared(&self) -> bool {
        *self.is_shared.get_or_init(|| !linux::file::is_local(&self.folder).unwrap_or(false))
    }

    /// Returns true if an earlier boot, from which the record is, was one of this machine. A machine that sees the
    /// directory as shared marks its records. So a machine that exports its own disk knows them.
    fn was_here(&self, record: &Record, boot: &str) -> bool {
        match self.is_shared() || record.is_shared {
            true => self.noted().as_ref().is_ok_and(|noted| noted.iter().any(|its| is_prefix(boot, its))),
            false => true,
        }
    }

    fn noted(&self) -> &io::Result<Vec<String>> {
        self.noted.get_or_init(|| read(&self.list, &identity()))
    }
}

/// The identity of this machine. Virtual machines and boards have one of their own. `-` if there is none.
fn identity() -> String {
    fs::read_to_string(IDENTITY).map_or_else(|_| "-".to_owned(), |text| text.trim().to_owned())
}

/// Reads the list, the oldest boot first. A list of another machine, or one on a file system that other machines may
/// share, counts as empty.
fn read(list: &Path, identity: &str) -> io::Result<Vec<String>> {
    let text = match fs::read_to_string(list) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        text => text?,
    };
    if !linux::file::is_local(list)? {
        return Ok(Vec::new());
    }
    let is_other = text.lines().next().and_then(|line| line.strip_prefix(MACHINE)).is_some_and(|its| its != identity);
    let boots = text.lines().filter(|line| !line.starts_with(MACHINE) && !is_other);
    Ok(boots.map(str::to_owned).collect())
}

/// Replaces a file by rename. Parallel calls are of the same boot and write the same text, so they can share the
/// temporary file.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    if !linux::file::is_local(folder)? {
        return Err(io::Error::other("other machines may share its file system"));
    }
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    // A lost list would keep the leases of this boot for good.
    file.sync_all()?;
    match fs::rename(&temporary, path) {
        Err(error) if error.kind() == ErrorKind::NotFound && path.exists() => {}
        renamed => renamed?,
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0b3c1d2e-4f5a-6b7c-8d9e-0f1a2b3c4d5e";
    const SECOND: &str = "9b3c1d2e-4f5a-6b7c-8d9e-0f1a2b3c4d5e";
    const FOREIGN: &str = "5b3c1d2e-4f5a-6b7c-8d9e-0f1a2b3c4d5e";

    fn record(boot: Option<&str>) -> Record {
        Record::new(boot, false, Some(7), Vec::new())
    }

    /// For leases on a file system that other machines may share.
    fn shared(now: &str, list: &Path) -> Boots {
        Boots::new(Some(now.to_owned()), Path::new("/proc"), list)
    }

    #[test]
    fn in_a_directory_of_one_machine_every_other_boot_is_past() {
        let folder = tempfile::tempdir().unwrap();
        let boots = Boots::new(Some(FIRST.to_owned()), folder.path(), &folder.path().join("boots"));
        assert!(boots.is_past(&record(Some(SECOND))) && !boots.is_past(&record(Some(FIRST))));
        assert!(!boots.is_past(&record(None)) && !boots.may_be_foreign(None));
        assert_eq!((boots.netns(&record(Some(FIRST))), boots.netns(&record(Some(SECOND)))), (Some(7), None));
        boots.note().unwrap();
        assert!(!folder.path().join("boots").exists());
        let unknown = Boots::new(None, folder.path(), Path::new("/nonexistent"));
        assert!(!unknown.is_past(&record(Some(FIRST))));
    }

    /// The disk of one machine can be shared by others, for example with NFS. Their records are marked.
    #[test]
    fn in_a_directory_that_this_machine_exports_the_leases_of_others_are_never_past() {
        let folder = tempfile::tempdir().unwrap();
        let boots = Boots::new(Some(FIRST.to_owned()), folder.path(), &folder.path().join("boots"));
        let foreign = Record { is_shared: true, ..record(Some(FOREIGN)) };
        assert!(!boots.is_past(&foreign) && boots.may_be_foreign(Some(&foreign)));
        assert!(boots.is_past(&record(Some(SECOND))));
    }

    /// The list of a running machine is on the disk of its clone too.
    #[test]
    fn the_list_of_another_machine_counts_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("boots");
        fs::write(&list, format!("{MACHINE}another\n{FIRST}\n")).unwrap();
        let boots = shared(SECOND, &list);
        assert!(!boots.is_past(&record(Some(FIRST))));
        boots.note().unwrap();
        assert_eq!(fs::read_to_string(&list).unwrap(), format!("{MACHINE}{}\n{SECOND}\n", identity()));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("boots");
        fs::write(&list, [0xff, 0xfe]).unwrap();
        shared(FIRST, &list).note().unwrap_err();
        assert_eq!(fs::read(&list).unwrap(), [0xff, 0xfe]);
    }

    #[test]
    fn in_a_shared_directory_only_a_noted_boot_of_this_machine_is_past() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("underlay/boots");
        shared(FIRST, &list).note().unwrap();
        let boots = shared(SECOND, &list);
        boots.note().unwrap();
        assert_eq!(fs::read_to_string(&list).unwrap(), format!("{MACHINE}{}\n{FIRST}\n{SECOND}\n", identity()));
        assert!(boots.is_past(&record(Some(FIRST))));
        for foreign in [Some(FOREIGN), None] {
            assert!(!boots.is_past(&record(foreign)) && boots.may_be_foreign(Some(&record(foreign))), "{foreign:?}");
        }
        assert!(boots.may_be_foreign(None) && boots.of_unrecorded().is_none());
        assert!([FIRST, SECOND].iter().all(|boot| !boots.may_be_foreign(Some(&record(Some(boot))))));
        shared(SECOND, &list).note().unwrap();
        assert_eq!(fs::read_to_string(&list).unwrap(), format!("{MACHINE}{}\n{FIRST}\n{SECOND}\n", identity()));
    }

    #[test]
    fn the_list_has_the_last_hundred_boots_and_replaces_what_a_killed_call_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("boots");
        let old: Vec<String> = (0..NOTED).map(|number| format!("boot-{number}")).collect();
        fs::write(&list, old.join("\n")).unwrap();
        fs::write(list.with_extension("tmp"), "x".repeat(9999)).unwrap();
        shared(FIRST, &list).note().unwrap();
        let text = fs::read_to_string(&list).unwrap();
        assert_eq!(text.lines().count(), 1 + NOTED);
        assert!(text.starts_with(&format!("{MACHINE}{}\nboot-1\n", identity())), "{text}");
        assert!(text.ends_with(&format!("boot-99\n{FIRST}\n")), "{text}");
    }

    #[test]
    fn a_list_that_another_machine_could_write_says_nothing() {
        let error = shared(FIRST, Path::new("/proc/self/boots")).note().unwrap_err().to_string();
        assert_eq!(error, "write /proc/self/boots: other machines may share its file system");
        assert!(!shared(FIRST, Path::new("/proc/self/comm")).is_past(&record(Some(SECOND))));
    }
}
