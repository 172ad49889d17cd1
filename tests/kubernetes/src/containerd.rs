//! containerd on a node, with plugins and networks in the default directories.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::binaries::peers;
use e2e::patience::{PATIENCE, await_within};
use e2e::runtime::{PAUSE_IMAGE, write_images};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::Node;

pub const SOCKET: &str = "/run/containerd/containerd.sock";

pub const PLUGINS: &str = "/opt/cni/bin";

/// The directory of the networks, and the file of the only network.
const NETWORKS: &str = "/etc/cni/net.d";
const NETWORK: &str = "10-lan.conflist";

/// The name of its log.
pub const LOG: &str = "containerd";

impl Node {
    /// Starts containerd and waits until it listens. Returns its process ID.
    pub fn start_containerd(&self) -> Pid {
        self.write("/etc/containerd/config.toml", &configuration());
        let pid = self.spawn(LOG, &[peers("containerd")], &["containerd", "--log-level", "info"]);
        await_within(PATIENCE, "containerd listens", || {
            assert!(is_alive(pid), "containerd ended:\n{}", self.log(LOG));
            UnixStream::connect(self.socket()).map(|_| ()).map_err(|e| e.to_string())
        });
        pid
    }

    /// Imports the test images. The first call builds them in `scratch`.
    pub fn import_test_images(&self, scratch: &Path) {
        let scratch = scratch.join(self.name);
        let made = scratch.join("image.tar");
        let archive = if made.exists() { made } else { write_images(&scratch) };
        self.import(&archive);
    }

    /// Imports an archive with the command that packaging/README.md shows.
    pub fn import(&self, archive: &Path) {
        let archive = archive.to_str().expect("a path that is text");
        self.ctr(&["image", "import", archive]);
    }

    /// Calls `ctr` in the namespace of Kubernetes. Returns its stdout.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        let socket = self.socket();
        let mut command = Command::new(peers("containerd").join("ctr"));
        command.arg("--address").arg(&socket).args(["--namespace", "k8s.io"]).args(arguments);
        let output = command.output().expect("start ctr");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {}: {stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn socket(&self) -> PathBuf {
        self.root().join(SOCKET.trim_start_matches('/'))
    }

    /// The directory of the plugins, as this process sees it.
    pub fn plugin_dir(&self) -> PathBuf {
        self.root().join(PLUGINS.trim_start_matches('/'))
    }

    /// Replaces the only network of the node. containerd watches the directory.
    pub fn set_network(&self, list: &Value) {
        // The rename is atomic, so containerd never reads half a file.
        self.write(&format!("{NETWORKS}/.new"), &list.to_string());
        let directory = self.root().join(NETWORKS.trim_start_matches('/'));
        fs::rename(directory.join(".new"), directory.join(NETWORK)).expect("rename the file of a network");
    }
}

/// Ends a process by SIGKILL, and waits until it is gone.
pub fn kill_now(pid: Pid) {
    kill(pid, Signal::SIGKILL).unwrap_or_else(|e| panic!("kill process {pid}: {e}"));
    await_within(PATIENCE, "a killed process is gone", || {
        if is_alive(pid) { Err(format!("process {pid} is still there")) } else { Ok(()) }
    });
}

/// Whether a process exists. A zombie counts.
pub fn is_alive(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

fn configuration() -> String {
    format!(
        r#"version = 3

[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true

# `ctr image import` without options then unpacks as the CRI does.
[plugins."io.containerd.transfer.v1.local"]
unpack_config = [{{ platform = "linux", snapshotter = "native" }}]
"#
    )
}
