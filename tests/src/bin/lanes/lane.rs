//! The lanes, and the tests of each.

use std::fmt;
use std::str::FromStr;

/// Packages, executables and modules that the guest does not run, each with the reason.
const NOT_IN_THE_GUEST: &[(&str, &str)] = &[
    ("e2e/benchmark", "a guest is too slow for figures"),
    ("e2e/bench_lan", "boots another guest"),
    ("e2e/compliance: ends", "both sides have the same kernel, and native has run it"),
    ("e2e/compliance: host_local", "as the one above"),
    ("e2e/compliance: macvlan", "as the one above"),
    ("e2e/compliance: protocol", "as the one above"),
    ("e2e/conflict_load: cost", "a guest is too slow for figures"),
    ("e2e/conflict_load: macvlan", "parallel calls: a guest has one processor"),
    ("e2e/containerd", "a container runtime, which does not depend on the kernel"),
    ("e2e/documents", "about text"),
    ("e2e/faults", "hundreds of traced calls, each thirty times as slow; e2e/faults_ipvlan runs there"),
    ("e2e/budget", "a guest is too slow for figures"),
    ("e2e/guest", "boots another guest"),
    ("e2e/host_local_conflicts", "about files, not links: thousands of calls, each thirty times as slow there"),
    ("e2e/host_local_faults", "about files, not links: hundreds of traced calls, each thirty times as slow there"),
    ("e2e/host_local_mixed", "about files, not links: thousands of calls, each thirty times as slow there"),
    ("e2e/host_local_reclaim", "about processes that start and end all the time: a guest has one processor"),
    ("e2e/peers", "about a script that builds programs"),
    ("e2e/races", "parallel calls: a guest has one processor"),
    ("e2e/install", "about files, not links"),
    ("e2e/privilege", "about files, not links"),
    ("kubernetes/", "as e2e/containerd"),
    ("runtimes/cri", "as e2e/containerd"),
    ("runtimes/podman", "as e2e/containerd"),
    ("runtimes/readme", "as e2e/containerd"),
    ("runtimes/reboot", "as e2e/containerd"),
    ("runtimes/recipes", "as e2e/containerd"),
];

