//! `underlay install` and `underlay uninstall`. At every moment, also after a killed run, each name is a complete
//! plugin: ours or its predecessor.

use std::fmt::Write;
use std::fs;
use std::iter;
use std::path::Path;

use cni::Program;

use crate::Error;
use crate::directory::{Directory, Found, PREVIOUS, holds_mark};

/// The running program.
const SELF: &str = "/proc/self/exe";

/// The companion: a program of its own, which is installed together with this one if it is in the same directory.
const COMPANION: &str = "lan-pool";

/// The output for a name with [`Found::Overwritten`].
const WRITTEN: &str = "; another program had been written into underlay's file";

/// Puts this program into the directory under all its names, and its companion, and keeps the predecessors.
pub(crate) fn install(program: &Program, former: &[&str], path: &Path, said: &mut String) -> Result<(), Error> {
    let bytes = fs::read(SELF).map_err(Error::io("read", Path::new(SELF)))?;
    fs::create_dir_all(path).map_err(Error::io("create", path))?;
    let companion = companion()?;
    let directory = Directory::open(path)?;
    // Look at everything before anything is changed.
    let kept = directory.kept_names()?;
    let mut found = directory.look_at(&names(program, former, &kept), &kept, program.name)?;
    let left = companion.is_none() && found.contains(&(COMPANION, Found::Ours));
    found.retain(|(name, _)| *name != COMPANION || companion.is_some());
    let is_name = |name: &str| name == program.name || name == COMPANION || program.plugin(name).is_some();
    let (found, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|(name, _)| is_name(name));
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).filter(|name| *name != COMPANION).collect();
    let dropped = of(&others, &[Found::Ours, Found::Overwritten]);
    let is_companion = companion.as_ref().map_or(Ok(true), |bytes| directory.is_all(&[COMPANION], bytes))?;
    if dropped.is_empty() && is_companion && directory.is_all(&names, &bytes)? {
        tell(said, format_args!("{}: {} {} is already installed", path.display(), program.name, program.release));
        tell_left(said, left);
        return Ok(());
    }

    let foreign = of(&found, &[Found::Foreign]);
    // The first write fails if the file system is full. Then nothing is changed.
    directory.write(companion.as_ref().unwrap_or(&bytes))?;
    directory.keep(&foreign)?;
    tell(said, format_args!("{}: {} {}", path.display(), program.name, program.release));
    if companion.is_some() {
        directory.place_last(COMPANION)?;
        directory.write(&bytes)?;
    }
    for name in names.iter().filter(|name| **name != program.name) {
        directory.place(name)?;
    }
    for name in dropped {
        let back = directory.put_back(name)?;
        tell(said, format_args!("  {name:<12}{}", gone_back(back)));
    }
    // Replace the program's own name last. By it, the next run recognises the other names as ours, also if this run is
    // killed before.
    directory.place_last(program.name)?;
    directory.sync()?;
    for (name, found) in found {
        let what = match found {
            Found::Nothing => "new".to_owned(),
            Found::Ours => "renewed".to_owned(),
            Found::Overwritten => format!("renewed{WRITTEN}"),
            Found::Foreign => format!("new; the earlier file is kept as {PREVIOUS}/{name}"),
        };
        tell(said, format_args!("  {name:<12}{what}"));
    }
    tell_left(said, left);
    for (link, name) in directory.links_to(&foreign)? {
        tell(said, format_args!("  {link:<12}is a symbolic link to {name}, which is {} now", program.name));
    }
    Ok(())
}

/// Puts back the files that were in the directory before the first release of this program.
pub(crate) fn uninstall(program: &Program, former: &[&str], path: &Path, said: &mut String) -> Result<(), Error> {
    if is_packaged(program.name, path) {
        return Err(Error::Packaged { path: path.to_owned(), name: program.name });
    }
    let directory = Directory::open(path)?;
    let kept = directory.kept_names()?;
    let names = names(program, former, &kept);
    let found = directory.look_at(&names, &kept, program.name)?;
    let own = found.iter().any(|(name, found)| *name == program.name && *found != Found::Foreign);
    let links = if own { directory.links_of(program.name)? } else { Vec::new() };
    tell(said, format_args!("{}:", path.display()));
    let before = said.len();
    for (name, found) in found {
        let is_kept = kept.iter().any(|kept| kept == name);
        let what = match found {
            Found::Nothing | Found::Foreign if !is_kept => continue,
            Found::Foreign | Found::Overwritten if directory.forget(name)? => continue,
            Found::Nothing | Found::Ours => gone_back(directory.put_back(name)?).to_owned(),
            Found::Overwritten => format!("{}{WRITTEN}", gone_back(directory.put_back(name)?)),
            // Another plugin was put there later. The operator must decide which one is wanted.
            Found::Foreign => {
                format!("is another plugin now: left as it is; the earlier file is still {PREVIOUS}/{name}")
            }
        };
        tell(said, format_args!("  {name:<12}{what}"));
    }
    for link in links.iter().filter(|link| !names.contains(&link.as_str())) {
        tell(
            said,
            format_args!(
                "  {link:<12}is a hard link to the same file, and not a name of {}: left as it is",
                program.name
            ),
        );
    }
    if said.len() == before {
        tell(said, format_args!("  no files of {}", program.name));
    }
    directory.close()?;
    directory.sync()
}

