//! containerd of tests/peers on the host of the Lab, with runc, an image, and `ctr`.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{slice, thread};

use serde_json::{Value, json};

use super::cgroups::Cgroups;
use super::jail::Jail;
use super::{Ctr, IMAGE, Task, image, programs};
use crate::patience::PATIENCE;
use crate::plugin::with_deadline;
use crate::{Binaries, Lab, Namespace};

/// A configuration for `ctr`, without the Kubernetes side.
pub const WITHOUT_CRI: &str = "version = 3\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
    \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n";

/// Where containerd listens by default, and `ctr` looks.
const SOCKET: &str = "run/containerd/containerd.sock";

/// Where it looks for plugins by default.
const PLUGINS: &str = "opt/cni/bin";

/// Where it looks for networks by default, and the one that there is.
const NETWORK: &str = "etc/cni/net.d/10-lan.conflist";

/// The namespace of containerd's that Kubernetes uses.
const KUBERNETES: &str = "k8s.io";

/// The snapshotter that asks nothing of the file system below it.
const SNAPSHOTTER: [&str; 2] = ["--snapshotter", "native"];

/// A running containerd. It has its own /etc, /opt, /run and /var/lib, and so its own root,
/// state, socket, plugins and networks, where it looks for them anyway. Dropping it ends it,
/// its shims and its containers.
#[derive(Debug)]
pub struct Containerd<'a> {
    lab: &'a Lab,
    // Dropped in this order: a group can go when its processes are gone.
    jail: Jail,
    cgroups: Cgroups,
}

impl<'a> Containerd<'a> {
    /// Starts containerd with that configuration file on the Lab's host, with the Lab's
    /// programs for plugins, and waits until it listens. A Lab has one at most.
    pub fn start(lab: &'a Lab, configuration: &str) -> Self {
        let root = prepare(lab, configuration);
        Self::launch(lab, &root)
    }

    /// As [`Containerd::start`], with that list for a network from the beginning, since its side for Kubernetes is not
    /// ready without one, and with the images imported where that side looks for them.
    pub fn for_kubernetes(lab: &'a Lab, configuration: &str, list: &Value) -> Self {
        let root = prepare(lab, configuration);
        write(&root.join(NETWORK), &list.to_string());
        let containerd = Self::launch(lab, &root);
        containerd.import_image_into(KUBERNETES);
        containerd
    }

    /// What a reboot of the host does: all processes end at once, without a word; /run is empty; the kernel's boot id
    /// is another one; then containerd starts again. What is on disk stays: its own root, and the leases.
    pub fn reboot(self) -> Self {
        let Self { lab, mut jail, cgroups } = self;
        jail.kill();
        let root = jail.root().to_owned();
        // It holds the mounts, and with them the containers' network namespaces.
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

    /// As [`Containerd::start`], with the image imported and this one plugin for a network.
    pub fn with_network(lab: &'a Lab, plugin: &Value) -> Self {
        let containerd = Self::start(lab, WITHOUT_CRI);
        containerd.import_image();
        containerd.set_network(slice::from_ref(plugin));
        containerd
    }

    /// Makes a network of these plugins, the only one that containerd finds. Its name and
    /// version are the first one's.
    pub fn set_network(&self, plugins: &[Value]) {
        let list = json!({
            "cniVersion": plugins[0]["cniVersion"],
            "name": plugins[0]["name"],
            "plugins": plugins,
        });
        write(&self.jail.root().join(NETWORK), &list.to_string());
    }

    /// Installs one more plugin, which is somebody else's, beside those of the Lab.
    pub fn add_plugin(&self, program: &Path) {
        let installed = self.plugin_dir().join(program.file_name().expect("a program has a name"));
        if !installed.exists() {
            copy(program, &installed);
        }
    }

    /// Makes the image [`IMAGE`] and imports it into containerd's namespace `default`.
    pub fn import_image(&self) {
        self.import_image_into("default");
    }

    fn import_image_into(&self, namespace: &str) {
        let archive = image::write(&self.jail.root().join("scratch"));
        let archive = archive.to_str().expect("a path that is text");
        // By itself and not by the daemon's transfer service: that one knows only its own snapshotter, overlayfs.
        let import = ["--namespace", namespace, "image", "import", "--local"];
        self.ctr(&[&import, &SNAPSHOTTER[..], &[archive]].concat()).done();
    }

    /// Calls `ctr`.
    pub fn ctr(&self, arguments: &[&str]) -> Ctr {
        let child = self.spawn_ctr(arguments);
        let output = with_deadline(child.id(), || child.wait_with_output().expect("wait for ctr"));
        self.outcome(arguments, &output)
    }

    /// Runs `command` to its end in a container that is on the network and goes with it.
    pub fn run(&self, id: &str, command: &[&str]) -> Ctr {
        self.ctr(&strs(&self.run_arguments(id, command)))
    }

    /// Starts `command` in a container on the network, and leaves it.
    pub fn detach(&self, id: &str, command: &[&str]) -> Ctr {
        let group = self.cgroups.of(id);
        let run = ["run", "--detach", "--cni", "--cgroup", &group];
        self.ctr(&[&run, &SNAPSHOTTER[..], &[IMAGE, id], command].concat())
    }

    /// Starts a container on the network that serves [`image::PAGE`] on port 80, and waits
    /// until it does.
    pub fn serve(&self, id: &str) -> Task<'_> {
        Task::start(self, id)
    }

