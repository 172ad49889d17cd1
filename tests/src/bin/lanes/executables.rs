//! The test executables: built by cargo, and found in what cargo says about them.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The packages whose integration tests need a kernel.
const PACKAGES: [&str; 4] = ["e2e", "kubernetes", "linux", "runtimes"];

/// One test executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// Package and target, such as `e2e/macvlan`.
    pub(crate) name: String,
    /// The file.
    pub(crate) program: PathBuf,
    /// The package's folder, where cargo too would run it.
    pub(crate) folder: PathBuf,
}

impl Executable {
    /// For the guest.
    pub(crate) fn to_json(&self) -> Value {
        json!({"name": self.name, "program": self.program, "folder": self.folder})
    }

    /// The inverse of [`Executable::to_json`].
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self { name: text("name")?, program: text("program")?.into(), folder: text("folder")?.into() })
    }
}

/// Builds them all.
pub(crate) fn build() -> Result<Vec<Executable>, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["test", "--locked", "--no-run", "--test", "*", "--message-format", "json-render-diagnostics"]);
    for package in PACKAGES {
        command.args(["-p", package]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("start {}: {e}", cargo.to_string_lossy()))?;
    if !output.status.success() {
        return Err(format!("build the tests: cargo: {}", output.status));
    }
    let mut executables: Vec<_> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| artifact(line.trim())).collect();
    executables.sort_by(|a, b| a.name.cmp(&b.name));
    if executables.is_empty() {
        return Err("cargo has built no test executable".into());
    }
    Ok(executables)
}

/// The executable that one line of cargo's tells of. (The Cargo Book, "External tools", artifact messages)
fn artifact(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    let program = message["executable"].as_str()?;
    let is_test = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "test");
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let folder = manifest.parent()?;
    let package = match folder.file_name()?.to_str()? {
        "tests" => "e2e",
        other => other,
    };
    let name = format!("{package}/{}", message["target"]["name"].as_str()?);
    is_test.then(|| Executable { name, program: program.into(), folder: folder.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_executables_are_taken() {
        let line = |kind: &str| {
            json!({
                "reason": "compiler-artifact",
                "manifest_path": "/src/crates/linux/Cargo.toml",
                "target": {"kind": [kind], "name": "kernel"},
                "executable": "/target/debug/deps/kernel-1",
            })
            .to_string()
        };
        let expected = Executable {
            name: "linux/kernel".into(),
            program: "/target/debug/deps/kernel-1".into(),
            folder: "/src/crates/linux".into(),
        };
        assert_eq!(artifact(&line("test")), Some(expected.clone()));
        assert_eq!(artifact(&line("bin")), None);
        assert_eq!(artifact("   Compiling linux"), None);
        assert_eq!(Executable::from_json(&expected.to_json()), Some(expected));
    }
}
