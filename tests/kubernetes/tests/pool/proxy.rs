//! A TCP proxy between a node and the API server that loses, cuts and delays. It does not read the encrypted content.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::site::{PoolNode, Shared, addresses};

/// The work of a proxy on each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The connection ends after so many bytes of the server. The server has got everything.
    CutAnswer(u64),
    /// The connection ends after so many bytes of the client.
    CutRequest(u64),
    /// The server's bytes after so many stay in the proxy until the client has gone.
    HoldAnswer(u64),
    /// The client's bytes after so many stay in the proxy until the client has gone, and are delivered then.
    HoldRequest(u64),
}

/// A proxy on the loopback of a node.
struct Proxy {
    address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
    /// The bytes of the client and of the server in the last connection.
    bytes: Arc<[AtomicU64; 2]>,
    ends: Arc<AtomicBool>,
}

impl Proxy {
    fn start(node: &PoolNode<'_>, server: SocketAddr) -> Self {
        let listener = node.machine.run(|| TcpListener::bind("127.0.0.1:0").expect("bind the proxy"));
        let address = listener.local_addr().expect("its address");
        let (fault, ends) = (Arc::new(Mutex::new(Fault::None)), Arc::new(AtomicBool::new(false)));
        let bytes: Arc<[AtomicU64; 2]> = Arc::default();
        let proxy = Self { address, fault: Arc::clone(&fault), bytes: Arc::clone(&bytes), ends: Arc::clone(&ends) };
        let netns = node.machine.path().to_owned();
        thread::spawn(move || {
            let node = e2e::Namespace::open(&netns).expect("the namespace of the node");
            while let Ok((client, _)) = listener.accept() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(upstream) = node.run(|| TcpStream::connect(server)) else { continue };
                let fault = *fault.lock().expect("the fault");
                bytes.iter().for_each(|count| count.store(0, Ordering::Relaxed));
                let bytes = Arc::clone(&bytes);
                thread::spawn(move || relay(&client, &upstream, fault, &bytes));
            }
        });
        proxy
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().expect("the fault") = fault;
    }

    fn counted(&self) -> [u64; 2] {
        [0, 1].map(|at: usize| self.bytes[at].load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn relay(client: &TcpStream, upstream: &TcpStream, fault: Fault, bytes: &[AtomicU64; 2]) {
    let (cut_request, hold_request) = match fault {
        Fault::CutRequest(at) => (Some(at), None),
        Fault::HoldRequest(at) => (None, Some(at)),
        _ => (None, None),
    };
    let (cut_answer, hold_answer) = match fault {
        Fault::CutAnswer(at) => (Some(at), None),
        Fault::HoldAnswer(at) => (None, Some(at)),
        _ => (None, None),
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let held = pump(client, upstream, cut_request, hold_request, &bytes[0]);
            // The client has gone. Its late bytes arrive now.
            let _ = (&*upstream).write_all(&held);
            // The server reads to the end, and answers nobody. An early end could stop its work.
            if fault == Fault::None || cut_request.is_some() {
                let _ = upstream.shutdown(Shutdown::Both);
            }
        });
        scope.spawn(|| {
            pump(upstream, client, cut_answer, hold_answer, &bytes[1]);
            let _ = client.shutdown(Shutdown::Both);
        });
    });
}

/// Copies until the end, or until `cut`. After `hold`, the bytes are kept, and returned at the end.
fn pump(mut from: &TcpStream, mut to: &TcpStream, cut: Option<u64>, hold: Option<u64>, count: &AtomicU64) -> Vec<u8> {
    let mut held = Vec::new();
    // A server that is never answered closes the connection by itself. This is for the case that it does not.
    let _ = from.set_read_timeout(Some(Duration::from_secs(30)));
    let mut buffer = [0; 4096];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return held,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return held,
        };
        let before = count.fetch_add(read as u64, Ordering::Relaxed);
        let passes = |limit: u64| usize::try_from(limit.saturating_sub(before)).map_or(read, |left| left.min(read));
        match (cut, hold) {
            (Some(cut), _) if passes(cut) < read => {
                let _ = to.write_all(&buffer[..passes(cut)]);
                let _ = from.shutdown(Shutdown::Both);
                return held;
            }
            (_, Some(hold)) => {
                let pass = passes(hold);
                if to.write_all(&buffer[..pass]).is_err() {
                    return held;
                }
                held.extend_from_slice(&buffer[pass..read]);
            }
            _ => {
                if to.write_all(&buffer[..read]).is_err() {
                    return held;
                }
            }
        }
    }
}

