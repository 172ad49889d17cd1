//! `tests/peers/build.sh` with a script in place of Go: its messages, a second run, and two runs at once.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use e2e::patience::await_that;
use tempfile::TempDir;

/// The module that the tests build. Its program is one file.
const MODULE: &str = "etcd";

/// The programs that the script uses.
const TOOLS: &str = "bash cat cut dirname flock head mkdir mv rm sed sh sha256sum sort touch true";

/// Logs its calls. If `GATE` is set, a build waits for a line from this FIFO.
const GO: &str = r#"#!/bin/sh
echo "$*" >>"$GO_LOG"
case "$1 $2" in
"env GOVERSION") echo "go${GO_VERSION:-1.99.0}" ;;
"env GOTOOLCHAIN") echo "${GO_TOOLCHAIN:-auto}" ;;
"env GOPROXY") echo "https://proxy.example" ;;
"version "*) exit "${GO_DOWNLOADS:-0}" ;;
"list "*) exit "${GO_LISTS:-0}" ;;
"build "*)
    while [ "$1" != -o ]; do shift; done
    [ -z "$GATE" ] || read -r _ <"$GATE"
    echo some/package >&2
    touch "$2"
    exit "${GO_BUILDS:-0}" ;;
esac
"#;

/// A search path with the tools and perhaps the script in place of Go, and an output directory.
struct Bench {
    scratch: TempDir,
}

impl Bench {
    fn new(has_go: bool) -> Self {
        let scratch = tempfile::tempdir().expect("make a directory");
        let bin = scratch.path().join("bin");
        fs::create_dir(&bin).expect("make a directory for programs");
        for tool in TOOLS.split(' ') {
            let places = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(tool));
            let found = places.iter().find(|place| place.exists()).unwrap_or_else(|| panic!("there is no {tool}"));
            symlink(found, bin.join(tool)).expect("link a tool");
        }
        if has_go {
            // Another process writes it: see `e2e::plugin::write_script`.
            let source = scratch.path().join("go.sh");
            fs::write(&source, GO).expect("write a program");
            let status = Command::new("cp").args([&source, &bin.join("go")]).status().expect("start cp");
            assert!(status.success());
            fs::set_permissions(bin.join("go"), fs::Permissions::from_mode(0o755)).expect("make it executable");
        }
        Self { scratch }
    }

    /// Its name has a space.
    fn out(&self) -> PathBuf {
        self.scratch.path().join("the peers")
    }

    fn command(&self, variables: &[(&str, &OsStr)]) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/build.sh"))
            .arg(self.out())
            .arg(MODULE)
            .env_clear()
            .env("PATH", self.scratch.path().join("bin"))
            .env("GO_LOG", self.scratch.path().join("log"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, variables: &[(&str, &str)]) -> Output {
        let variables: Vec<(&str, &OsStr)> = variables.iter().map(|&(name, value)| (name, value.as_ref())).collect();
        self.command(&variables).output().expect("start bash")
    }

    /// The stderr of a run that must fail.
    fn fail(&self, variables: &[(&str, &str)]) -> String {
        let output = self.run(variables);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn builds(&self) -> usize {
        let log = fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with("build ")).count()
    }

    /// The line `go` of the module's go.mod.
    fn needed() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(MODULE).join("go.mod");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        text.lines().find_map(|line| line.strip_prefix("go ")).expect("a line about go").to_owned()
    }
}

#[test]
fn without_go_the_message_names_the_version_that_is_needed() {
    let needed = Bench::needed();
    let expected =
        format!("peers: go is not installed: tests/peers/etcd needs Go {needed} or newer (https://go.dev/dl)\n");
    assert_eq!(Bench::new(false).fail(&[]), expected);
}

/// Go 1.19 cannot download another Go. Here 1.25 is not allowed to.
#[test]
fn with_a_go_that_is_too_old_the_message_names_both_versions() {
    let needed = Bench::needed();
    for (version, toolchain) in [("1.19.8", "auto"), ("1.25.1", "local")] {
        let said = Bench::new(true).fail(&[("GO_VERSION", version), ("GO_TOOLCHAIN", toolchain)]);
        let expected = format!(
            "peers: go is {version}, and tests/peers/etcd/go.mod needs Go {needed} or newer (https://go.dev/dl)\n"
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn the_download_of_a_newer_go_and_its_failure_are_reported() {
    let (bench, needed) = (Bench::new(true), Bench::needed());
    let output = bench.run(&[("GO_VERSION", "1.25.1")]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("peers: go is 1.25.1; it downloads Go {needed}, which tests/peers/etcd/go.mod asks for\n");
    assert!(said.starts_with(&expected), "{said}");

    let said = Bench::new(true).fail(&[("GO_VERSION", "1.25.1"), ("GO_DOWNLOADS", "1")]);
    let expected =
        format!("peers: Go {needed} cannot be downloaded: is a Go module proxy reachable (go env GOPROXY)?\n");
    assert_eq!(said, expected);
}

#[test]
fn modules_that_cannot_be_downloaded_are_named_with_the_proxy() {
    let bench = Bench::new(true);
    let expected = "peers: tests/peers/etcd: Go cannot load all packages, see above; \
                    it downloads them by way of https://proxy.example\n";
    assert_eq!(bench.fail(&[("GO_LISTS", "1")]), expected);
    assert!(!bench.out().join(MODULE).exists(), "there is a directory of a build that failed");
}

#[test]
fn a_module_is_built_once_for_each_version_of_go() {
    let bench = Bench::new(true);
    for (version, builds) in [("1.99.0", 1), ("1.99.0", 1), ("1.99.1", 2)] {
        let output = bench.run(&[("GO_VERSION", version)]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(bench.builds(), builds);
        assert!(bench.out().join("etcd/etcd").is_file(), "{output:?}");
    }
}

#[test]
fn a_build_that_fails_leaves_the_earlier_one_and_is_repeated() {
    let bench = Bench::new(true);
    assert!(bench.run(&[]).status.success());
    let version = || fs::read_to_string(bench.out().join("etcd/.version")).expect("read the version");
    let before = version();
    let said = bench.fail(&[("GO_VERSION", "1.99.1"), ("GO_BUILDS", "1")]);
    assert_eq!(said, "peers: tests/peers/etcd: go build has failed, see above\n");
    assert_eq!(version(), before);
    assert!(bench.run(&[("GO_VERSION", "1.99.1")]).status.success());
    assert_ne!(version(), before);
    assert_eq!(bench.builds(), 3);
}

#[test]
fn a_second_run_waits_for_the_first_and_builds_nothing() {
    let bench = Bench::new(true);
    let gate = bench.scratch.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("make a FIFO");
    let first = bench.command(&[("GATE", gate.as_os_str())]).spawn().expect("start bash");
    await_that("the first run builds", || bench.builds() == 1);
    let mut second = bench.command(&[]).spawn().expect("start bash");
    let mut said = String::new();
    let stdout = second.stdout.take().expect("stdout is a pipe");
    BufReader::new(stdout).read_line(&mut said).expect("read a line");
    let out = fs::canonicalize(bench.out()).expect("a directory");
    assert_eq!(said, format!("peers: another run builds into {}; this one waits for it\n", out.display()));
    fs::write(&gate, "continue\n").expect("open the gate");
    let first = first.wait_with_output().expect("wait for bash");
    assert!(first.status.success(), "{first:?}");
    assert!(second.wait().expect("wait for bash").success());
    assert_eq!(bench.builds(), 1);
}
