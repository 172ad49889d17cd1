//! Reads a kubeconfig: the address of the API server, and the credentials of the user. Nothing is sent.
//!
//! The keys are those of <https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/>. Keys that would change who asks,
//! or who answers, and that are not supported, are errors. Other keys are ignored, as in kubectl.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use yaml_rust2::{Yaml, YamlLoader};

use super::error::{AccessError, Result};

/// Bytes of a kubeconfig, of a certificate file, or of a token. Such files are smaller by far.
pub(super) const LARGEST_FILE: u64 = 1 << 20;
/// The directory with the credentials of a service account, in a pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A context of a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kubeconfig {
    pub(super) cluster: Cluster,
    pub(super) user: User,
}

/// An API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) server: Server,
    /// The certificates that sign the server's. With `http://`, `None`.
    pub(super) authority: Option<Source>,
    /// The name in the server's certificate, if it is not the host of the URL.
    pub(super) tls_server_name: Option<String>,
}

/// The URL of an API server, in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// The URL as it is written.
    pub(super) url: String,
    pub(super) is_tls: bool,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The host and the port as they are written, for the header `Host`.
    pub(super) authority: String,
    /// The path before `/apis`. It is empty, or begins with `/` and does not end with it.
    pub(super) prefix: String,
}

/// Bytes that are in a file, or in the kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    /// The key, for messages, with the decoded bytes.
    Data(String, Vec<u8>),
}

/// The credentials of a user. Files are not read yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct User {
    pub(super) certificate: Option<(Source, Source)>,
    pub(super) token: Option<Token>,
    pub(super) basic: Option<(String, String)>,
    pub(super) exec: Option<Exec>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Text(String),
    File(PathBuf),
}

/// A program that prints credentials.
/// (<https://kubernetes.io/docs/reference/config-api/client-authentication.v1/>)
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exec {
    pub(super) api_version: String,
    /// A path, or a name that is searched in `PATH`.
    pub(super) command: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    /// The program gets the cluster.
    pub(super) with_cluster: bool,
    /// Advice for the case that the program does not exist.
    pub(super) hint: Option<String>,
}

impl Source {
    /// The path or the key, for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Data(key, _) => key.clone(),
        }
    }

    /// Reads the bytes.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::File(path) => read(path),
            Self::Data(_, bytes) => Ok(bytes.clone()),
        }
    }
}

/// Reads a file of at most [`LARGEST_FILE`] bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |cause: std::io::Error| AccessError::new("read", path.display(), cause);
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(AccessError::new("read", path.display(), format!("more than {LARGEST_FILE} bytes")));
    }
    Ok(bytes)
}

/// Reads a context of a kubeconfig. `None` is the current one.
pub(super) fn load(path: &Path, context: Option<&str>) -> Result<Kubeconfig> {
    let text = String::from_utf8(read(path)?).map_err(|_| AccessError::new("read", path.display(), "not UTF-8"))?;
    parse(path, &text, context)
}

/// The credentials of a pod's service account, with the API server of the environment. `None` outside of a pod.
pub(super) fn in_cluster(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Kubeconfig>> {
    let Some(host) = variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty()) else { return Ok(None) };
    let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let url = format!("https://{host}:{port}");
    let server = server(&url).map_err(|cause| AccessError::new("KUBERNETES_SERVICE_HOST", &url, cause))?;
    let directory = Path::new(SERVICE_ACCOUNT);
    Ok(Some(Kubeconfig {
        cluster: Cluster { server, authority: Some(Source::File(directory.join("ca.crt"))), tls_server_name: None },
        user: User { token: Some(Token::File(directory.join("token"))), ..User::default() },
    }))
}

fn parse(path: &Path, text: &str, context: Option<&str>) -> Result<Kubeconfig> {
    let wrong = |cause: String| AccessError::new("kubeconfig", path.display(), cause);
    let documents = YamlLoader::load_from_str(text).map_err(|error| wrong(format!("no YAML: {error}")))?;
    let root = match documents.as_slice() {
        [root @ Yaml::Hash(_)] => root,
        _ => return Err(wrong("not one YAML object".to_owned())),
    };
    let file = KubeconfigFile { directory: path.parent().unwrap_or(Path::new(".")), root };
    file.context(context).map_err(wrong)
}

