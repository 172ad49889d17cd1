//! The findings in words: the sections of docs/benchmarks.md. Every figure in them comes from the run.

use std::fmt::Write as _;

use e2e::Samples;
use e2e::document::{Section, digits, grouped, setting};

use crate::control::{Cell, Control};
use crate::scenario::{IPV6, WHOLE};
use crate::side::Side;
use crate::target::{Bound, targets};
use crate::{Findings, Result, burst, growth, plots};

const COMMAND: &str = "make bench";

/// All sections, in the order of the document.
pub(crate) fn sections(findings: &Findings) -> Result<Vec<(Section, String)>> {
    let section = |name| Section { name, command: COMMAND };
    Ok(vec![
        (section("targets"), targets_text(findings)?),
        (section("control-plane"), control_text(findings)?),
        (section("bursts"), bursts_text(findings)?),
        (section("growth"), growth_text(findings)?),
    ])
}

fn targets_text(findings: &Findings) -> Result<String> {
    let mut text = format!(
        "## Targets\n\n\
         Ratios of medians of one run; each row is computed by `{COMMAND}` from what the next sections show. A whole\n\
         ADD or DEL is macvlan with host-local, IPv4, all names one file. {}.\n\n\
         | what | target | measured | met |\n|---|---:|---:|---|\n",
        setting()
    );
    for target in targets(findings) {
        let promised = match target.promised {
            Bound::AtMost(most) => format!("at most {most}"),
            Bound::AtLeast(least) => format!("at least {least}"),
        };
        let met = if target.met() { "yes" } else { "**no**" };
        writeln!(text, "| {} | {promised} | {:.3} | {met} |", target.what, target.measured)?;
    }
    Ok(text)
}

fn control_text(findings: &Findings) -> Result<String> {
    let control = &findings.control;
    let mut text = format!(
        "## Control plane\n\n\
         ![Time of ADD and DEL by configuration]({})\n\n\
         Whole processes, from posix_spawn to wait, one at a time, in a fresh netns each, Underlay and the others in\n\
         turns in one run: medians, with the quartiles in brackets. `user+sys` is that of all processes of the call,\n\
         `peak` the resident set of the largest (VmHWM), `calls` the system calls of all (`strace -f -c`); these two are\n\
         counted in runs of their own. The reference is {}. The rounds with IPv6 are fewer, since the reference takes\n\
         seconds for each. {}. To repeat: `{COMMAND}`.\n\n\
         The *floor* is one static process that does the bare kernel operations to the same end state (link,\n\
         addresses, up, default route, `arp_notify` or `ndisc_notify`, lease file), several in one message, with no\n\
         protocol, no check and no undoing. With IPv6 it does the whole of duplicate address detection, made as short\n\
         as Underlay makes it. In the chain, `tuning` is the reference's on both sides.\n",
        plots::CONTROL,
        findings.reference,
        setting(),
    );
    for (which, command) in ["ADD", "DEL"].into_iter().enumerate() {
        write!(
            text,
            "\n| {command} | | rounds | wall ms | of the reference's | user+sys ms | peak KiB | calls | processes |\n\
             |---|---|---:|---:|---:|---:|---:|---:|---:|\n"
        )?;
        for measured in &control.scenarios {
            let reference = measured.cells.iter().find(|cell| cell.side == Side::Reference);
            let reference = reference.map_or(f64::NAN, |cell| cell.times[which].wall.median());
            for cell in &measured.cells {
                let (times, counts) = (&cell.times[which], &cell.counts[which]);
                writeln!(
                    text,
                    "| {} | {} | {} | {} | {:.2} | {} | {} | {} | {} |",
                    measured.scenario.title,
                    cell.side.name(),
                    measured.rounds,
                    spread(&times.wall),
                    times.wall.median() / reference,
                    digits(times.cpu.median()),
                    grouped(counts.peak_kib as u64),
                    grouped(counts.system_calls as u64),
                    counts.processes,
                )?;
            }
        }
    }
    let (empty, counts) = (&control.empty, &control.empty_counts);
    write!(
        text,
        "\nAn empty static process takes {} ms, {} ms of user+sys, {} KiB and {} system calls.\n\
         The system call that deletes the link of a whole attachment takes {} ms: nearly all of a DEL is the kernel's.\n\n",
        spread(&empty.wall),
        digits(empty.cpu.median()),
        grouped(counts.peak_kib as u64),
        counts.system_calls,
        spread(&control.kernel_delete),
    )?;
    text += "| bytes on disk of macvlan and host-local | |\n|---|---:|\n";
    for (side, bytes) in &findings.on_disk {
        writeln!(text, "| {} | {} |", side.name(), grouped(*bytes))?;
    }
    text += &verdict(control);
    Ok(text)
}

