//! A directory of plugins: what is under a name there, and how one file takes another's place without a moment in which
//! the name is missing or half a program.
//!
//! Nothing is written down about what was done. A file is ours if the mark is in it, and what is in
//! `.underlay-previous` was there before us; so a run that was killed, or files that somebody else has changed since,
//! leave no record that is wrong.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// In every Underlay, of whatever release, and in nothing else: this very text is what is looked for.
const MARK: &[u8] = b"\x01this program is an Underlay, under whichever name and of whichever release\x01";

/// Where the predecessors are. In the same directory, so that they are on the same file system and can be renamed; its
/// name is none that a runtime could look for, since a plugin's name begins with a letter or digit.
pub(crate) const PREVIOUS: &str = ".underlay-previous";
/// The whole new program, before it gets its names.
const NEW: &str = ".underlay.new";
/// The same, about to be renamed to one of its names.
const NEXT: &str = ".underlay.next";

/// What is under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Ours,
    /// It was ours, and somebody has written into it; since all names are one file, into every other name as well.
    Overwritten,
    Foreign,
}

/// A file, whichever of its names it is looked at by: its device and inode.
type Identity = (u64, u64);

/// The directory, locked against other runs of ours for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    file: File,
}

impl Directory {
    /// Opens it, waits until no other run has it, and clears away what a killed one has left half done.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        match file.lock() {
            // A file system without locks: two runs at once are the operator's to avoid.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            locked => locked.map_err(Error::io("lock", path))?,
        }
        let directory = Self { path: path.to_owned(), file };
        let previous = directory.at(PREVIOUS);
        let device = directory.file.metadata().map_err(Error::io("look at", path))?.dev();
        // Nothing could be renamed back from another file system.
        if look(&previous)?.is_some_and(|its| !its.is_dir() || its.dev() != device) {
            return Err(Error::Elsewhere(previous));
        }
        for left in [directory.at(NEW), directory.at(NEXT), directory.kept(NEXT)] {
            remove(&left)?;
        }
        Ok(directory)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the predecessor of that name is, if there is one.
    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        self.path.join(PREVIOUS).join(name)
    }

    /// What is under each of these names. A directory is an error. `kept` are those that have a predecessor, `own` is the
    /// program's.
    pub(crate) fn look_at<'a>(
        &self,
        names: &[&'a str],
        kept: &[String],
        own: &str,
    ) -> Result<Vec<(&'a str, Found)>, Error> {
        let look = |name: &&'a str| Ok((*name, self.look(name)?, identity(&self.at(name))?));
        let mut looks = names.iter().map(look).collect::<Result<Vec<_>, Error>>()?;
        for at in 0..looks.len() {
            let (name, found, file) = looks[at];
            let mut twins = looks.iter().filter(|(other, _, its)| *other != name && file.is_some() && *its == file);
            // Somebody else's program may have several of these names as well. But not our own name; and what has a
            // predecessor has been ours.
            let ours =
                |(other, ..): &(&str, _, _)| [name, other].contains(&own) || kept.iter().any(|kept| kept == name);
            if found == Found::Foreign && twins.any(ours) {
                looks[at].1 = Found::Overwritten;
            }
        }
        Ok(looks.into_iter().map(|(name, found, _)| (name, found)).collect())
    }

    fn look(&self, name: &str) -> Result<Found, Error> {
        let path = self.at(name);
        let Some(metadata) = look(&path)? else { return Ok(Found::Nothing) };
        if metadata.is_dir() {
            return Err(Error::InTheWay(path));
        }
        // A symbolic link that stays in the directory counts as what it leads to. Another Underlay that it leads to
        // elsewhere, such as a package's, is not of this directory.
        if metadata.is_symlink() && self.leads_to(name).is_none() {
            return Ok(Found::Foreign);
        }
        // Only plain files are read: a pipe would not end.
        let is_file = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
        let ours = is_file && holds_mark(&fs::read(&path).map_err(Error::io("read", &path))?);
        Ok(if ours { Found::Ours } else { Found::Foreign })
    }

    /// Whether all these names are already one program with these bytes that everybody may execute.
    pub(crate) fn is_all(&self, names: &[&str], program: &[u8]) -> Result<bool, Error> {
        let mut known: Option<Identity> = None;
        for name in names {
            let path = self.at(name);
            let Some(metadata) = look(&path)? else { return Ok(false) };
            if !metadata.is_file() || metadata.permissions().mode() & 0o7777 != 0o755 {
                return Ok(false);
            }
            let identity = (metadata.dev(), metadata.ino());
            if known != Some(identity) && fs::read(&path).map_err(Error::io("read", &path))? != program {
                return Ok(false);
            }
            known = Some(identity);
        }
        Ok(true)
    }

    /// The name in this directory that the symbolic link of that name ends at.
    fn leads_to(&self, link: &str) -> Option<String> {
        fs::read_link(self.at(link)).ok()?;
        let (end, here) = (fs::canonicalize(self.at(link)).ok()?, fs::canonicalize(&self.path).ok()?);
        (end.parent()? == here).then(|| end.file_name()?.to_str().map(str::to_owned))?
    }

    /// The symbolic links that end at one of these names, and which.
    pub(crate) fn links_to(&self, names: &[&str]) -> Result<Vec<(String, String)>, Error> {
        let leads = |link: String| self.leads_to(&link).map(|name| (link, name));
        let links = list(&self.path)?.into_iter().filter_map(leads);
        Ok(links.filter(|(_, name)| names.contains(&name.as_str())).collect())
    }

    /// All hard links to the file of that name, itself among them.
    pub(crate) fn links_of(&self, name: &str) -> Result<Vec<String>, Error> {
        let file = identity(&self.at(name))?;
        let is_link = |link: &String| file.is_some() && identity(&self.at(link)).is_ok_and(|its| its == file);
        Ok(list(&self.path)?.into_iter().filter(is_link).collect())
    }

    /// The names that have a predecessor.
    pub(crate) fn kept_names(&self) -> Result<Vec<String>, Error> {
        let previous = self.at(PREVIOUS);
        if look(&previous)?.is_none() {
            return Ok(Vec::new());
        }
        let kept = |name: String| self.has_predecessor(&name).map(|kept| kept.then_some(name)).transpose();
        list(&previous)?.into_iter().filter_map(kept).collect()
    }

    /// A directory there is somebody's own.
    fn has_predecessor(&self, name: &str) -> Result<bool, Error> {
        Ok(look(&self.kept(name))?.is_some_and(|metadata| !metadata.is_dir()))
    }

    /// Keeps what is under these names as predecessors. They stay where they are, too. When this returns, they are on
    /// the disk.
    pub(crate) fn keep(&self, names: &[&str]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let previous = self.at(PREVIOUS);
        fs::create_dir_all(&previous).map_err(Error::io("make", &previous))?;
        for name in names {
            let (path, next, kept) = (self.at(name), self.kept(NEXT), self.kept(name));
            if alike(&path, &kept) {
                continue;
            }
            link_or_copy(&path, &next)?;
            fs::rename(&next, &kept).map_err(Error::io("rename", &next))?;
        }
        let directory = File::open(&previous).map_err(Error::io("open", &previous))?;
        directory.sync_all().map_err(Error::io("write", &previous))?;
        self.sync()
    }

    /// Writes the new program, whole and on the disk, beside the names.
    pub(crate) fn write(&self, program: &[u8]) -> Result<(), Error> {
        let path = self.at(NEW);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(program)?;
            // Not by umask.
            file.set_permissions(Permissions::from_mode(0o755))?;
            file.sync_all()
        };
        write().map_err(Error::io("write", &path))
    }

    /// Gives the program that was written one of its names.
    pub(crate) fn place(&self, name: &str) -> Result<(), Error> {
        let (next, path) = (self.at(NEXT), self.at(name));
        link_or_copy(&self.at(NEW), &next)?;
        fs::rename(&next, &path).map_err(Error::io("replace", &path))
    }

    /// Gives it its last name.
    pub(crate) fn place_last(&self, name: &str) -> Result<(), Error> {
        let path = self.at(name);
        fs::rename(self.at(NEW), &path).map_err(Error::io("replace", &path))
    }

    /// Puts the predecessor of that name in its place, or leaves the name to nobody. Tells which.
    pub(crate) fn put_back(&self, name: &str) -> Result<Found, Error> {
        let (path, kept) = (self.at(name), self.kept(name));
        if !self.has_predecessor(name)? {
            remove(&path)?;
            return Ok(Found::Nothing);
        }
        fs::rename(&kept, &path).map_err(Error::io("replace", &path))?;
        Ok(Found::Foreign)
    }

    /// Forgets a predecessor that stands in its place as well. Tells whether it did.
    pub(crate) fn forget(&self, name: &str) -> Result<bool, Error> {
        let kept = self.kept(name);
        let twice = alike(&self.at(name), &kept);
        if twice {
            remove(&kept)?;
        }
        Ok(twice)
    }

    /// Removes the directory of predecessors, where none is left.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let previous = self.at(PREVIOUS);
        match fs::remove_dir(&previous) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Ok(()),
            removed => removed.map_err(Error::io("remove", &previous)),
        }
    }

    /// Returns when all names are on the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("write", &self.path))
    }
}

