//! The cluster: two nodes and a gateway on the LAN of a Lab. The control plane runs on the first node. All tests of one
//! executable share the cluster, and only one of them runs at a time.

use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{iter, thread};

use e2e::binaries::peers;
use e2e::lab::{LAN6, MACHINE_NIC, Machine};
use e2e::patience::await_within;
use e2e::{Binaries, Lab, Namespace};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::api_server::{Authority, base64};
use crate::control_plane::{SERVICES, api_server, make_account_keys};
use crate::kube_proxy::KubeProxy;
use crate::{Api, Node};

/// The names of the nodes, and the last part of their addresses.
const NODES: [(&str, u8); 2] = [("node1", 11), ("node2", 12)];

const GATEWAY: u8 = 1;

const SERVER: &str = "https://192.168.50.11:6443";

/// The Service of the API server: the first address of the range.
pub const API: &str = "10.96.0.1";

/// The address that the kubelets give to pods as their DNS server.
pub const DNS: &str = "10.96.0.10";

/// The longest time that one step may take. On a quiet machine it takes seconds.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The users of the API server, each with its group. The token of a user is made from its name.
const USERS: [(&str, &str); 3] =
    [("admin", "system:masters"), ("system:kube-scheduler", ""), ("system:kube-proxy", "system:node-proxier")];

/// A running cluster. Its drop ends all processes in it.
#[derive(Debug)]
pub struct Cluster {
    pub api: Api,
    pub nodes: [Node; 2],
    pub gateway: Machine,
    /// A machine in another subnet, behind the gateway.
    pub elsewhere: Namespace,
    pub lab: Lab,
    containerds: Mutex<[Pid; 2]>,
    is_spoilt: AtomicBool,
}

/// The shared cluster, while one test has it for itself.
#[derive(Debug)]
pub struct Turn {
    cluster: Arc<Cluster>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Waits until no other test uses the cluster, and returns it. The first test starts it. The cluster ends when no
    /// test uses it or waits for it, or after a test has failed in it.
    pub fn shared() -> Turn {
        static TURN: Mutex<()> = Mutex::new(());
        let waiting = Self::current();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = if waiting.is_spoilt() {
            drop(waiting);
            Self::current()
        } else {
            waiting
        };
        Turn { cluster, _turn: turn }
    }

    fn current() -> Arc<Self> {
        static CURRENT: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = current.upgrade().filter(|cluster| !cluster.is_spoilt()) {
            return cluster;
        }
        let cluster = Arc::new(Self::start());
        *current = Arc::downgrade(&cluster);
        cluster
    }

    fn is_spoilt(&self) -> bool {
        self.is_spoilt.load(Ordering::Relaxed)
    }

