//! Fetches a page from a web server.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::Namespace;
use crate::patience::PATIENCE;

/// The body of the page `/` at port 80 of `ip`. Tries again while the server does not listen.
#[track_caller]
pub fn get(from: &Namespace, ip: IpAddr) -> String {
    fetch(from, SocketAddr::new(ip, 80), "/", PATIENCE).unwrap_or_else(|error| panic!("{error}"))
}

/// The body of a page, or the reason why there is none. Tries again while the server does not listen. Each of
/// connecting and reading may take so long.
pub fn fetch(from: &Namespace, server: SocketAddr, path: &str, patience: Duration) -> Result<String, String> {
    let answer = from.run(|| {
        let mut stream = connect(&server, patience)?;
        let failed = |e: std::io::Error| format!("read the page of {server}: {e}");
        stream.set_read_timeout(Some(patience)).map_err(failed)?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        Ok::<_, String>(answer)
    })?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.") && head.contains(" 200 ") => Ok(body.to_owned()),
        _ => Err(format!("not a page: {answer:?}")),
    }
}

fn connect(server: &SocketAddr, patience: Duration) -> Result<TcpStream, String> {
    let deadline = Instant::now() + patience;
    loop {
        match TcpStream::connect_timeout(server, patience) {
            Ok(stream) => return Ok(stream),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                thread::park_timeout(Duration::from_millis(10));
            }
            Err(e) => return Err(format!("connect to {server}: {e}")),
        }
    }
}
