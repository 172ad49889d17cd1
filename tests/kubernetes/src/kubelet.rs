//! The kubelet of a node.

use e2e::binaries::peers;
use nix::unistd::Pid;

use crate::Node;
use crate::cluster::{DNS, KUBELET_CONF};

/// The kubelet must not evict pods, and must leave control groups to containerd. `failCgroupV1` lets it run on a
/// machine with control groups of version 1. Frequent updates show a changed condition of the node soon.
const CONFIGURATION: &str = "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
enforceNodeAllocatable: []
evictionHard: {memory.available: \"0%\", nodefs.available: \"0%\", imagefs.available: \"0%\", nodefs.inodesFree: \"0%\"}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
nodeStatusReportFrequency: 10s
nodeStatusUpdateFrequency: 1s
resolvConf: /etc/resolv.conf
syncFrequency: 5s
volumePluginDir: /var/lib/kubelet/volumeplugins
";

impl Node {
    pub fn start_kubelet(&self) -> Pid {
        self.write("/var/lib/kubelet/config.yaml", &format!("{CONFIGURATION}clusterDNS: [{DNS}]\n"));
        let name = format!("--hostname-override={}", self.name);
        let identity = format!("--kubeconfig={KUBELET_CONF}");
        let address = format!("--node-ip={},{}", self.machine.v4, self.machine.v6);
        let command = ["kubelet", &identity, "--config=/var/lib/kubelet/config.yaml", &name, &address, "--v=2"];
        self.spawn("kubelet", &[peers("kubernetes"), peers("containerd")], &command)
    }
}
