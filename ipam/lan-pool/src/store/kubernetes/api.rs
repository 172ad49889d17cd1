//! Calls to an API server: the connection, the credentials, and the answers that do not depend on the kind of request.

use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::LARGEST_OBJECT;
use super::credentials::Credentials;
use super::error::{AccessError, Result};
use super::http::{Connection, Failure, Message};
use super::kubeconfig::{self, Kubeconfig};
use super::object::Status;
use super::response::Response;

/// The first wait if a busy server does not name one. It doubles each time.
const BUSY: Duration = Duration::from_millis(100);
/// The largest random addition to a wait.
const JITTER: Duration = Duration::from_millis(500);

/// The place of the credentials, and of the address of the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The path of a kubeconfig. `None`: the service account of the pod in which this process runs.
    pub kubeconfig: Option<PathBuf>,
    /// The name of a context in it. `None`: its current context.
    pub context: Option<String>,
}

/// An API server, with the credentials for it.
///
/// Files with credentials are read when it is opened. If the server refuses the credentials, or if TLS fails, they are read
/// once more and the request is sent again, because certificates and tokens are renewed under a running process.
///
/// The variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are ignored.
pub(super) struct Api {
    access: Access,
    credentials: Credentials,
    connection: Option<Connection>,
}

/// A call of one request.
pub(super) struct Call<'a> {
    /// The operation and its object, for messages.
    pub(super) operation: &'a str,
    pub(super) method: &'static str,
    pub(super) path: &'a str,
    pub(super) body: Option<Vec<u8>>,
    pub(super) most: usize,
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: &'a str, method: &'static str, path: &'a str) -> Self {
        Self { operation, method, path, body: None, most: LARGEST_OBJECT }
    }

    pub(super) fn body(self, body: Vec<u8>) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// A call without a response that belongs to it.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// It was not carried out, and never will be.
    Refused(String),
    /// It can have been carried out, or can be later.
    Lost(String),
}

impl Api {
    /// Reads the files with credentials, or runs the program for them. No request is sent.
    ///
    /// # Errors
    ///
    /// A file is missing or wrong, the program fails, or it does not end before `deadline`.
    pub(super) fn open(access: &Access, deadline: Instant) -> Result<Self> {
        Ok(Self { access: access.clone(), credentials: credentials(access, deadline)?, connection: None })
    }

    /// The name of the node whose credentials these are: from the common name `system:node:NAME` of the certificate, or
    /// from the token of a service account that is bound to a node.
    pub(super) fn node_name(&self) -> Option<String> {
        self.credentials.node_name.clone()
    }

    /// `operation object: server: cause`.
    pub(super) fn text(&self, operation: &str, cause: &str) -> String {
        format!("{operation}: {}: {cause}", self.credentials.target.server.url)
    }

    /// Sends a request and reads its response. The status of the response is one that depends on the kind of the request:
    /// the others are errors here. A request is sent again only after a definite refusal of the one before.
    pub(super) fn call(&mut self, call: Call<'_>, deadline: Instant) -> std::result::Result<Response, Unanswered> {
        let operation = call.operation;
        let mut has_renewed = false;
        let mut wait = BUSY;
        if self.credentials.expires.is_some_and(|expires| expires <= SystemTime::now()) {
            self.renew(deadline).map_err(|error| Unanswered::Refused(self.text(operation, &error.to_string())))?;
            has_renewed = true;
        }
        loop {
            let refusal = match self.send(&call, deadline) {
                Ok(Response { status: 401, body, .. }) => refused_credentials(&body),
                Err(Failure::Untrusted(cause)) => cause,
                Ok(response) if response.status == 429 => {
                    let pause = response.retry_after.map_or(wait, Duration::from_secs);
                    wait = wait.saturating_mul(2);
                    self.pause(operation, pause, deadline)?;
                    continue;
                }
                Ok(response) => return self.sort(operation, response),
                Err(Failure::NotSent(cause)) => return Err(Unanswered::Refused(self.text(operation, &cause))),
                Err(Failure::Lost(cause)) => return Err(Unanswered::Lost(self.text(operation, &cause))),
            };
            if has_renewed {
                return Err(Unanswered::Refused(self.text(operation, &refusal)));
            }
            has_renewed = true;
            self.renew(deadline)
                .map_err(|error| Unanswered::Refused(self.text(operation, &format!("{refusal}; then {error}"))))?;
        }
    }

    /// Waits before a busy server is asked again.
    fn pause(&self, operation: &str, pause: Duration, deadline: Instant) -> std::result::Result<(), Unanswered> {
        let jitter = Duration::from_micros(fastrand::u64(..JITTER.min(pause.max(BUSY)).as_micros() as u64));
        let pause = pause.saturating_add(jitter);
        if deadline.saturating_duration_since(Instant::now()) <= pause {
            return Err(Unanswered::Refused(self.text(operation, "the server is busy (status 429)")));
        }
        thread::sleep(pause);
        Ok(())
    }

    /// Reads the credentials again. The old connection goes with the old ones.
    fn renew(&mut self, deadline: Instant) -> Result<()> {
        self.connection = None;
        self.credentials = credentials(&self.access, deadline)?;
        Ok(())
    }

    fn send(&mut self, call: &Call<'_>, deadline: Instant) -> std::result::Result<Response, Failure> {
        let target = &self.credentials.target;
        let mut kept = self.connection.take();
        let connection = match kept.take_if(Connection::is_open) {
            Some(connection) => connection,
            None => Connection::open(target, deadline)?,
        };
        let message = Message {
            method: call.method,
            path: call.path,
            authorization: self.credentials.authorization.as_deref(),
            body: call.body.as_deref(),
            most: call.most,
        };
        let (response, connection) = connection.ask(&target.server, &message, deadline)?;
        self.connection = connection;
        Ok(response)
    }

    fn sort(&self, operation: &str, response: Response) -> std::result::Result<Response, Unanswered> {
        let cause = match (response.status, Status::of(response.status, &response.body).and_then(|s| s.message)) {
            (status, Some(message)) => format!("status {status}: {message}"),
            (status, None) => format!("status {status}"),
        };
        match response.status {
            301 | 302 | 307 | 308 => {
                Err(Unanswered::Refused(self.text(operation, &format!("{cause}: a redirect, which is not followed"))))
            }
            // Client closed, request timeout: a front end has given up, but the server may have not.
            408 | 499 => Err(Unanswered::Lost(self.text(operation, &cause))),
            200..=299 | 400..=498 => Ok(response),
            _ => Err(Unanswered::Lost(self.text(operation, &cause))),
        }
    }
}

/// The cause in a response of status 401.
fn refused_credentials(body: &[u8]) -> String {
    let message = Status::of(401, body).and_then(|status| status.message).unwrap_or_else(|| "Unauthorized".to_owned());
    format!("the server refuses the credentials: {message}")
}

fn credentials(access: &Access, deadline: Instant) -> Result<Credentials> {
    let kubeconfig: Kubeconfig = match &access.kubeconfig {
        Some(path) => kubeconfig::load(path, access.context.as_deref())?,
        None => kubeconfig::in_cluster(|name| env::var(name).ok())?.ok_or_else(|| {
            AccessError::new("find", "the API server", "no kubeconfig is set, and KUBERNETES_SERVICE_HOST is not set")
        })?,
    };
    Credentials::read(&kubeconfig, deadline)
}
