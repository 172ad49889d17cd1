//! Writes the results: tables, comparisons, JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use e2e::Samples;
use e2e::document::{self, Section, digits};
use serde_json::json;

use crate::measure::{CONNECTIONS, GUEST_PAIRS, METRICS, PAIRS, STREAM, STREAM_CPU};
use crate::plot;
use crate::scene::{Measured, Place, Scene};
use crate::way::Way;
use crate::wire;

const SECTION: Section = Section { name: "lan", command: "make bench-lan" };
const JSON: &str = "lan.json";
const TABLES: [(&str, std::ops::Range<usize>); 2] = [
    ("One stream (iperf3), and one connection that sends one byte there and back (RR)", 0..4),
    ("Connect, send one byte there and back, close (CRR)", 4..8),
];

const ENOUGH: usize = 5;

#[derive(Debug)]
pub(crate) struct Report {
    scenes: Vec<Scene>,
}

impl Report {
    pub(crate) fn new(scenes: Vec<Scene>) -> Self {
        Self { scenes }
    }

    /// Writes the section, the JSON and the plots into a directory. Returns the paths.
    pub(crate) fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, String> {
        fs::create_dir_all(folder).map_err(|e| format!("make {}: {e}", folder.display()))?;
        let mut written = vec![folder.join("benchmarks.md"), folder.join(JSON)];
        SECTION.insert(folder, &self.markdown()).map_err(|e| format!("write {}: {e}", written[0].display()))?;
        let scenes: Vec<_> = self.scenes.iter().map(Scene::to_json).collect();
        let whole = json!({"date": document::today(), "crr_clients": PAIRS, "scenes": scenes});
        let text = format!("{whole:#}\n");
        fs::write(&written[1], text).map_err(|e| format!("write {}: {e}", written[1].display()))?;
        for scene in &self.scenes {
            let path = folder.join(picture(scene));
            plot::draw(&path, scene).map_err(|e| format!("draw {}: {e}", path.display()))?;
            written.push(path);
        }
        Ok(written)
    }

    /// The text of the section.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "## From container to container\n\n\
             Two hosts are connected by a wire, and each has a container. Each setup connects the two containers in another\n\
             way, and all get the same load. On \"one node\", both ends are on one host: two containers, or the host itself and\n\
             a container. The hosts are network namespaces of one machine. The wire is a veth pair. All\n\
             setups and wires are measured alternately. A cell is the median of all rounds, with the quartiles in brackets.\n\n\
             - CPU is the time of the whole machine, which includes both hosts and the wire (/proc/stat).\n\
             - RR is one connection with TCP_NODELAY, with a process at each end.\n\
             - CRR has {PAIRS} client processes at once ({GUEST_PAIRS} in the guest). Each has its own server process. The client closes first.\n\
             - Every namespace has tcp_tw_reuse 1 and all ports from 1024 up. Streams use cubic.\n\
             - With NAT, ended connections are forgotten after a second. Otherwise the benchmark would fill the table.\n\
             - \"Offloads off\" means that the NICs have no offloads. So all setups send single frames on the wire.\n\
             - No setup has rules of a kube-proxy or a network policy.\n\n\
             {}. To repeat: `make bench-lan`.\n\n",
            document::today(),
        );
        text += "| setup | how it is built |\n|---|---|\n";
        for way in Way::ALL {
            let _ = writeln!(text, "| {} | {} |", way.name(), way.about());
        }
        if !self.scenes.iter().any(|scene| scene.place == Place::Native && scene.wire == wire::Kind::Delayed) {
            text += "\nThe kernel of this machine has no netem, so it cannot delay frames. The wire with a delay is measured in a guest.\n";
        }
        self.scenes.iter().for_each(|scene| describe(scene, &mut text));
        text
    }
}

fn picture(scene: &Scene) -> String {
    format!("lan-{}-{}.svg", scene.place, scene.wire.name())
}

pub(crate) fn title(scene: &Scene) -> String {
    let mut about = scene.wire.about().to_owned();
    about[..1].make_ascii_uppercase();
    if scene.place == Place::Guest { format!("{about}, in a guest") } else { about }
}

