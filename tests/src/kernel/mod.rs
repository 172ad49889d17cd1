//! The links, addresses and routes of a namespace. The crate `rtnetlink` and the program `ip` read and create them,
//! because they share no code with the plugins.

mod address;
mod kinds;
pub(crate) mod link;
pub(crate) mod route;
mod socket;

pub use address::Address;
pub use kinds::Ipvlan;
pub use link::{Link, Macvlan};
pub use route::Route;
pub use socket::Netlink;

use std::process::Command;

use crate::Namespace;

impl Namespace {
    /// Runs the program `ip` with these words in the namespace. The error is its stderr.
    pub fn try_ip(&self, words: &str) -> Result<(), String> {
        let output = self.run(|| Command::new("ip").args(words.split_whitespace()).output()).expect("start ip");
        if output.status.success() {
            return Ok(());
        }
        Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
    }

    /// As [`Namespace::try_ip`], which must succeed.
    #[track_caller]
    pub fn ip(&self, words: &str) {
        self.try_ip(words).unwrap_or_else(|e| panic!("{e}"));
    }
}
