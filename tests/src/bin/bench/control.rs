//! Measures one ADD and one DEL at a time, in all scenarios, all sides alternately, each in a new netns.

use e2e::{Samples, interrupt};

use crate::count::{Counts, HELD, count};
use crate::field::{Field, Pod};
use crate::launch::{children_cpu, milliseconds, prepare};
use crate::scenario::{Leases, SCENARIOS, Scenario, WHOLE};
use crate::side::{Programs, Side};
use crate::{Plan, Result, say};

const BATCH: usize = 25;

/// In milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    pub(crate) wall: Samples,
    pub(crate) cpu: Samples,
}

/// ADD and DEL of one side in one scenario.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) side: Side,
    pub(crate) times: [Times; 2],
    pub(crate) counts: [Counts; 2],
}

/// The results of one scenario.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) scenario: &'static Scenario,
    pub(crate) rounds: usize,
    pub(crate) cells: Vec<Cell>,
}

/// All results.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) scenarios: Vec<Measured>,
    pub(crate) empty: Times,
    pub(crate) empty_counts: Counts,
}

impl Control {
    pub(crate) fn cell(&self, scenario: &str, side: Side) -> Option<&Cell> {
        let measured = self.scenarios.iter().find(|measured| measured.scenario.key == scenario)?;
        measured.cells.iter().find(|cell| cell.side == side)
    }
}

/// Runs in the netns of the host.
pub(crate) fn measure(field: &Field, programs: &Programs, plan: &Plan) -> Result<Control> {
    let mut control = Control { scenarios: Vec::new(), empty: Times::default(), empty_counts: Counts::default() };
    for scenario in &SCENARIOS {
        let rounds = if matches!(scenario.leases, Leases::V6 | Leases::Dual) { plan.slow_rounds } else { plan.rounds };
        say(&format!("{}, {rounds} rounds: ", scenario.title))?;
        // A node usually has other containers, which use the host's link already.
        let mut other = scenario.sides.contains(&Side::Access).then(|| field.pod(scenario, Side::Access));
        if let Some(other) = &mut other {
            field.time(programs, scenario, other, "ADD")?;
        }
        let measured = one(field, programs, scenario, rounds, plan.warm_up, &mut control)?;
        control.scenarios.push(measured);
        say("\nsystem calls and memory: ")?;
        for which in 0..scenario.sides.len() {
            interrupt::check()?;
            let cells = &mut control.scenarios.last_mut().ok_or("a scenario")?.cells;
            cells[which].counts = count(field, programs, scenario, cells[which].side, plan.counts, &plan.scratch)?;
            say(".")?;
        }
        if let Some(other) = &mut other {
            field.time(programs, scenario, other, "DEL")?;
        }
        say("\n")?;
    }
    let idle = field.idle(programs);
    let (outcome, trace) = idle.clone().env(HELD, "1").run_traced();
    outcome.done();
    control.empty_counts.peak_kib = trace.peaks_kib.iter().copied().max().unwrap_or_default() as f64;
    control.empty_counts.processes = trace.processes();
    control.empty_counts.system_calls = crate::count::count_system_calls(&idle, &plan.scratch)?.0 as f64;
    Ok(control)
}

fn one(
    field: &Field,
    programs: &Programs,
    scenario: &'static Scenario,
    rounds: usize,
    warm_up: usize,
    control: &mut Control,
) -> Result<Measured> {
    let cell = |side: &Side| Cell { side: *side, times: Default::default(), counts: Default::default() };
    let mut cells: Vec<Cell> = scenario.sides.iter().map(cell).collect();
    let idle = field.idle(programs);
    let all: Vec<usize> = (0..rounds + warm_up).collect();
    for batch in all.chunks(BATCH) {
        say(".")?;
        let mut pods: Vec<Pod> =
            batch.iter().flat_map(|_| scenario.sides.iter().map(|side| field.pod(scenario, *side))).collect();
        for (round, pods) in batch.iter().zip(pods.chunks_mut(scenario.sides.len())) {
            interrupt::check()?;
            for (which, command) in ["ADD", "DEL"].into_iter().enumerate() {
                for turn in 0..cells.len() {
                    // The order changes. The side before influences the caches, and how long a DEL waits for a grace
                    // period.
                    let turn = if round % 2 == 0 { turn } else { cells.len() - 1 - turn };
                    let at = (turn + round) % cells.len();
                    let done = field.time(programs, scenario, &mut pods[at], command)?;
                    if *round < warm_up {
                        if command == "ADD" {
                            field.inspect(scenario, &pods[at])?;
                        }
                        continue;
                    }
                    let times = &mut cells[at].times[which];
                    times.wall.push(done.wall);
                    times.cpu.push(done.cpu);
                }
            }
            if scenario.key == WHOLE && *round >= warm_up {
                let before = children_cpu()?;
                let ended = prepare(&idle)?.go()?;
                ended.success(&idle)?;
                control.empty.cpu.push(milliseconds(children_cpu()? - before));
                control.empty.wall.push(milliseconds(ended.wall));
            }
        }
        field.retire(pods)?;
    }
    Ok(Measured { scenario, rounds, cells })
}
