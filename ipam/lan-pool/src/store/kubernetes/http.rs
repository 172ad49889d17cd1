//! One HTTP/1.1 request with its response, over TCP and TLS. Unlike a general client it tells whether a request that failed
//! can have been carried out. It follows no redirect, uses no proxy, asks for no compression, and sends nothing twice.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection, StreamOwned};

use super::kubeconfig::Server;
use super::response::{Broken, Incoming, Response};

/// The time for one address of the server to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that was idle for longer is not used again: something between could have forgotten it.
const IDLE: Duration = Duration::from_secs(5);

/// The server of the requests.
pub(super) struct Target {
    pub(super) server: Server,
    /// With `http://`, `None`.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// A request.
pub(super) struct Message<'a> {
    pub(super) method: &'static str,
    /// The path from `/apis` or `/api` on, with the query.
    pub(super) path: &'a str,
    pub(super) authorization: Option<&'a str>,
    /// JSON.
    pub(super) body: Option<&'a [u8]>,
    /// Bytes of the body of the response.
    pub(super) most: usize,
}

/// The reason why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The request was not sent.
    NotSent(String),
    /// TLS has failed, so the server has not read the request. The certificate of one side is not good for the other.
    Untrusted(String),
    /// The request was sent, at least in part.
    Lost(String),
}

