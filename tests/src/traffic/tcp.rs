//! A TCP connection with data in both directions.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::Namespace;
use crate::patience::PATIENCE;

/// Connects from `from` to `ip` in `server`, sends `length` bytes, and asserts that they
/// come back as they were.
pub fn echo(from: &Namespace, server: &Namespace, ip: IpAddr, length: usize) {
    let listener = server.run(|| TcpListener::bind((ip, 0))).unwrap_or_else(|e| panic!("listen on {ip}: {e}"));
    let address = listener.local_addr().expect("a listener has an address");
    thread::scope(|scope| {
        let client = scope.spawn(move || from.run(|| send(address, length)));
        // The client gives up in time, and its connection is what accept waits for.
        let (mut stream, _) = match accept(&listener) {
            Some(accepted) => accepted,
            None => panic!("nobody connects to {address}"),
        };
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("read what was sent");
        stream.write_all(&bytes).expect("send it back");
        drop(stream);
        client.join().expect("the client's side of an echo");
    });
}

fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    let deadline = std::time::Instant::now() + PATIENCE;
    let ready = super::readable(listener, deadline).expect("wait for a connection");
    ready.then(|| listener.accept().expect("accept a connection"))
}

fn send(address: SocketAddr, length: usize) {
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("connect to {address}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
    stream.write_all(&bytes).expect("send");
    stream.shutdown(Shutdown::Write).expect("end the sending");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("read the echo");
    assert!(back == bytes, "the echo differs: {} bytes of {length}", back.len());
}
