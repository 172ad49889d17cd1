//! Creates load: iperf3 for streams, and processes of this program for small exchanges.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use e2e::Namespace;
use e2e::traffic::readable;
use serde_json::Value;

use crate::peer::{self, Samples};

/// A start or an end takes less, also in a guest.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
pub(crate) const STREAM_PORT: u16 = 5201;
/// The port of the first server of small exchanges. The ports of the others follow.
pub(crate) const FIRST_PORT: u16 = 7000;

/// The length of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    Seconds(u32),
    Megabytes(u32),
}

/// The bytes that were received, and the time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stream {
    pub(crate) bytes: f64,
    pub(crate) seconds: f64,
}

/// One stream from the client to the server.
pub(crate) fn stream(client: &Namespace, server: &Namespace, to: SocketAddr, amount: Amount) -> Result<Stream, String> {
    let port = to.port().to_string();
    thread::scope(|scope| {
        let (listening, listens) = mpsc::channel();
        let port = &port;
        let receiver = scope.spawn(move || {
            server.run(|| {
                let mut command = iperf3();
                // It ends after one client, or without one at a deadline. `timeout` may be killed before setpriv(1) binds
                // iperf3 to it. Then only this deadline ends it.
                let idle = ANSWER_WITHIN.as_secs().to_string();
                let mut child = spawn(command.args(["-s", "-1", "-p", port, "--forceflush", "--idle-timeout", &idle]))?;
                let out = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
                let mut said = String::new();
                for line in out.lines().map_while(Result::ok) {
                    if line.starts_with("Server listening") {
                        let _ = listening.send(());
                    }
                    said = line;
                }
                drop(listening);
                let status = child.wait().map_err(|e| format!("wait for iperf3: {e}"))?;
                if status.success() { Ok(()) } else { Err(format!("iperf3 as a server: {status}: {said}")) }
            })
        });
        let sent = listens.recv().map_err(|_| "iperf3 does not listen".to_owned()).and_then(|()| {
            client.run(|| {
                let mut command = iperf3();
                let words = format!("-c {} -p {port} -C cubic -J --connect-timeout 5000", to.ip());
                command.args(words.split(' '));
                match amount {
                    Amount::Seconds(seconds) => command.args(["-t", &seconds.to_string()]),
                    Amount::Megabytes(megabytes) => command.args(["-n", &format!("{megabytes}M")]),
                };
                let output = command.output().map_err(|e| format!("start iperf3: {e}"))?;
                received(&output.stdout)
            })
        });
        let served = receiver.join().map_err(|_| "the thread of iperf3's server panicked".to_owned())?;
        sent.and_then(|stream| served.map(|()| stream))
    })
}

/// iperf3, which ends with this process or at a deadline.
fn iperf3() -> Command {
    let mut command = Command::new("setpriv");
    let seconds = ANSWER_WITHIN.as_secs().to_string();
    command.args(["--pdeathsig", "KILL", "timeout", "--signal", "KILL", &seconds]);
    command.args(["setpriv", "--pdeathsig", "KILL", "iperf3"]).stdin(Stdio::null());
    command
}

/// Reads the JSON of the client.
fn received(json: &[u8]) -> Result<Stream, String> {
    let report: Value = serde_json::from_slice(json).map_err(|e| format!("iperf3 printed no JSON: {e}"))?;
    if let Some(error) = report["error"].as_str() {
        return Err(format!("iperf3: {error}"));
    }
    let sum = &report["end"]["sum_received"];
    let stream = sum["bytes"].as_f64().zip(sum["seconds"].as_f64());
    let stream = stream.map(|(bytes, seconds)| Stream { bytes, seconds });
    stream.ok_or_else(|| "iperf3's JSON has no end.sum_received with bytes and seconds".to_owned())
}

/// Small exchanges on one connection, or each on a new one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exchange {
    Repeat,
    Reconnect,
}

