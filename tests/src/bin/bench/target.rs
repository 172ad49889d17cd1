//! Compares the results with the targets.

use e2e::Samples;

use crate::Findings;
use crate::deletion::Divided;
use crate::scenario::{IPV6, WHOLE};
use crate::side::{Side, index};

pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) promised: Bound,
    pub(crate) measured: f64,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub(crate) fn met(&self) -> bool {
        match self.promised {
            Bound::AtMost(most) => self.measured <= most,
            Bound::AtLeast(least) => self.measured >= least,
        }
    }
}

/// The size of the burst whose rates are compared. A quick run takes its largest burst.
const BURST: usize = 64;

pub(crate) fn targets(findings: &Findings) -> Vec<Target> {
    let control = &findings.control;
    let wall = |scenario, side, which: usize| {
        control.cell(scenario, side).map_or(f64::NAN, |cell| cell.times[which].wall.median())
    };
    let cpu = |side: Side| control.cell(WHOLE, side).map_or(f64::NAN, |cell| cell.times[0].cpu.median());
    let peak = |side| control.cell(WHOLE, side).map_or(f64::NAN, |cell| cell.counts[0].peak_kib);
    let rate = |side: Side| {
        let burst = findings.bursts.iter().rfind(|burst| burst.size <= BURST);
        burst.map_or(f64::NAN, |burst| burst.sides[index(side)][0].rates.median())
    };
    let on_disk =
        findings.on_disk.iter().find(|(side, _)| *side == Side::Ours).map_or(f64::NAN, |(_, size)| *size as f64);
    let (ours, theirs) = (wall(WHOLE, Side::Ours, 0), wall(WHOLE, Side::Reference, 0));
    let target = |what, promised, measured| Target { what, promised, measured };
    let mut targets = vec![
        target("whole ADD, wall time: ratio to the reference", Bound::AtMost(0.22), ours / theirs),
        target("whole ADD, wall time: ratio to the floor", Bound::AtMost(1.4), ours / wall(WHOLE, Side::Floor, 0)),
        target(
            "whole ADD, user+sys: ratio to the reference",
            Bound::AtMost(0.2),
            cpu(Side::Ours) / cpu(Side::Reference),
        ),
        target(
            "whole ADD, peak memory: ratio to the reference",
            Bound::AtMost(0.4),
            peak(Side::Ours) / peak(Side::Reference),
        ),
        target(
            "whole ADD with IPAM executed, wall time: ratio to the reference",
            Bound::AtMost(0.35),
            wall(WHOLE, Side::Copies, 0) / theirs,
        ),
        target(
            "whole ADD with host access, wall time: ratio to one without",
            Bound::AtMost(1.25),
            wall(WHOLE, Side::Access, 0) / ours,
        ),
        target(
            "whole ADD with host access, user+sys: ratio to one without",
            Bound::AtMost(1.25),
            cpu(Side::Access) / cpu(Side::Ours),
        ),
        target(
            "ADD until its IPv6 address is usable, wall time: ratio to the reference",
            Bound::AtMost(0.2),
            wall(IPV6, Side::Ours, 0) / wall(IPV6, Side::Reference, 0),
        ),
        target(
            "64 parallel ADDs, rate: ratio to the reference",
            Bound::AtLeast(5.0),
            rate(Side::Ours) / rate(Side::Reference),
        ),
        target("bytes on disk of `bin/`, in millions", Bound::AtMost(2.0), on_disk / 1e6),
    ];
    if let Some([at_once, _]) = &findings.deletion {
        let median = |side, figure: fn(&Divided) -> &Samples| figure(&at_once[index(side)]).median();
        targets.push(target(
            "whole DEL, wall time: ratio to its own request that deletes the link",
            Bound::AtMost(1.15),
            median(Side::Ours, |of| &of.whole) / median(Side::Ours, |of| &of.deleting),
        ));
        targets.push(target(
            "DEL without that request, wall time: ratio to the reference",
            Bound::AtMost(0.3),
            median(Side::Ours, |of| &of.rest) / median(Side::Reference, |of| &of.rest),
        ));
    }
    targets
}
