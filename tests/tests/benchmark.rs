//! Short runs of the benchmarks: they write all figures of docs/benchmarks.md and leave nothing. Times are not checked.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::document::{Section, date, digits, grouped, wrapped};
use e2e::lab::{Families, NIC};
use e2e::plugin::killed_after;
use e2e::{Binaries, Container, Lab, Plugin, Samples, binaries, with};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Far longer than a quick run takes on a busy machine.
const QUIET_FOR: Duration = Duration::from_secs(180);

const SECTION: Section = Section { name: "lan", command: "make lan" };

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("underlay-benchmark.").tempdir().expect("make a directory")
}

/// Starts a quick run with its temporary files in `scratch`.
fn quick(scratch: &Path, out: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--quick", "--out"])
        .arg(out)
        .env("TMPDIR", scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the benchmark")
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("read a directory");
    entries.map(|entry| entry.expect("read a directory").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_quick_run_writes_all_figures_and_leaves_no_other_file() {
    let (scratch, results) = (folder(), folder());
    let out = results.path().join("bench.json");
    let child = quick(scratch.path(), &out);
    let output = killed_after(QUIET_FOR, child.id(), || child.wait_with_output().expect("wait for the benchmark"));
    assert!(output.status.success(), "{output:?}");

    let document = fs::read_to_string(results.path().join("benchmarks.md")).expect("read the document");
    for name in ["targets", "control-plane", "calls", "deletion", "bursts", "growth"] {
        for marker in [format!("<!-- {name}: written by `make bench` -->"), format!("<!-- {name}: end -->")] {
            assert_eq!(document.matches(&marker).count(), 1, "{marker} in\n{document}");
        }
    }
    assert!(!document.contains("NaN"), "a figure is missing:\n{document}");
    for name in ["control-plane.svg", "bursts.svg", "growth.svg"] {
        assert!(document.contains(&format!("]({name})")), "{name} is not shown");
        let picture = fs::read_to_string(results.path().join(name)).expect("read a plot");
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{name} is no picture");
    }

    let found: Value = serde_json::from_slice(&fs::read(&out).expect("read the JSON")).expect("JSON");
    let count = |key: &str| found[key].as_array().map_or(0, Vec::len);
    // perf measures two of the targets, if it is permitted.
    let targets = if found["deletion"].is_null() { 10 } else { 12 };
    assert_eq!(
        [count("scenarios"), count("bursts"), count("growth"), count("targets")],
        [6, 2, 2, targets],
        "{found:#}"
    );
    for side in
        found["scenarios"].as_array().expect("scenarios").iter().flat_map(|scenario| scenario["sides"].as_array())
    {
        for command in side.iter().flat_map(|side| [&side["add"], &side["del"]]) {
            for key in ["system_calls", "peak_kib", "processes"] {
                assert!(command[key].as_f64().is_some_and(|figure| figure >= 1.0), "no {key} in {command:#}");
            }
        }
    }
    assert_eq!(entries(scratch.path()), [""; 0], "left behind");
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (scratch, results) = (folder(), folder());
        let mut child = quick(scratch.path(), &results.path().join("bench.json"));
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let mut stderr = child.stderr.take().expect("stderr is a pipe");
        let errors = killed_after(QUIET_FOR, child.id(), || {
            let mut lines = BufReader::new(stdout).lines();
            // After the first scenario there are temporary files.
            lines.next().expect("a line").expect("read stdout");
            assert_eq!(entries(scratch.path()).len(), 2, "{:?}", entries(scratch.path()));
            kill(Pid::from_raw(child.id().cast_signed()), signal).expect("interrupt the benchmark");
            lines.for_each(drop);
            let mut errors = String::new();
            stderr.read_to_string(&mut errors).expect("read stderr");
            errors
        });
        let status = child.wait().expect("wait for the benchmark");
        assert_eq!(status.code(), Some(1), "{status}: {errors}");
        assert!(errors.contains(&format!("interrupted by {signal}")), "{errors}");
        assert_eq!(entries(scratch.path()), [""; 0], "left behind after {signal}");
        assert_eq!(entries(results.path()), [""; 0], "results of an interrupted run");
    }
}

/// Everything that a plugin sets in a container, without addresses and numbers that always differ.
fn state(container: &Container, v6: bool) -> Vec<String> {
    let link = container.link("eth0");
    let mut state = vec![format!("{:?} {:?} {} {} {}", link.kind, link.macvlan, link.mtu, link.up, link.carrier)];
    for address in container.addresses("eth0") {
        let flags = address.flags;
        state.push(format!("{} {flags:?} {:?} {:?}", address.net.prefix_len(), address.scope, address.broadcast));
    }
    state.extend(
        container
            .routes_of("eth0")
            .iter()
            .map(|route| format!("{:?}", e2e::kernel::Route { oif: None, ..route.clone() })),
    );
    let mut keys = vec!["net/ipv4/conf/eth0/arp_notify"];
    if v6 {
        keys.extend([
            "net/ipv6/conf/eth0/disable_ipv6",
            "net/ipv6/conf/eth0/ndisc_notify",
            "net/ipv6/conf/eth0/keep_addr_on_down",
            "net/ipv6/conf/eth0/router_solicitation_delay",
            "net/ipv6/neigh/eth0/retrans_time_ms",
        ]);
    }
    state.extend(keys.into_iter().map(|key| format!("{key} = {}", container.sysctl(key))));
    state
}

/// Otherwise the benchmark would compare different work.
#[test]
fn the_floor_program_reaches_the_same_state_as_an_add() {
    let lab = Lab::new(Binaries::HardLinks);
    let (v4, v6) = (json!({"dst": "0.0.0.0/0"}), json!({"dst": "::/0"}));
    let cases = [
        (Families::V4, json!([v4]), "192.168.50.200/24,192.168.50.1"),
        (Families::V6, json!([v6]), "fd50::200/64,fd50::1"),
        (Families::Dual, json!([v4, v6]), "192.168.50.201/24,192.168.50.1 fd50::201/64,fd50::1"),
    ];
    for (families, routes, addresses) in cases {
        let has_v6 = addresses.contains("::");
        let conf = lab.conf_with(with(lab.ipam(families), "routes", routes));
        let ((ours, _), bare) = (lab.macvlan().attach(&lab, &conf), lab.container());

        let floor = Plugin::new(&lab.host, binaries::floor());
        let leases = lab.data_dir().join("lan");
        let call = |command: &str| {
            let call = floor.attachment(command, &bare, "eth0", &json!({}));
            let call = call.env("FLOOR_PARENT", lab.host.link(NIC).ifindex.to_string());
            call.env("FLOOR_LEASES", &leases).env("FLOOR_ADDRESSES", addresses).run()
        };
        call("ADD").done();
        assert_eq!(state(&bare, has_v6), state(&ours, has_v6));
        for address in addresses.split(' ') {
            let lease = leases.join(address.split('/').next().expect("an address"));
            let content = fs::read_to_string(&lease).expect("the floor's lease");
            assert_eq!(content, format!("{}\r\neth0", bare.id));
        }

        call("DEL").done();
        assert_eq!(bare.link_names(), ["lo"]);
        lab.macvlan().del(&ours, "eth0", &conf).run().done();
        assert_eq!(lab.leases(), [""; 0]);
    }
}

#[test]
fn a_section_is_replaced_and_the_rest_of_the_page_stays() {
    let folder = folder();
    let document = folder.path().join("benchmarks.md");
    let read = || fs::read_to_string(&document).expect("read the document");
    SECTION.insert(folder.path(), "one\n").expect("write the document");
    assert_eq!(read(), "# Benchmarks\n\n<!-- lan: written by `make lan` -->\none\n<!-- lan: end -->\n");
    let between = format!("{}\nafter\n", read());
    fs::write(&document, &between).expect("write the document");
    SECTION.insert(folder.path(), "two").expect("write the document");
    assert_eq!(read(), between.replace("one", "two"));
}

#[test]
fn numbers_and_dates_have_a_readable_format() {
    assert_eq!([7, 1000, 65_525, 1_000_000].map(grouped), ["7", "1,000", "65,525", "1,000,000"]);
    assert_eq!([0.123, 12.34, 123.4, 1234.4].map(digits), ["0.12", "12.3", "123", "1,234"]);
    assert_eq!([0, 951_782_400, 1_795_305_600].map(date), ["1970-01-01", "2000-02-29", "2026-11-22"]);
}

#[test]
fn a_paragraph_is_wrapped_between_words() {
    let paragraph = "word ".repeat(60);
    let lines = wrapped(&paragraph);
    assert!(
        lines.lines().all(|line| line.len() <= 118 && line.starts_with("word") && line.ends_with("word")),
        "{lines}"
    );
    assert_eq!(lines.replace('\n', " "), paragraph);
}

#[test]
fn quantiles_are_values_that_were_measured() {
    let samples: Samples = (1..=200).rev().map(f64::from).collect();
    assert_eq!([0.0, 0.25, 0.5, 0.99, 1.0].map(|share| samples.quantile(share)), [1.0, 50.0, 100.0, 198.0, 200.0]);
    assert_eq!(Samples::from_iter([7.0]).quantile(0.99), 7.0);
    assert!(Samples::default().median().is_nan());
}
