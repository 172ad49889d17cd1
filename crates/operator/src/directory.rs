//! A directory of plugins: recognises the files under the names, and replaces them. At every moment, each name is a
//! complete program.
//!
//! There is no record of earlier runs that could be wrong after a killed run or a change by another program. A file is
//! ours if it has the mark. A file in `.underlay-previous` was there before Underlay.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// The mark, which `install` recognises our files by. Every release of each of our programs must have exactly this
/// text in its bytes.
pub const MARK: &[u8] = b"\x01this program is an Underlay, under whichever name and of whichever release\x01";

/// The directory with the predecessors. It is on the same file system as the names, so that files can be renamed. A
/// runtime never looks for this name, because the name of a plugin begins with a letter or digit.
pub(crate) const PREVIOUS: &str = ".underlay-previous";
/// The complete new program, before it gets its names.
const NEW: &str = ".underlay.new";
/// A hard link to the new program, before it is renamed to one of its names.
const NEXT: &str = ".underlay.next";

/// The kind of file under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Ours,
    /// The file was ours, and another program was written into it. All names are one file, so it is under all of them.
    Overwritten,
    Foreign,
}

/// Identifies a file: its device and inode.
type Identity = (u64, u64);

/// The directory. It is locked against other runs while this value lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    file: File,
}

impl Directory {
    /// Opens and locks the directory, and removes the temporary files of a killed run. Waits while another run has the
    /// lock.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        match file.lock() {
            // The file system has no locks. Then the operator must not start two runs at once.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            locked => locked.map_err(Error::io("lock", path))?,
        }
        let directory = Self { path: path.to_owned(), file };
        let previous = directory.at(PREVIOUS);
        let device = directory.file.metadata().map_err(Error::io("look at", path))?.dev();
        // A file cannot be renamed from another file system.
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

    /// Returns the path of the predecessor of a name. It may be missing.
    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        self.path.join(PREVIOUS).join(name)
    }

    /// Returns the kind of file under each name. `kept` are the names with a predecessor, `own` is that of the program.
    ///
    /// # Errors
    ///
    /// `InTheWay` if a name is a directory.
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
            // Another program may have several of these names too. But it does not have our own name, and a name with a
            // predecessor was ours.
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
        // A symbolic link within the directory counts as the file to which it leads. A link to another directory is
        // foreign, also if it leads to another Underlay, such as that of a package.
        if metadata.is_symlink() && self.leads_to(name).is_none() {
            return Ok(Found::Foreign);
        }
        // Read only regular files: reading a FIFO may not end.
        let is_file = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
        let ours = is_file && holds_mark(&fs::read(&path).map_err(Error::io("read", &path))?);
        Ok(if ours { Found::Ours } else { Found::Foreign })
    }

    /// Returns true if all names are files with these bytes and mode 0755.
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

    /// Returns the name in this directory to which a symbolic link leads.
    fn leads_to(&self, link: &str) -> Option<String> {
        fs::read_link(self.at(link)).ok()?;
        let (end, here) = (fs::canonicalize(self.at(link)).ok()?, fs::canonicalize(&self.path).ok()?);
        (end.parent()? == here).then(|| end.file_name()?.to_str().map(str::to_owned))?
    }

    /// Lists the symbolic links that lead to one of these names, with that name.
    pub(crate) fn links_to(&self, names: &[&str]) -> Result<Vec<(String, String)>, Error> {
        let leads = |link: String| self.leads_to(&link).map(|name| (link, name));
        let links = list(&self.path)?.into_iter().filter_map(leads);
        Ok(links.filter(|(_, name)| names.contains(&name.as_str())).collect())
    }

    /// Lists all hard links to the file with this name, also the name itself.
    pub(crate) fn links_of(&self, name: &str) -> Result<Vec<String>, Error> {
        let file = identity(&self.at(name))?;
        let is_link = |link: &String| file.is_some() && identity(&self.at(link)).is_ok_and(|its| its == file);
        Ok(list(&self.path)?.into_iter().filter(is_link).collect())
    }

    /// Lists the names with a predecessor.
    pub(crate) fn kept_names(&self) -> Result<Vec<String>, Error> {
        let previous = self.at(PREVIOUS);
        if look(&previous)?.is_none() {
            return Ok(Vec::new());
        }
        let kept = |name: String| self.has_predecessor(&name).map(|kept| kept.then_some(name)).transpose();
        list(&previous)?.into_iter().filter_map(kept).collect()
    }

    /// Returns true if the name has a predecessor. A directory is not one.
    fn has_predecessor(&self, name: &str) -> Result<bool, Error> {
        Ok(look(&self.kept(name))?.is_some_and(|metadata| !metadata.is_dir()))
    }

    /// Keeps the files under these names as predecessors, also under their names. Then they are on the disk.
    pub(crate) fn keep(&self, names: &[&str]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let previous = self.at(PREVIOUS);
        fs::create_dir_all(&previous).map_err(Error::io("create", &previous))?;
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

    /// Writes the complete new program next to the names, and waits until it is on the disk.
    pub(crate) fn write(&self, program: &[u8]) -> Result<(), Error> {
        let path = self.at(NEW);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(program)?;
            // The umask must not apply.
            file.set_permissions(Permissions::from_mode(0o755))?;
            file.sync_all()
        };
        write().map_err(Error::io("write", &path))
    }

    /// Gives the new program one of its names.
    pub(crate) fn place(&self, name: &str) -> Result<(), Error> {
        let (next, path) = (self.at(NEXT), self.at(name));
        link_or_copy(&self.at(NEW), &next)?;
        fs::rename(&next, &path).map_err(Error::io("replace", &path))
    }

    /// Gives the new program its last name.
    pub(crate) fn place_last(&self, name: &str) -> Result<(), Error> {
        let path = self.at(name);
        fs::rename(self.at(NEW), &path).map_err(Error::io("replace", &path))
    }

    /// Puts the predecessor back, and returns `Foreign`. If there is none, removes the file, and returns `Nothing`.
    pub(crate) fn put_back(&self, name: &str) -> Result<Found, Error> {
        let (path, kept) = (self.at(name), self.kept(name));
        if !self.has_predecessor(name)? {
            remove(&path)?;
            return Ok(Found::Nothing);
        }
        fs::rename(&kept, &path).map_err(Error::io("replace", &path))?;
        Ok(Found::Foreign)
    }

    /// Removes a predecessor if the same file is already in its place. Returns true if it was.
    pub(crate) fn forget(&self, name: &str) -> Result<bool, Error> {
        let kept = self.kept(name);
        let twice = alike(&self.at(name), &kept);
        if twice {
            remove(&kept)?;
        }
        Ok(twice)
    }

    /// Removes the directory of predecessors if it is empty.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let previous = self.at(PREVIOUS);
        match fs::remove_dir(&previous) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Ok(()),
            removed => removed.map_err(Error::io("remove", &previous)),
        }
    }

    /// Waits until all names are on the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("write", &self.path))
    }
}

