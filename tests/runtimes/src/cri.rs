//! A client of the Container Runtime Interface (CRI) of Kubernetes. It calls containerd on its socket. A call that
//! fails panics with the log of containerd, unless the test expects the failure.

use std::path::Path;
use std::time::Duration;

use e2e::Namespace;
use e2e::patience::await_within;
use e2e::runtime::{Containerd, IMAGE, PAUSE_IMAGE};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::messages::{
    ContainerConfig, ContainerId, ContainerMetadata, CreateContainerRequest, Empty, ExecSyncRequest, ExecSyncResponse,
    ImageSpec, ImageStatusRequest, ImageStatusResponse, LinuxPodSandboxConfig, ListPodSandboxResponse,
    PodSandboxConfig, PodSandboxId, PodSandboxMetadata, PodSandboxStatusResponse, RunPodSandboxRequest, StatusResponse,
};

/// The longest time that one call may take, and that containerd may take to be ready.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The conditions that the kubelet requires. containerd 2 also has one about deprecated configurations.
const CONDITIONS: [&str; 2] = ["RuntimeReady", "NetworkReady"];

/// `SANDBOX_READY` of `PodSandboxState`.
const READY: i32 = 0;

/// The connection to one containerd.
#[derive(Debug)]
pub struct Cri<'a> {
    containerd: &'a Containerd<'a>,
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

#[derive(Clone, Debug)]
pub struct Pod {
    /// The ID of the sandbox, which the plugins get as `CNI_CONTAINERID`.
    pub id: String,
    config: PodSandboxConfig,
}

/// The state of a pod, as containerd reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStatus {
    pub ready: bool,
    /// Its addresses. Kubernetes shows the first one.
    pub ips: Vec<String>,
}

impl<'a> Cri<'a> {
    /// Connects, and waits until containerd has its network and the test images.
    pub fn connect(containerd: &'a Containerd<'a>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start tokio");
        let channel = runtime.block_on(async { open(&containerd.socket()) });
        let cri = Self { containerd, runtime, channel };
        cri.wait_until("containerd is ready", || {
            let status: StatusResponse = cri.ask("RuntimeService/Status", Empty {}).map_err(|e| e.to_string())?;
            let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
            CONDITIONS.into_iter().try_for_each(|kind| {
                match conditions.iter().find(|condition| condition.kind == kind) {
                    Some(condition) if condition.status => Ok(()),
                    Some(condition) => Err(format!("{kind}: {}", condition.message)),
                    None => Err(format!("{kind}: there is no such condition")),
                }
            })
        });
        // The images are imported already. The CRI side of containerd gets an event about it.
        for image in [IMAGE, PAUSE_IMAGE] {
            cri.wait_until(image, || {
                let request = ImageStatusRequest { image: Some(ImageSpec { image: image.into() }) };
                let status: ImageStatusResponse =
                    cri.ask("ImageService/ImageStatus", request).map_err(|e| e.to_string())?;
                status.image.map(|_| ()).ok_or_else(|| "no such image".into())
            });
        }
        cri
    }

    /// RunPodSandbox: creates namespaces, `lo` and the network.
    pub fn run_pod(&self, name: &str) -> Pod {
        self.try_run_pod(name).unwrap_or_else(|status| self.fail("RunPodSandbox", &status))
    }

