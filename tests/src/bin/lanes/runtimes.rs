//! Which container runtimes took part: a table for the end, and whether those that must have, did.

use std::fmt;
use std::process::Command;

use crate::verdict::Verdict;

/// A runtime, and the executables whose tests run containers or networks by it.
struct Runtime {
    name: &'static str,
    executables: &'static [&'static str],
    /// Says its version.
    version: &'static [&'static str],
    /// Without it there is no success.
    is_required: bool,
}

const RUNTIMES: [Runtime; 5] = [
    Runtime {
        name: "containerd, by ctr",
        executables: &["e2e/containerd"],
        version: &["containerd", "--version"],
        is_required: true,
    },
    Runtime {
        name: "containerd, by the CRI",
        executables: &["runtimes/cri", "runtimes/reboot"],
        version: &["containerd", "--version"],
        is_required: true,
    },
    Runtime {
        name: "libcni",
        executables: &["runtimes/libcni"],
        version: &["sed", "-n", "s/^require //p", "tests/peers/libcni/go.mod"],
        is_required: true,
    },
    Runtime {
        name: "podman",
        executables: &["runtimes/podman"],
        version: &["podman", "--version"],
        is_required: false,
    },
    Runtime {
        name: "Kubernetes",
        executables: &["kubernetes/cluster"],
        version: &["sed", "-n", "s/^.k8s.io.kubernetes /Kubernetes /p", "tests/peers/kubernetes/go.mod"],
        is_required: true,
    },
];

/// Runtimes that nothing here runs, each with the reason.
const NOT_HERE: [(&str, &str); 2] = [
    (
        "CRI-O",
        "is not in Debian 12; its configuration is read (runtimes/recipes), and it speaks the CRI as containerd does",
    ),
    ("nerdctl", "is not in Debian 12; its network is run by libcni, with what nerdctl passes"),
];

/// Where the hierarchy of version 2 is mounted on a machine that has no other.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup/cgroup.controllers";

/// A line for a machine that has control groups of version 1. The kubelet refuses such a machine by default.
fn lack_of_control_groups() -> Option<(String, String)> {
    let why =
        "not run: it needs a machine with version 2; on this one, with version 1, the kubelet has failCgroupV1: false";
    let is_here = std::path::Path::new(CONTROL_GROUPS).exists();
    (!is_here).then(|| ("Kubernetes, cgroup v2".to_owned(), why.to_owned()))
}

/// Whether a test may run nowhere: it is of a runtime that not every machine has.
pub(crate) fn is_dispensable(test: &str) -> bool {
    RUNTIMES.iter().any(|runtime| !runtime.is_required && runtime.has(test))
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    lines: Vec<(String, String)>,
    lacking: bool,
}

impl Table {
    /// Of what ran.
    pub(crate) fn of(verdict: &Verdict) -> Self {
        let mut lines = Vec::new();
        let mut lacking = false;
        for runtime in RUNTIMES {
            let tests: Vec<&str> = verdict.tests().filter(|test| runtime.has(test)).collect();
            let ran = tests.iter().filter(|test| verdict.ran(test)).count();
            let outcome = if ran > 0 {
                let failed = verdict.failed().iter().filter(|(_, test)| runtime.has(test)).count();
                format!("{ran} of {} tests ran, {failed} failed; {}", tests.len(), runtime.version())
            } else {
                lacking |= runtime.is_required;
                let why = tests.first().map_or("it has no test".to_owned(), |test| verdict.why_not(test));
                let must = if runtime.is_required { "DID NOT RUN, and must" } else { "did not run" };
                format!("{must}: {why}")
            };
            lines.push((runtime.name.to_owned(), outcome));
        }
        lines.extend(NOT_HERE.map(|(name, why)| (name.to_owned(), format!("not run: it {why}"))));
        lines.extend(lack_of_control_groups());
        Self { lines, lacking }
    }

    /// Whether one is missing that must not.
    pub(crate) fn is_lacking(&self) -> bool {
        self.lacking
    }
}

impl Runtime {
    fn has(&self, test: &str) -> bool {
        let name = test.split_once(": ").map_or(test, |(executable, _)| executable);
        self.executables.contains(&name)
    }

    fn version(&self) -> String {
        let output = Command::new(self.version[0]).args(&self.version[1..]).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let words: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
        if words.is_empty() { "its version is not known".to_owned() } else { words.join(" ") }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== which runtimes ran ==")?;
        self.lines.iter().try_for_each(|(name, outcome)| writeln!(f, "{name:<24}{outcome}"))
    }
}
