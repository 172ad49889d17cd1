//! Measures the cost of a packet from a container on one host to a container on another: on a sub-interface, and on
//! bridges, routes and tunnels. Two hosts are two network namespaces, and all traffic stays in them.
//!
//! `bench-lan` measures on the kernel of this machine. What this kernel lacks (ipvlan, netem) is measured in a
//! User-Mode Linux guest. It writes tables, JSON and plots. `QUICK=1` runs one short round and writes nothing.
//! `OUT=DIR` writes to DIR instead of docs/.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_macros, reason = "this program prints to a terminal")]

mod guest;
mod load;
mod measure;
mod peer;
mod plot;
mod report;
mod scene;
mod way;
mod wire;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use e2e::{document, interrupt};
use measure::Effort;
use report::Report;
use scene::{Place, Scene};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [peer::ARGUMENT, ref rest @ ..] => peer::main(rest),
        [guest::ARGUMENT, effort] => guest::main(effort),
        [] => run(),
        _ => Err(format!("{arguments:?}: bench-lan has no arguments, only the variables QUICK=1 and OUT=DIR")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-lan: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    interrupt::listen()?;
    let begun = Instant::now();
    let quick = env::var("QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let effort = if quick { Effort::Quick } else { Effort::Whole };
    // The figures of a short run are not written to docs/.
    let out = env::var_os("OUT").map(PathBuf::from);
    let out = out.or_else(|| (effort == Effort::Whole).then(document::folder));
    let mut scenes = Scene::all(Place::Native, effort);
    scene::measure(&mut scenes, effort)?;
    scenes.extend(guest::measure(effort)?);
    let report = Report::new(scenes);
    print!("\n{}", report.markdown());
    for path in out.map_or(Ok(Vec::new()), |out| report.write(&out))? {
        println!("wrote {}", path.display());
    }
    println!("all of it took {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}
