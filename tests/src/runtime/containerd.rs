//! containerd of tests/peers on the host of the Lab, with runc, an image, and `ctr`.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::slice;

use serde_json::{Value, json};

use super::cgroups::Cgroups;
use super::jail::Jail;
use super::{Ctr, IMAGE, Task, image, programs};
use crate::patience::{PATIENCE, await_within};
use crate::plugin::with_deadline;
use crate::{Binaries, Lab, Namespace};

/// A configuration for `ctr`, without the Kubernetes side.
pub const WITHOUT_CRI: &str = "version = 3\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
    \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n";

const SOCKET: &str = "run/containerd/containerd.sock";

const PLUGINS: &str = "opt/cni/bin";

const NETWORK: &str = "etc/cni/net.d/10-lan.conflist";

const KUBERNETES: &str = "k8s.io";

/// The snapshotter that works on any file system.
const SNAPSHOTTER: [&str; 2] = ["--snapshotter", "native"];

/// A running containerd in a jail, with the default paths. Dropping it ends containerd, its shims and its containers.
#[derive(Debug)]
pub struct Containerd<'a> {
    lab: &'a Lab,
    // The order matters: the groups can be removed after the processes have ended.
    jail: Jail,
    cgroups: Cgroups,
}

impl<'a> Containerd<'a> {
    /// Starts containerd on the Lab's host, with this configuration file and the Lab's programs as plugins. Waits until
    /// it listens. A Lab can have one containerd.
    pub fn start(lab: &'a Lab, configuration: &str) -> Self {
        let root = prepare(lab, configuration);
        Self::launch(lab, &root)
    }

    /// As [`Containerd::start`], with a network and images for the CRI.
    pub fn for_kubernetes(lab: &'a Lab, configuration: &str, list: &Value) -> Self {
        let root = prepare(lab, configuration);
        write(&root.join(NETWORK), &list.to_string());
        let containerd = Self::launch(lab, &root);
        containerd.import_image_into(KUBERNETES);
        containerd
    }

    /// Simulates a reboot of the host: all processes are killed, /run is emptied, the boot ID changes, and containerd
    /// starts again. Files on disk stay: the root of containerd, and the leases.
    pub fn reboot(self) -> Self {
        let Self { lab, mut jail, cgroups } = self;
        jail.kill();
        let root = jail.root().to_owned();
        // The jail holds the mounts, and with them the network namespaces of the containers.
        drop(jail);
        drop(cgroups);
        let run = root.join("run");
        fs::remove_dir_all(&run).and_then(|()| fs::create_dir(&run)).expect("empty /run");
        Jail::renew_boot_id(&root);
        Self::launch(lab, &root)
    }

    fn launch(lab: &'a Lab, root: &Path) -> Self {
        let path = programs::path_with_containerd();
        let jail = Jail::start(&lab.host, root, &path, &["containerd", "--log-level", "warn"]);
        let mut containerd = Self { lab, jail, cgroups: Cgroups::new(name_of(lab)) };
        containerd.wait_for_socket();
        containerd
    }

    /// As [`Containerd::start`], with the image, and a network with one plugin.
    pub fn with_network(lab: &'a Lab, plugin: &Value) -> Self {
        let containerd = Self::start(lab, WITHOUT_CRI);
        containerd.import_image();
        containerd.set_network(slice::from_ref(plugin));
        containerd
    }

    /// Writes the only network of containerd, with these plugins. The first one gives its name and version.
    pub fn set_network(&self, plugins: &[Value]) {
        let list = json!({
            "cniVersion": plugins[0]["cniVersion"],
            "name": plugins[0]["name"],
            "plugins": plugins,
        });
        write(&self.jail.root().join(NETWORK), &list.to_string());
    }

    /// Installs a foreign plugin.
    pub fn add_plugin(&self, program: &Path) {
        let installed = self.plugin_dir().join(program.file_name().expect("a program has a name"));
        if !installed.exists() {
            copy(program, &installed);
        }
    }

    /// Builds the image [`IMAGE`] and imports it into containerd's namespace `default`.
    pub fn import_image(&self) {
        self.import_image_into("default");
    }

    fn import_image_into(&self, namespace: &str) {
        let archive = image::write(&self.jail.root().join("scratch"));
        let archive = archive.to_str().expect("a path that is text");
        // With --local, because the transfer service of the daemon only knows overlayfs.
        let import = ["--namespace", namespace, "image", "import", "--local"];
        self.ctr(&[&import, &SNAPSHOTTER[..], &[archive]].concat()).done();
    }

    pub fn ctr(&self, arguments: &[&str]) -> Ctr {
        let child = self.spawn_ctr(arguments);
        let output = with_deadline(child.id(), || child.wait_with_output().expect("wait for ctr"));
        self.outcome(arguments, &output)
    }

