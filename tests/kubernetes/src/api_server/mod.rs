//! An API server on one or more members of etcd, without controllers, scheduler and kubelets. All clients have client
//! certificates, as with kubeadm.

mod certificates;
pub mod pool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::Lab;
use e2e::binaries::peers;
use e2e::patience::await_within;
use serde_json::json;

use crate::control_plane::{PORT, api_server, make_account_keys};
use crate::daemon::Daemon;
use crate::{Api, Node, kubectl};

pub use certificates::Authority;
pub(crate) use certificates::base64;

/// The last part of the address of the API server. Those of the members of etcd follow.
const SERVER: u8 = 2;

/// The names of the machines of etcd.
const MEMBERS: [&str; 3] = ["etcd0", "etcd1", "etcd2"];

/// The longest time until the API server is ready. On a quiet machine it takes 5 s.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The group of kubeadm's admin.conf. It has all rights by a binding, and not by its name.
const ADMINISTRATORS: &str = "kubeadm:cluster-admins";

/// A running API server. Its drop ends all its processes.
#[derive(Debug)]
pub struct ApiServer {
    server: Daemon,
    members: Vec<Daemon>,
    authority: Authority,
    /// The kubeconfig files, and the home of `kubectl`.
    directory: PathBuf,
}

impl ApiServer {
    /// Starts so many members of etcd (at most 3) and an API server, each on a machine of its own on the LAN of the Lab.
    /// Their addresses end with 2 to 5. Waits until the API server is ready. A Lab can have one API server.
    pub fn start(lab: &Lab, members: usize) -> Self {
        let directory = lab.path("api-server");
        fs::create_dir(&directory).expect("make a directory for the clients of the API server");
        let authority = Authority::new(&directory.join("pki"));
        let numbers = SERVER + 1..;
        let nodes: Vec<Node> = (MEMBERS[..members].iter().zip(numbers))
            .map(|(name, last)| Node::new(name, lab.machine(last), &lab.path(name)))
            .collect();
        let peer_urls: Vec<String> =
            nodes.iter().map(|node| format!("{}=http://{}:2380", node.name, node.machine.v4)).collect();
        let client_urls: Vec<String> = nodes.iter().map(|node| format!("http://{}:2379", node.machine.v4)).collect();
        let members = nodes.into_iter().map(|node| start_etcd(node, &peer_urls.join(","))).collect();
        let server =
            start_api_server(Node::new("server", lab.machine(SERVER), &lab.path("server")), &authority, &client_urls);
        let server = Self { server, members, authority, directory };
        server.await_readiness();
        // Until this binding exists, kubeadm uses another identity too.
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ADMINISTRATORS},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": ADMINISTRATORS}],
        });
        server.masters().create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding);
        server
    }

    /// `https://ADDRESS:PORT`. All machines of the Lab reach it.
    pub fn server_url(&self) -> String {
        format!("https://{}:{PORT}", self.server.node.machine.v4)
    }

    /// The API server itself, to kill or pause. [`Lab::cut_off`] cuts its machine off. After [`Daemon::restart`], call [`ApiServer::await_readiness`].
    pub fn daemon(&self) -> &Daemon {
        &self.server
    }

    /// A member of etcd, from 0. It runs on a machine of its own.
    pub fn etcd_member(&self, number: usize) -> &Daemon {
        &self.members[number]
    }

    /// Kills the API server, starts it again and waits until it is ready.
    pub fn restart(&self) {
        self.server.restart();
        self.await_readiness();
    }

    /// Waits until the API server says that it is ready.
    #[track_caller]
    pub fn await_readiness(&self) {
        let api = self.masters();
        await_within(READY_WITHIN, "the API server is ready", || match api.request("GET", "/readyz", None) {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}\n{}", self.log_ends(5))),
        });
    }

    /// The ends of all logs.
    pub fn log_ends(&self, lines: usize) -> String {
        self.members.iter().chain([&self.server]).map(|daemon| daemon.node.log_ends(lines)).collect()
    }

    /// The kubeconfig of a kubelet. As with kubeadm, it names a file with the certificate and the key, and the kubelet
    /// replaces this file from time to time: see [`ApiServer::renew_node_certificate`].
    pub fn node_kubeconfig(&self, node: &str) -> PathBuf {
        let path = self.directory.join(format!("{node}-kubelet.conf"));
        if !path.exists() {
            let pem = self.node_certificate(node).display().to_string();
            let user = format!("    client-certificate: {pem}\n    client-key: {pem}\n");
            replace(&path, &self.kubeconfig(&format!("system:node:{node}"), &user));
        }
        path
    }

    /// Replaces the client certificate of a node by a new one with a new key. The kubeconfig stays as it is.
    pub fn renew_node_certificate(&self, node: &str) {
        self.authority.renew_client(&format!("system:node:{node}"), "system:nodes");
    }

    /// The kubeconfig of an administrator, with the certificate in it, as kubeadm's admin.conf.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.embedded_kubeconfig("kubernetes-admin", ADMINISTRATORS)
    }

    /// The kubeconfig of a user who has only the rights that a test grants.
    pub fn user_kubeconfig(&self, user: &str) -> PathBuf {
        self.embedded_kubeconfig(user, "people")
    }

    /// Requests of a kubelet.
    pub fn node_api(&self, node: &str) -> Api {
        self.api(Some(&self.node_certificate(node)))
    }

    /// Requests of an administrator.
    pub fn admin_api(&self) -> Api {
        self.api(Some(&self.authority.client("kubernetes-admin", ADMINISTRATORS)))
    }

    /// Requests of a user who has only the rights that a test grants.
    pub fn user_api(&self, user: &str) -> Api {
        self.api(Some(&self.authority.client(user, "people")))
    }

    /// Requests with a token.
    pub fn token_api(&self, token: &str) -> Api {
        self.api(None).with_header("Authorization", &format!("Bearer {token}"))
    }

    /// Runs `kubectl` on the machine of the API server. Returns its stdout. A failure is an error with its stderr.
    pub fn kubectl(&self, kubeconfig: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(peers("kubernetes").join("kubectl"));
        command.arg("--kubeconfig").arg(kubeconfig).args(arguments).env("HOME", &self.directory);
        self.server.node.machine.run(|| kubectl::run(command, input))
    }

    /// Applies a manifest as an administrator with `kubectl apply`.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        let applied = self.kubectl(&self.admin_kubeconfig(), &["apply", "-f", "-"], manifest);
        applied.unwrap_or_else(|error| panic!("{error}"));
    }

    fn masters(&self) -> Api {
        self.api(Some(&self.authority.client("kubernetes-super-admin", "system:masters")))
    }

    fn node_certificate(&self, node: &str) -> PathBuf {
        self.authority.client(&format!("system:node:{node}"), "system:nodes")
    }

    /// A connection on the machine of the API server, so that it works also while this machine is cut off.
    fn api(&self, certificate: Option<&Path>) -> Api {
        let machine = &self.server.node.machine;
        let mut command = vec!["nsenter".into(), format!("--net={}", machine.path().display())];
        let address = format!("127.0.0.1:{PORT}");
        let client = ["openssl", "s_client", "-quiet", "-connect", &address];
        let check = ["-verify_return_error", "-verify_ip", "127.0.0.1", "-CAfile"];
        command.extend(client.into_iter().chain(check).map(str::to_owned));
        command.push(self.authority.certificate().display().to_string());
        if let Some(pem) = certificate {
            let pem = pem.display().to_string();
            command.extend(["-cert".to_owned(), pem.clone(), "-key".to_owned(), pem]);
        }
        Api::over(command)
    }

    fn embedded_kubeconfig(&self, user: &str, group: &str) -> PathBuf {
        let path = self.directory.join(format!("{user}.conf"));
        if !path.exists() {
            let pem = certificates::base64(&self.authority.client(user, group));
            let data = format!("    client-certificate-data: {pem}\n    client-key-data: {pem}\n");
            replace(&path, &self.kubeconfig(user, &data));
        }
        path
    }

    /// In the form that kubeadm writes. `credentials` are the lines of the user.
    fn kubeconfig(&self, user: &str, credentials: &str) -> String {
        let (server, authority) = (self.server_url(), certificates::base64(self.authority.certificate()));
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {authority}\n    server: {server}\n  \
             name: kubernetes\ncontexts:\n- context:\n    cluster: kubernetes\n    user: {user}\n  name: \
             {user}@kubernetes\ncurrent-context: {user}@kubernetes\nkind: Config\npreferences: {{}}\nusers:\n- name: \
             {user}\n  user:\n{credentials}"
        )
    }
}