    /// As [`Cri::run_pod`], with the failure for a test that expects it.
    pub fn try_run_pod(&self, name: &str) -> Result<Pod, Status> {
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-of-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            // The /run of the jail.
            log_directory: format!("/run/logs/{name}"),
            annotations: Default::default(),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent: self.containerd.control_group() }),
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let answer: PodSandboxId = self.ask("RuntimeService/RunPodSandbox", request)?;
        Ok(Pod { id: answer.pod_sandbox_id, config })
    }

    /// CreateContainer and StartContainer: starts a container of [`IMAGE`], which serves a page. Returns its ID.
    pub fn serve(&self, pod: &Pod) -> String {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "web".into() }),
            image: Some(ImageSpec { image: IMAGE.into() }),
            log_path: "web.log".into(),
        };
        let created: ContainerId = self.must(
            "RuntimeService/CreateContainer",
            CreateContainerRequest {
                pod_sandbox_id: pod.id.clone(),
                config: Some(config),
                sandbox_config: Some(pod.config.clone()),
            },
        );
        let _: Empty = self.must("RuntimeService/StartContainer", created.clone());
        created.container_id
    }

    /// ExecSync: runs a command in a container. Returns its stdout. Panics if it fails.
    pub fn exec(&self, container: &str, command: &[&str]) -> String {
        let request = ExecSyncRequest {
            container_id: container.into(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: 30,
        };
        let answer: ExecSyncResponse = self.must("RuntimeService/ExecSync", request);
        let stderr = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.exit_code, 0, "{command:?}: {stderr}");
        String::from_utf8_lossy(&answer.stdout).into_owned()
    }

    /// PodSandboxStatus.
    pub fn status(&self, id: &str) -> PodStatus {
        let answer: PodSandboxStatusResponse = self.must("RuntimeService/PodSandboxStatus", about(id));
        let status = answer.status.expect("a status");
        let network = status.network.unwrap_or_default();
        let further = network.additional_ips.into_iter().map(|ip| ip.ip);
        let ips = [network.ip].into_iter().chain(further).filter(|ip| !ip.is_empty()).collect();
        PodStatus { ready: status.state == READY, ips }
    }

    /// ListPodSandbox: the IDs of all pods. The boolean is true for a ready pod.
    pub fn pods(&self) -> Vec<(String, bool)> {
        let answer: ListPodSandboxResponse = self.must("RuntimeService/ListPodSandbox", Empty {});
        let mut pods: Vec<_> = answer.items.into_iter().map(|item| (item.id, item.state == READY)).collect();
        pods.sort();
        pods
    }

    /// StopPodSandbox: ends the containers and detaches the pod from its network.
    pub fn stop(&self, id: &str) {
        let _: Empty = self.must("RuntimeService/StopPodSandbox", about(id));
    }

    pub fn remove(&self, id: &str) {
        let _: Empty = self.must("RuntimeService/RemovePodSandbox", about(id));
    }

    /// Ends a pod as the kubelet does, which stops every pod twice.
    pub fn end(&self, pod: &Pod) {
        for _ in 0..2 {
            self.stop(&pod.id);
            assert!(!self.status(&pod.id).ready, "a stopped pod is ready");
        }
        self.remove(&pod.id);
    }

    pub fn netns(&self, container: &str) -> Namespace {
        // This is the process ID in the PID namespace of the jail, so the path begins with the jail's /proc.
        let file = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{container}/init.pid");
        let file = self.containerd.see(&file);
        let pid = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
        let path = self.containerd.see(&format!("/proc/{}/ns/net", pid.trim()));
        Namespace::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
    }

    fn must<A: Message + Default + 'static>(&self, method: &str, request: impl Message + 'static) -> A {
        self.ask(method, request).unwrap_or_else(|status| self.fail(method, &status))
    }

    fn fail(&self, method: &str, status: &Status) -> ! {
        panic!("{method}: {status}\nlog of containerd:\n{}", self.containerd.log())
    }

    fn ask<A: Message + Default + 'static>(&self, method: &str, request: impl Message + 'static) -> Result<A, Status> {
        let path: PathAndQuery = format!("/runtime.v1.{method}").parse().expect("a path");
        self.runtime.block_on(async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let answer = grpc.unary(Request::new(request), path, ProstCodec::default()).await?;
            Ok(answer.into_inner())
        })
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> Result<(), String>) {
        await_within(ANSWER_WITHIN, what, || {
            is_so().map_err(|why_not| format!("{why_not}\nlog of containerd:\n{}", self.containerd.log()))
        });
    }
}

fn about(id: &str) -> PodSandboxId {
    PodSandboxId { pod_sandbox_id: id.into() }
}

fn open(socket: &Path) -> Channel {
    let address = format!("unix://{}", socket.display());
    let endpoint = Endpoint::from_shared(address).expect("an address");
    endpoint.timeout(ANSWER_WITHIN).connect_lazy()
}
