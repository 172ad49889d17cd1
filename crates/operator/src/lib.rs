//! The commands for operators: `underlay install` and `underlay uninstall`. Runtimes do not call them.
//!
//! - Name: the file name of a plugin or of the program. All names are hard links to one file, if possible.
//! - Companion: the program `lan-pool`, a file of its own. It is installed with the plugins if it is in the same directory
//!   as the program that installs.
//! - Predecessor: the file that had a name before Underlay. It is kept in `.underlay-previous`.
//! - Mark: a text that every release of Underlay and of its companion has in its bytes, and no other program has.
//! - Foreign: a file without the mark.
#![forbid(unsafe_code)]

mod directory;
mod error;
mod install;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use cni::Program;
use nix::sys::signal::{SigSet, Signal};

pub use directory::MARK;
pub use error::Error;
use words::{Command, Words};

/// Lines about the commands for `underlay --help`.
pub const COMMANDS: &str = concat!(
    "  install [--to DIRECTORY] [--wait]      installs these plugins into /opt/cni/bin, or into DIRECTORY\n",
    "  uninstall [--from DIRECTORY] [--wait]  removes them, and puts back the files that they replaced\n",
);

/// Names of plugins of earlier releases that this release does not have. `install` and `uninstall` give these names
/// back.
const FORMER: &[&str] = &[];

/// Runs the command on the command line, and returns the exit status: 0, 1 after an error, 2 if the command line is
/// wrong. Returns `None` if there is no command of this crate.
pub fn run(program: &Program) -> Option<u8> {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let called = Path::new(&name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // A runtime sets CNI_COMMAND and gives no words.
    if std::env::var_os("CNI_COMMAND").is_some() || program.plugin(called).is_some() {
        return None;
    }
    let words: Vec<OsString> = words.collect();
    let command = Command::named(words.first()?)?;
    let mut said = String::new();
    let outcome = Words::parse(command, words.get(1..).unwrap_or_default())
        .and_then(|words| obey(program, command, &words, &mut said));
    // Also after an error, print what was done before it.
    let told = say(&mut std::io::stdout(), &said);
    let outcome = outcome.and_then(|()| told.map_err(Error::Stdout)).map(|()| 0);
    Some(outcome.unwrap_or_else(|error| {
        // If stderr cannot be written, there is still the exit status.
        let _ = say(&mut std::io::stderr(), &format!("{} {}: {error}\n", program.name, command.name()));
        error.exit_status()
    }))
}

fn obey(program: &Program, command: Command, words: &Words, said: &mut String) -> Result<(), Error> {
    if words.help {
        said.push_str(command.usage());
        return Ok(());
    }
    // Block the signals first, so that a signal ends the wait and not the work. The first process of a container gets
    // only signals that it handles or blocks.
    let ends = words.wait.then(block_ends).transpose()?;
    match command {
        Command::Install => install::install(program, FORMER, &words.directory, said)?,
        Command::Uninstall => install::uninstall(program, FORMER, &words.directory, said)?,
    }
    if let Some(ends) = ends {
        said.push_str("waiting for SIGTERM\n");
        say(&mut std::io::stdout(), said).map_err(Error::Stdout)?;
        said.clear();
        ends.wait().map_err(Error::Signal)?;
    }
    Ok(())
}

/// Blocks SIGTERM and SIGINT until they are waited for.
fn block_ends() -> Result<SigSet, Error> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block().map_err(Error::Signal)?;
    Ok(ends)
}

/// Writes a text in one call.
fn say(stream: &mut impl Write, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}
