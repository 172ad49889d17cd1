//! Measures host-local by the number of leases, ours and the reference's alternately in one run, from fork to exit.
//! Writes the section `host-local` of docs/benchmarks.md and its plot.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use e2e::chart::{self, Line, Panel, Values};
use e2e::document::{self, Section, grouped};
use e2e::{Binaries, Call, Namespace, Outcome, Plugin, Samples};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SIZES: [u32; 4] = [10, 1_000, 10_000, 60_000];
const COMMANDS: [&str; 4] = ["ADD", "DEL", "CHECK", "second DEL"];
/// The rounds of each command, size and program. Sizes alternate, so that the ratios compare equal conditions.
const ROUNDS: usize = 31;
/// Our calls are so short that other processes disturb them, so each round has more of them.
const OURS_IN_A_ROUND: usize = 5;
/// The addresses of a /16 that can be leased: without network, gateway and broadcast.
const ADDRESSES: u32 = 65_533;
/// The free addresses in the nearly full range.
const FREE: u32 = 8;

const SECTION: Section = Section { name: "host-local", command: "make bench-ipam" };
const PLOT: &str = "host-local.svg";

/// One program with its lease directory.
struct Side<'a> {
    container: &'a Namespace,
    program: Plugin<'a>,
    data_dir: PathBuf,
}

/// In milliseconds, for each command.
type Medians = [f64; 4];

struct Measured {
    size: u32,
    medians: [Medians; 2],
    peaks_kib: [u64; 2],
}

/// The first call on a directory that the reference wrote.
struct Takeover {
    size: u32,
    milliseconds: f64,
    peak_kib: u64,
}

fn main() -> Result<()> {
    // In memory if possible, because other programs share the journal of a disk.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let (host, container) = (Namespace::new(), Namespace::new());
    let programs = [Binaries::HardLinks, Binaries::Reference].map(|binaries| {
        let bin = binaries.directory(folder.path());
        Plugin::new(&host, bin.join("host-local")).search(bin)
    });
    let side = |which: usize, name: &str| Side {
        program: programs[which].clone(),
        container: &container,
        data_dir: folder.path().join(format!("{name}-{which}")),
    };

    let (mut directories, mut takeovers) = (Vec::new(), Vec::new());
    say("leases: ")?;
    for size in SIZES {
        say(&format!("{} ", grouped(u64::from(size))))?;
        let sides = [side(0, &size.to_string()), side(1, &size.to_string())];
        sides.iter().try_for_each(|side| side.fill((0..size).map(address)))?;
        takeovers.push(sides[0].take_over(size));
        directories.push(sides);
    }
    say(&format!("{}\n{ROUNDS} rounds: ", grouped(u64::from(ADDRESSES - FREE))))?;
    let apart = ADDRESSES / FREE;
    let sides = [side(0, "apart"), side(1, "apart")];
    let leased = (0..ADDRESSES).filter(|number| number % apart != apart / 2 || number / apart >= FREE);
    sides.iter().try_for_each(|side| side.fill(leased.clone().map(address)))?;
    sides[0].take_over(ADDRESSES - FREE);
    directories.push(sides);

    let mut medians = measure(&directories)?;
    let scattered = medians.pop().unwrap_or_default();
    let measured: Vec<_> = (SIZES.into_iter().zip(medians).zip(&directories))
        .map(|((size, medians), sides)| {
            let peaks_kib = [sides[0].peak_kib(), sides[1].peak_kib()];
            Measured { size, medians, peaks_kib }
        })
        .collect();
    say(" done\n")?;

    let file_system = file_system(folder.path())?;
    let text = section(&measured, &takeovers, &scattered, &file_system)?;
    say(&format!("\n{text}\n"))?;
    plot(&measured)?;
    SECTION.insert(&document::folder(), &text)?;
    say(&format!("wrote benchmarks.md and {PLOT} in {}\n", document::folder().display()))
}

