//! Divides the time of an ADD or DEL by system calls, with `perf trace`, for ours and for the floor. The rest is our
//! own code and its first page faults.

use std::collections::BTreeMap;
use std::path::Path;

use e2e::{Call, Samples, interrupt};

use crate::field::Field;
use crate::scenario::{SCENARIOS, WHOLE};
use crate::side::{Programs, Side};
use crate::{Plan, Result, launch, say};

/// The sides that are divided.
pub(crate) const SIDES: [Side; 2] = [Side::Ours, Side::Floor];

/// The system calls of one name in one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) calls: Samples,
    pub(crate) microseconds: Samples,
}

/// The ADDs or the DELs of one side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) by_name: BTreeMap<String, Spent>,
    /// The time from execve to exit_group without system calls, in microseconds.
    pub(crate) rest: Samples,
}

/// For each of [`SIDES`]: ADD and DEL.
pub(crate) type Calls = [[Taken; 2]; 2];

/// One process: number and microseconds of each system call, and the rest.
type Division = (BTreeMap<String, (f64, f64)>, f64);

/// Runs in the netns of the host. Returns `None` if perf is missing or not permitted.
pub(crate) fn measure(field: &Field, programs: &Programs, plan: &Plan) -> Result<Option<Calls>> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.key == WHOLE).ok_or("a whole ADD")?;
    let idle = field.idle(programs);
    if trace(&idle, &plan.scratch).is_err() {
        say("system calls one by one: there is no `perf trace` (package linux-perf) here\n")?;
        return Ok(None);
    }
    say("system calls one by one: ")?;
    let mut calls = Calls::default();
    for _ in 0..plan.counts * 8 {
        interrupt::check()?;
        let mut pods = Vec::new();
        for (taken, side) in calls.iter_mut().zip(SIDES) {
            let mut pod = field.pod(scenario, side);
            for (taken, command) in taken.iter_mut().zip(["ADD", "DEL"]) {
                field.perform(programs, scenario, &mut pod, command, |call| {
                    let ((by_name, rest), stdout) = trace(call, &plan.scratch)?;
                    for (name, (calls, microseconds)) in by_name {
                        let spent = taken.by_name.entry(name).or_default();
                        spent.calls.push(calls);
                        spent.microseconds.push(microseconds);
                    }
                    taken.rest.push(rest);
                    Ok(stdout)
                })?;
            }
            pods.push(pod);
        }
        field.retire(pods)?;
        say(".")?;
    }
    say("\n")?;
    Ok(Some(calls))
}

fn trace(call: &Call<'_>, scratch: &Path) -> Result<(Division, Vec<u8>)> {
    let (text, stdout) = launch::under(call, "perf", &["trace"], scratch)?;
    Ok((divide(&text).ok_or_else(|| format!("perf traced nothing: {text}"))?, stdout))
}

/// Parses lines such as `     2.690 ( 0.032 ms): macvlan/28655 sendto(fd: 7, ...) = 52`: the milliseconds since execve,
/// and the duration.
fn divide(text: &str) -> Option<Division> {
    let mut by_name: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let (mut last, mut inside) = (None, 0.0);
    for line in text.lines() {
        let Some((time, rest)) = line.split_once('(') else { continue };
        let Some((duration, rest)) = rest.split_once("ms): ").or_else(|| rest.split_once("): ")) else { continue };
        // The first execve has no time. It is the zero of the others.
        let Ok(time) = time.trim().parse::<f64>() else { continue };
        if rest.contains("[continued]") {
            continue;
        }
        last = Some(time);
        let Ok(duration) = duration.trim().parse::<f64>() else { continue };
        let name = rest.split_once(' ')?.1.trim_start().split('(').next()?;
        let spent = by_name.entry(name.to_owned()).or_default();
        *spent = (spent.0 + 1.0, spent.1 + duration * 1e3);
        inside += duration;
    }
    Some((by_name, (last? - inside) * 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_divided_by_system_calls() {
        let text = "         ? (         ): macvlan/7  ... [continued]: execve())       = 0\n     \
                    0.000 (18446744073708.551 ms): macvlan/7  ... [continued]: execve()) = 0\n     \
                    0.250 ( 0.002 ms): macvlan/7 brk()                             = 0x5588\n     \
                    0.300 ( 0.004 ms): macvlan/7 brk(brk: 0x5588)                  = 0x5588\n     \
                    0.400 ( 0.100 ms): macvlan/7 sendto(fd: 7<socket:[3]>, len: 5) = 52\n     \
                    0.520 (         ): macvlan/7 exit_group()                      = ?\n";
        let (by_name, rest) = divide(text).expect("a trace");
        assert_eq!(by_name.keys().collect::<Vec<_>>(), ["brk", "sendto"]);
        assert_eq!(by_name["brk"].0, 2.0);
        assert!((by_name["brk"].1 - 6.0).abs() < 1e-6, "{by_name:?}");
        assert!((rest - 414.0).abs() < 1e-6, "{rest}");
        assert!(divide("nothing\n").is_none());
    }
}