/// What the tables say.
fn verdict(control: &Control) -> String {
    let cell = |scenario, side| control.cell(scenario, side);
    let wall = |cell: Option<&Cell>, which: usize| cell.map_or(f64::NAN, |cell| cell.times[which].wall.median());
    let [ours, copies, theirs, floor] =
        [Side::Ours, Side::Copies, Side::Reference, Side::Floor].map(|side| wall(cell(WHOLE, side), 0));
    let [ours6, theirs6, floor6] = [Side::Ours, Side::Reference, Side::Floor].map(|side| wall(cell(IPV6, side), 0));
    let [del, del_theirs] = [Side::Ours, Side::Reference].map(|side| wall(cell(WHOLE, side), 1));
    format!(
        "\nWhat they say: a whole ADD takes {} ms in place of {}, of which {} are an empty process and {} the kernel's work \
         and a lease file; what Underlay adds for the protocol, its checks and its way back is {} ms. An IPAM that has \
         to be executed costs {} ms more. With IPv6, a usable address is there after {} ms in place of {}, and {} of \
         them are the kernel's detection of duplicates. DEL takes {} ms in place of {}: it waits for the kernel.\n",
        digits(ours),
        digits(theirs),
        digits(control.empty.wall.median()),
        digits(floor - control.empty.wall.median()),
        digits(ours - floor),
        digits(copies - ours),
        digits(ours6),
        digits(theirs6),
        digits(floor6),
        digits(del),
        digits(del_theirs),
    )
}

/// A median and its quartiles.
fn spread(samples: &Samples) -> String {
    let [low, median, high] = [0.25, 0.5, 0.75].map(|share| digits(samples.quantile(share)));
    format!("{median} ({low}–{high})")
}

fn bursts_text(findings: &Findings) -> Result<String> {
    let mut text = format!(
        "## Bursts\n\n\
         ![Rate and latency by the number of parallel calls]({})\n\n\
         So many ADDs at once, each of a thread that stands ready, in namespaces prepared beforehand, then as many DELs:\n\
         macvlan with host-local, IPv4. Rates are medians of the rounds, from the first start to the last end;\n\
         latencies are from the burst's start to each one's end, of all rounds. {}. To repeat: `{COMMAND}`.\n\n\
         | parallel | rounds | | ADDs/s | p50 ms | p99 ms | user+sys ms each | DELs/s | p50 ms | p99 ms | user+sys ms each |\n\
         |---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        plots::BURSTS,
        setting(),
    );
    for burst in &findings.bursts {
        for (side, rushes) in burst::SIDES.iter().zip(&burst.sides) {
            write!(text, "| {} | {} | {} |", burst.size, burst.rounds, side.name())?;
            for rush in rushes {
                let figures =
                    [rush.rates.median(), rush.latencies.median(), rush.latencies.quantile(0.99), rush.cpu.median()];
                figures.iter().try_for_each(|figure| write!(text, " {} |", digits(*figure)))?;
            }
            text += "\n";
        }
    }
    let largest = findings.bursts.last().ok_or("a burst")?;
    let at = |side: Side| burst::SIDES.iter().position(|its| *its == side).unwrap_or_default();
    let [ours, theirs] = [Side::Ours, Side::Reference].map(|side| &largest.sides[at(side)]);
    writeln!(
        text,
        "\nWhat they say: of {} ADDs at once, the last percent waits {} ms with Underlay and {} with the reference; \
         {} and {} are done in a second. The kernel makes and deletes links one at a time, under one lock, so DELs \
         are {} and {} a second.",
        largest.size,
        digits(ours[0].latencies.quantile(0.99)),
        digits(theirs[0].latencies.quantile(0.99)),
        digits(ours[0].rates.median()),
        digits(theirs[0].rates.median()),
        digits(ours[1].rates.median()),
        digits(theirs[1].rates.median()),
    )?;
    Ok(text)
}

fn growth_text(findings: &Findings) -> Result<String> {
    let rounds = findings.growth.first().map_or(0, |stage| stage.sides[0][0].len());
    let mut text = format!(
        "## Growth\n\n\
         ![Time of ADD and DEL by the number of live attachments on the parent]({})\n\n\
         One ADD and one DEL beside so many live attachments on the same parent, each with an address and a lease:\n\
         macvlan with host-local, IPv4. Medians of {rounds} rounds, all numbers in turns, in milliseconds; in brackets the\n\
         ratio to the least number. {}. To repeat: `{COMMAND}`.\n\n| live |",
        plots::GROWTH,
        setting(),
    );
    for command in ["ADD", "DEL"] {
        growth::SIDES.iter().try_for_each(|side| write!(text, " {command}, {} |", side.name()))?;
    }
    text += "\n|---:|---:|---:|---:|---:|---:|---:|\n";
    let first = findings.growth.first().ok_or("a number of live attachments")?;
    for stage in &findings.growth {
        write!(text, "| {} |", grouped(u64::from(stage.live)))?;
        for which in [0, 1] {
            for (samples, base) in stage.sides.iter().zip(&first.sides) {
                let (median, base) = (samples[which].median(), base[which].median());
                write!(text, " {} ({:.2}) |", digits(median), median / base)?;
            }
        }
        text += "\n";
    }
    let last = findings.growth.last().ok_or("a number of live attachments")?;
    let grown = |at: usize, which: usize| last.sides[at][which].median() / first.sides[at][which].median();
    writeln!(
        text,
        "\nWhat they say: from {} to {} live attachments an ADD grows {:.2}-fold with Underlay, {:.2}-fold with the \
         reference, which reads every lease each time, and {:.2}-fold with the floor, which is the kernel's own growth; \
         a DEL {:.2}, {:.2} and {:.2}-fold.",
        grouped(u64::from(first.live)),
        grouped(u64::from(last.live)),
        grown(0, 0),
        grown(1, 0),
        grown(2, 0),
        grown(0, 1),
        grown(1, 1),
        grown(2, 1),
    )?;
    Ok(text)
}
