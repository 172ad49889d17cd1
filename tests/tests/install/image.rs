//! The container image in containerd, with the rights of the Kubernetes manifest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::patience::await_that;
use e2e::runtime::{Containerd, WITHOUT_CRI};
use e2e::{Binaries, Lab};
use yaml_rust2::{Yaml, YamlLoader};

use crate::fixture::{Plugins, REPOSITORY, built, done, run};

/// The default capabilities of a container.
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE \
                            SYS_CHROOT KILL AUDIT_WRITE";

fn manifest() -> Yaml {
    let path = Path::new(REPOSITORY).join("packaging/daemonset.yaml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    YamlLoader::load_from_str(&text).expect("YAML").remove(0)
}

fn image(directory: &Path) -> PathBuf {
    let script = Path::new(REPOSITORY).join("packaging/image.sh");
    let output = run(Command::new(script).arg(built()).arg(directory).env("SOURCE_DATE_EPOCH", "1700000000"));
    PathBuf::from(done(&output).trim_end())
}

/// The container of the manifest, started by `ctr`, with the directory of the plugins as its volume.
struct Pod<'a> {
    containerd: &'a Containerd<'a>,
    image: String,
    plugins: &'a Path,
}

impl Pod<'_> {
    /// Starts it. Arguments replace those of the image.
    fn start(&self, id: &str, arguments: &[&str]) {
        let container = &manifest()["spec"]["template"]["spec"]["containers"][0];
        let security = &container["securityContext"];
        let directory = container["volumeMounts"][0]["mountPath"].as_str().expect("a directory");
        let mount = format!("type=bind,src={},dst={directory},options=rbind:rw", self.plugins.display());
        let group = format!("{}/{id}", self.containerd.control_group());
        // This is the user of the image. This ctr cannot set another.
        assert_eq!(security["runAsUser"].as_i64(), Some(0));
        let memory = container["resources"]["limits"]["memory"].as_str().and_then(|text| text.strip_suffix("Mi"));
        let memory = memory.and_then(|text| text.parse::<u64>().ok()).expect("a limit of memory in Mi");
        let memory = (memory << 20).to_string();
        let mut words = vec!["run", "--detach", "--snapshotter", "native", "--cgroup", &group, "--mount", &mount];
        words.extend(["--memory-limit", &memory]);
        assert_eq!(security["readOnlyRootFilesystem"].as_bool(), Some(true));
        words.push("--read-only");
        assert_eq!(security["seccompProfile"]["type"].as_str(), Some("RuntimeDefault"));
        words.push("--seccomp");
        assert_eq!(security["capabilities"]["drop"][0].as_str(), Some("ALL"));
        let capabilities: Vec<_> = CAPABILITIES.split(' ').map(|name| format!("CAP_{name}")).collect();
        words.extend(capabilities.iter().flat_map(|name| ["--cap-drop", name]));
        words.extend([self.image.as_str(), id]);
        words.extend(arguments);
        self.containerd.ctr(&words).done();
    }

    /// The file `status` of its process.
    fn status(&self, id: &str) -> String {
        let tasks = self.containerd.ctr(&["task", "list"]);
        let line = tasks.done().lines().find(|line| line.starts_with(id)).expect("the task is listed").to_owned();
        let pid = line.split_whitespace().nth(1).expect("a task has a process");
        fs::read_to_string(self.containerd.see(&format!("/proc/{pid}/status"))).expect("read a process's status")
    }

    /// Ends it as the kubelet does. It must succeed.
    fn end(&self, id: &str) {
        self.containerd.ctr(&["task", "kill", "--signal", "SIGTERM", id]).done();
        await_that("the container ends", || {
            let tasks = self.containerd.ctr(&["task", "list"]);
            tasks.done().lines().any(|line| line.starts_with(id) && line.contains("STOPPED"))
        });
        // Fails if the process has failed.
        self.containerd.ctr(&["task", "delete", id]).done();
        self.containerd.ctr(&["container", "delete", id]).done();
    }
}

/// The flags of `ctr` stand for the `securityContext` of the manifest. The resulting rights are read from the kernel.
#[test]
fn with_the_rights_of_the_manifest_the_image_installs_and_uninstalls_the_plugins() {
    let lab = Lab::new(Binaries::HardLinks);
    let containerd = Containerd::start(&lab, WITHOUT_CRI);
    let (scratch, plugins) = (Plugins::none(), Plugins::of_a_distribution());
    let archive = image(scratch.path());
    let archive = archive.to_str().expect("a path that is text");
    containerd.ctr(&["image", "import", "--local", "--snapshotter", "native", archive]).done();
    let container = &manifest()["spec"]["template"]["spec"]["containers"][0];
    let image = container["image"].as_str().expect("an image").to_owned();
    let pod = Pod { containerd: &containerd, image, plugins: plugins.path() };

    // The arguments of the image are those of the manifest.
    pod.start("installer", &[]);
    await_that("the plugins are installed", || plugins.at("underlay").exists());
    plugins.assert_all_are(&built());
    let status = pod.status("installer");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
    pod.end("installer");
    plugins.assert_all_are(&built());

    pod.start("back", &["/underlay", "uninstall", "--wait"]);
    await_that("the plugins are as before", || !plugins.at("underlay").exists());
    pod.end("back");
    plugins.assert_of_a_distribution();
}

#[test]
fn the_manifest_asks_only_for_one_directory_of_the_host() {
    let manifest = manifest();
    let pod = &manifest["spec"]["template"]["spec"];
    for asked in ["hostNetwork", "hostPID", "hostIPC", "serviceAccountName"] {
        assert!(pod[asked].is_badvalue(), "it asks for {asked}");
    }
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    assert_eq!(pod["volumes"].as_vec().map(Vec::len), Some(1));
    assert_eq!(pod["volumes"][0]["hostPath"]["path"].as_str(), Some("/opt/cni/bin"));
    let container = &pod["containers"][0];
    let arguments: Vec<_> = container["args"].as_vec().expect("arguments").iter().filter_map(Yaml::as_str).collect();
    assert_eq!(arguments, ["install", "--wait"]);
    let security = &container["securityContext"];
    assert!(security["privileged"].is_badvalue() && security["capabilities"]["add"].is_badvalue());
    assert_eq!(security["allowPrivilegeEscalation"].as_bool(), Some(false));
    let release = done(&run(Command::new(built()).arg("--version"))).trim_end().replace(' ', ":");
    assert_eq!(container["image"].as_str(), Some(format!("docker.io/library/{release}").as_str()));
}

#[test]
fn the_same_program_gives_the_same_image() {
    let scratch = Plugins::none();
    let [first, second] = ["a", "another"].map(|directory| image(&scratch.at(directory)));
    assert!(fs::read(first).expect("read an image") == fs::read(second).expect("read an image"));
}