/// A connection that can carry one request after the other.
pub(super) struct Connection {
    stream: Stream,
    used: Instant,
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

/// A TCP stream whose reads and writes end at a time.
struct Timed {
    tcp: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A socket's timeout is `WouldBlock`. (socket(7), `SO_RCVTIMEO`)
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.left()?))?;
        self.tcp.read(buffer).map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(self.left()?))?;
        self.tcp.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// True if no decrypted bytes wait to be read.
    fn is_drained(&mut self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(stream) => {
                stream.conn.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() == 0)
            }
        }
    }

    fn timed(&mut self) -> &mut Timed {
        match self {
            Self::Plain(timed) => timed,
            Self::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(timed) => timed.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Connection {
    /// Connects, and ends the TLS handshake. Nothing is sent to the server's program, so each failure is definite.
    pub(super) fn open(target: &Target, deadline: Instant) -> Result<Self, Failure> {
        let tcp = connect(&target.server, deadline).map_err(Failure::NotSent)?;
        // A delay is a loss of time only: a request is one packet.
        _ = tcp.set_nodelay(true);
        let mut timed = Timed { tcp, deadline };
        let stream = match &target.tls {
            None => Stream::Plain(timed),
            Some((config, name)) => {
                let failed = |error: rustls::Error| Failure::Untrusted(format!("TLS: {error}"));
                let mut tls = ClientConnection::new(Arc::clone(config), name.clone()).map_err(failed)?;
                while tls.is_handshaking() {
                    let Err(error) = tls.complete_io(&mut timed) else { continue };
                    return Err(match of_tls(&error).cloned().or_else(|| alert(&mut tls, &mut timed, &error)) {
                        Some(error) => failed(error),
                        None => Failure::NotSent(format!("TLS handshake: {}", text(&error))),
                    });
                }
                Stream::Tls(Box::new(StreamOwned::new(tls, timed)))
            }
        };
        Ok(Self { stream, used: Instant::now() })
    }

    /// True if another request can be sent: the server has neither closed the connection nor sent more than it was asked.
    pub(super) fn is_open(&mut self) -> bool {
        let tcp = &self.stream.timed().tcp;
        let quiet = || {
            tcp.set_nonblocking(true)?;
            let peeked = tcp.peek(&mut [0]);
            tcp.set_nonblocking(false)?;
            peeked
        };
        self.used.elapsed() < IDLE && quiet().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a request and reads its response. The connection is returned if it can carry another request.
    pub(super) fn ask(
        mut self,
        server: &Server,
        message: &Message<'_>,
        deadline: Instant,
    ) -> Result<(Response, Option<Self>), Failure> {
        self.stream.timed().deadline = deadline;
        if let Err(error) = self.stream.timed().left() {
            return Err(Failure::NotSent(text(&error)));
        }
        let sent = self.stream.write_all(&head(server, message)).and_then(|()| self.stream.flush());
        if let Err(error) = sent {
            return Err(match &mut self.stream {
                Stream::Tls(tls) => match alert(&mut tls.conn, &mut tls.sock, &error) {
                    Some(alert) => failure(&io::Error::other(alert), "send the request"),
                    None => failure(&error, "send the request"),
                },
                Stream::Plain(_) => failure(&error, "send the request"),
            });
        }
        let mut incoming = Incoming { stream: &mut self.stream, bytes: Vec::new() };
        let response = incoming.response(message.most);
        let (response, is_last) = response.map_err(|broken| match broken {
            // After its first byte the server has read the request.
            Broken::Io(error) if incoming.bytes.is_empty() => failure(&error, "wait for the response"),
            Broken::Io(error) => Failure::Lost(format!("read the response: {}", text(&error))),
            Broken::Wrong(cause) => Failure::Lost(format!("read the response: {cause}")),
        })?;
        let again = incoming.bytes.is_empty() && !is_last && self.stream.is_drained();
        self.used = Instant::now();
        Ok((response, again.then_some(self)))
    }
}

fn head(server: &Server, message: &Message<'_>) -> Vec<u8> {
    let Message { method, path, authorization, body, .. } = message;
    let mut head = format!(
        "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: lan-pool/{}\r\nAccept: application/json\r\n",
        server.prefix,
        server.authority,
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(authorization) = authorization {
        head += &format!("Authorization: {authorization}\r\n");
    }
    if let Some(body) = body {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    [head.as_bytes(), body.unwrap_or_default()].concat()
}

/// The error of TLS in an error of a stream.
fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The alert that a server has sent before it closed the connection, if a write has failed for that reason.
fn alert(tls: &mut ClientConnection, timed: &mut Timed, error: &io::Error) -> Option<rustls::Error> {
    if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
        return None;
    }
    loop {
        match tls.read_tls(timed) {
            Ok(0) | Err(_) => return None,
            Ok(_) => match tls.process_new_packets() {
                Ok(_) => {}
                Err(error) => return Some(error),
            },
        }
    }
}

/// The kinds of `ErrorKind` have long texts, and a closed connection has none that says so.
fn text(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut => "timed out".to_owned(),
        ErrorKind::UnexpectedEof => "the server has closed the connection".to_owned(),
        // The standard library has such an error, if the kernel gives up a connection and says no reason.
        _ if error.raw_os_error().is_none() && error.to_string().contains("POLLHUP") => {
            "no route, or a link is down".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A failure before the first byte of the response. With TLS 1.3 a server refuses the certificate of a client after the
/// client's handshake is done, and before it reads the request. (RFC 8446, section 4.4.2.4)
fn failure(error: &io::Error, operation: &str) -> Failure {
    use AlertDescription as Alert;
    match of_tls(error) {
        Some(rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired),
        )) => Failure::Untrusted(format!("TLS: the server refuses the client certificate: {alert:?}")),
        _ => Failure::Lost(format!("{operation}: {}", text(error))),
    }
}

/// Connects to the first address that accepts.
fn connect(server: &Server, deadline: Instant) -> Result<TcpStream, String> {
    let mut last = "no address".to_owned();
    for address in addresses(server, deadline)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("timed out".to_owned());
        }
        match TcpStream::connect_timeout(&address, left.min(CONNECT)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("connect to {address}: {}", text(&error)),
        }
    }
    Err(last)
}

fn addresses(server: &Server, deadline: Instant) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = server.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, server.port)]);
    }
    // The resolver has no deadline of its own. A thread that is late ends with the process.
    let (send, receive) = mpsc::channel();
    let name = (server.host.clone(), server.port);
    let look_up = move || _ = send.send(name.to_socket_addrs().map(Iterator::collect));
    let failed = |cause: &dyn std::fmt::Display| format!("resolve {}: {cause}", server.host);
    thread::Builder::new().spawn(look_up).map_err(|error| failed(&error))?;
    match receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(found) => found.map_err(|error| failed(&error)),
        Err(_) => Err(failed(&"timed out")),
    }
}
