//! Pods of the test image: Deployments of them, and their network namespaces.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use e2e::runtime::IMAGE;
use e2e::{Namespace, lab};
use serde_json::{Value, json};

use crate::{Cluster, Node};

const NAMESPACES: &str = "/run/netns";

/// The directory of the leases of the network of the tests.
const LEASES: &str = "/var/lib/cni/networks/pods";

/// The pods of the default namespace.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

const EVENTS: &str = "/api/v1/namespaces/default/events";

pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// The specification of a pod that serves the image's page. Its web server takes no signal, so it gets a second to end.
pub fn spec() -> Value {
    json!({
        "automountServiceAccountToken": false,
        "dnsPolicy": "Default",
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "web", "image": IMAGE, "imagePullPolicy": "Never"}],
    })
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
    /// Its name.
    pub name: String,
    /// The node that it is on.
    pub node: String,
    /// Its first address.
    pub ip: IpAddr,
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

    /// Waits until so many pods of a Deployment are ready, and no others are left.
    #[track_caller]
    pub fn await_replicas(&self, name: &str, replicas: usize) -> Vec<Pod> {
        self.until(&format!("{replicas} pods of {name} are ready"), || {
            let path = format!("{PODS}?labelSelector=app%3D{name}");
            let answer = self.api.request("GET", &path, None)?;
            let items = answer.body["items"].as_array().map_or(&[][..], Vec::as_slice);
            let pods: Vec<Pod> = items.iter().filter_map(ready_pod).collect();
            if pods.len() == replicas && items.len() == replicas {
                Ok(pods)
            } else {
                Err(format!("{} of {} pods are ready", pods.len(), items.len()))
            }
        })
    }

    /// Deletes a Deployment, and waits until its pods are gone from the API server.
    #[track_caller]
    pub fn undeploy(&self, name: &str) {
        self.api.delete(&format!("{DEPLOYMENTS}/{name}"));
        self.await_no_pods();
    }

    /// Waits until the API server has no pod in the default namespace.
    #[track_caller]
    pub fn await_no_pods(&self) {
        self.until("there are no pods", || match self.api.request("GET", PODS, None)?.body["items"].as_array() {
            Some(items) if items.is_empty() => Ok(()),
            Some(items) => Err(format!("{} pods are left", items.len())),
            None => Err("no list".to_owned()),
        });
    }

    /// As [`Cluster::await_nothing_left`], after a kill of containerd. containerd makes the network namespace of a pod,
    /// writes down its name, and only then calls the plugins. It forgets a namespace if it is killed before the second
    /// step, so empty namespaces may be left. Removes them.
    #[track_caller]
    pub fn await_only_empty_namespaces_left(&self) {
        for node in &self.nodes {
            self.until(&format!("only empty namespaces are left on {}", node.name), || {
                let names = node.names_in(NAMESPACES);
                for name in &names {
                    let path = node.see(&format!("{NAMESPACES}/{name}"));
                    let netns = Namespace::open(&path).map_err(|e| format!("open {}: {e}", path.display()))?;
                    if netns.link_names() != ["lo"] {
                        return Err(format!("{name} has {:?}", netns.link_names()));
                    }
                }
                for name in names {
                    // containerd may still remove one that it knows.
                    let path = format!("{NAMESPACES}/{name}");
                    node.run(&["sh", "-c", &format!("umount {path}; rm -f {path}")]);
                }
                Ok(())
            });
        }
        self.await_nothing_left();
    }

    /// The message of an event of that reason about a pod of the default namespace, if it contains the text. Events
    /// outlive their pods, so the pod must be there.
    pub fn event(&self, reason: &str, text: &str) -> Result<String, String> {
        let items = |path: &str| -> Result<Vec<Value>, String> {
            let answer = self.api.request("GET", path, None)?;
            answer.body["items"].as_array().cloned().ok_or_else(|| format!("{path}: {answer:?}"))
        };
        let pods: Vec<Value> = items(PODS)?.iter().map(|pod| pod["metadata"]["uid"].clone()).collect();
        let events = items(EVENTS)?;
        let about_pods = events.iter().filter(|event| pods.contains(&event["involvedObject"]["uid"]));
        let messages =
            about_pods.filter(|event| event["reason"] == reason).filter_map(|event| event["message"].as_str());
        let messages: Vec<&str> = messages.collect();
        let found = messages.iter().find(|message| message.contains(text)).map(|&message| message.to_owned());
        found.ok_or_else(|| format!("no event {reason} with {text:?}, but {messages:?}"))
    }

    /// Waits until no node has anything left of pods: leases, network namespaces, and links beside those of before.
    #[track_caller]
    pub fn await_nothing_left(&self) {
        for node in &self.nodes {
            self.until(&format!("nothing is left on {}", node.name), || {
                let left = (node.leases(), node.names_in(NAMESPACES), node.machine.link_names());
                let links = [String::from("lo"), lab::MACHINE_NIC.to_owned()];
                if left.0.is_empty() && left.1.is_empty() && left.2 == links {
                    Ok(())
                } else {
                    Err(format!("{left:?}"))
                }
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

    /// The network namespaces of all pods on this node, as links in /proc name them.
    pub(crate) fn pod_namespace_ids(&self) -> Vec<PathBuf> {
        let names = self.names_in(NAMESPACES).into_iter();
        let id = |name: String| {
            let inode = fs::metadata(self.see(&format!("{NAMESPACES}/{name}"))).ok()?.ino();
            Some(PathBuf::from(format!("net:[{inode}]")))
        };
        names.filter_map(id).collect()
    }

    /// The network namespaces of all pods on this node, each with its name and the address on `eth0`. They are held
    /// open, so no link in them goes before they are dropped. One without an address is of a pod that never started. One
    /// that cannot be opened is of a pod that has ended: containerd removes it after DEL.
    pub fn pod_namespaces(&self) -> Vec<(String, IpAddr, Namespace)> {
        let names = self.names_in(NAMESPACES).into_iter();
        let namespaces = names.filter_map(|name| {
            let path = self.see(&format!("{NAMESPACES}/{name}"));
            let netns = Namespace::open(&path).ok()?;
            netns.find_link(lab::MACHINE_NIC)?;
            let text = netns.address_texts(lab::MACHINE_NIC).into_iter().next()?;
            let ip = text.split('/').next().and_then(|ip| ip.parse().ok()).expect("an address");
            Some((name, ip, netns))
        });
        namespaces.collect()
    }
}

fn ready_pod(object: &Value) -> Option<Pod> {
    let status = &object["status"];
    let ready = status["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let container = &status["containerStatuses"][0];
    (ready["status"] == "True" && object["metadata"]["deletionTimestamp"].is_null()).then_some(())?;
    Some(Pod {
        name: text(&object["metadata"]["name"])?,
        node: text(&object["spec"]["nodeName"])?,
        ip: text(&status["podIP"])?.parse().ok()?,
        container: text(&container["containerID"])?,
        restarts: container["restartCount"].as_u64()?,
    })
}