/// A server and a client for each port, ready to start.
pub(crate) struct Peers {
    clients: Vec<Peer>,
    /// They end when they are dropped.
    _servers: Vec<Peer>,
}

impl Peers {
    /// Starts servers and clients. When it returns, each client has connected once.
    pub(crate) fn start(
        client: &Namespace,
        server: &Namespace,
        to: SocketAddr,
        kind: Exchange,
        pairs: u16,
        time: Duration,
    ) -> Result<Self, String> {
        let ports = to.port()..to.port() + pairs;
        let kind = match kind {
            Exchange::Repeat => "rr",
            Exchange::Reconnect => "crr",
        };
        let start = |netns: &Namespace, arguments: &dyn Fn(u16) -> Vec<String>| {
            // First all are started, then each is waited for.
            let peers = ports.clone().map(|port| Peer::start(netns, &arguments(port)));
            let mut peers = peers.collect::<Result<Vec<_>, _>>()?;
            peers.iter_mut().try_for_each(Peer::await_ready)?;
            Ok::<_, String>(peers)
        };
        let servers = start(server, &|port| vec!["serve".to_owned(), format!("0.0.0.0:{port}")])?;
        let millis = time.as_millis().to_string();
        let clients =
            start(client, &|port| vec![kind.to_owned(), SocketAddr::new(to.ip(), port).to_string(), millis.clone()])?;
        Ok(Self { clients, _servers: servers })
    }

    /// Starts all clients at once, and waits for their results.
    pub(crate) fn go(mut self) -> Result<Vec<Samples>, String> {
        for client in &mut self.clients {
            drop(client.child.stdin.take());
        }
        self.clients.iter_mut().map(Peer::finish).collect()
    }
}

struct Peer {
    child: Child,
    stdout: ChildStdout,
}

impl Peer {
    fn start(netns: &Namespace, arguments: &[String]) -> Result<Self, String> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(peer::ARGUMENT).args(arguments).stdin(Stdio::piped());
        let mut child = netns.run(|| spawn(&mut command))?;
        let stdout = child.stdout.take().expect("stdout is a pipe");
        Ok(Self { child, stdout })
    }

    fn await_ready(&mut self) -> Result<(), String> {
        let mut byte = [0];
        self.readable(Instant::now() + ANSWER_WITHIN)?;
        match self.stdout.read(&mut byte) {
            Ok(1) if byte == [peer::READY] => Ok(()),
            Ok(_) => Err("a peer ended before it was ready".to_owned()),
            Err(e) => Err(format!("read from a peer: {e}")),
        }
    }

    fn finish(&mut self) -> Result<Samples, String> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            self.readable(deadline)?;
            match self.stdout.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => bytes.extend(&buffer[..length]),
                Err(e) => return Err(format!("read from a peer: {e}")),
            }
        }
        Samples::decode(&bytes).ok_or_else(|| "a peer ended without its samples".to_owned())
    }

    fn readable(&self, deadline: Instant) -> Result<(), String> {
        match readable(&self.stdout, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("no answer of a peer for {ANSWER_WITHIN:?}")),
            Err(e) => Err(format!("wait for a peer: {e}")),
        }
    }
}

impl Drop for Peer {
    /// Ends a server. A client has ended already, except after an error.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command) -> Result<Child, String> {
    let spawned = command.stdout(Stdio::piped()).spawn();
    spawned.map_err(|e| format!("start {}: {e}", command.get_program().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_iperf3_is_read_or_its_error() {
        let good = br#"{"end": {"sum_sent": {"bytes": 9}, "sum_received": {"bytes": 7, "seconds": 2}}}"#;
        assert_eq!(received(good), Ok(Stream { bytes: 7.0, seconds: 2.0 }));
        let bad = br#"{"start": {}, "error": "unable to connect"}"#;
        assert_eq!(received(bad), Err("iperf3: unable to connect".to_owned()));
        assert!(received(b"").is_err_and(|error| error.starts_with("iperf3 printed no JSON")));
    }
}