fn describe(scene: &Scene, text: &mut String) {
    let cpus = if scene.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", scene.cpus) };
    let rounds = scene.ways.first().map_or(0, |measured| measured.samples.len());
    let place = if scene.place == Place::Guest { "User-Mode Linux, Linux" } else { "Linux" };
    let _ = write!(
        text,
        "\n### {}\n\n![{}]({})\n\n{place} {}, {cpus}, rounds: {rounds}.\n",
        title(scene),
        title(scene),
        picture(scene),
        scene.kernel
    );
    if scene.place == Place::Guest {
        text.push_str("The guest has one processor for all the work. Compare these figures only with each other.\n");
    } else {
        let others: Samples = scene.others.iter().map(|share| share * 100.0).collect();
        let [median, most] = [0.5, 1.0].map(|share| others.quantile(share));
        let _ = writeln!(
            text,
            "Before a round, other processes used {median:.0} % of the processors (median), and at most {most:.0} %."
        );
    }
    for (caption, metrics) in TABLES {
        let with_frames = metrics.start == 0;
        let _ = write!(text, "\n{caption}:\n\n| setup |");
        for metric in &METRICS[metrics.clone()] {
            let _ = write!(text, " {} |", metric.title);
        }
        text.push_str(if with_frames { " bytes per frame |\n|---|" } else { "\n|---|" });
        text.push_str(&"---:|".repeat(metrics.len() + usize::from(with_frames)));
        text.push('\n');
        for measured in &scene.ways {
            let _ = write!(text, "| {} |", measured.way.name());
            for metric in metrics.clone() {
                let _ = write!(text, " {} |", cell(&measured.values(metric)));
            }
            if with_frames {
                let frames: Samples = measured.frames.iter().copied().collect();
                let _ = write!(text, " {} |", digits(frames.median()));
            }
            text.push('\n');
        }
    }
    compare(scene, text);
}

fn cell(values: &Samples) -> String {
    let [lower, median, upper] = [0.25, 0.5, 0.75].map(|share| digits(values.quantile(share)));
    format!("{median} ({lower}-{upper})")
}

/// The ratios of medians of ours and each other setup.
fn compare(scene: &Scene, text: &mut String) {
    for ours in scene.ways.iter().filter(|measured| measured.way.is_ours()) {
        let others = || scene.ways.iter().filter(|other| other.way != ours.way);
        let _ = write!(text, "\n{}", in_short(ours, others()));
        text.push_str("\n\n| compared with | ahead | behind | the ranges overlap |\n|---|---|---|---|\n");
        for other in others() {
            let mut columns = [Vec::new(), Vec::new(), Vec::new()];
            for (which, metric) in METRICS.iter().enumerate() {
                let (ratio, verdict) = compare_one(ours, other, which);
                columns[verdict as usize].push(format!("{} {ratio:.2}", metric.short));
            }
            let _ = writeln!(text, "| {} | {} |", other.way.name(), columns.map(|words| words.join(", ")).join(" | "));
        }
    }
}

fn in_short<'a>(ours: &Measured, others: impl Iterator<Item = &'a Measured>) -> String {
    let name = ours.way.name();
    let mut text = format!("{name} compared with each other setup: the ratio of the medians.\n");
    let (mut ahead, mut behind) = (Vec::new(), Vec::new());
    for other in others {
        let verdicts = || (0..METRICS.len()).map(|which| compare_one(ours, other, which).1);
        let count = |wanted| verdicts().filter(|verdict| *verdict == wanted).count();
        if other.way == Way::Host {
            let ratio = |which| compare_one(ours, other, which).0;
            let _ = write!(
                text,
                "Compared with the hosts without containers, the throughput is {:.2}, the CPU time per Gbit {:.2},\n\
                 and the connections per second {:.2}.",
                ratio(STREAM),
                ratio(STREAM_CPU),
                ratio(CONNECTIONS)
            );
            continue;
        }
        for (list, wanted) in [(&mut ahead, Verdict::Ahead), (&mut behind, Verdict::Behind)] {
            if count(wanted) > 0 {
                list.push(format!("{} in {}", other.way.name(), count(wanted)));
            }
        }
    }
    let listed = |list: Vec<String>| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let _ = write!(
        text,
        "\nOf these {} measures, it is ahead of {}, and behind {}.\n\
         A difference counts only if the ranges in brackets do not overlap, with at least {ENOUGH} rounds.",
        METRICS.len(),
        listed(ahead),
        listed(behind)
    );
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ahead,
    Behind,
    Same,
}

