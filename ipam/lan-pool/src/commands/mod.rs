//! The commands for people: `lan-pool sweep`, `lan-pool release` and `lan-pool import`. Runtimes do not call them.

mod import;
mod lan;
mod networks;
mod release;
mod words;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use cni::Program;

use words::{Command, Words};

/// Lines about the commands for `lan-pool --help`.
pub const HELP: &str = concat!(
    "  sweep [--conf FILE]                    frees the leases of containers of this node that are gone\n",
    "  release --node NODE [--interface IF]   frees the leases of a node that is gone; for an administrator\n",
    "  import --from DIRECTORY [--conf FILE]  takes over the live leases of a network of host-local\n",
);

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read.
    #[error("{operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    /// The pool, with its text.
    #[error("{0}")]
    Pool(String),
    /// Some leases stay, as the output says.
    #[error("{0} leases are not freed")]
    Kept(usize),
    /// Some leases of host-local are not taken over, as the output says.
    #[error("{0} leases are not taken over")]
    Left(usize),
    /// The output could not be written.
    #[error("write to stdout: {0}")]
    Stdout(std::io::Error),
}

impl Error {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        Self::Pool(error.to_string())
    }
}

impl From<cni::Error> for Error {
    fn from(error: cni::Error) -> Self {
        Self::Pool(error.to_string())
    }
}

/// Runs the command on the command line, and returns the exit status: 0, 1 after an error, 2 if the command line is wrong.
/// Returns `None` if there is no command.
pub fn run(program: &Program) -> Option<u8> {
    // A runtime sets CNI_COMMAND and gives no words.
    if std::env::var_os("CNI_COMMAND").is_some() {
        return None;
    }
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let command = Command::named(words.first()?)?;
    let outcome = Words::parse(command, words.get(1..).unwrap_or_default()).and_then(|words| obey(command, &words));
    Some(outcome.map_or_else(
        |error| {
            // If stderr cannot be written, there is still the exit status.
            let _ = writeln!(std::io::stderr(), "{} {}: {error}", program.name, command.name());
            error.exit_status()
        },
        |()| 0,
    ))
}

fn obey(command: Command, words: &Words) -> Result<(), Error> {
    if words.help {
        return say(format_args!("{}", command.usage()));
    }
    match command {
        Command::Sweep => sweep(words),
        Command::Release => release::run(words),
        Command::Import => import::run(words),
    }
}

fn sweep(words: &Words) -> Result<(), Error> {
    for network in networks::all(&words.conf)? {
        let lan = &network.place.lan;
        let remark = |text: fmt::Arguments<'_>| {
            let _ = say(format_args!("{lan}: {text}\n"));
        };
        let swept = crate::plugin::sweep(&network.place, &Default::default(), &remark)?;
        if swept == crate::pool::Swept::default() {
            say(format_args!("{lan}: nothing to free\n"))?;
        }
    }
    Ok(())
}

/// Writes to stdout at once, so that long work shows its progress.
fn say(text: fmt::Arguments<'_>) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_fmt(text).and_then(|()| stdout.flush()).map_err(Error::Stdout)
}
