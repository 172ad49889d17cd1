//! A server whose replies are chosen bytes. It reads each request completely, and replies with the next reply.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Access, Client, soon};

pub(super) struct Reply {
    bytes: Vec<u8>,
    /// The server closes the connection after the bytes.
    closes: bool,
    /// It is run before the reply is sent.
    first: Option<Box<dyn FnOnce() + Send>>,
}

impl Reply {
    pub(super) fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), closes: false, first: None }
    }

    pub(super) fn text(code: u16, headers: &str, body: &str) -> Self {
        let date = "Date: Fri, 27 Nov 2026 10:01:30 GMT\r\n";
        Self::bytes(format!("HTTP/1.1 {code} X\r\n{date}{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
    }

    pub(super) fn json(code: u16, body: &serde_json::Value) -> Self {
        Self::text(code, "Content-Type: application/json\r\n", &body.to_string())
    }

    /// The same response, with a body in chunks of so many bytes.
    pub(super) fn chunked(self, size: usize) -> Self {
        let text = String::from_utf8(self.bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let head = head.split("Content-Length").next().unwrap();
        let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for chunk in body.as_bytes().chunks(size) {
            bytes.extend(format!("{:X};extension=1\r\n", chunk.len()).bytes().chain(chunk.iter().copied()));
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\nTrailer: x\r\n\r\n");
        Self { bytes, ..Self::bytes("") }
    }

    /// Only the first bytes are sent. Then the connection is closed.
    pub(super) fn cut(self, length: usize) -> Self {
        Self { bytes: self.bytes[..length].to_vec(), closes: true, ..self }
    }

    pub(super) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    pub(super) fn after(self, first: impl FnOnce() + Send + 'static) -> Self {
        Self { first: Some(Box::new(first)), ..self }
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Default)]
struct Shared {
    replies: VecDeque<Reply>,
    requests: Vec<String>,
    connections: usize,
    /// Connections that the server has closed.
    ended: usize,
}

pub(super) struct Server {
    shared: Arc<Mutex<Shared>>,
    pub(super) port: u16,
    pub(super) directory: tempfile::TempDir,
}

impl Server {
    pub(super) fn start(replies: Vec<Reply>) -> Self {
        Self::serve(replies, |stream| Ok(Box::new(stream)))
    }

    /// A server with TLS. Its configuration is asked for each connection.
    pub(super) fn start_tls(replies: Vec<Reply>, config: impl Fn() -> Arc<ServerConfig> + Send + 'static) -> Self {
        Self::serve(replies, move |stream| {
            let connection = ServerConnection::new(config()).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            Ok(Box::new(stream))
        })
    }

    fn serve(replies: Vec<Reply>, accept: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + 'static) -> Self {
        let shared = Arc::new(Mutex::new(Shared { replies: replies.into(), ..Shared::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let of_server = Arc::clone(&shared);
        thread::spawn(move || {
            // One connection after the other. A silent reply ends when the client closes.
            for stream in listener.incoming() {
                of_server.lock().unwrap().connections += 1;
                if let Ok(stream) = accept(stream.unwrap()) {
                    // The client may close the connection at any time.
                    _ = converse(stream, &of_server);
                }
                of_server.lock().unwrap().ended += 1;
            }
        });
        Self { shared, port, directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.shared.lock().unwrap().requests.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.lock().unwrap().connections
    }

    /// Waits until the server has closed so many connections.
    pub(super) fn await_end(&self, connections: usize) {
        let deadline = soon();
        while self.shared.lock().unwrap().ended < connections {
            assert!(Instant::now() < deadline, "the server does not close its connection");
            thread::yield_now();
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Writes a kubeconfig with these lines of the cluster and of the user.
    pub(super) fn kubeconfig(&self, cluster: &str, user: &str) -> PathBuf {
        let path = self.directory.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig(cluster, user)).unwrap();
        path
    }

    pub(super) fn client(&self) -> Client {
        open(&self.kubeconfig(&format!("server: {}", self.url()), "token: secret"))
    }
}

pub(super) fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
         clusters:\n- name: k\n  cluster: {{{cluster}}}\nusers:\n- name: u\n  user: {{{user}}}\n"
    )
}

pub(super) fn open(kubeconfig: &Path) -> Client {
    let access = Access { kubeconfig: Some(kubeconfig.to_owned()), context: None };
    Client::open(&access, "office", Some("node1"), None, soon()).unwrap()
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn converse(mut stream: Box<dyn Stream>, shared: &Mutex<Shared>) -> io::Result<()> {
    loop {
        let request = request(&mut stream)?;
        let reply = {
            let mut shared = shared.lock().unwrap();
            shared.requests.push(request);
            shared.replies.pop_front()
        };
        // Too many requests are seen by the test. The connection is closed.
        let Some(reply) = reply else { return Ok(()) };
        if let Some(first) = reply.first {
            first();
        }
        stream.write_all(&reply.bytes)?;
        stream.flush()?;
        if reply.closes {
            return Ok(());
        }
    }
}

fn request(stream: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.split("Content-Length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
            if body.len() >= length {
                return Ok(text);
            }
        }
        let mut byte = [0; 4096];
        match stream.read(&mut byte)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&byte[..count]),
        }
    }
}
