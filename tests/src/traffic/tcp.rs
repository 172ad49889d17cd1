//! A TCP connection that carries data in both directions, and the segments that a machine receives.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Instant;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

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

/// Runs `f`. Returns the sources of all segments of IPv4 that `at` received meanwhile.
pub fn sources(at: &Namespace, f: impl FnOnce()) -> BTreeSet<SocketAddr> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = at.run(|| socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Tcp));
    let socket = socket.expect("open a raw socket");
    f();
    let mut buffer = [0; 2048];
    let received = std::iter::from_fn(|| {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok()?;
        Some(source(&buffer[..length]).expect("a segment has a source"))
    });
    received.collect()
}

/// The source of a packet with a segment. (RFC 791, RFC 9293)
fn source(packet: &[u8]) -> Option<SocketAddr> {
    let address: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let header = usize::from(packet[0] & 0xf) * 4;
    let port = u16::from_be_bytes(packet.get(header..header + 2)?.try_into().ok()?);
    Some(SocketAddrV4::new(Ipv4Addr::from(address), port).into())
}