/// Causes of mistakes, without the path of the kubeconfig.
type Parsed<T> = std::result::Result<T, String>;

struct KubeconfigFile<'a> {
    directory: &'a Path,
    root: &'a Yaml,
}

/// An object in the kubeconfig, with its place for messages.
struct Object<'a> {
    directory: &'a Path,
    place: String,
    yaml: &'a Yaml,
}

impl KubeconfigFile<'_> {
    fn context(&self, context: Option<&str>) -> Parsed<Kubeconfig> {
        let root = Object { directory: self.directory, place: String::new(), yaml: self.root };
        let name = match context {
            Some(name) => name.to_owned(),
            None => root.text("current-context")?.ok_or("current-context is missing or empty")?,
        };
        let context = self.named("contexts", "context", &name)?;
        let cluster = context.text("cluster")?.ok_or_else(|| format!("context {name}: cluster is missing"))?;
        let cluster = self.named("clusters", "cluster", &cluster)?;
        let user = match context.text("user")? {
            Some(user) => self.named("users", "user", &user)?.user()?,
            None => User::default(),
        };
        Ok(Kubeconfig { cluster: cluster.cluster()?, user })
    }

    /// The object of this name in one of the three lists.
    fn named(&self, list: &str, key: &str, name: &str) -> Parsed<Object<'_>> {
        let entries = match &self.root[list] {
            Yaml::Array(entries) => entries.as_slice(),
            Yaml::BadValue | Yaml::Null => &[],
            _ => return Err(format!("{list} is not a list")),
        };
        let entry = entries.iter().find(|entry| entry["name"].as_str() == Some(name));
        let entry = entry.ok_or_else(|| format!("no {key} {name} in {list}"))?;
        let place = format!("{key} {name}: ");
        match &entry[key] {
            yaml @ Yaml::Hash(_) => Ok(Object { directory: self.directory, place, yaml }),
            _ => Err(format!("{place}{key} is not an object")),
        }
    }
}

