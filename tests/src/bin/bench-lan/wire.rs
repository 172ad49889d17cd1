//! The wire between two hosts, and its settings.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::thread;

use e2e::Namespace;
use ipnet::IpNet;

/// The name of each host's NIC.
pub(crate) const NIC: &str = "ens3";
/// The delay of a frame in each direction.
pub(crate) const DELAY: &str = "100us";
/// The minimum time of an answer with this delay, in microseconds.
const THERE_AND_BACK: f64 = 200.0;
/// The maximum size of a frame with an MTU of 1500, with the Ethernet header.
const FRAME: f64 = 1514.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A veth pair with offloads: a frame may have 64 KiB, as with good NICs.
    Offloaded,
    /// Offloads off: frames of 1500 bytes.
    Segmented,
    /// Offloads off, and each frame takes [`DELAY`].
    Delayed,
    /// Both ends are on one host, and nothing passes the wire.
    Node,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Offloaded, Self::Segmented, Self::Delayed, Self::Node];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Offloaded => "offloaded",
            Self::Segmented => "segmented",
            Self::Delayed => "delayed",
            Self::Node => "node",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Offloaded => "a wire with offloads (frames of up to 64 KiB)",
            Self::Segmented => "a wire of 1500 bytes, offloads off",
            Self::Delayed => "a wire of 1500 bytes, offloads off, delay 0.1 ms each way",
            Self::Node => "one node, without a wire",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns an error if the mean size of a frame, or the time of an answer in microseconds, is impossible on such a
    /// wire.
    pub(crate) fn judge(self, frame: f64, answer: f64) -> Result<(), String> {
        if matches!(self, Self::Segmented | Self::Delayed) && frame > FRAME {
            return Err(format!("frames of {frame:.0} bytes, more than the maximum of {FRAME}"));
        }
        if self == Self::Delayed && answer < THERE_AND_BACK {
            return Err(format!("an answer after {answer:.0} µs, before the minimum of {THERE_AND_BACK}"));
        }
        Ok(())
    }

    /// Changes the wire between these hosts. All devices must exist.
    pub(crate) fn apply(self, hosts: &[Namespace; 2]) -> Result<(), String> {
        if matches!(self, Self::Offloaded | Self::Node) {
            return Ok(());
        }
        for host in hosts {
            // At the NIC for all setups, because the offloads of macvlan itself cannot be switched off.
            let cut = ["tso", "gso", "gro", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
            let words = cut.into_iter().flat_map(|feature| [feature, "off"]);
            script(host, &[&["ethtool", "-K", NIC], &words.collect::<Vec<_>>()[..]].concat(), "")?;
            if host.has_link("flannel.1") {
                // Otherwise this device would merge frames.
                script(host, &["ethtool", "-K", "flannel.1", "gro", "off"], "")?;
            }
            if self == Self::Delayed {
                script(host, &["tc", "qdisc", "add", "dev", NIC, "root", "netem", "delay", DELAY], "")?;
            }
        }
        Ok(())
    }
}

/// Two hosts on one wire, with these addresses in a /24.
pub(crate) fn hosts(addresses: [IpAddr; 2]) -> [Namespace; 2] {
    let hosts = [Namespace::new(), Namespace::new()];
    hosts[0].create_veth(NIC, &hosts[1], NIC);
    for (host, address) in hosts.iter().zip(addresses) {
        host.add_address(NIC, IpNet::new(address, 24).expect("a prefix length"));
        host.set_up(NIC);
        tune(host);
    }
    hosts
}

/// Settings of TCP for many short connections.
pub(crate) fn tune(end: &Namespace) {
    end.set_sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    end.set_sysctl("net/ipv4/tcp_tw_reuse", "1");
    // Algorithms that pace themselves would measure timers. Every namespace has reno. Streams ask for cubic.
    end.set_sysctl("net/ipv4/tcp_congestion_control", "reno");
}

pub(crate) fn can_delay() -> bool {
    let host = Namespace::new();
    host.create_stray(NIC);
    script(&host, &["tc", "qdisc", "add", "dev", NIC, "root", "netem", "delay", DELAY], "").is_ok()
}

/// The counters of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

/// Reads the ninth and tenth column of /proc/net/dev. (proc_pid_net(5))
pub(crate) fn sent(netns: &Namespace, link: &str) -> Sent {
    let table = netns.run(|| fs::read_to_string("/proc/thread-self/net/dev")).expect("read /proc/net/dev");
    decode_sent(&table, link).unwrap_or_else(|| panic!("there is no {link} in {table}"))
}

fn decode_sent(table: &str, link: &str) -> Option<Sent> {
    let rest = table.lines().find_map(|line| line.trim().strip_prefix(link)?.strip_prefix(':'))?;
    let columns: Vec<u64> = rest.split_whitespace().map_while(|column| column.parse().ok()).collect();
    Some(Sent { bytes: *columns.get(8)?, packets: *columns.get(9)? })
}

/// Runs a command in the namespace, with this input.
pub(crate) fn script(netns: &Namespace, command: &[&str], input: &str) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("a command without a program")?;
    let output = netns.run(|| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        thread::scope(|scope| {
            // The command may end before it has read all.
            scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
            child.wait_with_output()
        })
    });
    let output = output.map_err(|e| format!("start {program}: {e}; `make packages` installs what is needed"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}: {}", command.join(" "), output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_are_impossible_on_a_wire_are_errors() {
        assert_eq!(Kind::Offloaded.judge(65_000.0, 10.0), Ok(()));
        assert_eq!(Kind::Segmented.judge(1514.0, 10.0), Ok(()));
        assert!(Kind::Segmented.judge(1515.0, 10.0).is_err_and(|error| error.starts_with("frames of 1515 bytes")));
        assert!(Kind::Delayed.judge(1514.0, 199.0).is_err_and(|error| error.starts_with("an answer after 199 µs")));
    }

    #[test]
    fn the_counters_are_read_from_the_right_columns() {
        let table = "Inter-|   Receive   |  Transmit\n face |bytes packets ...\n  \
                     ens3: 1 2 3 4 5 6 7 8 90 10 11 12 13 14 15 16\n ens30: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let sent = decode_sent(table, "ens3").unwrap();
        assert_eq!((sent.bytes, sent.packets), (90, 10));
        assert!(decode_sent(table, "ens").is_none());
    }
}
