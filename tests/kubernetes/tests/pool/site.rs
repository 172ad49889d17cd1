//! Nodes whose containers get their addresses from one pool in a real API server.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use e2e::lab::Machine;
use e2e::patience::{PATIENCE, await_within};
use e2e::plugin::{Call, Plugin};
use e2e::{Binaries, Container, Lab, Outcome};
use kubernetes::ApiServer;
use kubernetes::api_server::pool::LEASES;
use serde_json::{Value, json};

/// An API server with the manifest, which the tests share. Each test has a LAN of its own.
pub(crate) struct Shared {
    pub(crate) server: ApiServer,
    // Dropped after the API server.
    pub(crate) lab: Lab,
    /// The last part of the address of the next machine. A Lab makes one machine after the other.
    next: Mutex<u8>,
}

impl Shared {
    /// The first test starts it. It ends when no test holds the value.
    pub(crate) fn get() -> Arc<Self> {
        static CURRENT: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        current.upgrade().unwrap_or_else(|| {
            let shared = Arc::new(Self::start());
            *current = Arc::downgrade(&shared);
            shared
        })
    }

    /// One that a test spoils.
    pub(crate) fn start() -> Self {
        let lab = Lab::new(Binaries::HardLinks);
        let server = ApiServer::start(&lab, 1);
        server.set_up_lan_pool();
        Self { server, lab, next: Mutex::new(20) }
    }

    /// A node with this name. Its leases are on a LAN with the name of the test.
    pub(crate) fn node<'a>(&'a self, lan: &'a str, name: &'static str) -> PoolNode<'a> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        let machine = self.lab.machine(*next);
        drop(next);
        let kubeconfig = self.server.node_kubeconfig(name);
        PoolNode { shared: self, machine, lan, kubeconfig, data: self.lab.path(&format!("{lan}-{name}")) }
    }

    /// The leases of a LAN: address and node, and `pod` or the container, sorted by address.
    pub(crate) fn leases(&self, lan: &str) -> Vec<Value> {
        // After a restart, the API server needs a moment until its store is ready.
        let leases = await_within(PATIENCE, "the leases are listed", || self.server.admin_api().list(LEASES));
        leases.into_iter().map(|lease| lease["spec"].clone()).filter(|spec| spec["lan"] == lan).collect()
    }
}

/// A node that has its own journal.
pub(crate) struct PoolNode<'a> {
    shared: &'a Shared,
    pub(crate) machine: Machine,
    lan: &'a str,
    kubeconfig: PathBuf,
    pub(crate) data: PathBuf,
}

impl PoolNode<'_> {
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.shared.lab.bin().join("lan-pool")
    }

    pub(crate) fn plugin(&self) -> Plugin<'_> {
        Plugin::new(&self.machine, self.program()).search(self.shared.lab.bin())
    }

    /// A main plugin that calls lan-pool for its addresses.
    pub(crate) fn main_plugin(&self, name: &str) -> Plugin<'_> {
        Plugin::new(&self.machine, self.shared.lab.bin().join(name)).search(self.shared.lab.bin())
    }

    /// The IPAM part, with the addresses `10.77.0.FIRST` to `10.77.0.LAST` and the same of fd77::.
    pub(crate) fn ipam(&self, first: u8, last: u8) -> Value {
        json!({
            "type": "lan-pool",
            "lan": self.lan,
            "dataDir": self.data,
            "ranges": [
                [{"subnet": "10.77.0.0/24", "rangeStart": format!("10.77.0.{first}"), "rangeEnd": format!("10.77.0.{last}")}],
                [{"subnet": "fd77::/64", "rangeStart": format!("fd77::{first:x}"), "rangeEnd": format!("fd77::{last:x}")}],
            ],
            "routes": [{"dst": "0.0.0.0/0"}],
            "store": {"kubernetes": {"kubeconfig": self.kubeconfig}},
        })
    }

    pub(crate) fn conf(&self, first: u8, last: u8) -> Value {
        json!({"cniVersion": "1.1.0", "name": "lan", "type": "macvlan", "ipam": self.ipam(first, last)})
    }

    pub(crate) fn add(&self, container: &Container, conf: &Value) -> Outcome {
        self.call("ADD", container, conf).run()
    }

    pub(crate) fn del(&self, container: &Container, conf: &Value) -> Outcome {
        self.call("DEL", container, conf).run()
    }

    /// A call as a kubelet's runtime makes it.
    pub(crate) fn call(&self, command: &str, container: &Container, conf: &Value) -> Call<'_> {
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}", container.id);
        self.plugin().attachment(command, container, "eth0", conf).args(&args)
    }

    /// A GC in which no container is valid.
    pub(crate) fn gc(&self, conf: &Value) -> Outcome {
        let mut conf = conf.clone();
        conf["cni.dev/valid-attachments"] = json!([]);
        self.plugin().call("GC", &conf).run()
    }

    pub(crate) fn container(&self) -> Container {
        self.shared.lab.container()
    }
}

/// The addresses of a result, without their prefix lengths.
pub(crate) fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().expect("a result has ips").iter();
    let text = |ip: &Value| ip["address"].as_str().unwrap_or_default().split('/').next().unwrap_or_default().to_owned();
    ips.map(text).collect()
}
