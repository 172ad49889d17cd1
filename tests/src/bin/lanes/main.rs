//! Runs the tests that need a kernel: first on this machine's own, then once more in a User-Mode Linux guest where this
//! kernel lacks something that a test needs. Says what ran where, and fails if a test failed or ran nowhere.
//!
//! `lanes [--only native|guest] [WORD]...`: a word restricts the tests to those whose name contains one. What is left
//! out is not judged then.
//!
//! `lanes --run PROGRAM [ARGUMENT]...`: no tests; that program in a guest, its output here.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_macros, reason = "this program talks to a person at a terminal")]

mod executables;
mod guest;
mod init;
mod modules;
mod runtimes;
mod suite;
mod verdict;

use std::process::ExitCode;

use e2e::interrupt;
use runtimes::Table;
use suite::{Lane, Suite};
use verdict::Verdict;

fn main() -> ExitCode {
    if std::env::var_os(guest::PLAN_VARIABLE).is_some() {
        if std::process::id() == 1 {
            init::main();
        }
        if std::env::args().nth(1).as_deref() == Some(init::INSIDE) {
            return init::inside();
        }
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((option, command)) = arguments.split_first()
        && option == "--run"
    {
        let outcome = interrupt::listen().and_then(|()| guest::run_command(command));
        return outcome.map_or_else(fail, |()| ExitCode::SUCCESS);
    }
    let wishes = interrupt::listen().and_then(|()| Wishes::read(arguments.into_iter()));
    let outcome = wishes.and_then(|wishes| run(&wishes).map(|verdict| (verdict, wishes.are_none())));
    match outcome {
        Ok((verdict, all)) => {
            print!("{verdict}");
            let table = all.then(|| Table::of(&verdict));
            if let Some(table) = &table {
                print!("{table}");
            }
            let good = verdict.good() && !table.is_some_and(|table| table.is_lacking());
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(error),
    }
}

fn fail(error: String) -> ExitCode {
    eprintln!("lanes: {error}");
    ExitCode::FAILURE
}

/// What the command line asks for.
#[derive(Debug, Default)]
struct Wishes {
    only: Option<Lane>,
    words: Vec<String>,
}

impl Wishes {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wishes = Self::default();
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--only" => {
                    wishes.only = Some(match arguments.next().as_deref() {
                        Some("native") => Lane::Native,
                        Some("guest") => Lane::Guest,
                        other => return Err(format!("--only {}: native or guest", other.unwrap_or_default())),
                    });
                }
                option if option.starts_with('-') => return Err(format!("unknown option {option}")),
                _ => wishes.words.push(argument),
            }
        }
        Ok(wishes)
    }

    /// Whether everything is to be run.
    fn are_none(&self) -> bool {
        self.only.is_none() && self.words.is_empty()
    }

    fn wants(&self, lane: Lane) -> bool {
        self.only.is_none_or(|only| only == lane)
    }
}

fn run(wishes: &Wishes) -> Result<Verdict, String> {
    let executables = executables::build()?;
    let suite = Suite::list(executables, &wishes.words)?;
    let mut verdict = Verdict::new(&suite, wishes.only.is_none());
    if wishes.wants(Lane::Native) {
        println!("== lane: {} ==", Lane::Native);
        let scratch = tempfile::tempdir().map_err(|e| format!("make a directory for the ledgers: {e}"))?;
        verdict.add(Lane::Native, suite.run(Lane::Native, scratch.path())?);
    }
    if wishes.wants(Lane::Guest) {
        if wishes.only.is_none() && verdict.missing().is_empty() {
            verdict.spare_guest();
        } else {
            println!("== lane: {} ==", Lane::Guest);
            let report = if wishes.only.is_none() {
                let missing: Vec<_> = verdict.missing().into_iter().map(|(test, _)| test).collect();
                guest::run(&suite.left_over(&missing))?
            } else {
                guest::run(&suite)?
            };
            verdict.add(Lane::Guest, report);
        }
    }
    Ok(verdict)
}
