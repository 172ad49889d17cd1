//! A web server on each node, each with a Service, and a DNS server that knows the Services.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use e2e::Namespace;
use e2e::runtime::PAGE;
use e2e::traffic::fetch;
use kubernetes::cluster::{DNS, Turn, dual_stack_network, network};
use kubernetes::pods::{self, DEPLOYMENTS, Pod};
use serde_json::{Value, json};

pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";

/// The longest time for an answer. On a quiet machine it takes milliseconds.
const ANSWER: Duration = Duration::from_secs(10);
/// The time to wait for an answer that must not come. In it, TCP sends the first packet twice.
const SILENCE: Duration = Duration::from_millis(1500);

/// Prepares the file system of a pod for dnsmasq, and starts it. More options follow.
const DNS_SERVER: &str = "mkdir -p /etc && echo root:x:0:0::/: >/etc/passwd && \
    exec /usr/sbin/dnsmasq --no-daemon --user=root --conf-file=/dev/null --no-resolv --no-hosts --local=/cluster.local/";

/// The directories of the node with dnsmasq and its libraries, and their places in the pod.
const DNS_FILES: [(&str, &str); 3] = [("/usr/sbin", "/usr/sbin"), ("/usr/lib", "/lib"), ("/usr/lib64", "/lib64")];

/// Asks for the page. An error says what came instead.
fn ask(from: &Namespace, ip: IpAddr, port: u16, patience: Duration) -> Result<(), String> {
    let page = fetch(from, SocketAddr::new(ip, port), "/", patience)?;
    if page == PAGE { Ok(()) } else { Err(format!("another page: {page:?}")) }
}

