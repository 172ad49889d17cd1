//! `underlay install` and `underlay uninstall`: in which order names are taken and given back, so that at every moment,
//! and wherever the run is killed, each name is a whole plugin, ours or its predecessor.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use cni::Program;

use crate::Error;
use crate::directory::{Directory, Found, PREVIOUS};

/// This very program.
const SELF: &str = "/proc/self/exe";

/// Puts this program into the directory under its names, and keeps what it replaces.
pub(crate) fn install(program: &Program, path: &Path, said: &mut String) -> Result<(), Error> {
    let bytes = fs::read(SELF).map_err(Error::io("read", Path::new(SELF)))?;
    fs::create_dir_all(path).map_err(Error::io("make", path))?;
    let directory = Directory::open(path)?;
    // Everything is looked at before anything is changed.
    let plugins: Vec<&str> = program.plugins.iter().map(|(name, _)| *name).collect();
    let names: Vec<&str> = plugins.iter().copied().chain([program.name]).collect();
    let found = names.iter().map(|name| directory.look(name)).collect::<Result<Vec<Found>, Error>>()?;
    let dropped = dropped(&directory, program.name, &names)?;
    if dropped.is_empty() && directory.is_all(&names, &bytes)? {
        tell(said, format_args!("{}: {} {} is there already", path.display(), program.name, program.release));
        return Ok(());
    }

    let foreign: Vec<&str> =
        names.iter().zip(&found).filter(|(_, found)| **found == Found::Foreign).map(|(name, _)| *name).collect();
    directory.write(&bytes)?;
    directory.keep(&foreign)?;
    tell(said, format_args!("{}: {} {}", path.display(), program.name, program.release));
    for name in plugins {
        directory.place(name)?;
    }
    for name in &dropped {
        let back = directory.put_back(name)?;
        tell(said, format_args!("  {name:<12}{}", gone_back(back)));
    }
    // Last: whose hard links are ours is seen by this name, also when a run was killed before it came here.
    directory.place_last(program.name)?;
    directory.sync()?;
    for (name, found) in names.iter().zip(found) {
        let what = match found {
            Found::Nothing => "new".to_owned(),
            Found::Ours => "renewed".to_owned(),
            Found::Foreign => format!("new; its predecessor is {PREVIOUS}/{name}"),
        };
        tell(said, format_args!("  {name:<12}{what}"));
    }
    Ok(())
}

/// Puts back what was in the directory before this program, of whatever release.
pub(crate) fn uninstall(program: &Program, path: &Path, said: &mut String) -> Result<(), Error> {
    let directory = Directory::open(path)?;
    let mut names: Vec<String> = program.plugins.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.extend(dropped(&directory, program.name, &[])?);
    names.extend(directory.kept_names()?);
    names.sort();
    names.dedup();
    // Last, for the same reason as when it came.
    names.retain(|name| name != program.name);
    names.push(program.name.to_owned());

    let found = names.iter().map(|name| directory.look(name)).collect::<Result<Vec<Found>, Error>>()?;
    let kept = directory.kept_names()?;
    tell(said, format_args!("{}:", path.display()));
    let before = said.len();
    for (name, found) in names.iter().zip(found) {
        let is_kept = kept.contains(name);
        let what = match found {
            Found::Nothing if !is_kept => continue,
            Found::Nothing | Found::Ours => gone_back(directory.put_back(name)?).to_owned(),
            Found::Foreign if !is_kept || directory.forget(name)? => continue,
            // Somebody has put another one there since, which is theirs to judge.
            Found::Foreign => format!("is not {}'s: left, and so is {PREVIOUS}/{name}", program.name),
        };
        tell(said, format_args!("  {name:<12}{what}"));
    }
    if said.len() == before {
        tell(said, format_args!("  nothing of {}'s", program.name));
    }
    directory.close()?;
    directory.sync()
}

/// Names of ours, from another release, that are not among these.
fn dropped(directory: &Directory, name: &str, names: &[&str]) -> Result<Vec<String>, Error> {
    if directory.look(name)? != Found::Ours {
        return Ok(Vec::new());
    }
    let links = directory.links_of(name)?;
    Ok(links.into_iter().filter(|link| link != name && !names.contains(&link.as_str())).collect())
}

fn gone_back(back: Found) -> &'static str {
    match back {
        Found::Foreign => "as before",
        _ => "removed",
    }
}

fn tell(said: &mut String, line: std::fmt::Arguments<'_>) {
    // Into a String nothing fails.
    let _ = writeln!(said, "{line}");
}