/// Reads the metadata of a path without following a link. Returns `None` if there is no file.
fn look(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        metadata => metadata.map(Some).map_err(Error::io("look at", path)),
    }
}

/// Returns `None` if there is no regular file.
fn identity(path: &Path) -> Result<Option<Identity>, Error> {
    Ok(look(path)?.filter(Metadata::is_file).map(|metadata| (metadata.dev(), metadata.ino())))
}

/// Lists the names in a directory. Leaves out names that are not UTF-8, since no plugin has one.
fn list(path: &Path) -> Result<Vec<String>, Error> {
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
    let names = fs::read_dir(path).and_then(|entries| entries.map(name).collect::<io::Result<Vec<_>>>());
    Ok(names.map_err(Error::io("list", path))?.into_iter().flatten().collect())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", path)),
    }
}

/// Creates a hard link. If that fails, creates a copy with the same mode and waits until it is on the disk. A hard link
/// fails on some file systems, and for a file of another owner. (`fs.protected_hardlinks`)
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

/// Returns true if both are symbolic links to the same path, or regular files with the same bytes.
fn alike(a: &Path, b: &Path) -> bool {
    if let (Ok(a), Ok(b)) = (fs::read_link(a), fs::read_link(b)) {
        return a == b;
    }
    let plain = |path: &Path| fs::symlink_metadata(path).ok().filter(Metadata::is_file);
    let (Some(its), Some(others)) = (plain(a), plain(b)) else { return false };
    let same = (its.dev(), its.ino()) == (others.dev(), others.ino());
    same || its.len() == others.len() && fs::read(a).ok().is_some_and(|bytes| fs::read(b).is_ok_and(|b| b == bytes))
}

/// Returns true if a file with these bytes is ours.
pub(crate) fn holds_mark(mut bytes: &[u8]) -> bool {
    // Search the first byte first. It is rare, and a Go program has many megabytes.
    while let Some(at) = bytes.iter().position(|byte| *byte == MARK[0]) {
        bytes = &bytes[at..];
        if bytes.starts_with(MARK) {
            return true;
        }
        bytes = &bytes[1..];
    }
    false
}
