//! Injects faults into every call of the plugins, natively and in a guest. `--full` injects all faults and writes the
//! table of docs/reliability.md. Without it, the part of the day runs.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_macros, reason = "this program prints to a terminal")]

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use e2e::document::{self, Section, grouped};
use e2e::faults::{COUNT_VARIABLE, Figures};

const SECTION: Section = Section { name: "faults", command: "make faults FULL=1" };
/// A guest is killed after 25 minutes, so each guest gets a part of the faults.
const PARTS: usize = 48;

/// The figures of one lane.
#[derive(Debug, Default)]
struct Lane {
    scenarios: Vec<Figures>,
    kernel: String,
    took: Duration,
    good: bool,
}

fn main() -> ExitCode {
    let full = env::args().nth(1).as_deref() == Some("--full");
    let native = lane(|lane| run(lane, &["--only", "native", "e2e/faults:"], full.then(|| "all".to_owned())));
    let guest = lane(|lane| guests(lane, full));
    for (name, lane) in [("native", &native), ("guest", &guest)] {
        println!("{name} ({}), in {:.0} s: {}", lane.kernel, lane.took.as_secs_f64(), lane.total());
    }
    if full && let Err(error) = SECTION.insert_into(&document::folder().join("reliability.md"), &page(&native, &guest))
    {
        eprintln!("faults: write docs/reliability.md: {error}");
        return ExitCode::FAILURE;
    }
    let sound = |lane: &Lane| lane.good && lane.total().injected > 0 && lane.total().leaks.is_empty();
    if sound(&native) && sound(&guest) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn lane(run: impl FnOnce(&Mutex<Lane>)) -> Lane {
    let begun = Instant::now();
    let lane = Mutex::new(Lane { good: true, ..Lane::default() });
    run(&lane);
    let mut lane = lane.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    lane.took = begun.elapsed();
    lane
}

/// With `full`, all parts, in as many guests as there are processors. Otherwise the part of the day, in one guest.
fn guests(lane: &Mutex<Lane>, full: bool) {
    let words = ["--only", "guest", "e2e/faults_ipvlan:"];
    if !full {
        return run(lane, &words, None);
    }
    let next = AtomicUsize::new(0);
    let guests = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..guests {
            scope.spawn(|| {
                while let part @ ..PARTS = next.fetch_add(1, Ordering::Relaxed) {
                    println!("guest: part {} of {PARTS}", part + 1);
                    run(lane, &words, Some(format!("{part}/{PARTS}")));
                }
            });
        }
    });
}

/// Runs the program `lanes` and reads the figures from its output.
fn run(lane: &Mutex<Lane>, words: &[&str], selection: Option<String>) {
    let program = env::current_exe().expect("our own path").with_file_name("lanes");
    // If this program is killed, `lanes` gets SIGTERM and ends its guest.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(&program).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if let Some(selection) = selection {
        command.env(COUNT_VARIABLE, selection);
    }
    let mut child = command.spawn().unwrap_or_else(|e| panic!("start {}: {e}", program.display()));
    let hold = || lane.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for line in BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines().map_while(Result::ok) {
        if let Some(figures) = Figures::from_line(&line) {
            println!("{}: {figures}", figures.name);
            hold().add(figures);
            continue;
        }
        if let Some((_, rest)) = line.split_once(" (Linux ") {
            // Without the suffix of the distribution.
            hold().kernel = format!("Linux {}", rest.split([')', '-']).next().unwrap_or_default());
        }
        println!("{line}");
    }
    let status = child.wait().expect("wait for the lanes");
    hold().good &= status.success();
}

impl Lane {
    /// Adds the figures of a scenario, or of another part of one.
    fn add(&mut self, figures: Figures) {
        match self.scenarios.iter_mut().find(|known| known.name == figures.name) {
            // All parts have the same calls.
            Some(known) => known.add(&Figures { calls: 0, possible: 0, ..figures }),
            None => self.scenarios.push(figures),
        }
    }

    fn total(&self) -> Figures {
        let mut total = Figures::default();
        self.scenarios.iter().for_each(|figures| total.add(figures));
        total
    }
}

fn page(native: &Lane, guest: &Lane) -> String {
    let mut text = format!("All faults were run on {}, with {} CPUs.\n", document::today(), cpus());
    for (name, lane) in [("Native", native), ("User-Mode Linux", guest)] {
        let minutes = lane.took.as_secs_f64() / 60.0;
        text += &format!(
            "\n**{name}, {}**, in {minutes:.0} minutes:\n\n\
             | call | system calls | faults | killed | returned an error | succeeded nevertheless | aborted | call did not come | leaks |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            lane.kernel
        );
        let mut scenarios = lane.scenarios.clone();
        scenarios.sort_by(|a, b| a.name.cmp(&b.name));
        let total = Figures { name: "**all**".into(), ..lane.total() };
        for its in scenarios.iter().chain([&total]) {
            let numbers = [
                its.calls,
                its.injected,
                its.killed,
                its.failed,
                its.succeeded,
                its.aborted,
                its.missed,
                its.leaks.len(),
            ];
            let cells: Vec<String> = numbers.iter().map(|number| grouped(*number as u64)).collect();
            text += &format!("| {} | {} |\n", its.name, cells.join(" | "));
        }
    }
    text
}

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