/// What is there, without following a link.
fn look(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        metadata => metadata.map(Some).map_err(Error::io("look at", path)),
    }
}

/// None where there is no plain file.
fn identity(path: &Path) -> Result<Option<Identity>, Error> {
    Ok(look(path)?.filter(Metadata::is_file).map(|metadata| (metadata.dev(), metadata.ino())))
}

/// The names in a directory.
fn list(path: &Path) -> Result<Vec<String>, Error> {
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
    let names = fs::read_dir(path).and_then(|entries| entries.map(name).collect::<io::Result<Vec<_>>>());
    // No plugin's name is without UTF-8.
    Ok(names.map_err(Error::io("list", path))?.into_iter().flatten().collect())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", path)),
    }
}

/// Another name for the file or, on a file system without hard links or where the file is somebody else's
/// (`fs.protected_hardlinks`), a copy with the same mode that is on the disk.
fn link_or_copy(from: &Path, to: &Path) -> Result<(), Error> {
    let linked = fs::hard_link(from, to);
    if linked.is_ok() {
        return Ok(());
    }
    // The copy of a symbolic link is a symbolic link.
    if let Ok(target) = fs::read_link(from) {
        return std::os::unix::fs::symlink(target, to).map_err(Error::io("link", to));
    }
    fs::copy(from, to).map_err(Error::io("copy", from))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(Error::io("write", to))
}

/// Whether both are the same link, or files with the same bytes.
fn alike(a: &Path, b: &Path) -> bool {
    if let (Ok(a), Ok(b)) = (fs::read_link(a), fs::read_link(b)) {
        return a == b;
    }
    let plain = |path: &Path| fs::symlink_metadata(path).ok().filter(Metadata::is_file);
    let (Some(its), Some(others)) = (plain(a), plain(b)) else { return false };
    let same = (its.dev(), its.ino()) == (others.dev(), others.ino());
    same || its.len() == others.len() && fs::read(a).ok().is_some_and(|bytes| fs::read(b).is_ok_and(|b| b == bytes))
}

fn holds_mark(mut bytes: &[u8]) -> bool {
    // By its first byte, which is rare: a plugin of another language has many megabytes.
    while let Some(at) = bytes.iter().position(|byte| *byte == MARK[0]) {
        bytes = &bytes[at..];
        if bytes.starts_with(MARK) {
            return true;
        }
        bytes = &bytes[1..];
    }
    false
}
