//! A client of the API server. It speaks plain HTTP to the socket of `kubectl proxy`, which adds TLS and the token of
//! the administrator.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use e2e::patience::PATIENCE;
use serde_json::{Value, json};

/// The API server of one cluster.
#[derive(Debug)]
pub struct Api {
    socket: PathBuf,
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
        Self { socket }
    }

    /// Sends one request. Only a failed connection is an error.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        // With HTTP 1.0, the server sends the answer in one piece and then closes the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let failed = |e: std::io::Error| format!("{method} {path}: {e}");
        let mut stream = UnixStream::connect(&self.socket).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(failed)?;
        let answer = String::from_utf8_lossy(&answer);
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
