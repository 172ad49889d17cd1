//! Deployments of the test image, their pods, and the network namespaces of the pods.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use e2e::runtime::IMAGE;
use e2e::{Namespace, lab};
use serde_json::{Value, json};

use crate::cluster::ready_condition;
use crate::{Cluster, Node};

const NAMESPACES: &str = "/run/netns";

/// The directory of the leases of the test network.
const LEASES: &str = "/var/lib/cni/networks/pods";

/// The records of attachments with host access, and the protocol number of their routes.
const RECORDS: &str = "/run/underlay/attachments";
const ORIGIN: u8 = 117;

/// The pods of the default namespace.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

const EVENTS: &str = "/api/v1/namespaces/default/events";

pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// The specification of a pod that serves the page of the image. Its web server ignores SIGTERM, so the kubelet kills
/// it after one second.
pub fn spec() -> Value {
    json!({
        "automountServiceAccountToken": false,
        "dnsPolicy": "Default",
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "web", "image": IMAGE, "imagePullPolicy": "Never"}],
    })
}

/// As [`spec`], for a pod that must run on that node.
pub fn spec_on(node: &Node) -> Value {
    let mut spec = spec();
    spec["nodeName"] = json!(node.name);
    spec
}

pub fn deployment(name: &str, replicas: usize, spec: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    })
}

/// One pod of the API server's list.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub node: String,
    /// The first of its addresses.
    pub ip: IpAddr,
    pub ips: Vec<IpAddr>,
    pub container: String,
    pub restarts: u64,
}

impl Cluster {
    /// Creates a Deployment and waits until all its pods are ready.
    #[track_caller]
    pub fn deploy(&self, name: &str, replicas: usize, spec: Value) -> Vec<Pod> {
        self.api.create(DEPLOYMENTS, &deployment(name, replicas, spec));
        self.await_replicas(name, replicas)
    }

    /// Waits until a Deployment has exactly so many pods, and all are ready.
    #[track_caller]
    pub fn await_replicas(&self, name: &str, replicas: usize) -> Vec<Pod> {
        self.until(&format!("{replicas} pods of {name} are ready"), || {
            let path = format!("{PODS}?labelSelector=app%3D{name}");
            let items = self.api.list(&path)?;
            let pods: Vec<Pod> = items.iter().filter_map(ready_pod).collect();
            if pods.len() == replicas && items.len() == replicas {
                Ok(pods)
            } else {
                Err(format!("{} of {} pods are ready", pods.len(), items.len()))
            }
        })
    }

    /// Deletes a Deployment, and waits until nothing is left of its pods.
    #[track_caller]
    pub fn undeploy(&self, name: &str) {
        self.api.delete(&format!("{DEPLOYMENTS}/{name}"));
        self.await_no_pods();
        self.await_nothing_left();
    }

    /// Waits until the API server has no pod in the default namespace.
    #[track_caller]
    pub fn await_no_pods(&self) {
        self.until("there are no pods", || match self.api.list(PODS)?.len() {
            0 => Ok(()),
            left => Err(format!("{left} pods are left")),
        });
    }

    /// Waits until so many addresses are leased on both nodes together.
    #[track_caller]
    pub fn await_leases(&self, wanted: usize) {
        self.until(&format!("{wanted} addresses are leased"), || {
            let leases: usize = self.nodes.iter().map(|node| node.leases().len()).sum();
            if leases == wanted { Ok(()) } else { Err(format!("{leases} leases")) }
        });
    }

    /// As [`Cluster::await_nothing_left`], after a kill of containerd. containerd creates the network namespace of a
    /// pod, saves its name, and then calls the plugins. If it is killed before it saves the name, an empty namespace
    /// stays, or only the file for it. This function removes both.
    #[track_caller]
    pub fn await_only_empty_namespaces_left(&self) {
        for node in &self.nodes {
            self.until(&format!("only empty namespaces are left on {}", node.name), || {
                let names = node.names_in(NAMESPACES);
                for name in &names {
                    let path = node.see(&format!("{NAMESPACES}/{name}"));
                    match Namespace::open(&path) {
                        Ok(netns) if netns.link_names() == ["lo"] => {}
                        Ok(netns) => return Err(format!("{name} has {:?}", netns.link_names())),
                        // A plain file: containerd had not mounted the namespace on it yet, or had unmounted it.
                        Err(e) if e.raw_os_error() == Some(nix::libc::EINVAL) => {}
                        Err(e) => return Err(format!("open {}: {e}", path.display())),
                    }
                }
                for name in names {
                    // containerd may remove a namespace that it knows at the same time.
                    let path = format!("{NAMESPACES}/{name}");
                    node.run(&["sh", "-c", &format!("umount --lazy {path}; rm -f {path}")]);
                }
                Ok(())
            });
        }
        self.await_nothing_left();
    }

