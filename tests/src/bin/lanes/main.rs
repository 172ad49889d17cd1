//! Runs all tests, lane by lane: on the kernel of this machine, and in a User-Mode Linux guest. Prints at the end where
//! tests ran and how long they took. Fails if a test failed or ran in no lane.
//!
//! `lanes [--only LANE] [--meanwhile COMMAND] [WORD]...`: with words, only tests run whose name contains one of them.
//! With a lane, tests that ran in no lane are not a failure. The shell command runs while the guest runs.
//!
//! `lanes --run PROGRAM [ARGUMENT]...`: runs that program in a guest.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_macros, reason = "this program prints to a terminal")]

mod absent;
mod executables;
mod guest;
mod init;
mod lane;
mod meanwhile;
mod modules;
mod runtimes;
mod suite;
mod times;
mod verdict;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use absent::Absent;
use e2e::interrupt;
use lane::Lane;
use meanwhile::Meanwhile;
use runtimes::Table;
use suite::Suite;
use times::{PHASES_VARIABLE, Times};
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
    match wishes.and_then(|wishes| Ok((run(&wishes)?, wishes))) {
        Ok(((verdict, times), wishes)) => {
            print!("{verdict}");
            let table = wishes.words.is_empty().then(|| Table::of(&verdict, wishes.only));
            if let Some(table) = &table {
                print!("{table}");
            }
            print!("{times}");
            let good = verdict.good() && !table.is_some_and(|table| table.is_lacking());
            println!("{}", if good { "lanes: all is well" } else { "lanes: FAILED, see above" });
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(error),
    }
}

fn fail(error: String) -> ExitCode {
    eprintln!("lanes: {error}");
    ExitCode::FAILURE
}

#[derive(Debug, Default)]
struct Wishes {
    only: Option<Lane>,
    meanwhile: Option<String>,
    words: Vec<String>,
}

impl Wishes {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wishes = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--only" => wishes.only = Some(value()?.parse()?),
                "--meanwhile" => wishes.meanwhile = Some(value()?),
                option if option.starts_with('-') => return Err(format!("unknown option {option}")),
                _ => wishes.words.push(argument),
            }
        }
        Ok(wishes)
    }

    fn wants(&self, lane: Lane) -> bool {
        self.only.is_none_or(|only| only == lane)
    }
}

fn run(wishes: &Wishes) -> Result<(Verdict, Times), String> {
    let mut times =
        std::env::var_os(PHASES_VARIABLE).map_or_else(|| Ok(Times::default()), |file| Times::read(Path::new(&file)))?;
    let absent = Absent::beside_this_program()?;
    let begun = Instant::now();
    let executables = executables::build(wishes.only, &wishes.words)?;
    let suite = Suite::list(executables, &wishes.words)?;
    let suite = wishes.only.map_or_else(|| suite.clone(), |lane| suite.of(lane));
    times.add("building and listing tests", begun.elapsed());
    let mut verdict = Verdict::new(&suite, wishes.only.is_none());
    for lane in Lane::ALL.into_iter().filter(|lane| wishes.wants(*lane)) {
        let mut due = suite.of(lane);
        let meanwhile = match &wishes.meanwhile {
            Some(command) if lane == Lane::Guest => Some(Meanwhile::start(command)?),
            _ => None,
        };
        if lane == Lane::Guest && wishes.only.is_none() {
            let missing = verdict.absent();
            due = if missing.is_empty() { Suite::default() } else { due.left_over(&missing) };
        } else if lane == Lane::Guest
            && wishes.words.is_empty()
            && let Some(missing) = absent.read()
        {
            println!("lanes: tests that passed in the last runs of the other lanes are left out");
            due = due.left_over(&missing.iter().map(String::as_str).collect::<Vec<_>>());
            verdict = Verdict::new(&due, false);
        }
        if !due.is_empty() {
            println!("== lane: {lane} ==");
            let report = if lane == Lane::Guest {
                guest::run(&due)
            } else {
                let scratch = tempfile::tempdir().map_err(|e| format!("make a directory for the ledgers: {e}"))?;
                due.run(lane, scratch.path())
            };
            interrupt::check()?;
            match report {
                Ok(report) => {
                    if wishes.words.is_empty() {
                        absent.keep(lane, &report)?;
                    }
                    times.add_lane(lane, &report);
                    verdict.add(lane, report);
                }
                Err(error) => verdict.add_error(format!("lane {lane}: {error}")),
            }
        }
        if let Some(meanwhile) = meanwhile {
            let begun = Instant::now();
            if let Err(error) = meanwhile.wait() {
                verdict.add_error(error);
            }
            times.add("waiting for the build during the guest", begun.elapsed());
        }
    }
    Ok((verdict, times))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Wishes, String> {
        Wishes::read(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn a_lane_is_selected_by_its_name() {
        let wishes = read(&["--only", "guest", "e2e/ipvlan:"]).expect("a command line");
        assert!(wishes.wants(Lane::Guest) && !wishes.wants(Lane::Native));
        assert_eq!(wishes.words, ["e2e/ipvlan:"]);
        assert!(Lane::ALL.into_iter().all(|lane| Wishes::default().wants(lane)));
        assert_eq!(read(&["--only"]).err().as_deref(), Some("--only needs a value"));
        assert_eq!(read(&["--onyl", "guest"]).err().as_deref(), Some("unknown option --onyl"));
    }
}