/// Prints progress and results.
fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn address(number: u32) -> String {
    let [.., third, fourth] = (number + 2).to_be_bytes();
    format!("10.0.{third}.{fourth}")
}

impl Side<'_> {
    fn conf(&self) -> Value {
        json!({"cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "ipam": {
            "type": "host-local", "dataDir": self.data_dir, "subnet": "10.0.0.0/16",
        }})
    }

    fn call(&self, command: &str, id: &str, conf: &Value) -> Call<'_> {
        let call = self.program.call(command, conf).env("CNI_CONTAINERID", id);
        call.env("CNI_IFNAME", "eth0").env("CNI_NETNS", self.container.path())
    }

    /// Writes leases as the reference does. The last one is `last_reserved_ip`.
    fn fill(&self, addresses: impl Iterator<Item = String>) -> Result<()> {
        let network = self.data_dir.join("lan");
        fs::create_dir_all(&network)?;
        for address in addresses {
            fs::write(network.join(&address), format!("{}\r\neth0", id(&address)))?;
            fs::write(network.join("last_reserved_ip.0"), &address)?;
        }
        Ok(())
    }

    fn take_over(&self, size: u32) -> Takeover {
        let (outcome, trace) = self.call("DEL", "nobody", &self.conf()).run_traced();
        outcome.done();
        let peak_kib = trace.peaks_kib.into_iter().max().unwrap_or_default();
        // For the time, once more without a tracer, which would slow it down.
        let _ = fs::remove_file(self.data_dir.join("lan/lock"));
        self.records().for_each(|record| drop(fs::remove_file(record)));
        let outcome = self.call("DEL", "nobody", &self.conf()).run();
        outcome.done();
        Takeover { size, milliseconds: milliseconds(&outcome), peak_kib }
    }

    fn records(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(self.data_dir.join("lan")).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_symlink())
    }

    /// All calls of one container, in milliseconds.
    fn live(&self, id: &str) -> Result<Medians> {
        let mut conf = self.conf();
        let add = self.call("ADD", id, &conf).run();
        conf["prevResult"] = add.result();
        let check = self.call("CHECK", id, &conf).run();
        let [del, second] = [(); 2].map(|()| self.call("DEL", id, &conf).run());
        for outcome in [&check, &del, &second] {
            outcome.done();
        }
        Ok([&add, &del, &check, &second].map(milliseconds))
    }

    fn peak_kib(&self) -> u64 {
        let mut conf = self.conf();
        let mut peak = 0;
        for command in ["ADD", "CHECK", "DEL", "DEL"] {
            let (outcome, trace) = self.call(command, "traced", &conf).run_traced();
            assert!(outcome.status.success(), "{}", outcome.text());
            if command == "ADD" {
                conf["prevResult"] = outcome.json();
            }
            peak = peak.max(trace.peaks_kib.into_iter().max().unwrap_or_default());
        }
        peak
    }
}

/// A container ID of the usual length.
fn id(seed: &str) -> String {
    format!("{seed:0>64}").replace('.', "a")
}

fn milliseconds(outcome: &Outcome) -> f64 {
    outcome.wall.as_secs_f64() * 1e3
}