    /// The message of an event with that reason and that text, about a pod that still exists. Events outlive their
    /// pods.
    pub fn event(&self, reason: &str, text: &str) -> Result<String, String> {
        let pods: Vec<Value> = self.api.list(PODS)?.iter().map(|pod| pod["metadata"]["uid"].clone()).collect();
        let events = self.api.list(EVENTS)?;
        let about_pods = events.iter().filter(|event| pods.contains(&event["involvedObject"]["uid"]));
        let messages =
            about_pods.filter(|event| event["reason"] == reason).filter_map(|event| event["message"].as_str());
        let messages: Vec<&str> = messages.collect();
        let found = messages.iter().find(|message| message.contains(text)).map(|&message| message.to_owned());
        found.ok_or_else(|| format!("no event {reason} contains {text:?}: {messages:?}"))
    }

    /// Waits until all leases, network namespaces and links of pods are gone from both nodes, and so the traces of their
    /// access to the host.
    #[track_caller]
    pub fn await_nothing_left(&self) {
        for node in &self.nodes {
            self.until(&format!("nothing is left on {}", node.name), || {
                let names = (node.leases(), node.names_in(NAMESPACES), node.names_in(RECORDS));
                let mut routes = node.machine.routes();
                routes.retain(|route| u8::from(route.protocol) == ORIGIN);
                let left = (names, routes, node.machine.link_names());
                let links = ["lo".to_owned(), lab::MACHINE_NIC.to_owned()];
                if left == (Default::default(), vec![], links.to_vec()) { Ok(()) } else { Err(format!("{left:?}")) }
            });
        }
    }
}

impl Node {
    /// The addresses that are leased on this node, sorted as text.
    pub fn leases(&self) -> Vec<String> {
        let names = self.names_in(LEASES);
        names.into_iter().filter(|name| name.parse::<IpAddr>().is_ok()).collect()
    }

    /// The path of a lease, as this process sees it.
    pub fn lease(&self, address: IpAddr) -> PathBuf {
        self.see(&format!("{LEASES}/{address}"))
    }

    /// The network namespaces of all pods on this node, in the form of the links in /proc.
    pub(crate) fn pod_namespace_ids(&self) -> Vec<PathBuf> {
        let names = self.names_in(NAMESPACES).into_iter();
        let id = |name: String| {
            let inode = fs::metadata(self.see(&format!("{NAMESPACES}/{name}"))).ok()?.ino();
            Some(PathBuf::from(format!("net:[{inode}]")))
        };
        names.filter_map(id).collect()
    }

    /// The network namespace of the pod with that address. The value keeps it alive.
    #[track_caller]
    pub fn pod_namespace(&self, ip: IpAddr) -> Namespace {
        let pod = self.pod_namespaces().into_iter().find(|(own, _)| *own == ip);
        pod.unwrap_or_else(|| panic!("no pod of {} has the address {ip}", self.name)).1
    }

    /// The path of the network namespace of the pod with that address, as the node sees it.
    #[track_caller]
    pub fn pod_namespace_path(&self, ip: IpAddr) -> String {
        let inode = fs::metadata(self.pod_namespace(ip).path()).expect("a namespace").ino();
        let names = self.names_in(NAMESPACES).into_iter().map(|name| format!("{NAMESPACES}/{name}"));
        let mut own = names.filter(|path| fs::metadata(self.see(path)).is_ok_and(|entry| entry.ino() == inode));
        own.next().expect("the path of a namespace")
    }

    /// The network namespaces of all pods on this node, each with the address on `eth0`. The returned values keep the
    /// namespaces and their links alive. Namespaces without an address, or which cannot be opened, are left out: their
    /// pods never started, or have ended.
    pub fn pod_namespaces(&self) -> Vec<(IpAddr, Namespace)> {
        let names = self.names_in(NAMESPACES).into_iter();
        let namespaces = names.filter_map(|name| {
            let path = self.see(&format!("{NAMESPACES}/{name}"));
            let netns = Namespace::open(&path).ok()?;
            netns.find_link(lab::MACHINE_NIC)?;
            let text = netns.address_texts(lab::MACHINE_NIC).into_iter().next()?;
            let ip = text.split('/').next().and_then(|ip| ip.parse().ok()).expect("an address");
            Some((ip, netns))
        });
        namespaces.collect()
    }
}

fn ready_pod(object: &Value) -> Option<Pod> {
    let status = &object["status"];
    let ready = ready_condition(object)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let container = &status["containerStatuses"][0];
    (ready["status"] == "True" && object["metadata"]["deletionTimestamp"].is_null()).then_some(())?;
    Some(Pod {
        name: text(&object["metadata"]["name"])?,
        node: text(&object["spec"]["nodeName"])?,
        ip: text(&status["podIP"])?.parse().ok()?,
        ips: status["podIPs"].as_array()?.iter().filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect(),
        container: text(&container["containerID"])?,
        restarts: container["restartCount"].as_u64()?,
    })
}
