//! Writes the results as JSON, to compare runs.

use std::time::Duration;

use e2e::{Samples, document};
use serde_json::{Value, json};

use crate::Findings;
use crate::control::{Cell, Measured, Times};
use crate::count::Counts;
use crate::side::{COMPARED, Side};
use crate::target::{Bound, targets};
use crate::{burst, deletion, growth};

/// Times are in milliseconds.
pub(crate) fn json(findings: &Findings) -> Value {
    let control = &findings.control;
    let on_disk: serde_json::Map<_, _> =
        findings.on_disk.iter().map(|(side, bytes)| (side.key().to_owned(), json!(bytes))).collect();
    let targets = targets(findings).into_iter().map(|target| {
        let (bound, figure) = match target.promised {
            Bound::AtMost(figure) => ("at most", figure),
            Bound::AtLeast(figure) => ("at least", figure),
        };
        json!({"what": target.what, bound: figure, "measured": target.measured, "met": target.met()})
    });
    json!({
        "setting": document::setting(),
        "reference": findings.reference,
        "seconds": findings.took,
        "bytes_on_disk": on_disk,
        "scenarios": control.scenarios.iter().map(scenario).collect::<Vec<_>>(),
        "empty_process": times(&control.empty, &control.empty_counts),
        "deletion": findings.deletion.as_ref().map(deletion),
        "bursts": findings.bursts.iter().map(burst).collect::<Vec<_>>(),
        "growth": findings.growth.iter().map(stage).collect::<Vec<_>>(),
        "targets": targets.collect::<Vec<_>>(),
    })
}

fn samples(samples: &Samples) -> Value {
    let quantile = |share| samples.quantile(share);
    json!({"count": samples.len(), "median": samples.median(), "p25": quantile(0.25), "p75": quantile(0.75), "p99": quantile(0.99)})
}

fn times(times: &Times, counts: &Counts) -> Value {
    json!({
        "wall_ms": samples(&times.wall), "cpu_ms": samples(&times.cpu),
        "system_calls": counts.system_calls, "peak_kib": counts.peak_kib, "processes": counts.processes,
    })
}

fn scenario(measured: &Measured) -> Value {
    let cell = |cell: &Cell| {
        let [add, del] = [0, 1].map(|which| times(&cell.times[which], &cell.counts[which]));
        json!({"side": cell.side.key(), "add": add, "del": del})
    };
    json!({
        "scenario": measured.scenario.key, "title": measured.scenario.title, "rounds": measured.rounds,
        "sides": measured.cells.iter().map(cell).collect::<Vec<_>>(),
    })
}

fn deletion(all: &deletion::Deletion) -> Value {
    let side = |(side, divided): (&Side, &deletion::Divided)| {
        let [whole, deleting, rest] = [&divided.whole, &divided.deleting, &divided.rest].map(samples);
        json!({"side": side.key(), "whole_ms": whole, "deleting_ms": deleting, "rest_ms": rest})
    };
    let pause = |(pause, sides): (&Duration, &[deletion::Divided; 3])| {
        let sides: Vec<_> = COMPARED.iter().zip(sides).map(side).collect();
        json!({"after_add_ms": pause.as_millis(), "sides": sides})
    };
    deletion::PAUSES.iter().zip(all).map(pause).collect()
}

fn burst(burst: &burst::Burst) -> Value {
    let rush = |rush: &burst::Rush| json!({"per_second": samples(&rush.rates), "latency_ms": samples(&rush.latencies), "cpu_ms_each": samples(&rush.cpu)});
    let sides = COMPARED.iter().zip(&burst.sides);
    let sides = sides.map(|(side, [add, del])| json!({"side": side.key(), "add": rush(add), "del": rush(del)}));
    json!({"parallel": burst.size, "rounds": burst.rounds, "sides": sides.collect::<Vec<_>>()})
}

fn stage(stage: &growth::Stage) -> Value {
    let sides = COMPARED.iter().zip(&stage.sides);
    let sides =
        sides.map(|(side, [add, del])| json!({"side": side.key(), "add_ms": samples(add), "del_ms": samples(del)}));
    json!({"live": stage.live, "sides": sides.collect::<Vec<_>>()})
}
