//! The kernel features that a test needs. If one is missing, the test must run in another lane. A test that ran in no
//! lane fails the build.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;
use std::{env, thread};

use crate::Namespace;

/// Names the ledger, a file with a line for each test of one executable that cannot run here: its name, a tab, and the
/// reason.
pub const LEDGER_VARIABLE: &str = "UNDERLAY_LEDGER";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    Ipvlan,
    Vlan,
    Dummy,
    Bond,
    /// Also the program nft.
    Nftables,
}

impl Feature {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipvlan => "ipvlan",
            Self::Vlan => "802.1Q VLAN",
            Self::Dummy => "dummy",
            Self::Bond => "bonding",
            Self::Nftables => "nf_tables",
        }
    }

    /// Returns true if this kernel has it. The first call tries it in a new namespace.
    pub fn is_here(self) -> bool {
        static KNOWN: [OnceLock<bool>; 5] = [const { OnceLock::new() }; 5];
        *KNOWN[self as usize].get_or_init(|| {
            let netns = Namespace::new();
            netns.create_stray("nic0");
            let link = match self {
                Self::Nftables => {
                    let nft = netns.run(|| Command::new("nft").args(["add", "table", "inet", "probe"]).output());
                    return nft.is_ok_and(|output| output.status.success());
                }
                Self::Ipvlan => "link nic0 name probe0 type ipvlan",
                Self::Vlan => "link nic0 name probe0 type vlan id 100",
                Self::Dummy => "probe0 type dummy",
                Self::Bond => "probe0 type bond",
            };
            match netns.try_ip(&format!("link add {link}")) {
                Ok(()) => true,
                // The kernel does not know this kind of link and has no module for it.
                Err(e) if e.contains("Unknown device type") || e.contains("not supported") => false,
                Err(e) => panic!("find out whether the kernel has {}: {e}", self.name()),
            }
        })
    }
}

/// Returns true if the calling test can run on this kernel, and otherwise notes the missing features.
pub fn here(needs: &[Feature]) -> bool {
    let missing: Vec<&str> = needs.iter().copied().filter(|feature| !feature.is_here()).map(Feature::name).collect();
    if missing.is_empty() {
        return true;
    }
    note(&format!("the kernel has no {}", missing.join(", ")));
    false
}

/// Writes to the ledger why the calling test cannot run here. Without a ledger, there is no other lane, and the test
/// fails.
pub fn note(why: &str) {
    let Some(ledger) = env::var_os(LEDGER_VARIABLE) else {
        panic!("{why}: run `make test`, which runs such tests in a guest");
    };
    // With more than one thread, cargo's test runner gives each thread the name of its test.
    let test = thread::current().name().filter(|&name| name != "main").map(str::to_owned);
    let test = test.expect("the test needs a thread with its name: use at least two test threads");
    let line = format!("{test}\t{why}\n");
    let noted = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&ledger)
        // Other tests write at the same time, so this must be one write.
        .and_then(|mut file| file.write_all(line.as_bytes()));
    noted.unwrap_or_else(|e| panic!("write to {}: {e}", ledger.display()));
}
