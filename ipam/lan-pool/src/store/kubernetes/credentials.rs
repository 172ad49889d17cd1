//! The credentials that are sent: certificates and tokens from files, from the kubeconfig, or from a program. Also the name of
//! the node, which is in the credentials of a kubelet.

use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Instant, SystemTime};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::io::der;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};

use super::error::{AccessError, Result};
use super::http::Target;
use super::kubeconfig::{Cluster, Exec, Kubeconfig, LARGEST_FILE, Source, Token};

/// Before the name of a node in the name of its user.
const NODE_USER: &str = "system:node:";

/// The address of an API server, with all credentials.
pub(super) struct Credentials {
    pub(super) target: Target,
    /// The header `Authorization`.
    pub(super) authorization: Option<String>,
    pub(super) node_name: Option<String>,
    /// The time at which the credentials of a program end.
    pub(super) expires: Option<SystemTime>,
}

/// A certificate with its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The file or the key of the certificate, for messages.
    name: String,
}

/// The credentials of a program or of files, before they are used.
#[derive(Default)]
struct Proof {
    identity: Option<Identity>,
    token: Option<String>,
    expires: Option<SystemTime>,
}

impl Credentials {
    /// Reads all files, and runs the program for credentials, if there is one, until `deadline`.
    pub(super) fn read(kubeconfig: &Kubeconfig, deadline: Instant) -> Result<Self> {
        let Kubeconfig { cluster, user } = kubeconfig;
        let mut proof = match &user.exec {
            Some(exec) => run(exec, cluster, deadline)?,
            None => Proof::default(),
        };
        if let Some((certificate, key)) = &user.certificate {
            proof.identity = Some(identity(certificate, key)?);
        }
        match &user.token {
            Some(Token::Text(text)) => proof.token = Some(token(text, "token of the kubeconfig")?),
            Some(Token::File(path)) => {
                let name = path.display().to_string();
                let bytes = Source::File(path.clone()).read()?;
                proof.token = Some(token(&String::from_utf8_lossy(&bytes), &name)?);
            }
            None => {}
        }
        // The server asks the certificate first.
        let node_name = proof.identity.as_ref().and_then(|identity| node_of_certificate(identity.chain.first()?));
        let node_name = node_name.or_else(|| node_of_token(proof.token.as_deref()?));
        let basic = user.basic.as_ref().map(|(name, password)| BASE64_STANDARD.encode(format!("{name}:{password}")));
        let authorization = match (&proof.token, basic) {
            (Some(token), _) => Some(format!("Bearer {token}")),
            (None, Some(basic)) => Some(format!("Basic {basic}")),
            (None, None) => None,
        };
        let tls = match &cluster.authority {
            Some(authority) if cluster.server.is_tls => Some(tls(cluster, authority, proof.identity)?),
            _ => None,
        };
        let target = Target { server: cluster.server.clone(), tls };
        Ok(Self { target, authorization, node_name, expires: proof.expires })
    }
}

fn tls(
    cluster: &Cluster,
    authority: &Source,
    identity: Option<Identity>,
) -> Result<(Arc<ClientConfig>, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&authority.read()?, &authority.name())? {
        roots.add(certificate).map_err(|error| AccessError::new("read certificate", authority.name(), error))?;
    }
    let name = cluster.tls_server_name.as_ref().unwrap_or(&cluster.server.host);
    let name = ServerName::try_from(name.clone()).map_err(|error| AccessError::new("name of server", name, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| AccessError::new("prepare TLS to", &cluster.server.url, error))?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(Identity { chain, key, name }) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| AccessError::new("use client certificate", name, error))?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), name))
}

fn identity(certificate: &Source, key: &Source) -> Result<Identity> {
    let name = certificate.name();
    let bytes = certificate.read()?;
    let chain = certificates(&bytes, &name)?;
    // The kubelet's file has both. It is read once, so both are of one rotation.
    let key = if key == certificate { private_key(&bytes, &name)? } else { private_key(&key.read()?, &key.name())? };
    Ok(Identity { chain, key, name })
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |cause: &dyn std::fmt::Display| AccessError::new("read certificate", name, cause);
    let found = CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<Vec<_>, _>>();
    match found.map_err(|error| failed(&error))? {
        found if found.is_empty() => Err(failed(&"no PEM certificate in it")),
        found => Ok(found),
    }
}

fn private_key(pem: &[u8], name: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => AccessError::new("read key", name, "no PEM key in it"),
        error => AccessError::new("read key", name, error),
    })
}

/// A token without the end of its line. It goes into a header, so other characters are refused.
fn token(text: &str, name: &str) -> Result<String> {
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AccessError::new("read token", name, "empty, or with characters that no token has"));
    }
    Ok(token.to_owned())
}

/// The node of a certificate with the common name `system:node:NAME`.
fn node_of_certificate(certificate: &CertificateDer<'_>) -> Option<String> {
    /// 2.5.4.3, the object identifier of a common name. (RFC 5280, appendix A.1)
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
    const SET: u8 = 0x31;
    const SEQUENCE: u8 = der::Tag::Sequence as u8;
    const OBJECT_IDENTIFIER: u8 = der::Tag::OID as u8;
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = untrusted::Reader::new(untrusted::Input::from(certificate.subject()));
    // RDNSequence: each member is a SET of SEQUENCEs of an OBJECT IDENTIFIER and a string. (RFC 5280, section 4.1.2.4)
    while !names.at_end() {
        let mut set = untrusted::Reader::new(inside(&mut names, SET)?);
        while !set.at_end() {
            let mut pair = untrusted::Reader::new(inside(&mut set, SEQUENCE)?);
            let is_common_name = inside(&mut pair, OBJECT_IDENTIFIER)?.as_slice_less_safe() == COMMON_NAME;
            let (_, value) = der::read_tag_and_get_value(&mut pair).ok()?;
            if is_common_name {
                return node_of_user(std::str::from_utf8(value.as_slice_less_safe()).ok()?);
            }
        }
    }
    None
}