    /// The network namespace of a container that was run and still has a process.
    pub fn netns(&self, id: &str) -> Namespace {
        let file = self.pid_file(id);
        let pid = fs::read_to_string(&file).unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
        // It is ctr's number for the process, which only the jail's /proc knows.
        let path = self.jail.see(&format!("/proc/{}/ns/net", pid.trim()));
        Namespace::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
    }

    /// Where it listens, seen from outside.
    pub fn socket(&self) -> PathBuf {
        self.jail.root().join(SOCKET)
    }

    /// Its /opt/cni/bin.
    pub fn plugin_dir(&self) -> PathBuf {
        self.jail.root().join(PLUGINS)
    }

    /// The control group that all its containers shall be below.
    pub fn control_group(&self) -> String {
        self.cgroups.path()
    }

    /// What containerd has said so far.
    pub fn log(&self) -> String {
        self.jail.log()
    }

    /// Something in its /run or another directory of its own, seen from outside.
    pub fn see(&self, path: &str) -> PathBuf {
        self.jail.see(path)
    }

    /// The pid namespace of containerd and of all that it starts.
    pub fn pid_namespace(&self) -> &File {
        self.jail.pid_namespace()
    }

    /// The arguments that make `ctr` run `command` in a new container, stay with it, and at
    /// its end take it off the network and remove it.
    pub(crate) fn run_arguments(&self, id: &str, command: &[&str]) -> Vec<String> {
        let (group, pid_file) = (self.cgroups.of(id), self.pid_file(id));
        let pid_file = pid_file.to_str().expect("a path that is text");
        let run = ["run", "--rm", "--cni", "--cgroup", &group, "--pid-file", pid_file];
        [&run, &SNAPSHOTTER[..], &[IMAGE, id], command].concat().into_iter().map(str::to_owned).collect()
    }

    fn pid_file(&self, id: &str) -> PathBuf {
        self.jail.root().join(format!("{id}.pid"))
    }

    /// Starts `ctr` without waiting for it.
    pub(crate) fn spawn_ctr(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new("env");
        // On a host of cgroup v1 every call would warn of that on stderr.
        command.args(["CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=true", "ctr"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.jail.spawn(&self.lab.host, command)
    }

    pub(crate) fn outcome(&self, arguments: &[&str], output: &Output) -> Ctr {
        Ctr::new(format!("ctr {}", arguments.join(" ")), output, self.jail.log())
    }

    fn wait_for_socket(&mut self) {
        let socket = self.socket();
        let deadline = Instant::now() + PATIENCE;
        while let Err(e) = UnixStream::connect(&socket) {
            let alive = self.jail.alive();
            assert!(alive, "containerd ended before it listened:\n{}", self.jail.log());
            assert!(Instant::now() < deadline, "connect to {}: {e}:\n{}", socket.display(), self.jail.log());
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Its directories, its configuration and its plugins.
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

/// The Lab's directory has a name that no other has, now or in another process.
pub(crate) fn name_of(lab: &Lab) -> String {
    let path = lab.path("");
    path.file_name().expect("a Lab's directory has a name").to_string_lossy().into_owned()
}

/// Ours are installed as `make install` leaves them, which for hard links is one file of many
/// names; the reference, tens of megabytes, stays where it is.
pub(crate) fn install_plugins(lab: &Lab, directory: &Path) {
    let parent = directory.parent().expect("a directory below another");
    fs::create_dir_all(parent).unwrap_or_else(|e| panic!("make {}: {e}", parent.display()));
    if lab.binaries() == Binaries::Reference {
        symlink(lab.bin(), directory).unwrap_or_else(|e| panic!("link {}: {e}", directory.display()));
        return;
    }
    copy(lab.bin(), directory);
}

/// Copies a file, or a directory with its hard links.
///
/// Not by this process: a file that it has open for writing while another thread forks could
/// not be executed until that child is gone (ETXTBSY).
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