    /// Starts a cluster, and waits until both nodes are ready.
    pub fn start() -> Self {
        let lab = Lab::new(Binaries::HardLinks);
        let gateway = lab.machine(GATEWAY);
        gateway.set_sysctl("net/ipv4/ip_forward", "1");
        let elsewhere = machine_behind(&gateway);
        let nodes = NODES.map(|(name, last)| Node::new(name, machine(&lab, &gateway, last), &lab.path(name)));
        let authority = Authority::new(&nodes[0].root().join("etc/kubernetes/pki"));
        prepare_control_plane(&nodes[0], &lab, &authority);
        for node in &nodes {
            node.write(KUBELET_CONF, &kubelet_conf(&authority, node));
        }
        start_store_and_server(&nodes[0]);
        let containerds = thread::scope(|scope| {
            let starts = nodes.each_ref().map(|node| scope.spawn(|| start_runtime(node, &lab)));
            starts.map(|start| start.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let api = Api::new(nodes[0].root().join("run/kubectl.sock"));
        let cluster = Self {
            api,
            nodes,
            gateway,
            elsewhere,
            lab,
            containerds: Mutex::new(containerds),
            is_spoilt: AtomicBool::new(false),
        };
        cluster.await_path("/readyz");
        start_controllers(&cluster.nodes[0]);
        for node in &cluster.nodes {
            node.start_kubelet();
        }
        for node in &cluster.nodes {
            cluster.await_readiness(node, true);
        }
        cluster.set_kube_proxy(KubeProxy::USUAL);
        cluster.await_path("/api/v1/namespaces/default/serviceaccounts/default");
        cluster
    }

    /// Waits for a condition. If the test fails, [`Turn`] prints the ends of all logs.
    #[track_caller]
    pub fn until<T>(&self, what: &str, is_so: impl FnMut() -> Result<T, String>) -> T {
        await_within(READY_WITHIN, what, is_so)
    }

    /// Waits until the API server answers a GET of that path with status 200.
    #[track_caller]
    pub fn await_path(&self, path: &str) {
        self.until(&format!("GET {path} succeeds"), || match self.api.request("GET", path, None)? {
            answer if answer.status == 200 => Ok(()),
            answer => Err(format!("{answer:?}")),
        });
    }

    /// Waits until the condition `Ready` of a node is true, or is false. Returns the message of the condition.
    #[track_caller]
    pub fn await_readiness(&self, node: &Node, is_ready: bool) -> String {
        let wanted = if is_ready { "True" } else { "False" };
        self.until(&format!("{} has Ready = {wanted}", node.name), || {
            let path = format!("/api/v1/nodes/{}", node.name);
            let answer = self.api.request("GET", &path, None)?;
            match ready_condition(&answer.body) {
                Some(condition) if condition["status"] == wanted => {
                    Ok(condition["message"].as_str().unwrap_or_default().to_owned())
                }
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// Kills the containerd of a node by SIGKILL. Its shims and pods live on.
    pub fn kill_containerd(&self, node: &Node) {
        crate::containerd::kill_now(self.containerds()[self.index(node)]);
    }

    pub fn restart_containerd(&self, node: &Node) {
        let pid = node.start_containerd();
        self.containerds()[self.index(node)] = pid;
    }

    fn containerds(&self) -> MutexGuard<'_, [Pid; 2]> {
        self.containerds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self, node: &Node) -> usize {
        self.nodes.iter().position(|other| other.name == node.name).expect("a node of this cluster")
    }

    fn evidence(&self) -> String {
        let events = self.api.list("/api/v1/events").unwrap_or_default();
        let warnings = events.iter().rev().filter(|event| event["type"] == "Warning").take(20);
        let warnings = warnings.map(|event| format!("{}: {}\n", event["reason"], event["message"]));
        let ends = self.nodes.iter().map(|node| node.log_ends(12));
        iter::once("---- warnings:\n".to_owned()).chain(warnings).chain(ends).collect()
    }
}

impl Deref for Turn {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for Turn {
    #[allow(clippy::disallowed_macros, reason = "cargo prints it with the failed test")]
    fn drop(&mut self) {
        if thread::panicking() {
            self.cluster.is_spoilt.store(true, Ordering::Relaxed);
            eprintln!("{}", self.cluster.evidence());
        }
    }
}

/// A machine that has a default route through the gateway and forwards packets, as a node does.
fn machine(lab: &Lab, gateway: &Machine, last: u8) -> Machine {
    let machine = lab.machine(last);
    machine.ip(&format!("route add default via {}", gateway.v4));
    machine.ip(&format!("route add default via {}", gateway.v6));
    machine.set_sysctl("net/ipv4/ip_forward", "1");
    machine.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    machine
}

/// A machine in another subnet. Its default route leads to the gateway.
fn machine_behind(gateway: &Machine) -> Namespace {
    let machine = Namespace::new();
    gateway.create_veth("elsewhere", &machine, MACHINE_NIC);
    for (netns, link, address) in [(&**gateway, "elsewhere", "10.9.9.1/24"), (&machine, MACHINE_NIC, "10.9.9.2/24")] {
        netns.add_address(link, address.parse().expect("an address"));
        netns.set_up(link);
    }
    machine.ip("route add default via 10.9.9.1");
    machine
}

/// The network of a node: the example for Kubernetes on the LAN of the test, with 64 addresses for each node, and with
/// access to the host and to Services.
pub fn network(node: &Node) -> Value {
    let (start, end) = range(node);
    network_of(start, end)
}

/// As [`network`], with an IPv6 address for each pod in addition.
pub fn dual_stack_network(node: &Node) -> Value {
    let mut list = network(node);
    let (start, end) = range(node);
    let ipam = &mut list["plugins"][0]["ipam"];
    let range = json!([{
        "subnet": LAN6,
        "rangeStart": format!("fd50::{start}"),
        "rangeEnd": format!("fd50::{end}"),
        "gateway": format!("fd50::{GATEWAY}"),
    }]);
    ipam["ranges"] = json!([ipam["ranges"][0], range]);
    ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    list
}

/// The last parts of the first and the last address of a node's pods.
fn range(node: &Node) -> (u8, u8) {
    if node.name == NODES[0].0 { (64, 127) } else { (128, 191) }
}

/// The addresses of [`small_network`].
pub const THREE: [&str; 3] = ["192.168.50.200", "192.168.50.201", "192.168.50.202"];

/// The text with which our plugin refuses an address when all of [`THREE`] are taken.
pub const REFUSAL: &str = "no free address in ipam.ranges[0] (192.168.50.200-192.168.50.202)";

/// A network of three addresses.
pub fn small_network() -> Value {
    network_of(200, 202)
}

fn network_of(start: u8, end: u8) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf-examples/kubernetes-primary.conflist");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut list: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let plugin = &mut list["plugins"][0];
    plugin["master"] = json!(MACHINE_NIC);
    plugin["hostAccess"] = json!({"services": SERVICES});
    plugin["ipam"]["ranges"] = json!([[{
        "subnet": "192.168.50.0/24",
        "rangeStart": format!("192.168.50.{start}"),
        "rangeEnd": format!("192.168.50.{end}"),
        "gateway": format!("192.168.50.{GATEWAY}"),
    }]]);
    list
}

/// The condition `Ready` of a node or a pod.
pub fn ready_condition(object: &Value) -> Option<&Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")
}

pub(crate) fn token(user: &str) -> String {
    format!("token-of-{}", user.replace(':', "-"))
}

/// The configuration with which a client connects to the API server.
pub(crate) fn kubeconfig(token: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": SERVER, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    })
    .to_string()
}

/// The kubeconfig of the kubelet, with a client certificate, in the place where kubeadm has it.
pub(crate) const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";

fn kubelet_conf(authority: &Authority, node: &Node) -> String {
    let user = format!("system:node:{}", node.name);
    let pem = base64(&authority.client(&user, "system:nodes"));
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "c",
            "cluster": {"server": SERVER, "certificate-authority-data": base64(authority.certificate())},
        }],
        "users": [{"name": "u", "user": {"client-certificate-data": pem, "client-key-data": pem}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    })
    .to_string()
}

/// Installs our plugins and the network, and starts containerd with the test images. Returns the process ID of
/// containerd.
fn start_runtime(node: &Node, lab: &Lab) -> Pid {
    copy_plugins(lab.bin(), &node.plugin_dir());
    node.set_network(&network(node));
    let pid = node.start_containerd();
    node.import_test_images(&lab.path("images"));
    pid
}

/// Copies a directory of plugins and keeps its hard links.
pub fn copy_plugins(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap_or_else(|e| panic!("make {}: {e}", to.display()));
    let status = Command::new("cp").arg("--archive").arg(from.join(".")).arg(to).status().expect("start cp");
    assert!(status.success(), "copy {} to {}", from.display(), to.display());
}

/// Writes the files of the users, and the key that signs the tokens of service accounts.
fn prepare_control_plane(node: &Node, lab: &Lab, authority: &Authority) {
    let (v4, v6) = (node.machine.v4, node.machine.v6);
    authority.server(&format!("IP:{v4},IP:{v6},IP:127.0.0.1,IP:{API},DNS:kubernetes.default.svc"));
    fs::create_dir_all(lab.path("images")).expect("make a directory for images");
    let tokens = USERS.map(|(user, group)| format!("{},{user},{user},\"{group}\"\n", token(user)));
    node.write("/etc/kubernetes/tokens.csv", &tokens.concat());
    for (file, user) in [("admin", "admin"), ("scheduler", "system:kube-scheduler")] {
        node.write(&format!("/etc/kubernetes/{file}.conf"), &kubeconfig(&token(user)));
    }
    make_account_keys(node);
}

/// Starts etcd, the API server, and the proxy through which the tests call the API server.
fn start_store_and_server(node: &Node) {
    let etcd = [
        "etcd",
        "--data-dir=/var/lib/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
    ];
    node.spawn("etcd", &[peers("etcd")], &etcd);
    let options = [
        "--client-ca-file=/etc/kubernetes/pki/ca.crt",
        "--tls-cert-file=/etc/kubernetes/pki/server.pem",
        "--tls-private-key-file=/etc/kubernetes/pki/server.pem",
        "--token-auth-file=/etc/kubernetes/tokens.csv",
    ];
    let server = api_server(node, "http://127.0.0.1:2379", &options);
    let server: Vec<&str> = server.iter().map(String::as_str).collect();
    let kubernetes = [peers("kubernetes")];
    node.spawn("kube-apiserver", &kubernetes, &server);
    let proxy = ["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "proxy", "--unix-socket=/run/kubectl.sock"];
    node.spawn("kubectl-proxy", &kubernetes, &proxy);
}

fn start_controllers(node: &Node) {
    let kubernetes = [peers("kubernetes")];
    let identity = |file: &str| {
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|option| format!("--{option}=/etc/kubernetes/{file}.conf"))
    };
    let common = |program: &str, file: &str| -> Vec<String> {
        let directory = format!("--cert-dir=/var/lib/{program}");
        iter::once(program.to_owned())
            .chain(identity(file))
            .chain([directory, "--leader-elect=false".to_owned(), "--kube-api-qps=200".to_owned()])
            .chain(["--kube-api-burst=400".to_owned()])
            .collect()
    };
    // A user with fewer rights would need a service account for each controller.
    let mut manager = common("kube-controller-manager", "admin");
    manager.push("--service-account-private-key-file=/etc/kubernetes/accounts.key".to_owned());
    let scheduler = common("kube-scheduler", "scheduler");
    for command in [manager, scheduler] {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        node.spawn(words[0], &kubernetes, &words);
    }
}
