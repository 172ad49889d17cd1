//! The parts of a control plane that [`crate::Cluster`] and [`crate::ApiServer`] have in common.

use std::path::Path;
use std::process::Command;

use crate::Node;

/// The ranges of the addresses of Services.
pub(crate) const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];

/// The port of the API server.
pub(crate) const PORT: u16 = 6443;

/// The key that signs the tokens of service accounts, and its public part.
const SIGNING_KEY: &str = "/etc/kubernetes/accounts.key";
const PUBLIC_KEY: &str = "/etc/kubernetes/accounts.pub";

/// Makes the key that signs the tokens of service accounts.
pub(crate) fn make_account_keys(node: &Node) {
    let [key, public] = [SIGNING_KEY, PUBLIC_KEY].map(|path| node.root().join(path.trim_start_matches('/')));
    std::fs::create_dir_all(key.parent().expect("a directory")).expect("make a directory for keys");
    openssl(&["genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"], &[&key]);
    openssl(&["pkey", "-pubout", "-out"], &[&public, Path::new("-in"), &key]);
}

/// Runs openssl(1), and panics if it fails.
#[track_caller]
pub(crate) fn openssl(arguments: &[&str], paths: &[&Path]) {
    let output = Command::new("openssl").args(arguments).args(paths).output().expect("start openssl");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?} {paths:?}: {}: {stderr}", output.status);
}

/// The command of an API server on that node, with its store and more options.
pub(crate) fn api_server(node: &Node, etcd: &str, options: &[&str]) -> Vec<String> {
    let mut command = vec![
        "kube-apiserver".to_owned(),
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={PORT}"),
        format!("--advertise-address={}", node.machine.v4),
        format!("--service-cluster-ip-range={}", SERVICES.join(",")),
        format!("--service-account-key-file={PUBLIC_KEY}"),
        format!("--service-account-signing-key-file={SIGNING_KEY}"),
    ];
    let always = [
        "--bind-address=0.0.0.0",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--allow-privileged=true",
        // No DNS server knows the names of the nodes.
        "--kubelet-preferred-address-types=InternalIP",
    ];
    command.extend(always.iter().chain(options).map(|option| (*option).to_owned()));
    command
}