/// Executables of which the guest runs only the tests that the kernel of this machine could not run, each with the
/// reason. The same applies to all tests of the reference, because its Go programs start thirty times as slowly there.
const LEFT_OVER: &[(&str, &str)] = &[
    ("e2e/bad_config", "refusals before any request to the kernel"),
    ("e2e/host_local", "about files, not links"),
    ("e2e/protocol", "about stdin, stdout and the environment"),
    ("runtimes/libcni", "a client and plugins in Go, each thirty times as slow there"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Tests of the crates. They need no built program.
    Unit,
    /// Tests of the built program on the kernel of this machine.
    Native,
    Runtime,
    /// The same calls by the reference and by ours.
    Compliance,
    /// User-Mode Linux: a second kernel, with features that the kernel of this machine may lack.
    Guest,
    Kubernetes,
}

impl Lane {
    /// In the order in which they run. The guest comes after the lanes whose tests it may have to run.
    pub(crate) const ALL: [Self; 6] =
        [Self::Unit, Self::Native, Self::Runtime, Self::Compliance, Self::Guest, Self::Kubernetes];

    /// The lane of a test or an executable, by its full name. Not the guest.
    fn of(name: &str) -> Self {
        let executable = name.split_once(": ").map_or(name, |(executable, _)| executable);
        match executable.split_once('/') {
            Some((_, target)) if target == "lib" || target.starts_with("bin/") => Self::Unit,
            Some(("e2e", "compliance")) => Self::Compliance,
            Some(("e2e", "containerd")) | Some(("runtimes", _)) => Self::Runtime,
            Some(("e2e" | "linux", _)) => Self::Native,
            Some(("kubernetes", _)) => Self::Kubernetes,
            _ => Self::Unit,
        }
    }

    /// True if the lane runs that test, or a test of that executable.
    pub(crate) fn runs(self, name: &str) -> bool {
        match self {
            Self::Guest => Self::of(name) != Self::Unit && !is_excluded(name),
            other => Self::of(name) == other,
        }
    }

    /// The factor by which a call may take longer. A guest has one processor, and starts a process in 20 to 35 ms.
    pub(crate) fn patience(self) -> u32 {
        if self == Self::Guest { 4 } else { 1 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Native => "native",
            Self::Runtime => "runtime",
            Self::Compliance => "compliance",
            Self::Guest => "guest",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Lane {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|lane| lane.name() == text).ok_or_else(|| format!("{text}: the lanes are {names}"))
    }
}

fn is_excluded(name: &str) -> bool {
    let is_in = |part: &str| match name.strip_prefix(part) {
        Some(rest) => part.ends_with('/') || rest.is_empty() || rest.starts_with(':'),
        None => false,
    };
    NOT_IN_THE_GUEST.iter().any(|(part, _)| is_in(part))
}

/// True if the guest runs that test only if no lane before it could run it.
pub(crate) fn is_left_over(test: &str) -> bool {
    let (executable, test) = test.split_once(": ").unwrap_or((test, ""));
    LEFT_OVER.iter().any(|(name, _)| *name == executable) || test.starts_with("reference::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_does_not_run_excluded_executables_and_modules() {
        for name in
            ["e2e/install: place::one_file", "e2e/install", "e2e/compliance: macvlan::mode_vepa", "kubernetes/pods"]
        {
            assert!(!Lane::Guest.runs(name), "{name}");
        }
        for name in
            ["e2e/compliance: ipvlan::mode_l3", "e2e/compliance", "e2e/installation: one_file", "runtimes/libcni"]
        {
            assert!(Lane::Guest.runs(name), "{name}");
        }
    }

    #[test]
    fn the_guest_repeats_only_tests_that_are_about_links_and_about_ours() {
        assert!(is_left_over("e2e/protocol: hard_links::version"));
        assert!(is_left_over("e2e/macvlan: reference::mtu"));
        assert!(!is_left_over("e2e/macvlan: hard_links::mtu") && !is_left_over("e2e/compliance: ipvlan::mtu"));
    }

    #[test]
    fn every_test_belongs_to_one_lane_except_the_guest() {
        for (name, lane) in [
            ("attach/lib: add::tests::order", Lane::Unit),
            ("e2e/bin/lanes: lane::tests::names", Lane::Unit),
            ("hostile/corpus: json", Lane::Unit),
            ("linux/kernel: links::veth", Lane::Native),
            ("e2e/macvlan: hard_links::mtu", Lane::Native),
            ("e2e/containerd: a", Lane::Runtime),
            ("runtimes/libcni: a", Lane::Runtime),
            ("e2e/compliance: ipvlan::a", Lane::Compliance),
            ("kubernetes/pods: a", Lane::Kubernetes),
        ] {
            let lanes: Vec<Lane> =
                Lane::ALL.into_iter().filter(|lane| *lane != Lane::Guest && lane.runs(name)).collect();
            assert_eq!(lanes, [lane], "{name}");
        }
        assert!(!Lane::Guest.runs("attach/lib: add::tests::order"));
    }

    #[test]
    fn every_lane_has_a_target_of_make_with_packages_and_a_line_in_contributing() {
        let read = |name: &str| {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../").to_owned() + name;
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
        };
        let (makefile, runner, packages) = (read("Makefile"), read("tests/run.sh"), read("tests/packages.sh"));
        let contributing = read("CONTRIBUTING.md");
        for lane in Lane::ALL {
            assert!(makefile.contains(&format!("\ntest-{lane}: ## ")), "Makefile: {lane}");
            assert!(runner.contains(&format!("\n{lane}) wanted=(")), "tests/run.sh: {lane}");
            assert!(packages.contains(&format!("\t{lane}) ")) || lane == Lane::Unit, "tests/packages.sh: {lane}");
            assert!(contributing.contains(&format!("| `make test-{lane}` | ")), "CONTRIBUTING.md: {lane}");
        }
    }

    #[test]
    fn an_unknown_name_of_a_lane_is_refused_with_all_names() {
        let refused = "nativ: the lanes are unit, native, runtime, compliance, guest, kubernetes";
        assert_eq!("nativ".parse::<Lane>(), Err(refused.to_owned()));
        assert_eq!("guest".parse(), Ok(Lane::Guest));
    }
}
