//! What an operator calls the program for by hand, under its own name: `underlay install`, `underlay uninstall`. The
//! plugins are not here, and no runtime calls anything of this.
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

pub use error::Error;
use words::{Command, Words};

/// Lines about the commands, for the program's own help.
pub const COMMANDS: &str = concat!(
    "  install [--to DIRECTORY] [--wait]      puts the program under these names into /opt/cni/bin, or DIRECTORY\n",
    "  uninstall [--from DIRECTORY] [--wait]  puts back what was there before\n",
);

/// Plugins that a release has had and the table no longer has: what is dropped there comes in here, for its name to be
/// given back.
const FORMER: &[&str] = &[];

/// Runs the command that the process was started with; `None` where that is none of ours, but a runtime's or no command
/// at all. The number is the exit status: 0, 1, or 2 where the command line is wrong.
pub fn run(program: &Program) -> Option<u8> {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let called = Path::new(&name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // A runtime calls plugins, and sets the variable; it gives no words.
    if std::env::var_os("CNI_COMMAND").is_some() || program.plugin(called).is_some() {
        return None;
    }
    let words: Vec<OsString> = words.collect();
    let command = Command::named(words.first()?)?;
    let mut said = String::new();
    let outcome = Words::parse(command, words.get(1..).unwrap_or_default())
        .and_then(|words| obey(program, command, &words, &mut said));
    // What was done is said even where the rest failed.
    let told = say(&mut std::io::stdout(), &said);
    let outcome = outcome.and_then(|()| told.map_err(Error::Stdout)).map(|()| 0);
    Some(outcome.unwrap_or_else(|error| {
        // Where nobody listens there is the exit code.
        let _ = say(&mut std::io::stderr(), &format!("{} {}: {error}\n", program.name, command.name()));
        error.exit_status()
    }))
}

fn obey(program: &Program, command: Command, words: &Words, said: &mut String) -> Result<(), Error> {
    if words.help {
        said.push_str(command.usage());
        return Ok(());
    }
    // Before anything is done: a signal that comes meanwhile ends the wait, and not the work. As the first process of a
    // container it would not be told of signals that are neither handled nor blocked.
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

/// Keeps the signals that end a process until they are waited for.
fn block_ends() -> Result<SigSet, Error> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block().map_err(Error::Signal)?;
    Ok(ends)
}

/// In one write.
fn say(stream: &mut impl Write, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}