/// Asserts that the next request is answered.
#[track_caller]
pub(crate) fn assert_answers(what: &str, from: &Namespace, ip: IpAddr, port: u16) {
    ask(from, ip, port, ANSWER).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// Asserts that the next request gets no answer, not even a refusal.
#[track_caller]
pub(crate) fn assert_unanswered(what: &str, from: &Namespace, ip: IpAddr, port: u16) {
    match ask(from, ip, port, SILENCE) {
        Ok(()) => panic!("{what}: an answer"),
        Err(error) => assert!(error.contains("timed out"), "{what}: {error}"),
    }
}

/// Waits until a request gets no answer.
#[track_caller]
pub(crate) fn await_unanswered(cluster: &Turn, from: &Namespace, ip: IpAddr, port: u16) {
    cluster.until(&format!("{ip} does not answer"), || match ask(from, ip, port, SILENCE) {
        Ok(()) => Err("it still answers".to_owned()),
        Err(_) => Ok(()),
    });
}

/// The pod and the Service of each node. Both have an address of each family.
pub(crate) struct Web {
    pub(crate) pods: [Pod; 2],
    pub(crate) services: [Service; 2],
    /// The DNS server, a further pod on the second node.
    pub(crate) dns: Pod,
}

pub(crate) struct Service {
    pub(crate) name: String,
    /// One address of each family. A Service of one family has its only address twice.
    pub(crate) ips: [IpAddr; 2],
    pub(crate) node_port: u16,
}

impl Service {
    fn dns_name(&self) -> String {
        format!("{}.default.svc.cluster.local", self.name)
    }
}

impl Web {
    /// Starts the servers, and waits until kube-proxy of both nodes has set up all Services.
    pub(crate) fn start(cluster: &Turn) -> Self {
        let services = cluster.nodes.each_ref().map(|node| {
            node.set_network(&dual_stack_network(node));
            let name = format!("on-{}", node.name);
            let mut spec = pods::spec_on(node);
            spec["dnsPolicy"] = json!("ClusterFirst");
            cluster.api.create(DEPLOYMENTS, &pods::deployment(&name, 1, spec));
            let spec = json!({
                "type": "NodePort",
                "ipFamilyPolicy": "RequireDualStack",
                "selector": {"app": name},
                "ports": [{"port": 80}],
            });
            create_service(cluster, &name, spec)
        });
        start_dns(cluster, &services);
        let pods = services.each_ref().map(|service| cluster.await_replicas(&service.name, 1).remove(0));
        let web = Self { pods, services, dns: cluster.await_replicas("dns", 1).remove(0) };
        web.await_services(cluster);
        cluster.until("the DNS server answers", || web.try_resolve(cluster, 0, &web.services[0]));
        web
    }

    /// Waits until each node answers for each Service.
    pub(crate) fn await_services(&self, cluster: &Turn) {
        for node in &cluster.nodes {
            for service in &self.services {
                for address in [node.machine.v4, node.machine.v6] {
                    cluster.until(&format!("{address} answers for {}", service.name), || {
                        ask(&cluster.gateway, address, service.node_port, SILENCE)
                    });
                }
            }
        }
    }

    /// Resolves the name of a Service in the pod of a node. The pod has only the DNS server of the cluster.
    #[track_caller]
    pub(crate) fn resolve(&self, cluster: &Turn, index: usize, service: &Service) -> Vec<IpAddr> {
        self.try_resolve(cluster, index, service).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_resolve(&self, cluster: &Turn, index: usize, service: &Service) -> Result<Vec<IpAddr>, String> {
        let name = service.dns_name();
        let nslookup = ["exec", &self.pods[index].name, "--", "busybox", "nslookup", "-type=a", &name];
        let answer = cluster.kubectl_in(&cluster.gateway, &nslookup, "")?;
        // The address of the server comes before the name.
        let (_, answer) = answer.split_once(&name).ok_or_else(|| format!("no answer: {answer}"))?;
        Ok(answer.split_whitespace().filter_map(|word| word.parse().ok()).collect())
    }

    /// Removes everything, and waits until nothing is left.
    pub(crate) fn end(self, cluster: &Turn) {
        for name in self.services.iter().map(|service| service.name.as_str()).chain(["dns"]) {
            cluster.api.delete(&format!("{SERVICES}/{name}"));
            cluster.api.delete(&format!("{DEPLOYMENTS}/{name}"));
        }
        cluster.await_no_pods();
        cluster.await_nothing_left();
        for node in &cluster.nodes {
            node.set_network(&network(node));
        }
    }
}

fn create_service(cluster: &Turn, name: &str, spec: Value) -> Service {
    let service = cluster.api.create(SERVICES, &json!({"metadata": {"name": name}, "spec": spec}));
    let ip = |index: usize| service["spec"]["clusterIPs"][index].as_str()?.parse().ok();
    let first = ip(0).expect("a Service has an address");
    let node_port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap_or_default();
    Service {
        name: name.to_owned(),
        ips: [first, ip(1).unwrap_or(first)],
        node_port: u16::try_from(node_port).expect("a port"),
    }
}

/// dnsmasq of the node, in a pod on the second node.
fn start_dns(cluster: &Turn, services: &[Service]) {
    let entry = |service: &Service| format!(" --address=/{}/{}", service.dns_name(), service.ips[0]);
    let command = DNS_SERVER.to_owned() + &services.iter().map(entry).collect::<String>();
    let mut spec = pods::spec_on(&cluster.nodes[1]);
    spec["containers"][0]["command"] = json!(["sh", "-c", command]);
    let name = |index: usize| format!("files-{index}");
    let each = |value: &dyn Fn(usize) -> Value| json!((0..DNS_FILES.len()).map(value).collect::<Vec<_>>());
    spec["volumes"] = each(&|index| json!({"name": name(index), "hostPath": {"path": DNS_FILES[index].0}}));
    spec["containers"][0]["volumeMounts"] =
        each(&|index| json!({"name": name(index), "mountPath": DNS_FILES[index].1, "readOnly": true}));
    cluster.api.create(DEPLOYMENTS, &pods::deployment("dns", 1, spec));
    let ports = json!([{"name": "udp", "protocol": "UDP", "port": 53}, {"name": "tcp", "protocol": "TCP", "port": 53}]);
    create_service(cluster, "dns", json!({"clusterIP": DNS, "selector": {"app": "dns"}, "ports": ports}));
}
