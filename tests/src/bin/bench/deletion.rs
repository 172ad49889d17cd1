//! Divides a DEL into the system call that deletes the link and the rest. In that call the kernel waits for RCU grace
//! periods. This wait depends on the other processors, and no plugin can shorten it.

use std::path::Path;
use std::thread;
use std::time::Duration;

use e2e::{Call, Samples, interrupt};

use crate::field::Field;
use crate::scenario::{Scenario, WHOLE};
use crate::side::{COMPARED, Programs};
use crate::{Plan, Result, launch, say};

/// The time from the end of an ADD to the start of its DEL.
pub(crate) const PAUSES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(100)];

/// DELs of one side after one pause, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Divided {
    pub(crate) whole: Samples,
    /// The longest `sendto`: the request that deletes the link.
    pub(crate) deleting: Samples,
    pub(crate) rest: Samples,
}

/// By pause, then by side.
pub(crate) type Deletion = [[Divided; 3]; 2];

/// Runs in the netns of the host. Returns `None` if perf is missing or not permitted.
pub(crate) fn measure(field: &Field, programs: &Programs, plan: &Plan) -> Result<Option<Deletion>> {
    if !matches!(trace(&field.idle(programs), &plan.scratch), Ok((Some(_), _))) {
        say("DEL, divided: there is no `perf trace` (package linux-perf) here\n")?;
        return Ok(None);
    }
    say("DEL, divided: ")?;
    let scenario = Scenario::of(WHOLE);
    let mut deletion = Deletion::default();
    for round in 0..plan.counts * 10 {
        interrupt::check()?;
        let mut pods = Vec::new();
        for (pause, divided) in PAUSES.into_iter().zip(&mut deletion) {
            for turn in 0..COMPARED.len() {
                let at = (turn + round) % COMPARED.len();
                let mut pod = field.pod(scenario, COMPARED[at]);
                field.time(programs, scenario, &mut pod, "ADD")?;
                thread::sleep(pause);
                field.perform(programs, scenario, &mut pod, "DEL", |call| {
                    let (times, stdout) = trace(call, &plan.scratch)?;
                    if let Some((whole, deleting)) = times {
                        divided[at].whole.push(whole);
                        divided[at].deleting.push(deleting);
                        divided[at].rest.push(whole - deleting);
                    }
                    Ok(stdout)
                })?;
                pods.push(pod);
            }
        }
        field.retire(pods)?;
        say(".")?;
    }
    say("\n")?;
    Ok(Some(deletion))
}

/// The milliseconds of the whole call and of its longest `sendto`.
type Times = (f64, f64);

/// Traces a few system calls of a call, so that tracing costs all sides the same. The times are `None` if perf has lost
/// the end of the call, which happens under load.
fn trace(call: &Call<'_>, scratch: &Path) -> Result<(Option<Times>, Vec<u8>)> {
    let (text, stdout) = launch::under(call, "perf", &["trace", "-e", "execve,sendto,exit_group"], scratch)?;
    Ok((divide(&text), stdout))
}

/// Parses lines such as `     2.690 ( 0.032 ms): macvlan/28655 sendto(fd: 7, ...) = 52`. Several processors write them,
/// so they may not be in the order of time.
fn divide(text: &str) -> Option<(f64, f64)> {
    let (mut end, mut longest): (Option<f64>, f64) = (None, 0.0);
    for line in text.lines() {
        let Some((time, rest)) = line.split_once('(') else { continue };
        let Ok(time) = time.trim().parse::<f64>() else { continue };
        if rest.contains(" exit_group(") {
            end = Some(end.unwrap_or_default().max(time));
        } else if rest.contains(" sendto(") {
            let duration = rest.split_once("ms)").and_then(|(duration, _)| duration.trim().parse().ok());
            longest = longest.max(duration.unwrap_or_default());
        }
    }
    Some((end?, longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_last_process_and_the_deletion_the_longest_sendto() {
        let text = "         ? (         ): macvlan/7  ... [continued]: execve())        = 0\n    \
                    9.500 (         ): macvlan/7 exit_group()                       = ?\n     \
                    1.000 ( 0.100 ms): macvlan/7 sendto(fd: 7, len: 5)              = 52\n     \
                    2.000 ( 6.250 ms): macvlan/7 sendto(fd: 7, len: 5)              = 52\n     \
                    4.000 ( 0.300 ms): macvlan/9 execve(filename: 0x1)              = 0\n     \
                    5.000 (         ): host-local/9 exit_group()                    = ?\n";
        assert_eq!(divide(text), Some((9.5, 6.25)));
        assert_eq!(divide("nothing\n"), None);
    }
}
