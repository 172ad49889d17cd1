//! A host whose containers announce their addresses, and what another machine sees of that.

use std::net::IpAddr;
use std::ops::Deref;
use std::time::Duration;

use e2e::host_site::HostSite;
use e2e::lab::{Families, lan4, lan6};
use e2e::needs::Feature;
use e2e::patience::{PATIENCE, await_within};
use e2e::traffic::{Frame, Seen, Wire};
use e2e::{Container, Outcome, processes, with};
use serde_json::{Value, json};

/// All tests of macvlan run on every kernel.
pub(crate) const NEEDS: &[Feature] = &[];

pub(crate) struct Site(HostSite);

impl Deref for Site {
    type Target = HostSite;

    fn deref(&self) -> &HostSite {
        &self.0
    }
}

impl Site {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self(HostSite::new(kind))
    }

    /// A configuration without the key `announce`. The first container gets .100 in both families.
    pub(crate) fn plain(&self, families: Families) -> Value {
        self.conf_with(self.ipam(families))
    }

    /// A configuration that announces both addresses.
    pub(crate) fn conf(&self, count: u32, interval: u32) -> Value {
        with(self.plain(Families::Dual), "announce", json!({"count": count, "interval": interval}))
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire::open(&self.neighbour, self.neighbour.nic)
    }

    pub(crate) fn add(&self, container: &Container, conf: &Value) -> Outcome {
        self.plugin().add(container, "eth0", conf).run()
    }

    /// All frames that were sent until now. The container must have .100.
    #[track_caller]
    pub(crate) fn seen(&self, wire: &Wire) -> Vec<Seen> {
        wire.seen_before_answer(self.neighbour.v4, lan4(100))
    }

    /// The processes of the plugin that still run. They use the namespace of the host or of the container.
    pub(crate) fn children(&self, container: &Container) -> Vec<u32> {
        processes::using(&[&self.host, container])
    }

    /// Waits until no process of the plugin runs.
    #[track_caller]
    pub(crate) fn await_no_child(&self, container: &Container, patience: Duration) {
        await_within(patience * e2e::plugin::slowness(), "the child has ended", || {
            let left = self.children(container);
            if left.is_empty() { Ok(()) } else { Err(format!("processes {left:?}")) }
        });
    }
}

/// The announcements of an address among these frames.
pub(crate) fn announcements(seen: &[Seen], ip: IpAddr) -> Vec<Seen> {
    seen.iter().filter(|seen| seen.frame.announces(ip)).cloned().collect()
}

/// Receives frames until both addresses of the first container have been announced so many times.
#[track_caller]
pub(crate) fn await_announcements(wire: &Wire, count: usize) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let enough = |seen: &[Seen]| [lan4(100), lan6(100)].iter().all(|ip| announcements(seen, *ip).len() >= count);
    while !enough(&seen) {
        let (more, came) =
            wire.seen_within(PATIENCE, |frame: &Frame| frame.announces(lan4(100)) || frame.announces(lan6(100)));
        seen.extend(more);
        assert!(came, "not {count} announcements of both addresses: {seen:#?}");
    }
    seen
}
