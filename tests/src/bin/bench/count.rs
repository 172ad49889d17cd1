//! Counts system calls and peak memory in separate calls, because a tracer slows a call down.

use std::path::Path;

use e2e::{Call, Samples};

use crate::field::Field;
use crate::scenario::Scenario;
use crate::side::{Programs, Side};
use crate::{Result, launch};

/// A variable for the floor only. It waits for its tracer, because it does not read its input.
pub(crate) const HELD: &str = "FLOOR_HELD";

#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) system_calls: f64,
    /// The peak of the largest process, in KiB.
    pub(crate) peak_kib: f64,
    pub(crate) processes: usize,
}

/// Counts ADD and DEL of one side, `times` times. Runs in the netns of the host.
pub(crate) fn count(
    field: &Field,
    programs: &Programs,
    scenario: &Scenario,
    side: Side,
    times: usize,
    scratch: &Path,
) -> Result<[Counts; 2]> {
    let mut counts = <[Counts; 2]>::default();
    let mut samples: [[Samples; 2]; 2] = Default::default();
    let mut pods = Vec::new();
    for _ in 0..times {
        let (mut weighed, mut traced) = (field.pod(scenario, side), field.pod(scenario, side));
        for (which, command) in ["ADD", "DEL"].into_iter().enumerate() {
            let (mut system_calls, mut peak, mut processes) = (0, 0, 0);
            field.perform(programs, scenario, &mut weighed, command, |call| {
                let (outcome, trace) = call.clone().env(HELD, "1").run_traced();
                if !outcome.status.success() {
                    return Err(outcome.text().into());
                }
                peak = trace.peaks_kib.iter().copied().fold(peak, u64::max);
                processes += trace.processes();
                Ok(outcome.stdout)
            })?;
            field.perform(programs, scenario, &mut traced, command, |call| {
                let (counted, stdout) = count_system_calls(call, scratch)?;
                system_calls += counted;
                Ok(stdout)
            })?;
            samples[which][0].push(system_calls as f64);
            samples[which][1].push(peak as f64);
            counts[which].processes = processes;
        }
        pods.extend([weighed, traced]);
    }
    for (counts, samples) in counts.iter_mut().zip(samples) {
        [counts.system_calls, counts.peak_kib] = samples.each_ref().map(Samples::median);
    }
    field.retire(pods)?;
    Ok(counts)
}

/// The number of system calls of all processes and threads of a call, and its stdout.
pub(crate) fn count_system_calls(call: &Call<'_>, scratch: &Path) -> Result<(u64, Vec<u8>)> {
    let (text, stdout) = launch::under(call, "strace", &["-f", "-c", "-U", "calls,name"], scratch)?;
    let total =
        text.lines().find_map(|line| line.trim().strip_suffix("total")?.split_whitespace().next()?.parse().ok());
    Ok((total.ok_or_else(|| format!("strace counted nothing: {text}"))?, stdout))
}
