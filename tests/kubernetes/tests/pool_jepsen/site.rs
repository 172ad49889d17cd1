//! Four nodes with containers of macvlan, and an API server on three members of etcd.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use e2e::{Binaries, Lab};
use kubernetes::api_server::pool::LEASES;
use kubernetes::cluster::copy_plugins;
use kubernetes::{ApiServer, Node};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

pub(crate) const LAN: &str = "jepsen";

/// The addresses of the pool: fewer than the containers that the workers want.
pub(crate) const POOL: (u8, u8) = (100, 123);

const NAMES: [&str; 4] = ["jepsen-1", "jepsen-2", "jepsen-3", "jepsen-4"];

/// The directory of the plugins in a node, and the network configuration.
const PLUGINS: &str = "/opt/cni/bin";
const CONF: &str = "/etc/cni/net.d/10-jepsen.conflist";

/// A container that has an address, as the runtime sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) node: usize,
    pub(crate) id: String,
}

pub(crate) struct Member {
    pub(crate) node: Node,
    /// Held by every call for reading, and by a reboot for writing.
    pub(crate) runs: RwLock<()>,
    pub(crate) reboots: AtomicUsize,
    pub(crate) is_rebooting: AtomicBool,
    pub(crate) conf: Value,
}

pub(crate) struct Site {
    pub(crate) members: Vec<Member>,
    pub(crate) server: ApiServer,
    pub(crate) lab: Lab,
    /// The addresses of the containers whose ADD has succeeded and whose DEL has not begun.
    live: Mutex<BTreeMap<IpAddr, Live>>,
    /// The process groups of the running calls, with their nodes.
    calls: Mutex<HashMap<i32, usize>>,
    /// Broken rules.
    broken: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<String, usize>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    pub(crate) fn new(members_of_etcd: usize) -> Self {
        let lab = Lab::new(Binaries::HardLinks);
        let server = ApiServer::start(&lab, members_of_etcd);
        server.set_up_lan_pool();
        let member = |(number, name): (u8, &'static str)| {
            let node = Node::new(name, lab.machine(10 + number), &lab.path(name));
            copy_plugins(lab.bin(), &node.root().join(PLUGINS.trim_start_matches('/')));
            let (first, last) = POOL;
            let conf = json!({
                "cniVersion": "1.0.0", "name": "jepsen", "type": "macvlan", "master": node.machine.nic, "mode": "bridge",
                "ipam": {
                    "type": "lan-pool", "lan": LAN,
                    "ranges": [[{"subnet": "192.168.50.0/24", "rangeStart": format!("192.168.50.{first}"),
                                 "rangeEnd": format!("192.168.50.{last}")}]],
                    "store": {"kubernetes": {"kubeconfig": server.node_kubeconfig(name)}},
                },
            });
            node.write(CONF, &json!({"cniVersion": "1.0.0", "name": "jepsen", "plugins": [conf]}).to_string());
            Member {
                node,
                runs: RwLock::new(()),
                reboots: AtomicUsize::new(0),
                is_rebooting: AtomicBool::new(false),
                conf,
            }
        };
        let members = (1..).zip(NAMES).map(member).collect();
        Self {
            members,
            server,
            lab,
            live: Mutex::default(),
            calls: Mutex::default(),
            broken: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Live>> {
        locked(&self.live)
    }

    pub(crate) fn break_rule(&self, text: String) {
        locked(&self.broken).push(text);
    }

    pub(crate) fn broken(&self) -> Vec<String> {
        locked(&self.broken).clone()
    }

    pub(crate) fn count(&self, what: &str) {
        *locked(&self.counts).entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        locked(&self.counts).clone()
    }

    /// The process groups of the running calls, of one node or of all.
    pub(crate) fn running(&self, node: Option<usize>) -> Vec<i32> {
        let calls = locked(&self.calls);
        calls.iter().filter(|(_, its)| node.is_none_or(|node| node == **its)).map(|(group, _)| *group).collect()
    }

    /// Runs a program on a node, with all programs that it starts in a process group of its own.
    pub(crate) fn run(&self, at: usize, words: &[&str], environment: &[(&str, &str)], stdin: &str) -> Output {
        let member = &self.members[at];
        let mut command = member.node.enter();
        command.args(words).env_clear().env("PATH", e2e::runtime::PATH).envs(environment.iter().copied());
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child: Child = command.spawn().expect("start nsenter");
        let group = i32::try_from(child.id()).expect("a process ID");
        locked(&self.calls).insert(group, at);
        // A program that was killed reads nothing.
        let _ = child.stdin.take().map(|mut pipe| pipe.write_all(stdin.as_bytes()));
        let output = child.wait_with_output().expect("wait for a call");
        locked(&self.calls).remove(&group);
        output
    }

    /// A call of the plugin, as a runtime makes it.
    pub(crate) fn call(&self, at: usize, command: &str, id: &str, conf: &Value) -> Output {
        let netns = format!("/run/netns/{id}");
        let environment = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", id),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", netns.as_str()),
            ("CNI_PATH", PLUGINS),
        ];
        let program = format!("{PLUGINS}/{}", conf["type"].as_str().expect("a type"));
        self.run(at, &[&program], &environment, &conf.to_string())
    }

    pub(crate) fn sweep(&self, at: usize) -> Output {
        self.run(at, &[&format!("{PLUGINS}/lan-pool"), "sweep", "--conf", CONF], &[], "")
    }

    /// The leases: address, with the specification.
    pub(crate) fn leases(&self) -> Result<BTreeMap<IpAddr, Value>, String> {
        let leases = self.server.admin_api().list(LEASES)?;
        let address = |lease: &Value| lease["spec"]["address"].as_str()?.parse().ok();
        Ok(leases.iter().filter_map(|lease| Some((address(lease)?, lease["spec"].clone()))).collect())
    }

    /// The text of all pages of a node's journal.
    pub(crate) fn journal(&self, at: usize) -> Vec<Value> {
        let folder = self.members[at].node.see(&format!("/var/lib/cni/lan-pool/{LAN}"));
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let pages = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with("@eth0"));
        pages.filter_map(|entry| serde_json::from_str(&fs::read_to_string(entry.path()).ok()?).ok()).collect()
    }

    pub(crate) fn boot(&self, at: usize) -> String {
        let path = self.members[at].node.root().join("boot_id");
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display())).trim().to_owned()
    }

    /// Kills all calls of a node and reboots it. Its containers are gone.
    pub(crate) fn reboot(&self, at: usize) {
        let member = &self.members[at];
        member.is_rebooting.store(true, Ordering::SeqCst);
        self.live().retain(|_, live| live.node != at);
        let guard = loop {
            for group in self.running(Some(at)) {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            match member.runs.try_write() {
                Ok(guard) => break guard,
                Err(_) => std::thread::yield_now(),
            }
        };
        member.reboots.fetch_add(1, Ordering::SeqCst);
        member.node.reboot();
        member.is_rebooting.store(false, Ordering::SeqCst);
        drop(guard);
    }
}
