//! libcni, the library by which nearly all container runtimes call plugins: a small client in Go, built on demand, makes
//! one call each time that it is started.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use e2e::plugin::with_deadline;
use e2e::{Binaries, Container, Lab};
use serde_json::{Value, json};

/// Debian's golang-github-appc-cni-dev: libcni's source, for a Go that does not know modules.
const GOPATH: &str = "/usr/share/gocode";

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/libcni/main.go");

/// A runtime on the Lab's host: a network, and what it is told of containers.
#[derive(Debug)]
pub struct Libcni<'a> {
    lab: &'a Lab,
    list: Value,
    args: Value,
    capabilities: Value,
}

impl<'a> Libcni<'a> {
    /// With that list for a network. Plugins that we have not got are the reference's.
    pub fn new(lab: &'a Lab, list: &Value) -> Self {
        Self { lab, list: list.clone(), args: json!([]), capabilities: json!({}) }
    }

    /// Passes these to every plugin by `CNI_ARGS`.
    pub fn args(mut self, args: &[(&str, &str)]) -> Self {
        self.args = json!(args);
        self
    }

    /// Passes these to the plugins that have a capability of that name.
    pub fn capabilities(mut self, capabilities: Value) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// AddNetworkList of `eth0`. Returns the result.
    #[track_caller]
    pub fn add(&self, container: &Container) -> Value {
        let answer = self.try_add(container).unwrap_or_else(|e| panic!("AddNetworkList: {e}"));
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("not JSON ({e}): {answer}"))
    }

    /// As [`Libcni::add`], for a test that wants to see it fail: with what libcni says then.
    pub fn try_add(&self, container: &Container) -> Result<String, String> {
        self.call("ADD", container)
    }

    /// CheckNetworkList.
    #[track_caller]
    pub fn check(&self, container: &Container) {
        self.try_check(container).unwrap_or_else(|e| panic!("CheckNetworkList: {e}"));
    }

    /// As [`Libcni::check`], for a test that wants to see it fail: with what libcni says then.
    pub fn try_check(&self, container: &Container) -> Result<(), String> {
        self.call("CHECK", container).map(drop)
    }

    /// DelNetworkList.
    #[track_caller]
    pub fn del(&self, container: &Container) {
        self.try_del(container).unwrap_or_else(|e| panic!("DelNetworkList: {e}"));
    }

    /// As [`Libcni::del`], where it may fail: with what libcni says then.
    pub fn try_del(&self, container: &Container) -> Result<(), String> {
        self.call("DEL", container).map(drop)
    }

    /// Loses all results that were kept, as an operator does who empties the directory, and an older runtime that kept none.
    pub fn forget(&self) {
        fs::remove_dir_all(self.cache()).expect("remove the cached results");
    }

    fn cache(&self) -> PathBuf {
        self.lab.path("libcni")
    }

    fn call(&self, command: &str, container: &Container) -> Result<String, String> {
        let reference = Binaries::Reference.directory(self.lab.bin());
        let call = json!({
            "Command": command,
            "List": self.list,
            "Path": [self.lab.bin(), reference],
            "CacheDir": self.cache(),
            "ContainerID": container.id,
            "NetNS": container.path(),
            "IfName": "eth0",
            "Args": self.args,
            "Capabilities": self.capabilities,
        });
        let client = client();
        let output = self.lab.host.run(|| {
            let mut command = Command::new(client);
            command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap_or_else(|e| panic!("start {}: {e}", client.display()));
            let mut stdin = child.stdin.take().expect("stdin is a pipe");
            // It reads all of it before it does anything else.
            stdin.write_all(call.to_string().as_bytes()).expect("write a call");
            drop(stdin);
            with_deadline(child.id(), || child.wait_with_output().expect("wait for libcni"))
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{} ({})", text(&output.stderr), output.status)),
        }
    }
}

/// The client's program, which Go makes of its source in a few seconds, once.
fn client() -> &'static Path {
    static CLIENT: OnceLock<PathBuf> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/libcni");
        fs::create_dir_all(&directory).unwrap_or_else(|e| panic!("make {}: {e}", directory.display()));
        let client = directory.join("client");
        // Executables of several tests may be here at once.
        let lock = File::create(directory.join("lock")).expect("create a lock");
        lock.lock().expect("lock a file");
        if !is_newer(&client, Path::new(SOURCE)) {
            build(&directory, &client);
        }
        client
    })
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    match (time(file), time(than)) {
        (Ok(file), Ok(than)) => file > than,
        _ => false,
    }
}

fn build(directory: &Path, client: &Path) {
    let new = directory.join("client.new");
    let mut go = Command::new("go");
    go.arg("build").arg("-o").arg(&new).arg(SOURCE);
    // Nothing from the network, and nothing of what somebody has set up for Go here.
    for (name, value) in [("GO111MODULE", "off"), ("GOPATH", GOPATH), ("GOFLAGS", ""), ("CGO_ENABLED", "0")] {
        go.env(name, value);
    }
    go.env("GOCACHE", directory.join("cache"));
    let output = go.output().unwrap_or_else(|e| {
        panic!("start go: {e}: install Debian's packages golang-go and golang-github-appc-cni-dev");
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "go build: {} (golang-github-appc-cni-dev has libcni)\n{stderr}", output.status);
    fs::rename(&new, client).expect("put libcni's client into place");
}
