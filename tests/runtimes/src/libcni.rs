//! libcni, the library that nearly all runtimes use. A small client in Go (tests/peers/libcni) makes one call per
//! process.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use e2e::plugin::with_deadline;
use e2e::{Binaries, Container, Lab, binaries};
use serde_json::{Value, json};

/// A runtime on the host of the Lab, with one network.
#[derive(Debug)]
pub struct Libcni<'a> {
    lab: &'a Lab,
    list: Value,
    args: Value,
    capabilities: Value,
}

impl<'a> Libcni<'a> {
    /// Plugins of the list that we do not have are those of the reference.
    pub fn new(lab: &'a Lab, list: &Value) -> Self {
        Self { lab, list: list.clone(), args: json!([]), capabilities: json!({}) }
    }

    /// Passes arguments to all plugins in `CNI_ARGS`.
    pub fn args(mut self, args: &[(&str, &str)]) -> Self {
        self.args = json!(args);
        self
    }

    /// Passes values to the plugins that declare the capabilities.
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

    /// As [`Libcni::add`], with the failure for a test that expects it.
    pub fn try_add(&self, container: &Container) -> Result<String, String> {
        self.call("ADD", container)
    }

    /// CheckNetworkList.
    #[track_caller]
    pub fn check(&self, container: &Container) {
        self.try_check(container).unwrap_or_else(|e| panic!("CheckNetworkList: {e}"));
    }

    /// As [`Libcni::check`], with the failure for a test that expects it.
    pub fn try_check(&self, container: &Container) -> Result<(), String> {
        self.call("CHECK", container).map(drop)
    }

    /// DelNetworkList.
    #[track_caller]
    pub fn del(&self, container: &Container) {
        self.call("DEL", container).unwrap_or_else(|e| panic!("DelNetworkList: {e}"));
    }

    /// Removes the results that libcni has cached. An old runtime that caches none behaves the same.
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
        let client = binaries::peers("libcni").join("libcni");
        let output = self.lab.host.run(|| {
            let mut command = Command::new(&client);
            command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap_or_else(|e| panic!("start {}: {e}", client.display()));
            let mut stdin = child.stdin.take().expect("stdin is a pipe");
            // The client reads all of its stdin first.
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
