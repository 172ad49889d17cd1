//! A process tree with its own mounts and process IDs, on a network of the Lab. Daemons in it use their default paths,
//! which are directories of the test. When its first process ends, the kernel ends all others, and the mounts are
//! gone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

use crate::Namespace;
use crate::patience::PATIENCE;
use crate::plugin::with_deadline;

/// The directories in which a runtime keeps and looks for things. Everything else is the
/// machine's own, and a runtime has no reason to write there.
const PRIVATE: [&str; 4] = ["etc", "opt", "run", "var/lib"];

/// What of the machine's /etc a daemon may need; the rest is none of its business.
const SHARED_ETC: [&str; 5] = ["group", "hosts", "ld.so.cache", "passwd", "resolv.conf"];

/// The kernel's boot id as the jail sees it.
const BOOT_ID: &str = "boot_id";

/// The first process. `$1` is where the private directories lie, `$2` names them, the rest is
/// the daemon.
///
/// It waits with `wait`, which also reaps the orphans that a first process inherits. Its
/// standard input comes from the test and never says anything: its end is the test's, whether
/// it stops the jail or dies itself.
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

/// The daemon's standard output and error.
const LOG: &str = "log";

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
    /// Makes the private directories below `root`, and the machine's few shared files in them.
    pub(crate) fn prepare(root: &Path) {
        for directory in PRIVATE {
            let hidden = Path::new("/").join(directory);
            assert!(!root.starts_with(&hidden), "{} is hidden by a jail: set TMPDIR to another place", root.display());
            fs::create_dir_all(root.join(directory)).expect("make a directory for a jail");
        }
        for name in SHARED_ETC {
            let (from, to) = (Path::new("/etc").join(name), root.join("etc").join(name));
            if from.exists() {
                fs::copy(&from, &to).unwrap_or_else(|e| panic!("copy {}: {e}", from.display()));
            }
        }
        Self::renew_boot_id(root);
    }

    /// Gives the next jail at `root` a boot id that no earlier one there had.
    pub(crate) fn renew_boot_id(root: &Path) {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("ask the kernel for an id");
        fs::write(root.join(BOOT_ID), id).expect("write a boot id");
    }

    /// Starts `daemon` on the network of `host`. `root` has been prepared. `path` is the `PATH` of everything in the jail.
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
        // It was born in its namespaces, so there is nothing to wait for.
        let namespace = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", init.id());
            File::open(&path).unwrap_or_else(|e| panic!("open {path}: {e}"))
        };
        let (mounts, pids) = (namespace("mnt"), namespace("pid"));
        Self { init, mounts, pids, root: root.to_owned(), path: path.to_owned() }
    }

    /// Where something in the jail is to be found from outside, whatever is mounted there.
    pub(crate) fn see(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init.id()))
    }

    /// Waits until everything is mounted and the daemon is about to be executed: for a daemon that says nothing itself.
    pub(crate) fn await_mounts(&self) {
        let deadline = Instant::now() + PATIENCE;
        // The last of them: in a jail the id is the file that was made for it.
        let expected = fs::read(self.root.join(BOOT_ID)).expect("read a boot id");
        while fs::read(self.see("/proc/sys/kernel/random/boot_id")).ok().as_ref() != Some(&expected) {
            assert!(Instant::now() < deadline, "a jail was not mounted in time:\n{}", self.log());
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// What the daemon has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.root.join(LOG)).unwrap_or_else(|e| format!("its log cannot be read: {e}"))
    }

    /// Starts a program in the jail, on its network.
    pub(crate) fn spawn(&self, host: &Namespace, mut command: Command) -> Child {
        host.run(move || {
            // A thread shares its root and working directory with its process; setns refuses that.
            unshare(CloneFlags::CLONE_FS).expect("a root directory of a thread's own");
            setns(&self.mounts, CloneFlags::CLONE_NEWNS).expect("enter a jail's mounts");
            setns(&self.pids, CloneFlags::CLONE_NEWPID).expect("enter a jail's process ids");
            command.env_clear().env("PATH", &self.path);
            command.spawn().unwrap_or_else(|e| panic!("start {}: {e}", command.get_program().display()))
        })
    }

    /// Ends all its processes by SIGKILL: the kernel passes it on from the first to all others.
    pub(crate) fn kill(&mut self) {
        self.init.kill().expect("kill a jail");
        with_deadline(self.init.id(), || self.init.wait()).expect("wait for a jail's end");
    }

    /// Whether the first process is still there.
    pub(crate) fn alive(&mut self) -> bool {
        self.init.try_wait().expect("ask for a jail's end").is_none()
    }

    /// The namespace that all its processes are in.
    pub(crate) fn pid_namespace(&self) -> &File {
        &self.pids
    }

    /// Where the private directories lie.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Jail {
    /// The kernel lets the first process of a pid namespace be reaped only when all others are
    /// gone: after this there is no shim and no container.
    fn drop(&mut self) {
        drop(self.init.stdin.take());
        let pid = self.init.id();
        // Killed if it does not go by itself.
        let _ = with_deadline(pid, || self.init.wait());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::super::programs::PATH;
    use super::*;

    /// What happens when a test process is killed, too: nobody is left to run a destructor.
    #[test]
    fn the_end_of_the_tests_pipe_ends_the_daemon_and_its_orphans() {
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