/// The content of the next value, if it has this tag.
fn inside<'a>(reader: &mut untrusted::Reader<'a>, tag: u8) -> Option<untrusted::Input<'a>> {
    der::read_tag_and_get_value(reader).ok().filter(|(found, _)| *found == tag).map(|(_, value)| value)
}

fn node_of_user(user: &str) -> Option<String> {
    user.strip_prefix(NODE_USER).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The node of a service account token that is bound to a pod. The signature is the server's business.
fn node_of_token(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(rename = "kubernetes.io")]
        kubernetes: Kubernetes,
    }
    #[derive(Deserialize)]
    struct Kubernetes {
        node: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    Some(claims.kubernetes.node.name).filter(|name| !name.is_empty())
}

/// The input of a program for credentials, in the variable `KUBERNETES_EXEC_INFO`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecInfo<'a> {
    api_version: &'a str,
    kind: &'static str,
    spec: ExecSpec<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecSpec<'a> {
    interactive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ExecCluster<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ExecCluster<'a> {
    server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
}

/// The output of a program for credentials.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    api_version: String,
    kind: String,
    status: ExecStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecStatus {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

/// Runs a program for credentials. It gets no input, and its stderr is in the error.
fn run(exec: &Exec, cluster: &Cluster, deadline: Instant) -> Result<Proof> {
    let name = exec.command.display().to_string();
    let failed = |cause: &dyn std::fmt::Display| AccessError::new("run", &name, cause);
    let cluster = match (exec.with_cluster, &cluster.authority) {
        (false, _) => None,
        (true, authority) => Some(ExecCluster {
            server: &cluster.server.url,
            tls_server_name: cluster.tls_server_name.as_deref(),
            certificate_authority_data: match authority {
                Some(authority) => Some(BASE64_STANDARD.encode(authority.read()?)),
                None => None,
            },
        }),
    };
    let spec = ExecSpec { interactive: false, cluster };
    let info = ExecInfo { api_version: &exec.api_version, kind: "ExecCredential", spec };
    let info = serde_json::to_string(&info).map_err(|error| failed(&error))?;
    let mut command = Command::new(&exec.command);
    command.args(&exec.args).envs(exec.env.iter().cloned()).env("KUBERNETES_EXEC_INFO", info);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match (&exec.hint, error.kind()) {
        (Some(hint), ErrorKind::NotFound) => failed(&format_args!("{error}: {}", hint.trim())),
        _ => failed(&error),
    })?;

    let (send, receive) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    for (index, stream) in streams.into_iter().enumerate() {
        let send = send.clone();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(stream) = stream {
                // A stream that breaks off is as one that ends: its text is incomplete then.
                _ = stream.take(LARGEST_FILE).read_to_end(&mut bytes);
            }
            _ = send.send((index, bytes));
        });
    }
    drop(send);
    let mut outputs = [Vec::new(), Vec::new()];
    // When both streams are closed, the channel ends.
    while let Ok(wait) = deadline.checked_duration_since(Instant::now()).ok_or(()) {
        match receive.recv_timeout(wait) {
            Ok((index, bytes)) => outputs[index] = bytes,
            Err(mpsc::RecvTimeoutError::Timeout) => break,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = child.wait().map_err(|error| failed(&error))?;
                if !status.success() {
                    let said = String::from_utf8_lossy(&outputs[1]);
                    return Err(failed(&format_args!("{status}: {}", said.trim())));
                }
                return proof(exec, &outputs[0], &name);
            }
        }
    }
    // Neither fails, but for a program that has just ended.
    _ = child.kill();
    _ = child.wait();
    Err(failed(&"no credentials in time"))
}

fn proof(exec: &Exec, output: &[u8], name: &str) -> Result<Proof> {
    let failed = |cause: &dyn std::fmt::Display| AccessError::new("read credentials of", name, cause);
    let credential: ExecCredential = serde_json::from_slice(output).map_err(|error| failed(&error))?;
    if credential.kind != "ExecCredential" || credential.api_version != exec.api_version {
        return Err(failed(&format_args!("not an ExecCredential of {}", exec.api_version)));
    }
    let ExecStatus { token: text, client_certificate_data, client_key_data, expiration_timestamp } = credential.status;
    let identity = match (client_certificate_data, client_key_data) {
        (Some(certificate), Some(key)) => Some(Identity {
            chain: certificates(certificate.as_bytes(), name)?,
            key: private_key(key.as_bytes(), name)?,
            name: name.to_owned(),
        }),
        (None, None) => None,
        _ => return Err(failed(&"a certificate without a key, or a key without a certificate")),
    };
    let token = text.filter(|text| !text.is_empty()).map(|text| token(&text, name)).transpose()?;
    if identity.is_none() && token.is_none() {
        return Err(failed(&"neither a token nor a certificate"));
    }
    let expires = match expiration_timestamp {
        Some(text) => Some(humantime::parse_rfc3339(&text).map_err(|error| failed(&format_args!("{text}: {error}")))?),
        None => None,
    };
    Ok(Proof { identity, token, expires })
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
