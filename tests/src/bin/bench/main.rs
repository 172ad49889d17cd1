//! Benchmark of ADD and DEL: whole processes of ours, of the reference, and of the floor, alternately in one run. One
//! call at a time, bursts, and growth. Writes JSON, the sections of docs/benchmarks.md, and their plots.
#![forbid(unsafe_code)]

mod burst;
mod calls;
mod control;
mod count;
mod deletion;
mod field;
mod growth;
mod launch;
mod options;
mod plots;
mod record;
mod report;
mod scenario;
mod side;
mod target;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use e2e::interrupt;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use burst::Burst;
use calls::Calls;
use control::Control;
use deletion::Deletion;
use field::Field;
use growth::Stage;
use options::Options;
use side::{Programs, Side};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Enough descriptors for a few hundred namespaces and the pipes of their processes.
const DESCRIPTORS: u64 = 8192;

/// The numbers of rounds and sizes.
struct Plan {
    rounds: usize,
    /// For scenarios in which the reference waits one or two seconds for duplicate address detection.
    slow_rounds: usize,
    /// The first rounds of each scenario only warm the caches.
    warm_up: usize,
    counts: usize,
    bursts: &'static [(usize, usize)],
    growth: &'static [u32],
    growth_rounds: usize,
    scratch: PathBuf,
}

impl Plan {
    fn new(quick: bool, scratch: &Path) -> Self {
        let scratch = scratch.to_owned();
        let (rounds, slow_rounds, warm_up, counts, growth_rounds) =
            if quick { (3, 1, 1, 1, 2) } else { (200, 25, 2, 5, 40) };
        let bursts: &[_] = if quick { &[(1, 2), (8, 1)] } else { &[(1, 100), (8, 30), (64, 10), (256, 4)] };
        let growth: &[_] = if quick { &[1, 10] } else { &[1, 10, 100, 300, 1000] };
        Self { rounds, slow_rounds, warm_up, counts, bursts, growth, growth_rounds, scratch }
    }
}

struct Findings {
    control: Control,
    calls: Option<Calls>,
    deletion: Option<Deletion>,
    bursts: Vec<Burst>,
    growth: Vec<Stage>,
    /// The bytes of macvlan and host-local on disk.
    on_disk: Vec<(Side, u64)>,
    /// Name and version of the reference.
    reference: String,
    /// In seconds.
    took: f64,
}

fn main() -> ExitCode {
    let outcome = interrupt::listen()
        .map_err(Into::into)
        .and_then(|()| Options::read(env::args().skip(1)))
        .and_then(|options| run(&options));
    // After an interrupt, other errors follow from it, so only the interrupt is reported.
    match interrupt::check().map_err(Into::into).and(outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "\nbench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    allow_descriptors()?;
    let scratch = field::scratch()?;
    let plan = Plan::new(options.quick, scratch.path());
    let field = Field::new(scratch.path().join("data"))?;
    let programs = Programs::find(&field.lab)?;
    let host = &field.lab.host;
    let (control, calls, deletion, bursts) = host.run(|| {
        let control = control::measure(&field, &programs, &plan)?;
        let calls = calls::measure(&field, &programs, &plan)?;
        let deletion = deletion::measure(&field, &programs, &plan)?;
        Ok::<_, Box<dyn Error + Send + Sync>>((control, calls, deletion, burst::measure(&field, &programs, &plan)?))
    })?;
    let growth = growth::measure(&programs, &plan)?;
    let on_disk = [Side::Ours, Side::Copies, Side::Reference].map(|side| (side, programs.bytes_on_disk(side)));
    let on_disk = on_disk.into_iter().map(|(side, bytes)| Ok((side, bytes?))).collect::<Result<_>>()?;
    let reference = programs.reference_name()?;
    let took = begun.elapsed().as_secs_f64();
    let findings = Findings { control, calls, deletion, bursts, growth, on_disk, reference, took };
    write(options, &findings)
}

fn write(options: &Options, findings: &Findings) -> Result<()> {
    let folder = options.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), fs::create_dir_all)?;
    fs::write(&options.out, format!("{:#}\n", record::json(findings)))?;
    plots::draw(&options.docs, findings)?;
    for (section, text) in report::sections(findings)? {
        say(&format!("\n{text}"))?;
        section.insert(&options.docs, &text)?;
    }
    let (out, docs) = (options.out.display(), options.docs.display());
    say(&format!("\nwrote {out}, and benchmarks.md with its plots in {docs}, after {:.0} s\n", findings.took))
}

/// Prints progress and results.
fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The limit of many shells is 1,024.
fn allow_descriptors() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < DESCRIPTORS {
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS.min(hard), hard)?;
    }
    Ok(())
}
