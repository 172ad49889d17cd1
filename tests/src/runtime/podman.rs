//! podman on the host of the Lab, with CNI networks and runc.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::cgroups::Cgroups;
use super::containerd::{install_plugins, name_of, write};
use super::jail::Jail;
use super::{Ctr, IMAGE, image, programs};
use crate::patience::{PATIENCE, await_within};
use crate::plugin::with_deadline;
use crate::{Binaries, Lab, Namespace};

const PLUGINS: &str = "opt/cni/bin";
const NETWORK: &str = "etc/cni/net.d/lan.conflist";

/// CNI instead of netavark. No systemd, no locks in the shared memory of the machine, and temporary files only in its
/// own directories.
const CONFIGURATION: &str = r#"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
image_copy_tmp_dir = "/run"
lock_type = "file"
runtime = "runc"
"#;

const STORAGE: &str = r#"
[storage]
driver = "vfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"#;

const POLICY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

/// podman's default limits need more rights than a test may have. Images are never downloaded.
const LIMITS: [&str; 6] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--pull", "never"];

/// A jail for podman, which has no daemon: each call is a process in the jail. Dropping it ends all containers.
#[derive(Debug)]
pub struct Podman<'a> {
    lab: &'a Lab,
    // The order matters: the groups can be removed after the processes have ended.
    jail: Jail,
    cgroups: Cgroups,
}

impl<'a> Podman<'a> {
    /// With the Lab's programs as plugins, a network, and the image [`IMAGE`].
    pub fn with_network(lab: &'a Lab, list: &Value) -> Self {
        for (program, package) in [("podman", "podman"), ("conmon", "conmon"), ("runc", "runc")] {
            programs::find(program, package);
        }
        let root = lab.path("podman");
        Jail::prepare(&root);
        write(&root.join("etc/containers/containers.conf"), CONFIGURATION);
        write(&root.join("etc/containers/storage.conf"), STORAGE);
        write(&root.join("etc/containers/policy.json"), POLICY);
        write(&root.join(NETWORK), &list.to_string());
        install_plugins(lab, &root.join(PLUGINS));
        let jail = Jail::start(&lab.host, &root, programs::PATH, &["sleep", "infinity"]);
        jail.await_mounts();
        let podman = Self { lab, jail, cgroups: Cgroups::new(name_of(lab)) };
        let archive = image::write(&root.join("scratch"));
        podman.run(&["load", "--quiet", "--input", text(&archive)]).done();
        podman
    }

    /// The reason if podman cannot run a container on this machine: it is not installed, has no CNI, or lacks a right.
    /// Tested once.
    pub fn why_not() -> Option<&'static str> {
        static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
        WHY_NOT.get_or_init(find_why_not).as_deref()
    }

    pub fn run(&self, arguments: &[&str]) -> Ctr {
        let mut command = Command::new("podman");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.jail.spawn(&self.lab.host, command);
        let output = with_deadline(child.id(), || child.wait_with_output().expect("wait for podman"));
        Ctr::new(format!("podman {}", arguments.join(" ")), &output, self.jail.log())
    }

    /// Starts a container on the network `lan` that serves the page of the image.
    pub fn serve(&self, name: &str, options: &[&str]) -> Ctr {
        let group = self.cgroups.path();
        let run = ["run", "--detach", "--name", name, "--network", "lan", "--cgroups", "no-conmon", "--cgroup-parent"];
        self.run(&[&run, &[group.as_str()][..], &LIMITS, options, &[IMAGE]].concat())
    }

    pub fn netns(&self, name: &str) -> Namespace {
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", name]);
        let path = self.jail.see(&format!("/proc/{}/ns/net", pid.done().trim()));
        await_within(PATIENCE, "the namespace of the container exists", || {
            Namespace::open(&path).map_err(|e| format!("open {}: {e}", path.display()))
        })
    }

    /// The files of a network that are left in /run and in the cache of libcni.
    pub fn remains(&self) -> Vec<String> {
        let mut remains = Vec::new();
        for directory in ["run/netns", "var/lib/cni/results"] {
            let entries = fs::read_dir(self.jail.root().join(directory)).into_iter().flatten().flatten();
            remains.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        remains
    }
}

fn find_why_not() -> Option<String> {
    let Ok(output) = Command::new("podman").arg("--version").output() else {
        return Some("podman is not installed".to_owned());
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version.rsplit(' ').next().and_then(|number| number.split('.').next()?.parse().ok());
    if major.is_none_or(|major: u32| major > 4) {
        return Some(format!("{version} has no CNI"));
    }
    let lab = Lab::new(Binaries::HardLinks);
    let podman = Podman::with_network(&lab, &json!({"cniVersion": "0.4.0", "name": "lan", "plugins": []}));
    let group = podman.cgroups.path();
    let run = ["run", "--rm", "--network", "none", "--cgroups", "no-conmon", "--cgroup-parent", group.as_str()];
    let outcome = podman.run(&[&run, &LIMITS[..], &[IMAGE, "true"]].concat());
    let why = || format!("{version} cannot run a container here: {}", outcome.stderr.trim().replace('\n', "; "));
    (!outcome.status.success()).then(why)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
