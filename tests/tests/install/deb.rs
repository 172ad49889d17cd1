//! The Debian package on a copy of this machine: an overlay over its file system, with Debian's plugins and its package
//! database.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::fixture::{
    COMPANION, Plugins, REPOSITORY, built, companion_of, distributed, done, expected_names, installed_names, list, run,
};

const PLUGINS: &str = "usr/lib/cni";
/// Files that keep other programs away from the host's link and its sysctls, each with the lines that do it.
const FOR_PROGRAMS: [(&str, &[&str]); 3] = [
    ("usr/lib/systemd/network/05-underlay.network", &["[Match]", "Name=underlay*", "[Link]", "Unmanaged=yes"]),
    (
        "usr/lib/NetworkManager/conf.d/90-underlay.conf",
        &["[device-underlay]", "match-device=interface-name:underlay*", "managed=0"],
    ),
    ("usr/lib/sysctl.d/90-underlay.conf", &["-net.ipv4.conf.underlay*.rp_filter = 1"]),
];
/// The date of all files in a package.
const DATE: &str = "1700000000";

/// Builds a package of that program in a directory. Returns its path.
fn package(program: &Path, directory: &Path) -> PathBuf {
    let script = Path::new(REPOSITORY).join("packaging/deb.sh");
    let output = run(Command::new(script).arg(program).arg(directory).env("SOURCE_DATE_EPOCH", DATE));
    PathBuf::from(done(&output).trim_end())
}

/// A script in place of another release, and the companion of this one. It has the plugin `vlan` and not `ipvlan-l2`.
fn other_release(scratch: &Plugins, version: &str) -> PathBuf {
    let names: Vec<String> =
        expected_names().into_iter().filter(|name| name != "ipvlan-l2" && name != "underlay").collect();
    let script = format!(
        "case $1 in --version) echo underlay {version} ;; --plugins) printf '%s\\n' {} vlan ;; esac",
        names.join(" ")
    );
    e2e::plugin::write_script(&scratch.at(version), &script);
    fs::copy(companion_of(&built()), scratch.at(COMPANION)).expect("copy the companion");
    scratch.at(version)
}

/// A later package of Debian's plugins, with two of them.
fn their_upgrade(scratch: &Plugins) -> PathBuf {
    let root = scratch.at("theirs");
    fs::create_dir_all(root.join(PLUGINS)).expect("make a directory");
    fs::create_dir(root.join("DEBIAN")).expect("make a directory");
    for name in ["macvlan", "bridge"] {
        fs::write(root.join(PLUGINS).join(name), distributed(name)).expect("write a plugin");
    }
    let control = "Package: containernetworking-plugins\nVersion: 99\nArchitecture: all\n\
                   Maintainer: none <n@example.org>\nDescription: plugins\n";
    fs::write(root.join("DEBIAN/control"), control).expect("write a package's control file");
    let package = scratch.at("theirs.deb");
    done(&run(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).args([&root, &package])));
    package
}

struct Machine {
    holder: Child,
    directory: Plugins,
}

