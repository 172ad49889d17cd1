//! Draws the results.

use std::path::Path;

use e2e::chart::{Bars, Line, Panel, Values, draw_bars, draw_lines, span};

use crate::side::{COMPARED, Side};
use crate::{Findings, Result};

pub(crate) const CONTROL: &str = "control-plane.svg";
pub(crate) const BURSTS: &str = "bursts.svg";
pub(crate) const GROWTH: &str = "growth.svg";

const COMMANDS: [&str; 2] = ["ADD", "DEL"];

pub(crate) fn draw(folder: &Path, findings: &Findings) -> Result<()> {
    draw_bars(&folder.join(CONTROL), (1160, 620), &[0, 1].map(|which| control(findings, which)))?;
    draw_lines(&folder.join(BURSTS), (1000, 760), (2, 2), &bursts(findings))?;
    draw_lines(&folder.join(GROWTH), (1000, 420), (1, 2), &[0, 1].map(|which| growth(findings, which)))
}

fn control(findings: &Findings, which: usize) -> Bars {
    let sides = [Side::Ours, Side::Copies, Side::Access, Side::Reference, Side::Floor];
    let groups = findings.control.scenarios.iter().map(|measured| {
        let value = |side| {
            let cell = measured.cells.iter().find(|cell| cell.side == side)?;
            Some(cell.times[which].wall.median())
        };
        (measured.scenario.short.to_owned(), sides.map(value).to_vec())
    });
    Bars {
        caption: COMMANDS[which].to_owned(),
        x: "milliseconds, median, logarithmic".to_owned(),
        series: sides.map(|side| (side.name().to_owned(), side.colour())).to_vec(),
        groups: groups.collect(),
    }
}

fn line(side: Side, name: String, points: impl Iterator<Item = (f64, f64)>, values: Values) -> Line {
    Line { name, colour: side.colour(), points: points.collect(), values }
}

fn bursts(findings: &Findings) -> Vec<Panel> {
    let mut panels = Vec::new();
    for (which, command) in COMMANDS.into_iter().enumerate() {
        let lines = COMPARED.iter().enumerate().map(|(at, side)| {
            let points = findings.bursts.iter().map(|burst| (burst.size as f64, burst.sides[at][which].rates.median()));
            // The floor is near ours.
            let values = if *side == Side::Floor { Values::Hidden } else { Values::Below };
            line(*side, side.name().to_owned(), points, values)
        });
        panels.push(panel(format!("{command}s per second"), "per second", "parallel calls", lines.collect()));
    }
    for (which, command) in COMMANDS.into_iter().enumerate() {
        let lines = COMPARED.iter().enumerate().filter(|(_, side)| **side != Side::Floor).flat_map(|(at, side)| {
            [(0.5, "p50", false), (0.99, "p99", true)].map(|(share, name, written)| {
                let points = findings
                    .bursts
                    .iter()
                    .map(|burst| (burst.size as f64, burst.sides[at][which].latencies.quantile(share)));
                let values = match side {
                    _ if !written => Values::Hidden,
                    Side::Reference => Values::Above,
                    _ => Values::Below,
                };
                let mut line = line(*side, format!("{} {name}", side.name()), points, values);
                if !written {
                    line.colour = if *side == Side::Ours { e2e::chart::SKY } else { e2e::chart::AMBER };
                }
                line
            })
        });
        panels.push(panel(format!("{command} latency"), "milliseconds", "parallel calls", lines.collect()));
    }
    panels
}

fn growth(findings: &Findings, which: usize) -> Panel {
    let lines = COMPARED.iter().enumerate().map(|(at, side)| {
        let points = findings.growth.iter().map(|stage| (f64::from(stage.live), stage.sides[at][which].median()));
        // The floor is near ours.
        let values = if *side == Side::Floor { Values::Hidden } else { Values::Above };
        line(*side, side.name().to_owned(), points, values)
    });
    panel(COMMANDS[which].to_owned(), "milliseconds", "live attachments on the parent", lines.collect())
}

fn panel(caption: String, y: &str, x: &str, lines: Vec<Line>) -> Panel {
    let all = lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y));
    let span = span(all);
    Panel { caption, x: x.to_owned(), y: y.to_owned(), span, lines }
}
