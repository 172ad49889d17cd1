//! Fetches a page from a web server.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::Namespace;
use crate::patience::PATIENCE;

/// The body of the page `/` at port 80 of `ip`. Tries again while the server does not listen.
pub fn get(from: &Namespace, ip: IpAddr) -> String {
    let answer = from.run(|| {
        let address = SocketAddr::new(ip, 80);
        let mut stream = connect(&address);
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("request a page");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("read the page of {address}: {e}"));
        answer
    });
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.") && head.contains(" 200 ") => body.to_owned(),
        _ => panic!("not a page: {answer:?}"),
    }
}

fn connect(address: &SocketAddr) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(stream) => return stream,
            Err(e) if e.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                thread::park_timeout(Duration::from_millis(10));
            }
            Err(e) => panic!("connect to {address}: {e}"),
        }
    }
}
