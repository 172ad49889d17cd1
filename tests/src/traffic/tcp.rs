//! A TCP connection that carries data in both directions.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use crate::Namespace;
use crate::patience::PATIENCE;

/// Connects from `from` to `ip` in `server`, sends `length` bytes, and asserts that the same bytes come back.
pub fn echo(from: &Namespace, server: &Namespace, ip: IpAddr, length: usize) {
    let listener = server.run(|| TcpListener::bind((ip, 0))).unwrap_or_else(|e| panic!("listen on {ip}: {e}"));
    let address = listener.local_addr().expect("a listener has an address");
    thread::scope(|scope| {
        let client = scope.spawn(move || from.run(|| send(address, length)));
        let ready = super::readable(&listener, Instant::now() + PATIENCE).expect("wait for a connection");
        assert!(ready, "there is no connection to {address}");
        let (mut stream, _) = listener.accept().expect("accept a connection");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("read the data");
        stream.write_all(&bytes).expect("send the data back");
        drop(stream);
        client.join().expect("the client of an echo");
    });
}

fn send(address: SocketAddr, length: usize) {
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("connect to {address}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
    stream.write_all(&bytes).expect("send");
    stream.shutdown(Shutdown::Write).expect("end the data");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("read the echo");
    assert!(back == bytes, "the echo differs: {} bytes of {length}", back.len());
}
