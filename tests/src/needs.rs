//! The kernel features that a test needs. If one is missing, the test is noted and must run in another lane. A test
//! that ran in no lane fails the build.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::OnceLock;
use std::{env, thread};

use crate::Namespace;

/// Names the file to which the tests of one executable add a line for each that cannot run here: its name, a tab, what
/// is missing.
pub const LEDGER_VARIABLE: &str = "UNDERLAY_LEDGER";

/// Something that not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    Ipvlan,
    /// 802.1Q links.
    Vlan,
    Dummy,
    /// bond links.
    Bond,
}

impl Feature {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipvlan => "ipvlan",
            Self::Vlan => "802.1Q VLAN",
            Self::Dummy => "dummy",
            Self::Bond => "bonding",
        }
    }

    /// Returns true if this kernel can create such a link. It is tried once, in a namespace of its own.
    pub fn is_here(self) -> bool {
        static KNOWN: [OnceLock<bool>; 4] = [const { OnceLock::new() }; 4];
        *KNOWN[self as usize].get_or_init(|| {
            let netns = Namespace::new();
            netns.create_stray("nic0");
            let link = match self {
                Self::Ipvlan => "link nic0 name probe0 type ipvlan",
                Self::Vlan => "link nic0 name probe0 type vlan id 100",
                Self::Dummy => "probe0 type dummy",
                Self::Bond => "probe0 type bond",
            };
            match netns.try_ip(&format!("link add {link}")) {
                Ok(()) => true,
                // No such kind of link, and no module for it.
                Err(e) if e.contains("Unknown device type") || e.contains("not supported") => false,
                Err(e) => panic!("ask the kernel for {}: {e}", self.name()),
            }
        })
    }
}

/// Whether the calling test can run on this kernel. If not, the lane's ledger learns of it; without a ledger there is
/// no other lane, and the test fails.
pub fn here(needs: &[Feature]) -> bool {
    let missing: Vec<&str> = needs.iter().copied().filter(|feature| !feature.is_here()).map(Feature::name).collect();
    if missing.is_empty() {
        return true;
    }
    note(&format!("the kernel has no {}", missing.join(", ")));
    false
}

/// Notes in the lane's ledger why the calling test cannot run here. Without a ledger there is no other lane, nor
/// anybody to judge, and the test fails.
pub fn note(why: &str) {
    let Some(ledger) = env::var_os(LEDGER_VARIABLE) else {
        panic!("{why}: `make test` runs this test in a guest, where that helps");
    };
    // The test harness names the thread after the test, as long as it runs more than one at a time.
    let test = thread::current().name().filter(|&name| name != "main").map(str::to_owned);
    let test = test.expect("a test that runs in a thread of its own: let the harness use two threads at least");
    let line = format!("{test}\t{why}\n");
    let noted = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&ledger)
        // One write: other tests add theirs at the same time.
        .and_then(|mut file| file.write_all(line.as_bytes()));
    noted.unwrap_or_else(|e| panic!("write to {}: {e}", ledger.display()));
}
