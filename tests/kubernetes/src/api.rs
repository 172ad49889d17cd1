//! A client of the API server. It speaks plain HTTP to a program that adds TLS: `kubectl proxy` or openssl(1).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::patience::PATIENCE;
use serde_json::{Value, json};

/// The API server of one cluster, for one user.
#[derive(Clone, Debug)]
pub struct Api {
    connection: Connection,
    /// Lines of each request.
    headers: String,
}

#[derive(Clone, Debug)]
enum Connection {
    /// The socket of `kubectl proxy`, which adds TLS and the token of its user.
    Proxy(PathBuf),
    /// A command with a connection in its stdin and stdout.
    Command(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code of HTTP.
    pub status: u16,
    /// The object of Kubernetes. If the body is not JSON, its text.
    pub body: Value,
}

impl Api {
    /// `socket` is that of the proxy.
    pub fn new(socket: PathBuf) -> Self {
        Self { connection: Connection::Proxy(socket), headers: String::new() }
    }

    /// Each request starts the command, writes to its stdin and reads from its stdout.
    pub(crate) fn over(command: Vec<String>) -> Self {
        Self { connection: Connection::Command(command), headers: String::new() }
    }

    /// Adds a header to all requests.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// Sends one request. Only a failed connection is an error.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        // With HTTP 1.0, the server sends the answer in one piece and then closes the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n{}\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}",
            self.headers
        );
        let answer = match &self.connection {
            Connection::Proxy(socket) => ask_proxy(socket, &request),
            Connection::Command(command) => ask_command(command, &request),
        };
        let answer = answer.map_err(|e| format!("{method} {path}: {e}"))?;
        parse(&answer).ok_or_else(|| format!("{method} {path}: {answer:?}"))
    }

    /// The object at that path.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.must("GET", path, None)
    }

    /// The items of the list at that path.
    pub fn list(&self, path: &str) -> Result<Vec<Value>, String> {
        let mut answer = self.request("GET", path, None)?;
        match answer.body["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(format!("GET {path} is not a list: {answer:?}")),
        }
    }

    /// Creates an object in the list at that path.
    #[track_caller]
    pub fn create(&self, path: &str, object: &Value) -> Value {
        self.must("POST", path, Some(object))
    }

    /// Changes some fields of an object.
    #[track_caller]
    pub fn patch(&self, path: &str, fields: &Value) -> Value {
        self.must("PATCH", path, Some(fields))
    }

    /// Deletes an object. Kubernetes then deletes the objects that it owns.
    #[track_caller]
    pub fn delete(&self, path: &str) {
        self.must("DELETE", path, Some(&json!({"propagationPolicy": "Background"})));
    }

    /// Deletes an object without waiting for the kubelet, as `kubectl delete --force --grace-period=0` does.
    #[track_caller]
    pub fn force_delete(&self, path: &str) {
        self.must("DELETE", path, Some(&json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"})));
    }

    #[track_caller]
    fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        match self.request(method, path, body) {
            Ok(Answer { status: 200..300, body }) => body,
            Ok(Answer { status, body }) => panic!("{method} {path}: {status}: {body}"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn ask_proxy(socket: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn ask_command(command: &[String], request: &str) -> io::Result<String> {
    // A server that is paused does not answer.
    let mut child = Command::new("timeout")
        .arg(PATIENCE.as_secs().to_string())
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // The command ends before it has read the request, if it cannot connect.
    let written = stdin.write_all(request.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    match written {
        Ok(()) if !output.stdout.is_empty() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        written => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("{command:?}: {}: {written:?}: {stderr}", output.status)))
        }
    }
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Some(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_and_the_body_of_an_answer_are_read() {
        let answer = parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"kind\": \"Pod\"}").unwrap();
        assert_eq!((answer.status, answer.body), (200, json!({"kind": "Pod"})));
        let answer = parse("HTTP/1.0 502 Bad Gateway\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body), (502, json!("")));
        assert!(parse("HTTP").is_none());
    }
}
