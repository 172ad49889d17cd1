use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::super::kubeconfig;
use super::*;

fn certificate(names: &[(DnType, &str)]) -> (CertificateDer<'static>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    for (kind, name) in names {
        params.distinguished_name.push(kind.clone(), *name);
    }
    (params.self_signed(&key).unwrap().der().clone(), key.serialize_der())
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

#[test]
fn a_certificate_of_a_kubelet_names_its_node() {
    let node = |names: &[(DnType, &str)]| node_of_certificate(&certificate(names).0);
    let organization = (DnType::OrganizationName, "system:nodes");
    let name = (DnType::CommonName, "system:node:worker-7.example");
    assert_eq!(node(&[organization.clone(), name.clone()]).as_deref(), Some("worker-7.example"));
    assert_eq!(node(&[name, organization.clone()]).as_deref(), Some("worker-7.example"));
    assert_eq!(node(&[(DnType::CommonName, "kubernetes-admin")]), None);
    assert_eq!(node(&[(DnType::CommonName, "system:node:")]), None);
    assert_eq!(node(&[organization]), None);
    assert_eq!(node_of_certificate(&CertificateDer::from(vec![0x30, 0x80, 1])), None);
}

#[test]
fn a_token_of_a_pod_names_its_node() {
    let token = |payload: &str| format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(payload));
    let claims =
        r#"{"aud":["x"],"kubernetes.io":{"namespace":"n","node":{"name":"worker-7","uid":"u"},"pod":{"name":"p"}}}"#;
    assert_eq!(node_of_token(&token(claims)).as_deref(), Some("worker-7"));
    assert_eq!(node_of_token(&token(r#"{"kubernetes.io":{"namespace":"n"}}"#)), None);
    for text in ["", "abc", "a.b.c", "..", &token("[]"), &token("{")] {
        assert_eq!(node_of_token(text), None, "{text}");
    }
}

/// A program cannot be run while it is open for writing, and a process that is just started still has all open files of the
/// other tests. So programs are written and started one after the other.
static TURN: Mutex<()> = Mutex::new(());

/// A directory with a kubeconfig whose user has a program for credentials.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn user(&self, user: &str) -> std::result::Result<Credentials, String> {
        self.cluster("server: 'http://h'", user)
    }

    fn cluster(&self, cluster: &str, user: &str) -> std::result::Result<Credentials, String> {
        self.until(cluster, user, Duration::from_secs(20))
    }

    fn until(&self, cluster: &str, user: &str, time: Duration) -> std::result::Result<Credentials, String> {
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        );
        fs::write(self.path("config"), text).unwrap();
        let kubeconfig = kubeconfig::load(&self.path("config"), None).map_err(|error| error.to_string())?;
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Credentials::read(&kubeconfig, Instant::now() + time).map_err(|error| self.short(&error.to_string()))
    }

    /// A message with relative paths.
    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }

    fn exec(&self, script: &str) -> std::result::Result<Credentials, String> {
        self.script(script);
        self.user("exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login, args: [first, '2 3'], env: [{name: A, value: b}]}")
    }

    fn script(&self, script: &str) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        fs::write(self.path("login"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(self.path("login"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn credential(status: &serde_json::Value) -> String {
    let object = serde_json::json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status});
    format!("cat <<'END'\n{object}\nEND")
}

#[test]
fn a_program_gives_a_token() {
    let site = Site::new();
    let here = site.0.path().display();
    let script = format!(
        "echo \"$KUBERNETES_EXEC_INFO\" >{here}/info; echo \"$A,$1,$2,$(cat)\" >{here}/seen; echo warning >&2\n{}",
        credential(&serde_json::json!({"token": "t-1", "expirationTimestamp": "2026-11-27T10:00:00Z"}))
    );
    let found = site.exec(&script).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.authorization.as_deref(), Some("Bearer t-1"));
    assert_eq!(found.expires, Some(humantime::parse_rfc3339("2026-11-27T10:00:00Z").unwrap()));
    assert_eq!(fs::read_to_string(site.path("seen")).unwrap(), "b,first,2 3,\n");
    assert_eq!(
        fs::read_to_string(site.path("info")).unwrap(),
        "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"spec\":{\"interactive\":false}}\n"
    );
}

#[test]
fn a_program_gets_the_cluster_and_gives_a_certificate() {
    let site = Site::new();
    let (der, key) = certificate(&[(DnType::CommonName, "system:node:node9")]);
    let ca = pem("CERTIFICATE", &der);
    fs::write(site.path("ca"), &ca).unwrap();
    let status = serde_json::json!({"clientCertificateData": ca, "clientKeyData": pem("PRIVATE KEY", &key)});
    let here = site.0.path().display();
    site.script(&format!("echo \"$KUBERNETES_EXEC_INFO\" >{here}/info\n{}", credential(&status)));
    let cluster = "server: 'https://h:1', certificate-authority: ca, tls-server-name: api";
    let user = "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login, provideClusterInfo: true}";
    let found = site.cluster(cluster, user).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((found.node_name.as_deref(), found.authorization), (Some("node9"), None));
    let info: serde_json::Value = serde_json::from_str(&fs::read_to_string(site.path("info")).unwrap()).unwrap();
    let expected = serde_json::json!({
        "server": "https://h:1", "tls-server-name": "api", "certificate-authority-data": BASE64_STANDARD.encode(&ca),
    });
    assert_eq!(info["spec"]["cluster"], expected);
}

#[test]
fn each_mistake_of_a_program_has_one_message() {
    let site = Site::new();
    let fails = |script: &str| site.exec(script).err().expect("an error");
    assert_eq!(fails("echo no ticket >&2; exit 3"), "run ./login: exit status: 3: no ticket");
    assert_eq!(fails("kill -9 $$"), "run ./login: signal: 9 (SIGKILL): ");
    assert_eq!(fails("echo hello"), "read credentials of ./login: expected value at line 1 column 1");
    assert_eq!(fails("true"), "read credentials of ./login: EOF while parsing a value at line 1 column 0");
    let none = credential(&serde_json::json!({}));
    assert_eq!(fails(&none), "read credentials of ./login: neither a token nor a certificate");
    let old = none.replace("/v1", "/v1beta1");
    assert_eq!(fails(&old), "read credentials of ./login: not an ExecCredential of client.authentication.k8s.io/v1");
    let half = credential(&serde_json::json!({"clientKeyData": "x"}));
    assert_eq!(
        fails(&half),
        "read credentials of ./login: a certificate without a key, or a key without a certificate"
    );
    let wrong = credential(&serde_json::json!({"clientKeyData": "x", "clientCertificateData": "y"}));
    assert_eq!(fails(&wrong), "read certificate ./login: no PEM certificate in it");
    let split = credential(&serde_json::json!({"token": "a\nInjected: b"}));
    assert_eq!(fails(&split), "read token ./login: empty, or with characters that no token has");
    let never = credential(&serde_json::json!({"token": "a", "expirationTimestamp": "soon"}));
    assert!(fails(&never).starts_with("read credentials of ./login: soon: "), "{}", fails(&never));
    let missing = "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./missing, installHint: Install it.}";
    let text = site.user(missing).err().unwrap();
    assert_eq!(text, "run ./missing: No such file or directory (os error 2): Install it.");
}

#[test]
fn a_program_that_does_not_end_is_killed() {
    let site = Site::new();
    let here = site.0.path().display();
    site.script(&format!("echo $$ >{here}/pid.new; mv {here}/pid.new {here}/pid; exec sleep 1000"));
    let user = "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login}";
    let begin = Instant::now();
    let text = site.until("server: 'http://h'", user, Duration::from_secs(1)).err().unwrap();
    assert_eq!(text, "run ./login: no credentials in time");
    assert!(begin.elapsed() < Duration::from_secs(10));
    let pid = fs::read_to_string(site.path("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}

#[test]
fn each_mistake_in_a_file_has_one_message() {
    let site = Site::new();
    let (der, key) = certificate(&[(DnType::CommonName, "x")]);
    let other = certificate(&[(DnType::CommonName, "x")]).1;
    fs::write(site.path("good"), pem("CERTIFICATE", &der)).unwrap();
    fs::write(site.path("key"), pem("PRIVATE KEY", &key)).unwrap();
    fs::write(site.path("other"), pem("PRIVATE KEY", &other)).unwrap();
    fs::write(site.path("text"), "no PEM").unwrap();
    fs::write(site.path("cut"), "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
    fs::write(site.path("junk"), pem("CERTIFICATE", b"junk")).unwrap();
    fs::write(site.path("junk-key"), pem("PRIVATE KEY", b"junk")).unwrap();
    fs::write(site.path("tokens"), "a b").unwrap();
    let cluster = |ca: &str| format!("server: 'https://h', certificate-authority: {ca}");
    let user = |certificate: &str, key: &str| format!("client-certificate: {certificate}, client-key: {key}");
    let fails = |ca: &str, user: &str| site.cluster(&cluster(ca), user).err().expect("an error");
    assert_eq!(fails("missing", "token: x"), "read missing: No such file or directory (os error 2)");
    assert_eq!(fails("text", "token: x"), "read certificate text: no PEM certificate in it");
    assert!(fails("cut", "token: x").starts_with("read certificate cut: "), "{}", fails("cut", "token: x"));
    assert!(fails("junk", "token: x").starts_with("read certificate junk: "), "{}", fails("junk", "token: x"));
    assert_eq!(fails("good", &user("missing", "key")), "read missing: No such file or directory (os error 2)");
    assert_eq!(fails("good", &user("good", "text")), "read key text: no PEM key in it");
    assert_eq!(fails("good", &user("good", "good")), "read key good: no PEM key in it");
    assert!(fails("good", &user("good", "junk-key")).starts_with("use client certificate good: "));
    let differs = fails("good", &user("good", "other"));
    assert!(differs.starts_with("use client certificate good: "), "{differs}");
    assert_eq!(fails("good", "tokenFile: tokens"), "read token tokens: empty, or with characters that no token has");
    assert_eq!(fails("good", "tokenFile: none"), "read none: No such file or directory (os error 2)");
    let name = site.cluster("server: 'https://h', certificate-authority: good, tls-server-name: 'a b'", "token: x");
    assert_eq!(name.err().unwrap(), "name of server a b: invalid dns name");
    assert!(site.cluster(&cluster("good"), &user("good", "key")).is_ok());
}

#[test]
fn a_name_with_a_password_is_sent() {
    let found = Site::new().user("username: me, password: secret").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.authorization.as_deref(), Some("Basic bWU6c2VjcmV0"));
}