fn start_etcd(node: Node, peer_urls: &str) -> Daemon {
    let (name, address) = (node.name, node.machine.v4);
    let command = vec![
        "etcd".to_owned(),
        format!("--name={name}"),
        "--data-dir=/var/lib/etcd".to_owned(),
        format!("--listen-client-urls=http://{address}:2379"),
        format!("--advertise-client-urls=http://{address}:2379"),
        format!("--listen-peer-urls=http://{address}:2380"),
        format!("--initial-advertise-peer-urls=http://{address}:2380"),
        format!("--initial-cluster={peer_urls}"),
        // The tests kill processes, and not machines, so the files survive.
        "--unsafe-no-fsync".to_owned(),
    ];
    Daemon::start_on(node, vec![peers("etcd")], command)
}

fn start_api_server(node: Node, authority: &Authority, client_urls: &[String]) -> Daemon {
    make_account_keys(&node);
    let names = format!("IP:{},IP:{},IP:127.0.0.1,IP:10.96.0.1,DNS:kubernetes", node.machine.v4, node.machine.v6);
    let pem = authority.server(&names);
    let options = [
        format!("--client-ca-file={}", authority.certificate().display()),
        format!("--tls-cert-file={}", pem.display()),
        format!("--tls-private-key-file={}", pem.display()),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let command = api_server(&node, &client_urls.join(","), &options);
    Daemon::start_on(node, vec![peers("kubernetes")], command)
}

/// Writes a file in one step, so that a reader never sees half of it.
fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).unwrap_or_else(|e| panic!("write {}: {e}", temporary.display()));
    fs::rename(&temporary, path).unwrap_or_else(|e| panic!("rename {}: {e}", temporary.display()));
}