impl Machine {
    fn new() -> Self {
        let directory = Plugins::none();
        let script = "mount -t tmpfs none \"$0\" && cd \"$0\" && mkdir upper work root && \
                      mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work none root && \
                      mount --bind /dev root/dev && echo there && read line";
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().expect("stdout is a pipe")).read_line(&mut line).expect("read a line");
        let machine = Self { holder, directory };
        assert_eq!(line, "there\n", "an overlay over / could not be made: this test needs root");
        machine
    }

    /// A path on the machine, seen from outside.
    fn at(&self, path: &str) -> PathBuf {
        let root = self.directory.path().strip_prefix("/").expect("an absolute path").join("root");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(root).join(path)
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        let mut command = Command::new("nsenter");
        command.args([&namespace, "--", "chroot"]).arg(self.directory.at("root")).args(words);
        let output = run(command.env("DEBIAN_FRONTEND", "noninteractive"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {}\n{stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn dpkg(&self, action: &str, what: &Path) {
        let what = match action {
            "--install" => {
                fs::copy(what, self.at("package.deb")).expect("copy a package to the machine");
                "/package.deb"
            }
            _ => what.to_str().expect("text"),
        };
        self.run(&["dpkg", "--no-triggers", action, what]);
    }

    fn read(&self, plugin: &str) -> Vec<u8> {
        let path = self.at(PLUGINS).join(plugin);
        fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
    }

    fn plugins(&self) -> Vec<String> {
        list(&self.at(PLUGINS))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

#[test]
fn the_package_and_that_of_debian_can_both_be_upgraded() {
    let (scratch, machine) = (Plugins::none(), Machine::new());
    let before = machine.plugins();
    assert!(before.contains(&"macvlan".to_owned()), "containernetworking-plugins is not installed");
    let (macvlan, vlan, ours) = (machine.read("macvlan"), machine.read("vlan"), fs::read(built()).expect("read it"));

    machine.dpkg("--install", &package(&built(), scratch.path()));
    for name in expected_names() {
        assert!(machine.read(&name) == ours, "{name} is not ours");
    }
    assert!(machine.read(COMPANION) == fs::read(companion_of(&built())).expect("read it"), "{COMPANION} is not ours");
    assert!(machine.run(&["lan-pool", "--version"]).starts_with("lan-pool "));
    for file in ["lan-pool.yaml", "underlay-lan-pool-sweep.service", "underlay-lan-pool-sweep.timer"] {
        assert!(machine.at("usr/share/doc/underlay").join(file).is_file(), "{file} is missing");
    }
    assert!(machine.read("macvlan.distrib") == macvlan, "theirs was not diverted");
    assert!(machine.run(&["dpkg", "--verify", "underlay", "containernetworking-plugins"]).is_empty());
    assert!(machine.run(&["underlay", "--version"]).starts_with("underlay "));
    for (file, settings) in FOR_PROGRAMS {
        let text = fs::read_to_string(machine.at(file)).unwrap_or_else(|e| panic!("read {file}: {e}"));
        for line in settings {
            assert!(text.lines().any(|its| its == *line), "{file} has no line {line}");
        }
    }
    assert!(machine.run(&["mandoc", "-Tmarkdown", "/usr/share/man/man8/underlay-macvlan.8.gz"]).contains("passthru"));

    // Theirs is upgraded.
    machine.dpkg("--install", &their_upgrade(&scratch));
    assert!(machine.read("macvlan") == ours, "their upgrade has replaced ours");
    assert_eq!(String::from_utf8_lossy(&machine.read("macvlan.distrib")), distributed("macvlan"));

    // Ours is upgraded, and the new version has other names.
    let other = other_release(&scratch, "9.0.0");
    machine.dpkg("--install", &package(&other, scratch.path()));
    let others = fs::read(&other).expect("read it");
    assert!(machine.read("macvlan") == others && machine.read("vlan") == others, "ours was not upgraded");
    assert!(!machine.plugins().contains(&"ipvlan-l2".to_owned()), "an old name of ours is left");

    machine.dpkg("--remove", Path::new("underlay"));
    assert_eq!(machine.plugins(), ["bridge", "macvlan"], "only version 99 of theirs is left");
    assert_eq!(String::from_utf8_lossy(&machine.read("macvlan")), distributed("macvlan"));
    assert_eq!(machine.run(&["dpkg-divert", "--list", "/usr/lib/cni/*"]), "");
    // The first version of theirs had a vlan.
    assert!(!vlan.is_empty());
}

#[test]
fn purge_leaves_the_plugins_of_debian_as_they_were() {
    let (scratch, machine) = (Plugins::none(), Machine::new());
    let stat = || machine.plugins().into_iter().map(|name| (machine.read(&name), name)).collect::<Vec<_>>();
    let before = stat();
    let package = package(&built(), scratch.path());
    machine.dpkg("--install", &package);
    // As with `apt reinstall`.
    machine.dpkg("--install", &package);
    machine.dpkg("--purge", Path::new("underlay"));
    assert!(stat() == before, "a file in {PLUGINS} has changed");
    for (file, _) in FOR_PROGRAMS {
        assert!(!machine.at(file).exists(), "{file} is left");
    }
}

#[test]
fn the_package_works_without_that_of_debian() {
    let (scratch, machine) = (Plugins::none(), Machine::new());
    machine.run(&["dpkg", "--no-triggers", "--force-depends", "--purge", "containernetworking-plugins"]);
    machine.dpkg("--install", &package(&built(), scratch.path()));
    assert_eq!(machine.plugins(), installed_names());
    machine.dpkg("--purge", Path::new("underlay"));
    assert!(!machine.at(PLUGINS).exists() || machine.plugins().is_empty(), "{:?}", machine.plugins());
}

#[test]
fn underlay_uninstall_refuses_to_remove_files_of_the_package() {
    let (scratch, machine) = (Plugins::none(), Machine::new());
    machine.dpkg("--install", &package(&built(), scratch.path()));
    let before = machine.plugins();
    // /lib is a link to /usr/lib.
    for directory in ["/usr/lib/cni", "/lib/cni"] {
        let said = machine.run(&["sh", "-c", "! underlay uninstall --from \"$0\" 2>&1", directory]);
        assert_eq!(
            said,
            format!(
                "underlay uninstall: {directory}: the plugins there belong to a Debian package; \
                 run apt remove underlay\n"
            )
        );
    }
    assert_eq!(machine.plugins(), before);
    // It removes files that no package has installed, also if dpkg still knows our package.
    fs::copy(built(), machine.at("program")).expect("copy the program to the machine");
    machine.dpkg("--remove", Path::new("underlay"));
    done(&run(Command::new(built()).args(["install", "--to"]).arg(machine.at(PLUGINS))));
    machine.run(&["/program", "uninstall", "--from", "/usr/lib/cni"]);
    assert!(machine.plugins().contains(&"bridge".to_owned()) && !machine.plugins().contains(&"underlay".to_owned()));
}

/// A runtime starts containers while packages are upgraded.
#[test]
fn during_installation_and_upgrades_no_plugin_is_missing() {
    let (scratch, machine) = (Plugins::none(), Machine::new());
    let paths = ["macvlan", "host-local", "ipvlan"].map(|name| machine.at(PLUGINS).join(name));
    let over = AtomicBool::new(false);
    let looks = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looks = 0_u32;
            while !over.load(Ordering::Relaxed) {
                for path in &paths {
                    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                }
                looks += 1;
            }
            looks
        });
        machine.dpkg("--install", &package(&built(), scratch.path()));
        machine.dpkg("--install", &package(&other_release(&scratch, "9.0.0"), scratch.path()));
        machine.dpkg("--install", &their_upgrade(&scratch));
        over.store(true, Ordering::Relaxed);
        watch.join().expect("no plugin is missing")
    });
    assert!(looks > 1000, "{looks} looks");
}

#[test]
fn the_same_program_gives_the_same_package() {
    let scratch = Plugins::none();
    let [first, second] = ["a", "another"].map(|directory| package(&built(), &scratch.at(directory)));
    assert!(fs::read(first).expect("read a package") == fs::read(second).expect("read a package"));
}
