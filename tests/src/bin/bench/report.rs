//! Writes the sections of docs/benchmarks.md. All figures come from the run.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use e2e::Samples;
use e2e::document::{Section, digits, grouped, setting, wrapped};

use crate::control::Control;
use crate::scenario::{IPV6, WHOLE};
use crate::side::{COMPARED, Side, index};
use crate::target::{Bound, targets};
use crate::{Findings, Result, calls, deletion, plots};

const COMMAND: &str = "make bench";

pub(crate) fn sections(findings: &Findings) -> Result<Vec<(Section, String)>> {
    let section = |name| Section { name, command: COMMAND };
    Ok(vec![
        (section("targets"), targets_text(findings)?),
        (section("control-plane"), control_text(findings)?),
        (section("calls"), calls_text(findings)?),
        (section("deletion"), deletion_text(findings)?),
        (section("bursts"), bursts_text(findings)?),
        (section("growth"), growth_text(findings)?),
    ])
}

fn targets_text(findings: &Findings) -> Result<String> {
    let about = format!(
        "Each row is a ratio of two medians of one run, or a size. `{COMMAND}` computes it from the figures of the \
         next sections. A whole ADD or DEL is macvlan with host-local and IPv4, all names one file. {}.",
        setting()
    );
    let mut text =
        format!("## Targets\n\n{}\n| measure | target | measured | met |\n|---|---:|---:|---|\n", wrapped(&about));
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
    let how = format!(
        "A time is that of a whole process, from posix_spawn to wait. The calls run one at a time, each in a new \
         netns. Underlay and the others are measured alternately in one run. The figures are medians, with the \
         quartiles in brackets. `user+sys` is the CPU time of all processes of the call. `peak` is the resident set \
         of the largest process (VmHWM). `calls` is the number of system calls (`strace -f -c`). `peak` and `calls` \
         come from separate runs. The reference is {}. With IPv6 there are fewer rounds, because the reference needs \
         one or two seconds for each. {}. To repeat: `{COMMAND}`.",
        findings.reference,
        setting(),
    );
    let floor = "The *floor* is one static process that only does the kernel operations for the same end state. \
        These are: link, addresses, up, default route, `arp_notify`, `ndisc_notify`, `keep_addr_on_down` and lease \
        file. It sends several operations in one message, and has no protocol, no checks and no undo. With IPv6 it \
        does the complete duplicate address detection, as fast as Underlay. In the chain, both sides call the \
        reference's `tuning`.";
    let mut text = format!(
        "## Control plane\n\n![Time of ADD and DEL by configuration]({})\n\n{}\n{}",
        plots::CONTROL,
        wrapped(&how),
        wrapped(floor)
    );
    for (which, command) in ["ADD", "DEL"].into_iter().enumerate() {
        text += &control_table(control, which, command)?;
    }
    text += "\n| program | bytes on disk of macvlan and host-local |\n|---|---:|\n";
    for (side, bytes) in &findings.on_disk {
        writeln!(text, "| {} | {} |", side.name(), grouped(*bytes))?;
    }
    let (empty, counts) = (&control.empty, &control.empty_counts);
    let rest = format!(
        "An empty static process needs {} ms, {} ms of user+sys, {} KiB and {} system calls.",
        spread(&empty.wall),
        digits(empty.cpu.median()),
        grouped(counts.peak_kib as u64),
        counts.system_calls,
    );
    write!(text, "\n{}\n{}", wrapped(&rest), wrapped(&verdict(control)))?;
    Ok(text)
}

fn control_table(control: &Control, which: usize, command: &str) -> Result<String> {
    let mut text = format!(
        "\n| {command} | program | rounds | wall ms | ratio to the reference | user+sys ms | peak KiB | calls | processes |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|\n"
    );
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
    Ok(text)
}

fn verdict(control: &Control) -> String {
    let wall = |scenario, side, which: usize| {
        digits(control.cell(scenario, side).map_or(f64::NAN, |cell| cell.times[which].wall.median()))
    };
    let (ours, theirs, floor) = (Side::Ours, Side::Reference, Side::Floor);
    format!(
        "Summary: a whole ADD takes {} ms with Underlay and {} ms with the reference. An empty process takes {} ms. \
         The floor, which adds the kernel's work and a lease file, takes {} ms. The difference between Underlay and \
         the floor is the protocol, the checks and the code for the undo. If IPAM is a separate process, an ADD \
         takes {} ms. With host access, on a node whose other containers have it already, it takes {} ms. With IPv6, the address is usable after {} ms with Underlay and {} ms with the reference. Most \
         of this is the kernel's duplicate address detection: the floor takes {} ms. A DEL takes {} ms with Underlay \
         and {} ms with the reference. Most of this is the kernel's time to delete the link (see the section on \
         deletion).",
        wall(WHOLE, ours, 0),
        wall(WHOLE, theirs, 0),
        digits(control.empty.wall.median()),
        wall(WHOLE, floor, 0),
        wall(WHOLE, Side::Copies, 0),
        wall(WHOLE, Side::Access, 0),
        wall(IPV6, ours, 0),
        wall(IPV6, theirs, 0),
        wall(IPV6, floor, 0),
        wall(WHOLE, ours, 1),
        wall(WHOLE, theirs, 1),
    )
}