fn measure(directories: &[[Side<'_>; 2]]) -> Result<Vec<[Medians; 2]>> {
    let mut samples: Vec<[[Samples; 4]; 2]> = directories.iter().map(|_| Default::default()).collect();
    for round in 0..ROUNDS + 2 {
        say(".")?;
        for (sides, samples) in directories.iter().zip(&mut samples) {
            for ((side, samples), lives) in sides.iter().zip(samples).zip([OURS_IN_A_ROUND, 1]) {
                for life in 0..lives {
                    let lived = side.live(&id(&format!("{round}.{life}")))?;
                    // The first two rounds warm the caches.
                    if round >= 2 {
                        samples.iter_mut().zip(lived).for_each(|(samples, sample)| samples.push(sample));
                    }
                }
            }
        }
    }
    Ok(samples.into_iter().map(|sides| sides.map(|samples| samples.each_ref().map(Samples::median))).collect())
}

/// The kind of file system that a path is on.
fn file_system(path: &Path) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let path = fs::canonicalize(path)?;
    let mut best = (0, "unknown".to_owned());
    for line in mounts.lines() {
        let (Some(at), Some(kind)) = (line.split(' ').nth(4), line.split(" - ").nth(1)) else { continue };
        if path.starts_with(at) && at.len() >= best.0 {
            best = (at.len(), kind.split(' ').next().unwrap_or_default().to_owned());
        }
    }
    Ok(best.1)
}

fn section(
    measured: &[Measured],
    takeovers: &[Takeover],
    scattered: &[Medians; 2],
    file_system: &str,
) -> Result<String> {
    let mut text = format!(
        "## host-local\n\n![Time of each command by the number of leases](host-local.svg)\n\n\
         A time is that of a whole process, in milliseconds. It is the median of {} calls of Underlay, or of\n\
         {ROUNDS} calls of the reference. All sizes and both programs are measured alternately. The ratio to 10\n\
         leases is in brackets. The leases are files as the reference writes them, in a /16, with container\n\
         IDs of 64 characters. {}, {file_system}. To repeat: `make bench-ipam`.\n\n",
        OURS_IN_A_ROUND * ROUNDS,
        document::setting(),
    );
    text += "| leases |";
    for name in ["Underlay", "reference"] {
        text.extend(COMMANDS.map(|command| format!(" {name} {command} |")));
    }
    text += " peak KiB Underlay / reference |\n|---|";
    text += &"---:|".repeat(9);
    text += "\n";
    let row = |text: &mut String, name: &str, medians: &[Medians; 2], peaks: &str| {
        let _ = write!(text, "| {name} |");
        for (side, base) in medians.iter().zip(&measured[0].medians) {
            for (median, base) in side.iter().zip(base) {
                let _ = write!(text, " {median:.2} ({:.2}) |", median / base);
            }
        }
        let _ = writeln!(text, " {peaks} |");
    };
    for one in measured {
        let peaks = format!("{} / {}", one.peaks_kib[0], one.peaks_kib[1]);
        row(&mut text, &grouped(u64::from(one.size)), &one.medians, &peaks);
    }
    let name = format!("{}, the {FREE} free addresses far apart", grouped(u64::from(ADDRESSES - FREE)));
    row(&mut text, &name, scattered, "");
    text += "\nThe first call of Underlay on a directory of the reference scans it once, and creates a record for every\n\
             owner. If the reference was used in between, or after a reboot, the next call also scans the directory:\n\n\
             | leases | ms | peak KiB |\n|---:|---:|---:|\n";
    for Takeover { size, milliseconds, peak_kib } in takeovers {
        let _ = writeln!(text, "| {} | {milliseconds:.1} | {peak_kib} |", grouped(u64::from(*size)));
    }
    Ok(text)
}

/// A panel for each command.
fn plot(measured: &[Measured]) -> Result<()> {
    let span = chart::span(measured.iter().flat_map(|one| one.medians).flatten());
    let line = |which: usize, command: usize| Line {
        name: ["Underlay", "reference"][which].to_owned(),
        colour: [chart::BLUE, chart::VERMILION][which],
        points: measured.iter().map(|one| (f64::from(one.size), one.medians[which][command])).collect(),
        // Above and below, because both lines may be near each other.
        values: [Values::Below, Values::Above][which],
    };
    let panels: Vec<Panel> = (0..COMMANDS.len())
        .map(|command| Panel {
            caption: COMMANDS[command].to_owned(),
            x: "leases".to_owned(),
            y: "milliseconds".to_owned(),
            span: span.clone(),
            lines: [0, 1].map(|which| line(which, command)).to_vec(),
        })
        .collect();
    chart::draw_lines(&document::folder().join(PLOT), (960, 640), (2, 2), &panels)
}