/// Reads the companion in the directory of the running program. Returns `None` if there is none, or a file without the
/// mark.
fn companion() -> Result<Option<Vec<u8>>, Error> {
    let program = fs::read_link(SELF).map_err(Error::io("read", Path::new(SELF)))?;
    let path = program.with_file_name(COMPANION);
    // Read only regular files: reading a FIFO may not end.
    if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    Ok(holds_mark(&bytes).then_some(bytes))
}

/// Lists the names that are or were ours: those of this release, the companion, those of earlier releases, and those
/// with a predecessor. The program's own name is the last.
fn names<'a>(program: &Program, former: &[&'a str], kept: &'a [String]) -> Vec<&'a str> {
    let plugins = program.plugins.iter().map(|(name, _)| *name).chain(former.iter().copied());
    let plugins = plugins.chain(iter::once(COMPANION));
    let mut names: Vec<&str> = plugins.chain(kept.iter().map(String::as_str)).collect();
    names.retain(|name| *name != program.name);
    names.sort_unstable();
    names.dedup();
    names.push(program.name);
    names
}

/// Lists the names with one of the wanted kinds of files.
fn of<'a>(found: &[(&'a str, Found)], wanted: &[Found]) -> Vec<&'a str> {
    found.iter().filter(|(_, found)| wanted.contains(found)).map(|(name, _)| *name).collect()
}

/// Returns true if the program in the directory is in dpkg's list of files.
fn is_packaged(name: &str, path: &Path) -> bool {
    let list = fs::read_to_string(format!("/var/lib/dpkg/info/{name}.list")).unwrap_or_default();
    fs::canonicalize(path).is_ok_and(|path| list.lines().any(|line| Path::new(line) == path.join(name)))
}

fn gone_back(back: Found) -> &'static str {
    match back {
        Found::Foreign => "the earlier file is back",
        _ => "removed",
    }
}

/// Says that the installed companion is not renewed.
fn tell_left(said: &mut String, left: bool) {
    if left {
        tell(
            said,
            format_args!(
                "  {COMPANION:<12}is left as it is: there is no {COMPANION} in the directory of the program that installs"
            ),
        );
    }
}

fn tell(said: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a String does not fail.
    let _ = writeln!(said, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test installs its own executable, which has the mark.
    const PROGRAM: Program =
        Program { name: "underlay", release: "2", plugins: &[], commands: "", run: cni::RUN_NOTHING };

    /// The name has no predecessor. So only `former` tells that an earlier release had it.
    #[test]
    fn a_name_that_a_release_has_had_goes_and_one_that_somebody_has_linked_stays() {
        let directory = tempfile::tempdir().expect("make a directory");
        let at = |name: &str| directory.path().join(name);
        let command = |command: fn(&Program, &[&str], &Path, &mut String) -> Result<(), Error>| {
            let mut said = String::new();
            command(&PROGRAM, &["once"], directory.path(), &mut said).expect("it succeeds");
            said
        };
        let link = |name: &str| fs::hard_link(at("underlay"), at(name)).expect("link the program");
        command(install);
        link("once");
        link("notes");
        assert!(command(install).contains("  once        removed\n"));
        assert!(!at("once").exists() && at("notes").exists() && at("underlay").exists());
        link("once");
        fs::remove_file(at("notes")).expect("remove a link");
        link("notes");
        let said = command(uninstall);
        assert!(said.contains("  once        removed\n"), "{said}");
        assert!(
            said.contains("  notes       is a hard link to the same file, and not a name of underlay: left as it is\n"),
            "{said}"
        );
        assert!(!at("once").exists() && at("notes").exists() && !at("underlay").exists());
    }
}