fn spread(samples: &Samples) -> String {
    let [low, median, high] = [0.25, 0.5, 0.75].map(|share| digits(samples.quantile(share)));
    format!("{median} ({low}–{high})")
}

/// System calls below this time share a row.
const MICROSECONDS: f64 = 10.0;

fn calls_text(findings: &Findings) -> Result<String> {
    let mut text = String::from("## Call by call\n\n");
    let Some(all) = &findings.calls else {
        text += "Not traced: there was no `perf trace` (package linux-perf), or it was not permitted.\n";
        return Ok(text);
    };
    let how = format!(
        "The time of a whole ADD and of a whole DEL inside the process, from execve to exit, as `perf trace` shows \
         it. Tracing adds some time. The figures are medians of {} runs, in microseconds. {}. To repeat: \
         `{COMMAND}`, with the package linux-perf.",
        all[0][0].rest.len(),
        setting(),
    );
    text += &wrapped(&how);
    let at = |side| calls::SIDES.iter().position(|its| *its == side).unwrap_or_default();
    let [ours, floor] = [Side::Ours, Side::Floor].map(|side| &all[at(side)]);
    for (which, command) in ["ADD", "DEL"].into_iter().enumerate() {
        write!(
            text,
            "\n| {command}, time in | Underlay: calls | microseconds | floor: calls | microseconds | difference |\n\
             |---|---:|---:|---:|---:|---:|\n"
        )?;
        let mut rows = calls_rows(&ours[which], &floor[which]);
        let sum = rows.iter().fold([0.0; 4], |sum, (_, row)| std::array::from_fn(|at| sum[at] + row[at]));
        rows.push(("**all**".into(), sum));
        for (name, [calls, spent, floor_calls, floor_spent]) in rows {
            let difference = spent - floor_spent;
            writeln!(text, "| {name} | {calls} | {spent:.0} | {floor_calls} | {floor_spent:.0} | {difference:.0} |")?;
        }
    }
    Ok(text)
}

/// Name, and calls and microseconds of ours and of the floor. The largest difference comes first, the small ones are
/// added up.
fn calls_rows(ours: &calls::Taken, floor: &calls::Taken) -> Vec<(String, [f64; 4])> {
    let of = |taken: &calls::Taken, name: &str| {
        let spent = taken.by_name.get(name);
        spent.map_or([0.0; 2], |spent| [spent.calls.median(), spent.microseconds.median()])
    };
    let names: BTreeSet<&String> = ours.by_name.keys().chain(floor.by_name.keys()).collect();
    let mut rows =
        vec![("no system call: code, page faults".to_owned(), [0.0, ours.rest.median(), 0.0, floor.rest.median()])];
    let mut small = [0.0; 4];
    for name in names {
        let ([calls, spent], [floor_calls, floor_spent]) = (of(ours, name), of(floor, name));
        let row = [calls, spent, floor_calls, floor_spent];
        if spent.max(floor_spent) < MICROSECONDS {
            small = std::array::from_fn(|at| small[at] + row[at]);
        } else {
            rows.push((format!("`{name}`"), row));
        }
    }
    rows.sort_by(|(_, a), (_, b)| (b[1] - b[3]).total_cmp(&(a[1] - a[3])));
    rows.push((format!("system calls below {MICROSECONDS} each"), small));
    rows
}

fn deletion_text(findings: &Findings) -> Result<String> {
    let mut text = String::from("## DEL without the kernel's grace periods\n\n");
    let Some(all) = &findings.deletion else {
        text += "Not traced: there was no `perf trace` (package linux-perf), or it was not permitted.\n";
        return Ok(text);
    };
    let how = format!(
        "When the kernel deletes a link, it waits for RCU grace periods. The wait takes milliseconds. It depends on \
         the work of all processors just before, and it is the same for every plugin. So the time of each DEL is \
         divided into two parts: the request that deletes the link, and the rest. This request is the longest \
         `sendto`. The times are those of whole processes under `perf trace`, which traces only these system calls. \
         The plugins are macvlan with host-local and IPv4. The figures are medians of {} runs in milliseconds, with \
         the quartiles in brackets. The programs are measured alternately. {}. To repeat: `{COMMAND}`, with the \
         package linux-perf.",
        all[0][0].whole.len(),
        setting(),
    );
    text += &wrapped(&how);
    text += "\n| DEL begins | program | whole | deleting the link | the rest | the rest, ratio to the reference |\n\
             |---|---|---:|---:|---:|---:|\n";
    for (pause, sides) in deletion::PAUSES.iter().zip(all) {
        let begins = match pause.as_millis() {
            0 => "right after its ADD".to_owned(),
            millis => format!("{millis} ms after its ADD"),
        };
        let reference = sides[index(Side::Reference)].rest.median();
        for (side, divided) in COMPARED.iter().zip(sides) {
            let [whole, deleting, rest] = [&divided.whole, &divided.deleting, &divided.rest].map(spread);
            let ratio = divided.rest.median() / reference;
            writeln!(text, "| {begins} | {} | {whole} | {deleting} | {rest} | {ratio:.2} |", side.name())?;
        }
    }
    Ok(text)
}

