//! Many parallel ADDs, then as many DELs, as on a node after a reboot.

use std::panic::resume_unwind;
use std::sync::Barrier;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use e2e::{Samples, interrupt};

use crate::field::{Field, Pod};
use crate::launch::{Ready, children_cpu, milliseconds, prepare};
use crate::scenario::{Scenario, WHOLE};
use crate::side::{COMPARED, Programs};
use crate::{Plan, Result, say};

/// The ADDs or the DELs of one side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rush {
    /// Attachments per second, from the first start to the last end, by round.
    pub(crate) rates: Samples,
    /// From the first start to the end of each call, in milliseconds, of all rounds.
    pub(crate) latencies: Samples,
    /// User and system time for each attachment, in milliseconds, by round.
    pub(crate) cpu: Samples,
}

/// Bursts of one size.
#[derive(Clone, Debug)]
pub(crate) struct Burst {
    pub(crate) size: usize,
    pub(crate) rounds: usize,
    pub(crate) sides: [[Rush; 2]; 3],
}

pub(crate) fn measure(field: &Field, programs: &Programs, plan: &Plan) -> Result<Vec<Burst>> {
    let scenario = Scenario::of(WHOLE);
    let mut bursts = Vec::new();
    for &(size, rounds) in plan.bursts {
        say(&format!("bursts of {size}, {rounds} rounds: "))?;
        let mut burst = Burst { size, rounds, sides: Default::default() };
        // The first round of the first size warms the caches.
        let warm_up = usize::from(bursts.is_empty());
        for round in 0..warm_up + rounds {
            say(".")?;
            for turn in 0..COMPARED.len() {
                interrupt::check()?;
                let at = (turn + round) % COMPARED.len();
                let mut pods: Vec<Pod> = (0..size).map(|_| field.pod(scenario, COMPARED[at])).collect();
                for (which, command) in ["ADD", "DEL"].into_iter().enumerate() {
                    let (latencies, cpu) = rush(field, programs, scenario, &mut pods, command)?;
                    if round < warm_up {
                        continue;
                    }
                    let rush = &mut burst.sides[at][which];
                    rush.rates.push(size as f64 / latencies.quantile(1.0) * 1e3);
                    rush.cpu.push(cpu / size as f64);
                    rush.latencies.extend(latencies);
                }
                field.retire(pods)?;
            }
        }
        say("\n")?;
        bursts.push(burst);
    }
    Ok(bursts)
}

/// Starts all calls at once, each in a waiting thread. Returns the latencies and the total CPU time, in milliseconds.
fn rush(
    field: &Field,
    programs: &Programs,
    scenario: &Scenario,
    pods: &mut [Pod],
    command: &str,
) -> Result<(Samples, f64)> {
    let calls: Vec<_> =
        pods.iter().map(|pod| field.call(programs, scenario, 0, pod, command)).collect::<Result<_>>()?;
    let all_ready: Vec<_> = calls.iter().map(prepare).collect::<Result<_>>()?;
    let gate = Barrier::new(calls.len());
    let before = children_cpu()?;
    let start = |ready: Ready<'_>| {
        gate.wait();
        let begun = Instant::now();
        (ready.go(), begun, Instant::now())
    };
    let start = &start;
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = all_ready.into_iter().map(|ready| scope.spawn(move || start(ready))).collect();
        let join = |thread: ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        threads.into_iter().map(join).collect()
    });
    let cpu = milliseconds(children_cpu()? - before);
    let begun = outcomes.iter().map(|(_, begun, _)| *begun).min().ok_or("an empty burst")?;
    let mut latencies = Samples::default();
    for ((pod, call), (ended, _, at)) in pods.iter_mut().zip(&calls).zip(outcomes) {
        pod.learn(command, ended?.success(call)?)?;
        latencies.push(milliseconds(at - begun));
    }
    Ok((latencies, cpu))
}
