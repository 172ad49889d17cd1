//! The table of container runtimes that ran. Some runtimes must run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::binaries;

use crate::lane::Lane;
use crate::verdict::Verdict;

/// A runtime, and the executables with its tests.
struct Runtime {
    name: &'static str,
    executables: &'static [&'static str],
    version: fn() -> String,
    is_required: bool,
}

const RUNTIMES: [Runtime; 5] = [
    Runtime { name: "containerd, by ctr", executables: &["e2e/containerd"], version: containerd, is_required: true },
    Runtime {
        name: "containerd, by the CRI",
        executables: &["runtimes/cri", "runtimes/readme", "runtimes/reboot"],
        version: containerd,
        is_required: true,
    },
    Runtime { name: "libcni", executables: &["runtimes/libcni"], version: libcni, is_required: true },
    Runtime {
        name: "podman",
        executables: &["runtimes/podman"],
        version: || first_line(Path::new("podman")),
        is_required: false,
    },
    Runtime { name: "Kubernetes", executables: &["kubernetes/cluster"], version: kubernetes, is_required: true },
];

/// The versions of the programs that the tests run.
fn containerd() -> String {
    let Ok(programs) = binaries::find_peers("containerd") else { return "its version is not known".to_owned() };
    // "containerd", the package, the version, and the commit if it is known.
    let containerd = first_line(&programs.join("containerd"));
    let containerd = containerd.split(' ').nth(2).unwrap_or(&containerd).to_owned();
    format!("containerd {containerd}, {}", first_line(&programs.join("runc")))
}

fn libcni() -> String {
    pinned("libcni", "github.com/containernetworking/cni")
}

fn kubernetes() -> String {
    pinned("kubernetes", "k8s.io/kubernetes")
}

/// A Go module and its version in a go.mod of tests/peers.
fn pinned(directory: &str, module: &str) -> String {
    let modules = PathBuf::from(format!("{}/peers/{directory}/go.mod", env!("CARGO_MANIFEST_DIR")));
    let text = std::fs::read_to_string(&modules).unwrap_or_default();
    let mut lines = text.lines().map(|line| line.trim_start_matches("require ").trim());
    let line = lines.find(|line| line.strip_prefix(module).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or("its version is not known").to_owned()
}

/// The first line of `--version`.
fn first_line(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let words: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    if words.is_empty() { "its version is not known".to_owned() } else { words.join(" ") }
}

const NOT_HERE: [(&str, &str); 2] = [
    (
        "CRI-O",
        "is neither in Debian 12 nor a Go module; its configuration is read (runtimes/recipes), and it speaks the CRI as containerd does",
    ),
    ("nerdctl", "is neither in Debian 12 nor a Go module; its network is run by libcni, with what nerdctl passes"),
];

/// This file exists on a machine with only version 2 of control groups.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup/cgroup.controllers";

/// A line for a machine with version 1. The kubelet refuses such a machine by default.
fn lack_of_control_groups() -> Option<(String, String)> {
    let why =
        "not run: it needs a machine with version 2; on this one, with version 1, the kubelet has failCgroupV1: false";
    let is_here = std::path::Path::new(CONTROL_GROUPS).exists();
    (!is_here).then(|| ("Kubernetes, cgroup v2".to_owned(), why.to_owned()))
}

/// Returns true if a test is for an optional runtime, so it may run in no lane.
pub(crate) fn is_dispensable(test: &str) -> bool {
    RUNTIMES.iter().any(|runtime| !runtime.is_required && runtime.has(test))
}

#[derive(Debug)]
pub(crate) struct Table {
    lines: Vec<(String, String)>,
    lacking: bool,
}

impl Table {
    /// The table for one lane or all lanes.
    pub(crate) fn of(verdict: &Verdict, only: Option<Lane>) -> Self {
        let mut lines = Vec::new();
        let mut lacking = false;
        for runtime in RUNTIMES.into_iter().filter(|runtime| only.is_none_or(|lane| runtime.is_in(lane))) {
            let tests: Vec<&str> = verdict.tests().filter(|test| runtime.has(test)).collect();
            let ran = tests.iter().filter(|test| verdict.ran(test)).count();
            let outcome = if ran > 0 {
                let failed = verdict.failed().iter().filter(|(_, test)| runtime.has(test)).count();
                format!("{ran} of {} tests ran, {failed} failed; {}", tests.len(), (runtime.version)())
            } else {
                lacking |= runtime.is_required;
                let why = tests.first().map_or("it has no test".to_owned(), |test| verdict.why_not(test));
                let must = if runtime.is_required { "DID NOT RUN, and must" } else { "did not run" };
                format!("{must}: {why}")
            };
            lines.push((runtime.name.to_owned(), outcome));
        }
        if !lines.is_empty() {
            lines.extend(NOT_HERE.map(|(name, why)| (name.to_owned(), format!("not run: it {why}"))));
            lines.extend(lack_of_control_groups());
        }
        Self { lines, lacking }
    }

    /// Returns true if a required runtime did not run.
    pub(crate) fn is_lacking(&self) -> bool {
        self.lacking
    }
}

impl Runtime {
    fn is_in(&self, lane: Lane) -> bool {
        lane != Lane::Guest && self.executables.iter().any(|executable| lane.runs(executable))
    }

    fn has(&self, test: &str) -> bool {
        let name = test.split_once(": ").map_or(test, |(executable, _)| executable);
        self.executables.contains(&name)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return Ok(());
        }
        writeln!(f, "== which runtimes ran ==")?;
        self.lines.iter().try_for_each(|(name, outcome)| writeln!(f, "{name:<24}{outcome}"))
    }
}