fn bursts_text(findings: &Findings) -> Result<String> {
    let how = format!(
        "N ADDs of macvlan with host-local and IPv4 are started in parallel, in prepared namespaces, by threads that \
         are waiting. Then N DELs are started in the same way. A rate counts the calls from the first start to the \
         last end, and is the median of all rounds. A latency is the time from the start of the burst to the end of \
         one call, over all rounds. {}. To repeat: `{COMMAND}`.",
        setting(),
    );
    let mut text = format!(
        "## Bursts\n\n![Rate and latency by the number of parallel calls]({})\n\n{}\n\
         | parallel | rounds | program | ADDs/s | p50 ms | p99 ms | user+sys ms each | DELs/s | p50 ms | p99 ms | user+sys ms each |\n\
         |---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        plots::BURSTS,
        wrapped(&how),
    );
    for burst in &findings.bursts {
        for (side, rushes) in COMPARED.iter().zip(&burst.sides) {
            write!(text, "| {} | {} | {} |", burst.size, burst.rounds, side.name())?;
            for rush in rushes {
                let (p50, p99) = (rush.latencies.median(), rush.latencies.quantile(0.99));
                for figure in [rush.rates.median(), p50, p99, rush.cpu.median()] {
                    write!(text, " {} |", digits(figure))?;
                }
            }
            text += "\n";
        }
    }
    let largest = findings.bursts.last().ok_or("a burst")?;
    let [ours, theirs] = [Side::Ours, Side::Reference].map(|side| &largest.sides[index(side)]);
    let verdict = format!(
        "Summary: of {} parallel ADDs, 99 % have ended after {} ms with Underlay and after {} ms with the reference. \
         The rates are {} and {} ADDs per second, and {} and {} DELs per second. The kernel deletes one link at a \
         time, under one lock.",
        largest.size,
        digits(ours[0].latencies.quantile(0.99)),
        digits(theirs[0].latencies.quantile(0.99)),
        digits(ours[0].rates.median()),
        digits(theirs[0].rates.median()),
        digits(ours[1].rates.median()),
        digits(theirs[1].rates.median()),
    );
    write!(text, "\n{}", wrapped(&verdict))?;
    Ok(text)
}

fn growth_text(findings: &Findings) -> Result<String> {
    let first = findings.growth.first().ok_or("a number of live attachments")?;
    let last = findings.growth.last().ok_or("a number of live attachments")?;
    let how = format!(
        "One ADD and one DEL of macvlan with host-local and IPv4, while N attachments exist on the same parent. Each \
         of them has an address and a lease. The figures are medians of {} rounds in milliseconds. All N are \
         measured alternately. The ratio to the smallest N is in brackets. {}. To repeat: `{COMMAND}`.",
        first.sides[0][0].len(),
        setting(),
    );
    let mut text = format!(
        "## Growth\n\n![Time of ADD and DEL by the number of live attachments on the parent]({})\n\n{}\n| existing |",
        plots::GROWTH,
        wrapped(&how),
    );
    for command in ["ADD", "DEL"] {
        COMPARED.iter().try_for_each(|side| write!(text, " {command}, {} |", side.name()))?;
    }
    text += "\n|---:|---:|---:|---:|---:|---:|---:|\n";
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
    let grown = |at: usize| last.sides[at][0].median() / first.sides[at][0].median();
    let verdict = format!(
        "Summary: from {} to {} attachments, the time of an ADD grows by the factor {:.2} with Underlay. With the \
         reference, which reads every lease each time, the factor is {:.2}. With the floor, which shows the growth \
         of the kernel alone, it is {:.2}. The time of a DEL is mostly the kernel's wait for grace periods, so its \
         ratios say little.",
        grouped(u64::from(first.live)),
        grouped(u64::from(last.live)),
        grown(0),
        grown(1),
        grown(2),
    );
    write!(text, "\n{}", wrapped(&verdict))?;
    Ok(text)
}