fn compare_one(ours: &Measured, other: &Measured, which: usize) -> (f64, Verdict) {
    judge(&ours.values(which), &other.values(which), METRICS[which].more_is_better)
}

/// A difference counts if the quartile ranges do not overlap and there are enough rounds.
fn judge(ours: &Samples, other: &Samples, more_is_better: bool) -> (f64, Verdict) {
    let enough = ours.len().min(other.len()) >= ENOUGH;
    let above = enough && ours.quantile(0.25) > other.quantile(0.75);
    let below = enough && ours.quantile(0.75) < other.quantile(0.25);
    let verdict = match (above, below) {
        (true, _) if more_is_better => Verdict::Ahead,
        (_, true) if !more_is_better => Verdict::Ahead,
        (false, false) => Verdict::Same,
        _ => Verdict::Behind,
    };
    (ours.median() / other.median(), verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: [f64; 5]) -> Samples {
        values.into_iter().collect()
    }

    #[test]
    fn a_difference_counts_if_the_quartile_ranges_do_not_overlap() {
        let low = samples([0.5, 1.0, 2.0, 3.0, 9.0]);
        let high = samples([1.0, 4.0, 4.5, 5.0, 5.0]);
        let between = samples([2.0, 2.0, 3.5, 4.0, 4.0]);
        let verdict = |ours, other, more| judge(ours, other, more).1;
        assert_eq!(verdict(&high, &low, true), Verdict::Ahead);
        assert_eq!(verdict(&high, &low, false), Verdict::Behind);
        assert_eq!(verdict(&low, &high, true), Verdict::Behind);
        assert_eq!(verdict(&low, &high, false), Verdict::Ahead);
        assert_eq!(verdict(&between, &high, true), Verdict::Same);
        assert_eq!(judge(&high, &low, true).0, 2.25);
    }

    #[test]
    fn with_few_rounds_no_difference_counts() {
        let (low, high): (Samples, Samples) = ([1.0; 4].into_iter().collect(), [2.0; 4].into_iter().collect());
        assert_eq!(judge(&high, &low, true), (2.0, Verdict::Same));
    }

    #[test]
    fn every_scene_has_its_tables_and_its_comparison() {
        let measured = |way, value| Measured { way, samples: vec![[value; METRICS.len()]; 5], frames: vec![1514.0] };
        let scene = Scene {
            place: Place::Guest,
            wire: wire::Kind::Delayed,
            kernel: "6.1.176".to_owned(),
            cpus: 1,
            others: vec![0.0; 5],
            ways: vec![measured(Way::Host, 2.0), measured(Way::Macvlan, 0.5), measured(Way::Ipvlan, 1.0)],
        };
        let text = Report::new(vec![scene]).markdown();
        let row = "| host to host | CPU/Gbit 0.50, RR p50 0.50, RR p99 0.50, CPU/CRR 0.50, CRR p50 0.50, CRR p99 0.50 \
                   | stream 0.50, CRR/s 0.50 |  |\n";
        assert!(text.contains(row), "{text}");
        let short = "the throughput is 0.50, the CPU time per Gbit 0.50,\nand the connections per second 0.50.";
        assert!(text.contains(short), "{text}");
        assert!(text.contains("ahead of macvlan bridge in 2, and behind macvlan bridge in 6."), "{text}");
        assert!(text.contains("| ipvlan l2 | 1.00 (1.00-1.00) |"), "{text}");
        assert!(text.contains("(lan-guest-delayed.svg)"), "{text}");
    }
}
