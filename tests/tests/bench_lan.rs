//! A short run of `make bench-lan`: it measures all setups, writes the results, and leaves nothing, also if it is
//! interrupted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use e2e::patience::{PATIENCE, await_that, await_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// A variable in the environment of all processes of a run.
const MARK: &str = "UNDERLAY_BENCH_LAN_TEST";
const METRICS: &str = "stream_gbit_s stream_cpu_ms_per_gbit rr_p50_us rr_p99_us crr_per_s crr_cpu_us crr_p50_us \
    crr_p99_us";

/// A directory for its output, and one for its temporary files.
struct Folders {
    out: TempDir,
    scratch: TempDir,
    mark: String,
}

impl Folders {
    fn new() -> Self {
        let directory = || tempfile::Builder::new().prefix("underlay-bench-lan-test.").tempdir();
        let (out, scratch) = (directory().expect("make a directory"), directory().expect("make a directory"));
        let mark = scratch.path().display().to_string();
        Self { out, scratch, mark }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench-lan"));
        command.env("OUT", self.out.path()).env("TMPDIR", self.scratch.path()).env(MARK, &self.mark);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts the whole measurement and waits until it has started other processes.
    fn begin(&self) -> Child {
        let mut child = self.command().env_remove("QUICK").spawn().expect("start bench-lan");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.as_mut().expect("stdout is a pipe"));
        out.read_line(&mut line).expect("read a line of bench-lan");
        assert!(line.starts_with("native: ") && line.contains(" ways stand"), "{line}");
        await_that("bench-lan has started a process", || self.processes().len() > 1);
        child
    }

    /// The command lines of its processes.
    fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark).into_bytes();
        let is_ours = |path: &Path| {
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|pair| pair == mark)
        };
        let paths = fs::read_dir("/proc").expect("list the processes").flatten().map(|entry| entry.path());
        let words =
            |path: PathBuf| String::from_utf8_lossy(&fs::read(path.join("cmdline")).unwrap_or_default()).into_owned();
        paths.filter(|path| is_ours(path)).map(words).collect()
    }

    fn await_no_process(&self) {
        await_within(2 * PATIENCE, "all of its processes are gone", || match self.processes() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
    }

    fn assert_nothing_is_left(&self) {
        self.await_no_process();
        assert_empty(self.scratch.path());
    }
}

fn assert_empty(directory: &Path) {
    let rest: Vec<_> = fs::read_dir(directory).expect("list a directory").collect();
    assert!(rest.is_empty(), "{rest:?} left");
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("send a signal");
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_short_run_measures_all_setups_and_writes_the_results() {
    let folders = Folders::new();
    let output = folders.command().env("QUICK", "1").output().expect("start bench-lan");
    assert!(output.status.success(), "{}: {}", output.status, stderr(&output));
    folders.assert_nothing_is_left();

    let read = |name: &str| {
        let path = folders.out.path().join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
    };
    let (page, json) = (read("benchmarks.md"), read("lan.json"));
    let whole: Value = serde_json::from_str(&json).expect("lan.json is JSON");
    let mut seen = Vec::new();
    for scene in whole["scenes"].as_array().expect("scenes are a list") {
        let wire = scene["wire"].as_str().expect("a wire has a name");
        let picture = format!("lan-{}-{wire}.svg", scene["place"].as_str().expect("a place has a name"));
        assert!(page.contains(&format!("({picture})")), "{picture} is not on the page: {page}");
        let picture = read(&picture);
        for measured in scene["ways"].as_array().expect("ways are a list") {
            let way = measured["way"].as_str().expect("a way has a name");
            let rounds = measured["rounds"].as_array().expect("rounds are a list");
            assert_eq!(rounds.len(), 1, "{way} on {wire}");
            for metric in METRICS.split(' ') {
                let value = rounds[0][metric].as_f64().unwrap_or(f64::NAN);
                // The run is short, so /proc/stat may have counted no tick.
                let least = if metric.contains("cpu") { 0.0 } else { f64::MIN_POSITIVE };
                assert!(value >= least && value.is_finite(), "{metric} of {way} on {wire}: {}", rounds[0]);
            }
            assert!(page.contains(&format!("| {way} |")), "{way} is not on the page: {page}");
            assert!(picture.contains(way), "{way} is not in the picture");
            seen.push(format!("{way}, {wire}"));
        }
    }
    let within = ["macvlan pair", "host to macvlan", "host to veth"].map(|way| format!("{way}, node"));
    let ways = ["host to host", "macvlan bridge", "routed veth", "host-gw", "bridge + NAT", "VXLAN"];
    let wires = ["offloaded", "segmented"];
    let native = wires.iter().flat_map(|wire| ways.iter().map(move |way| format!("{way}, {wire}")));
    for expected in native.chain(within).chain(["macvlan bridge, delayed".to_owned(), "ipvlan l2, delayed".to_owned()])
    {
        assert!(seen.contains(&expected), "no {expected} in {seen:?}");
    }
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let folders = Folders::new();
    let child = folders.begin();
    signal(&child, Signal::SIGINT);
    let output = child.wait_with_output().expect("wait for bench-lan");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("interrupted by SIGINT"), "{}", stderr(&output));
    folders.assert_nothing_is_left();
    assert_empty(folders.out.path());
}

/// It cannot remove its files, but its processes and their namespaces must end.
#[test]
fn the_processes_of_a_killed_run_end() {
    let folders = Folders::new();
    let mut child = folders.begin();
    signal(&child, Signal::SIGKILL);
    child.wait().expect("wait for bench-lan");
    folders.await_no_process();
    assert_empty(folders.out.path());
}
