//! A process tree with its own mounts and PIDs, on a network of the Lab. Its daemons use their default paths, which are
//! directories of the test. When its first process ends, the kernel ends all others and removes the mounts.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

use crate::Namespace;
use crate::patience::await_that;
use crate::plugin::with_deadline;

/// The directories of a runtime. All others are those of the machine.
const PRIVATE: [&str; 4] = ["etc", "opt", "run", "var/lib"];

/// The files of the machine's /etc that a daemon may need.
const SHARED_ETC: [&str; 5] = ["group", "hosts", "ld.so.cache", "passwd", "resolv.conf"];

/// A file with the boot ID of the jail.
const BOOT_ID: &str = "boot_id";

/// The script of the first process. `$1` has the private directories, `$2` their names, and the rest is the daemon.
///
/// `wait` also reaps orphans. When the test ends or stops the jail, the stdin of the script ends, and then it kills the
/// daemon.
const INIT: &str = r#"
set -e
mount --make-rprivate /
for directory in $2; do
    mount --bind "$1/$directory" "/$directory"
done
mount -t proc proc /proc
mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id
shift 2
exec 3<&0 </dev/null
"$@" 3<&- &
daemon=$!
{ read -r _ <&3 || kill "$daemon"; } &
wait "$daemon"
"#;

const LOG: &str = "log";

/// Copies those files into a directory that is to be an /etc.
pub fn copy_shared_etc(to: &Path) {
    for from in SHARED_ETC.map(|name| Path::new("/etc").join(name)).iter().filter(|from| from.exists()) {
        let name = from.file_name().expect("a file has a name");
        fs::copy(from, to.join(name)).unwrap_or_else(|e| panic!("copy {}: {e}", from.display()));
    }
}

/// A daemon in a jail. Dropping it ends everything in it.
#[derive(Debug)]
pub(crate) struct Jail {
    init: Child,
    mounts: File,
    pids: File,
    root: PathBuf,
    path: String,
}

impl Jail {
    /// Creates the private directories below `root`, with the shared files of the machine.
    pub(crate) fn prepare(root: &Path) {
        for directory in PRIVATE {
            let hidden = Path::new("/").join(directory);
            assert!(!root.starts_with(&hidden), "{} is hidden by a jail: set TMPDIR to another place", root.display());
            fs::create_dir_all(root.join(directory)).expect("make a directory for a jail");
        }
        copy_shared_etc(&root.join("etc"));
        Self::renew_boot_id(root);
    }

    /// Gives the next jail at `root` a new boot ID.
    pub(crate) fn renew_boot_id(root: &Path) {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("ask the kernel for an id");
        fs::write(root.join(BOOT_ID), id).expect("write a boot id");
    }

    /// Starts `daemon` on the network of `host`. `root` has been prepared. `path` is the `PATH` of everything in the
    /// jail.
    pub(crate) fn start(host: &Namespace, root: &Path, path: &str, daemon: &[&str]) -> Self {
        let output = File::create(root.join(LOG)).expect("create a daemon's log");
        let errors = output.try_clone().expect("a second descriptor of a log");
        let init = host.run(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).expect("a jail needs root");
            Command::new("/bin/sh")
                .args(["-c", INIT, "init"])
                .arg(root)
                .arg(PRIVATE.join(" "))
                .args(daemon)
                .env_clear()
                .env("PATH", path)
                .stdin(Stdio::piped())
                .stdout(output)
                .stderr(errors)
                .spawn()
                .expect("start /bin/sh")
        });
        // The process was started in its namespaces, so they exist already.
        let namespace = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", init.id());
            File::open(&path).unwrap_or_else(|e| panic!("open {path}: {e}"))
        };
        let (mounts, pids) = (namespace("mnt"), namespace("pid"));
        Self { init, mounts, pids, root: root.to_owned(), path: path.to_owned() }
    }

    /// The path from outside of a path in the jail.
    pub(crate) fn see(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init.id()))
    }

    /// Waits until everything is mounted and the daemon is about to start.
    pub(crate) fn await_mounts(&self) {
        // The file of the boot ID is mounted last.
        let expected = fs::read(self.root.join(BOOT_ID)).expect("read a boot ID");
        await_that("the jail is mounted", || {
            fs::read(self.see("/proc/sys/kernel/random/boot_id")).is_ok_and(|id| id == expected)
        });
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.root.join(LOG)).unwrap_or_else(|e| format!("the log cannot be read: {e}"))
    }

    /// Starts a program in the jail, on its network.
    pub(crate) fn spawn(&self, host: &Namespace, mut command: Command) -> Child {
        host.run(move || {
            // setns fails if a thread shares its root directory with its process.
            unshare(CloneFlags::CLONE_FS).expect("unshare the root directory");
            setns(&self.mounts, CloneFlags::CLONE_NEWNS).expect("enter a jail's mounts");
            setns(&self.pids, CloneFlags::CLONE_NEWPID).expect("enter a jail's process ids");
            command.env_clear().env("PATH", &self.path);
            command.spawn().unwrap_or_else(|e| panic!("start {}: {e}", command.get_program().display()))
        })
    }

    /// Kills the first process. The kernel then kills all others.
    pub(crate) fn kill(&mut self) {
        self.init.kill().expect("kill a jail");
        with_deadline(self.init.id(), || self.init.wait()).expect("wait for a jail's end");
    }

    pub(crate) fn alive(&mut self) -> bool {
        self.init.try_wait().expect("ask for a jail's end").is_none()
    }

    pub(crate) fn pid_namespace(&self) -> &File {
        &self.pids
    }

    /// The directory of the private directories.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Jail {
    /// The first process of a PID namespace can be reaped only after all others have ended. So no shim and no container
    /// is left.
    fn drop(&mut self) {
        drop(self.init.stdin.take());
        let pid = self.init.id();
        // It is killed if it does not end.
        let _ = with_deadline(pid, || self.init.wait());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::super::programs::PATH;
    use super::*;

    /// As when the process of the test is killed, without destructors.
    #[test]
    fn when_the_pipe_of_the_test_ends_the_daemon_and_its_orphans_end() {
        let directory = tempfile::tempdir().expect("make a directory");
        Jail::prepare(directory.path());
        let daemon = ["sh", "-c", "setsid sleep 86400 & exec sleep 86400"];
        let mut jail = Jail::start(&Namespace::new(), directory.path(), PATH, &daemon);
        assert!(jail.alive());
        drop(jail.init.stdin.take());
        let status = with_deadline(jail.init.id(), || jail.init.wait()).expect("wait for a jail's end");
        assert_eq!(status.signal(), None, "had to be killed: {}", jail.log());
    }
}