    /// Runs `command` in a container on the network, and waits for its end.
    pub fn run(&self, id: &str, command: &[&str]) -> Ctr {
        self.ctr(&strs(&self.run_arguments(id, command)))
    }

    /// Starts `command` in a container on the network.
    pub fn detach(&self, id: &str, command: &[&str]) -> Ctr {
        let group = self.cgroups.of(id);
        let run = ["run", "--detach", "--cni", "--cgroup", &group];
        self.ctr(&[&run, &SNAPSHOTTER[..], &[IMAGE, id], command].concat())
    }

    /// Starts a container on the network that serves [`image::PAGE`] on port 80. Waits until it listens.
    pub fn serve(&self, id: &str) -> Task<'_> {
        Task::start(self, id)
    }

    /// The network namespace of a container that runs.
    pub fn netns(&self, id: &str) -> Namespace {
        let file = self.pid_file(id);
        let pid = fs::read_to_string(&file).unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
        // The PID is one of the jail.
        let path = self.jail.see(&format!("/proc/{}/ns/net", pid.trim()));
        Namespace::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
    }

    pub fn socket(&self) -> PathBuf {
        self.jail.root().join(SOCKET)
    }

    pub fn plugin_dir(&self) -> PathBuf {
        self.jail.root().join(PLUGINS)
    }

    /// The parent of the control groups of its containers.
    pub fn control_group(&self) -> String {
        self.cgroups.path()
    }

    pub fn log(&self) -> String {
        self.jail.log()
    }

    /// A path in the jail, from outside.
    pub fn see(&self, path: &str) -> PathBuf {
        self.jail.see(path)
    }

    /// The PID namespace of containerd and its processes.
    pub fn pid_namespace(&self) -> &File {
        self.jail.pid_namespace()
    }

    /// The arguments with which `ctr` runs `command` in a new container, waits for its end, and removes it.
    pub(crate) fn run_arguments(&self, id: &str, command: &[&str]) -> Vec<String> {
        let (group, pid_file) = (self.cgroups.of(id), self.pid_file(id));
        let pid_file = pid_file.to_str().expect("a path that is text");
        let run = ["run", "--rm", "--cni", "--cgroup", &group, "--pid-file", pid_file];
        [&run, &SNAPSHOTTER[..], &[IMAGE, id], command].concat().into_iter().map(str::to_owned).collect()
    }

    fn pid_file(&self, id: &str) -> PathBuf {
        self.jail.root().join(format!("{id}.pid"))
    }

    pub(crate) fn spawn_ctr(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new("env");
        // Otherwise each call on a host with cgroup v1 prints a warning.
        command.args(["CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=true", "ctr"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.jail.spawn(&self.lab.host, command)
    }

    pub(crate) fn outcome(&self, arguments: &[&str], output: &Output) -> Ctr {
        Ctr::new(format!("ctr {}", arguments.join(" ")), output, self.jail.log())
    }

    fn wait_for_socket(&mut self) {
        await_within(PATIENCE, "containerd listens", || {
            assert!(self.jail.alive(), "containerd ended before it listened:\n{}", self.jail.log());
            UnixStream::connect(self.socket()).map(drop).map_err(|e| format!("{e}:\n{}", self.jail.log()))
        });
    }
}

fn prepare(lab: &Lab, configuration: &str) -> PathBuf {
    let root = lab.path("containerd");
    Jail::prepare(&root);
    write(&root.join("etc/containerd/config.toml"), configuration);
    install_plugins(lab, &root.join(PLUGINS));
    root
}

pub(crate) fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The name of the Lab's directory, which is unique.
pub(crate) fn name_of(lab: &Lab) -> String {
    let path = lab.path("");
    path.file_name().expect("a Lab's directory has a name").to_string_lossy().into_owned()
}

/// Copies our plugins, with their hard links. The reference has tens of megabytes, so its directory is linked.
pub(crate) fn install_plugins(lab: &Lab, directory: &Path) {
    let parent = directory.parent().expect("a directory below another");
    fs::create_dir_all(parent).unwrap_or_else(|e| panic!("make {}: {e}", parent.display()));
    if lab.binaries() == Binaries::Reference {
        symlink(lab.bin(), directory).unwrap_or_else(|e| panic!("link {}: {e}", directory.display()));
        return;
    }
    copy(lab.bin(), directory);
}

/// Copies a file, or a directory with its hard links. Another process writes it: see [`crate::plugin::write_script`].
pub(crate) fn copy(from: &Path, to: &Path) {
    let status =
        Command::new("cp").args(["--archive", "--no-target-directory"]).args([from, to]).status().expect("start cp");
    assert!(status.success(), "copy {} to {}", from.display(), to.display());
}

pub(crate) fn write(path: &Path, text: &str) {
    let parent = path.parent().expect("a file in a directory");
    fs::create_dir_all(parent).unwrap_or_else(|e| panic!("make {}: {e}", parent.display()));
    fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}
