//! Credentials that are replaced while the client runs, and TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::server::open;
use super::*;

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn issue(&self, user: &str) -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, user);
        (params.signed_by(&key, &self.0).unwrap().der().clone(), key.serialize_der())
    }

    /// A file with a certificate and its key, as the kubelet has it.
    fn write(&self, user: &str, path: &Path) {
        let (certificate, key) = self.issue(user);
        fs::write(path, pem("CERTIFICATE", &certificate) + &pem("PRIVATE KEY", &key)).unwrap();
    }

    /// A server with a certificate of this authority, which trusts clients of another one.
    fn server(&self, clients: &Self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(clients.der()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let (certificate, key) = self.issue("server");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        Arc::new(builder.with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key).unwrap())
    }
}

const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const USER: &str = "client-certificate: client.pem, client-key: client.pem";

fn cluster(server: &Server) -> String {
    format!("server: 'https://127.0.0.1:{}', certificate-authority: ca.pem", server.port)
}

#[test]
fn a_client_certificate_is_used_and_names_the_node() {
    for versions in [TLS13, TLS12] {
        let authority = Authority::new("cluster");
        let config = authority.server(&authority, versions);
        let server = Server::start_tls(vec![made(), deleted()], move || Arc::clone(&config));
        authority.write("system:node:worker-7", &server.directory.path().join("client.pem"));
        fs::write(server.directory.path().join("ca.pem"), pem("CERTIFICATE", &authority.der())).unwrap();
        let path = server.kubeconfig(&cluster(&server), USER);
        let mut client = open(&path);
        assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
        assert_eq!(client.ask(&delete(), soon()), Answer::Gone);
        assert_eq!(server.connections(), 1);
        assert_eq!(client.node_name().as_deref(), Some("worker-7"));
        let access = Access { kubeconfig: Some(path), context: Some("c".into()) };
        let named = Client::open(&access, "office", None, Some("host".into()), soon()).unwrap();
        assert_eq!(named.node(), "worker-7");
    }
}

/// With TLS 1.2 the server refuses a certificate in the handshake. With TLS 1.3 it does so after the client has sent its
/// request. The server has read the request in neither case.
#[test]
fn a_client_certificate_that_tls_refuses_is_read_again() {
    for versions in [TLS13, TLS12] {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("client.pem");
        old.write("system:node:node1", &file);
        fs::write(directory.path().join("ca.pem"), pem("CERTIFICATE", &new.der())).unwrap();
        let (ca, next) = (new.der(), file.clone());
        let config = new.server(&new, versions);
        // The certificate is replaced before the first connection is accepted.
        let server = Server::start_tls(vec![made()], move || {
            new.write("system:node:node1", &next);
            Arc::clone(&config)
        });
        fs::write(server.directory.path().join("ca.pem"), pem("CERTIFICATE", &ca)).unwrap();
        let user = format!("client-certificate: '{0}', client-key: '{0}'", file.display());
        let mut client = open(&server.kubeconfig(&cluster(&server), &user));
        assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
        assert_eq!((server.connections(), server.requests().len()), (2, 1));
    }
}

#[test]
fn a_client_certificate_that_stays_wrong_is_a_refusal() {
    for versions in [TLS13, TLS12] {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let config = new.server(&new, versions);
        let server = Server::start_tls(vec![], move || Arc::clone(&config));
        old.write("system:node:node1", &server.directory.path().join("client.pem"));
        fs::write(server.directory.path().join("ca.pem"), pem("CERTIFICATE", &new.der())).unwrap();
        let mut client = open(&server.kubeconfig(&cluster(&server), USER));
        let answer = client.ask(&create(), soon());
        assert!(refused(&answer).starts_with("TLS: "), "{answer:?}");
        assert_eq!((server.connections(), server.requests().len()), (2, 0));
    }
}

#[test]
fn a_server_of_another_authority_is_a_refusal() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let config = other.server(&ours, TLS13);
    let server = Server::start_tls(vec![], move || Arc::clone(&config));
    ours.write("system:node:node1", &server.directory.path().join("client.pem"));
    fs::write(server.directory.path().join("ca.pem"), pem("CERTIFICATE", &ours.der())).unwrap();
    let mut client = open(&server.kubeconfig(&cluster(&server), USER));
    assert_eq!(refused(&client.ask(&create(), soon())), "TLS: invalid peer certificate: UnknownIssuer");
    let named = format!("{}, tls-server-name: api.example", cluster(&server));
    fs::write(server.directory.path().join("ca.pem"), pem("CERTIFICATE", &other.der())).unwrap();
    let mut client = open(&server.kubeconfig(&named, USER));
    let answer = client.ask(&create(), soon());
    assert!(refused(&answer).contains("certificate not valid for name \"api.example\""), "{answer:?}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_server_that_never_answers_the_handshake_is_a_refusal() {
    let authority = Authority::new("cluster");
    // It takes the greeting of TLS for the start of a request, and waits for the rest.
    let server = Server::start(vec![]);
    fs::write(server.directory.path().join("ca.pem"), pem("CERTIFICATE", &authority.der())).unwrap();
    let mut client = open(&server.kubeconfig(&cluster(&server), "token: x"));
    let answer = client.ask(&create(), Instant::now() + Duration::from_millis(300));
    assert_eq!(refused(&answer), "TLS handshake: timed out");
}

#[test]
fn a_token_that_is_refused_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "old\n").unwrap();
    let next = file.clone();
    let unauthorized =
        failure(401, "Unauthorized", "Unauthorized", "").after(move || fs::write(next, "new\n").unwrap());
    let server = Server::start(vec![unauthorized, made()]);
    let user = format!("tokenFile: '{}'", file.display());
    let mut client = open(&server.kubeconfig(&format!("server: '{}'", server.url()), &user));
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
    let requests = server.requests();
    assert!(requests[0].contains("\r\nAuthorization: Bearer old\r\n"), "{}", requests[0]);
    assert!(requests[1].contains("\r\nAuthorization: Bearer new\r\n"), "{}", requests[1]);
}

#[test]
fn credentials_are_read_again_once_for_each_request() {
    let unauthorized = || failure(401, "Unauthorized", "Unauthorized", "");
    let (server, mut client) = client(vec![unauthorized(), unauthorized(), unauthorized(), made()]);
    let text = "the server refuses the credentials: Unauthorized";
    assert_eq!(refused(&client.ask(&create(), soon())), text);
    assert_eq!(server.requests().len(), 2);
    assert_eq!(client.ask(&create(), soon()), Answer::Made(uid()));
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_file_that_is_gone_when_it_is_read_again_is_in_the_refusal() {
    let server = Server::start(vec![failure(401, "Unauthorized", "Unauthorized", "")]);
    let path = server.kubeconfig(&format!("server: '{}'", server.url()), "token: x");
    let mut client = open(&path);
    fs::remove_file(&path).unwrap();
    let expected = format!(
        "the server refuses the credentials: Unauthorized; then read {}: No such file or directory (os error 2)",
        path.display()
    );
    assert_eq!(refused(&client.ask(&create(), soon())), expected);
}