/// The kubeconfig of a node, with the proxy as its server.
fn kubeconfig(shared: &Shared, node: &PoolNode<'_>, proxy: &Proxy) -> PathBuf {
    let text = fs::read_to_string(node.kubeconfig()).expect("read the kubeconfig");
    let server = shared.server.server_url();
    let host = server.trim_start_matches("https://").split(':').next().expect("a host");
    let line = format!("server: https://{}\n    tls-server-name: {host}", proxy.address);
    assert!(text.contains(&format!("server: {server}")), "{text}");
    let path = node.data.with_extension("proxied.conf");
    fs::write(&path, text.replace(&format!("server: {server}"), &line)).expect("write the kubeconfig");
    path
}

fn server_address(shared: &Shared) -> SocketAddr {
    shared.server.server_url().trim_start_matches("https://").parse().expect("an address with a port")
}

fn leased(shared: &Shared, lan: &str) -> Vec<String> {
    let mut leased: Vec<String> =
        shared.leases(lan).iter().map(|lease| lease["address"].as_str().unwrap_or_default().to_owned()).collect();
    leased.sort();
    leased
}

/// Each connection is cut at the same place. So a call can lose each of its answers, also that of the delete.
#[test]
fn a_connection_that_is_cut_at_many_places_leaves_nothing() {
    let shared = Shared::get();
    let node = shared.node("cuts", "cuts-1");
    let proxy = Proxy::start(&node, server_address(&shared));
    let mut conf = node.conf(10, 12);
    let good = conf.clone();
    conf["ipam"]["store"]["kubernetes"]["kubeconfig"] = json!(kubeconfig(&shared, &node, &proxy));
    let container = node.container();
    node.add(&container, &conf).result();
    let [requests, answers] = proxy.counted();
    node.del(&container, &conf).done();
    assert!(requests > 1000 && answers > 1000, "{requests} and {answers} bytes");
    // The server's part with the answers to requests is behind the handshake.
    let places = |bytes: u64| (0..8).map(move |part| bytes / 2 + bytes * part / 16);
    let cuts = places(answers).map(Fault::CutAnswer).chain(places(requests).map(Fault::CutRequest));
    for fault in cuts {
        proxy.set(fault);
        let added = node.add(&container, &conf);
        if added.status.success() {
            let mut given = addresses(&added.result());
            given.sort();
            assert_eq!(leased(&shared, "cuts"), given, "{fault:?}: {}", added.text());
        } else {
            added.fails(11, &["store: "]);
        }
        let deleted = node.del(&container, &conf);
        deleted.done();
        proxy.set(Fault::None);
        node.gc(&good).done();
        assert_eq!(leased(&shared, "cuts"), [""; 0], "{fault:?}: {} {}", added.text(), deleted.text());
    }
}

/// The server does the work, and the answers come after the caller has given up. Or the request comes to the server then.
#[test]
fn answers_and_requests_that_are_late_give_no_address_twice() {
    let shared = Shared::get();
    let tries = [(1, "late-1"), (2, "late-2"), (3, "late-3"), (4, "late-4")];
    thread::scope(|scope| {
        for (part, lan) in tries {
            let shared = &shared;
            scope.spawn(move || late(shared, lan, part));
        }
    });
}

fn late(shared: &Shared, lan: &'static str, part: u64) {
    let node = shared.node(lan, lan);
    let proxy = Proxy::start(&node, server_address(shared));
    let mut conf = node.conf(10, 10);
    let good = conf.clone();
    conf["ipam"]["store"]["kubernetes"]["kubeconfig"] = json!(kubeconfig(shared, &node, &proxy));
    let (container, other) = (node.container(), node.container());
    node.add(&container, &conf).result();
    let [requests, answers] = proxy.counted();
    node.del(&container, &conf).done();
    let fault = match part {
        1 => Fault::HoldAnswer(answers * 3 / 4),
        2 => Fault::HoldAnswer(answers - 200),
        3 => Fault::HoldRequest(requests * 3 / 4),
        _ => Fault::HoldRequest(requests / 2),
    };
    proxy.set(fault);
    let added = node.add(&container, &conf);
    added.fails(11, &["store: "]);
    proxy.set(Fault::None);
    node.del(&container, &good).done();
    // The pool has one address of each family. Another container gets it, however late the first request came.
    let given = node.add(&other, &good);
    let lost = || format!("{fault:?}: {} {}", added.text(), given.text());
    match given.status.success() {
        true => assert_eq!(leased(shared, lan).len(), 2, "{}", lost()),
        // The late lease is found by a sweep, and then the address is free.
        false => {
            node.gc(&good).done();
            node.add(&other, &good).result();
        }
    }
    let owners = shared.leases(lan);
    assert!(owners.iter().all(|lease| lease["containerID"] == other.id.as_str()), "{}: {owners:?}", lost());
    node.del(&other, &good).done();
    node.gc(&good).done();
    assert_eq!(leased(shared, lan), [""; 0], "{}", lost());
}
