//! kube-proxy of a node, which makes packet filter rules of the kernel out of Services.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use e2e::binaries::peers;
use e2e::traffic::fetch;

use crate::cluster::{kubeconfig, token};
use crate::containerd::kill_now;
use crate::{Cluster, Node};

const PROGRAM: &str = "kube-proxy";

const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// The beginning of the metrics that say when the rules of a family were written. Before the first time, they are 0 or
/// absent.
const WRITTEN: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Nftables,
    Iptables,
}

/// What kube-proxy does with the sources of requests. It always replaces the source of a pod's request to itself, and
/// of a request to a port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// `masqueradeAll`: kube-proxy replaces them all.
    ReplacesAll,
    /// `clusterCIDR`: kube-proxy replaces those that are not in it, of each family that it has.
    KeepsIn(&'static str),
    /// Neither key is set: kube-proxy keeps them.
    Keeps,
}

/// A configuration of kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubeProxy {
    pub mode: Mode,
    pub sources: Sources,
}

impl KubeProxy {
    /// The configuration at the start of each test.
    pub const USUAL: Self = Self { mode: Mode::Nftables, sources: Sources::ReplacesAll };

    /// The keys of this configuration.
    pub fn keys(self) -> String {
        let mode = match self.mode {
            Mode::Nftables => "nftables",
            Mode::Iptables => "iptables",
        };
        let (all, cidr) = match self.sources {
            Sources::ReplacesAll => (true, ""),
            Sources::KeepsIn(cidr) => (false, cidr),
            Sources::Keeps => (false, ""),
        };
        format!(
            "clusterCIDR: \"{cidr}\"\n\
             mode: {mode}\n\
             {mode}: {{masqueradeAll: {all}, minSyncPeriod: 100ms}}\n"
        )
    }
}

/// The keys that each configuration needs here.
fn common_keys(node: &Node) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
         kind: KubeProxyConfiguration\n\
         clientConnection: {{kubeconfig: /etc/kubernetes/kube-proxy.conf}}\n\
         conntrack: {{maxPerCore: 0, min: 0}}\n\
         hostnameOverride: {}\n\
         metricsBindAddress: {METRICS}\n",
        node.name
    )
}

impl Node {
    /// Starts kube-proxy with these keys. If it runs, it ends and starts again.
    pub fn start_kube_proxy(&self, keys: &str) {
        let mut running = self.kube_proxy();
        if let Some(pid) = running.take() {
            // It would end by itself when its file changes.
            kill_now(pid);
        }
        self.write("/etc/kubernetes/kube-proxy.conf", &kubeconfig(&token("system:kube-proxy")));
        self.write("/var/lib/kube-proxy/config.yaml", &(common_keys(self) + keys));
        let command = [PROGRAM, "--config=/var/lib/kube-proxy/config.yaml"];
        *running = Some(self.spawn(PROGRAM, &[peers("kubernetes")], &command));
    }
}

impl Cluster {
    /// Starts kube-proxy of all nodes again with this configuration, and waits until it has written its rules.
    #[track_caller]
    pub fn set_kube_proxy(&self, configuration: KubeProxy) {
        self.set_kube_proxy_keys(&configuration.keys());
    }

    /// As [`Cluster::set_kube_proxy`], with the text of the keys.
    #[track_caller]
    pub fn set_kube_proxy_keys(&self, keys: &str) {
        for node in &self.nodes {
            node.start_kube_proxy(keys);
        }
        for node in &self.nodes {
            self.until(&format!("kube-proxy has written its rules on {}: {keys}", node.name), || {
                let metrics = fetch(&node.machine, METRICS, "/metrics", Duration::from_secs(5))?;
                let times = metrics.lines().filter(|line| line.starts_with(WRITTEN));
                let times: Vec<f64> = times.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
                if times.len() == 2 && times.iter().all(|time| *time > 0.0) {
                    Ok(())
                } else {
                    Err(format!("{times:?}"))
                }
            });
        }
    }
}
