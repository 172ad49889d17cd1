//! `kubectl`, in a [`Cluster`] as the administrator.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use e2e::Namespace;
use e2e::binaries::peers;

use crate::Cluster;

/// A running `kubectl port-forward`. Its drop ends it.
#[derive(Debug)]
pub struct Forward {
    child: Child,
    /// The address on which it listens.
    pub address: SocketAddr,
}

impl Cluster {
    /// Runs `kubectl` on a machine of the LAN. Returns its stdout. Panics if it fails.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.kubectl_in(&self.gateway, arguments, input).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `kubectl` in a namespace. Returns its stdout.
    pub fn kubectl_in(&self, from: &Namespace, arguments: &[&str], input: &str) -> Result<String, String> {
        from.run(|| run(self.command(arguments), input))
    }

    /// Forwards a port of the gateway to a port of a pod.
    pub fn forward(&self, pod: &str, port: u16) -> Forward {
        let arguments = ["port-forward", &format!("pod/{pod}"), &format!(":{port}")];
        let mut child = self.gateway.run(|| spawn(&mut self.command(&arguments)));
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("read the output of kubectl");
        // `Forwarding from 127.0.0.1:39527 -> 80`
        let word = line.split_whitespace().find_map(|word| word.strip_prefix("127.0.0.1:"));
        let port = word.and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("kubectl does not say where it listens: {line:?}"));
        Forward { child, address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(peers("kubernetes").join("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.nodes[0].root().join("etc/kubernetes/admin.conf"))
            .args(arguments)
            .env("HOME", self.lab.path(""));
        command
    }
}

/// Runs a command with that input. Returns its stdout.
pub(crate) fn run(mut command: Command, input: &str) -> Result<String, String> {
    let mut child = spawn(&mut command);
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // The command may end before it has read everything.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("wait for kubectl");
    if !output.status.success() {
        return Err(format!("{command:?}: {output:?}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start kubectl")
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