impl Object<'_> {
    fn wrong<T>(&self, cause: impl std::fmt::Display) -> Parsed<T> {
        Err(format!("{}{cause}", self.place))
    }

    /// A text. An empty one is as none, as in kubectl.
    fn text(&self, key: &str) -> Parsed<Option<String>> {
        match &self.yaml[key] {
            Yaml::BadValue | Yaml::Null => Ok(None),
            Yaml::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            _ => self.wrong(format_args!("{key} is not a text: put it in quotes")),
        }
    }

    fn is_true(&self, key: &str) -> Parsed<bool> {
        match &self.yaml[key] {
            Yaml::BadValue | Yaml::Null => Ok(false),
            Yaml::Boolean(is_true) => Ok(*is_true),
            _ => self.wrong(format_args!("{key} is neither true nor false")),
        }
    }

    /// A path. A relative one begins at the directory of the kubeconfig.
    fn path(&self, key: &str) -> Parsed<Option<PathBuf>> {
        Ok(self.text(key)?.map(|path| self.directory.join(path)))
    }

    /// The bytes of `KEY-data`, else of the file `KEY`.
    fn source(&self, key: &str) -> Parsed<Option<Source>> {
        let data = format!("{key}-data");
        if let Some(text) = self.text(&data)? {
            let text: String = text.split_ascii_whitespace().collect();
            return match BASE64_STANDARD.decode(text) {
                Ok(bytes) => Ok(Some(Source::Data(data, bytes))),
                Err(error) => self.wrong(format_args!("{data} is not base64: {error}")),
            };
        }
        Ok(self.path(key)?.map(Source::File))
    }

    /// Fails if a key is set that is not supported.
    fn without(&self, keys: &[(&str, &str)]) -> Parsed<()> {
        for (key, advice) in keys {
            match &self.yaml[*key] {
                Yaml::BadValue | Yaml::Null | Yaml::Boolean(false) => {}
                Yaml::String(text) if text.is_empty() => {}
                Yaml::Array(list) if list.is_empty() => {}
                _ => return self.wrong(format_args!("{key} is not supported: {advice}")),
            }
        }
        Ok(())
    }

    fn cluster(&self) -> Parsed<Cluster> {
        self.without(&[
            ("insecure-skip-tls-verify", "set certificate-authority"),
            ("proxy-url", "the node has to reach the server without a proxy"),
        ])?;
        let Some(url) = self.text("server")? else { return self.wrong("server is missing") };
        let server = server(&url).or_else(|cause| self.wrong(format_args!("server {url}: {cause}")))?;
        let authority = self.source("certificate-authority")?;
        if server.is_tls && authority.is_none() {
            return self.wrong("certificate-authority is missing");
        }
        Ok(Cluster { server, authority, tls_server_name: self.text("tls-server-name")? })
    }

    fn user(&self) -> Parsed<User> {
        let own = "use the credentials of the node";
        self.without(&[("as", own), ("as-uid", own), ("as-groups", own), ("as-user-extra", own)])?;
        self.without(&[("auth-provider", "use exec")])?;
        let certificate = match (self.source("client-certificate")?, self.source("client-key")?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => return self.wrong("client-key is missing"),
            (None, Some(_)) => return self.wrong("client-certificate is missing"),
        };
        // In kubectl, the file is stronger too.
        let token = self.path("tokenFile")?.map(Token::File);
        let token = token.or(self.text("token")?.map(Token::Text));
        let basic = match (self.text("username")?, self.text("password")?) {
            (Some(name), password) => Some((name, password.unwrap_or_default())),
            (None, _) => None,
        };
        let exec = match &self.yaml["exec"] {
            Yaml::BadValue | Yaml::Null => None,
            yaml @ Yaml::Hash(_) => {
                let place = format!("{}exec: ", self.place);
                Some(Object { directory: self.directory, place, yaml }.exec()?)
            }
            _ => return self.wrong("exec is not an object"),
        };
        Ok(User { certificate, token, basic, exec })
    }

    fn exec(&self) -> Parsed<Exec> {
        const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
        let api_version = self.text("apiVersion")?.unwrap_or_default();
        if !VERSIONS.contains(&api_version.as_str()) {
            return self
                .wrong(format_args!("apiVersion {api_version:?} is neither {} nor {}", VERSIONS[0], VERSIONS[1]));
        }
        if self.text("interactiveMode")?.as_deref() == Some("Always") {
            return self.wrong("interactiveMode Always is not supported: a plugin has no terminal");
        }
        let Some(command) = self.text("command")? else { return self.wrong("command is missing") };
        let is_name = !command.contains('/');
        let command = if is_name { PathBuf::from(command) } else { self.directory.join(command) };
        let args = self.list("args")?.iter().map(|arg| match arg {
            Yaml::String(arg) => Ok(arg.clone()),
            _ => self.wrong("an entry of args is not a text: put it in quotes"),
        });
        let env = self.list("env")?.iter().map(|entry| match (entry["name"].as_str(), entry["value"].as_str()) {
            (Some(name), Some(value)) if !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') => {
                Ok((name.to_owned(), value.to_owned()))
            }
            _ => self.wrong("an entry of env has no name or no value"),
        });
        Ok(Exec {
            api_version,
            command,
            args: args.collect::<Parsed<_>>()?,
            env: env.collect::<Parsed<_>>()?,
            with_cluster: self.is_true("provideClusterInfo")?,
            hint: self.text("installHint")?,
        })
    }

    fn list(&self, key: &str) -> Parsed<&[Yaml]> {
        match &self.yaml[key] {
            Yaml::BadValue | Yaml::Null => Ok(&[]),
            Yaml::Array(list) => Ok(list),
            _ => self.wrong(format_args!("{key} is not a list")),
        }
    }
}

/// Takes the URL of a server apart.
fn server(url: &str) -> Parsed<Server> {
    let (is_tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err("the URL has to begin with https:// or http://".to_owned()),
    };
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains(['?', '#', '@', '\\']) {
        return Err("the URL may have a host, a port and a path only".to_owned());
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let default = if is_tls { 443 } else { 80 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("] is missing")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("{host} is no IPv6 address"))?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("")).ok_or("after ], only :PORT may follow")?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    if host.is_empty() || (host.contains(':') && host.parse::<IpAddr>().is_err()) {
        return Err("the host is missing".to_owned());
    }
    let port = match port {
        "" => default,
        port => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("{port} is no port"))?,
    };
    Ok(Server {
        url: url.trim_end_matches('/').to_owned(),
        is_tls,
        host: host.to_owned(),
        port,
        authority: authority.to_owned(),
        prefix: path.trim_end_matches('/').to_owned(),
    })
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
