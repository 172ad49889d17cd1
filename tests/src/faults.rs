//! Fault injection. A run without a fault records the system calls. Then each call fails with each possible error, each
//! in a separate run. Afterwards, DEL must leave nothing and another ADD must work.

mod calls;
mod figures;
mod selection;
mod site;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

pub use figures::Figures;
pub use selection::{COUNT_VARIABLE, Selection};

use crate::trace::{Deed, Fault, Step};
use crate::{Binaries, Outcome};
use site::Site;

/// The call that gets the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    /// DEL of an attachment.
    Del,
    /// A second ADD. The attachment must stay as it is.
    AddAgain,
    /// ADD. Then the container goes without a DEL, and GC comes.
    AddThenGc,
    /// DEL of an attachment. Then the container goes without another DEL, and GC comes.
    DelThenGc,
}

/// The addresses of the attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// A link without addresses.
    Two,
    /// With an IPv4 address and a default route.
    V4,
    /// With an address and a default route of each family.
    Dual,
    /// As `Dual`, with host access. The attachment is the first and the last of its parent.
    HostAccess,
    /// As `Dual`. The attachment takes the default route from another interface of the container.
    Take,
    /// As `Dual`. The LAN is asked for the addresses and for the gateways, and the addresses are announced twice.
    Citizen,
    /// As `Dual`, with detection. Another machine has the IPv4 address that each ADD gets first.
    Taken,
    /// As `V4`, on a VLAN. The attachment is the first and the last on it.
    Vlan,
    /// As `Vlan`, with host access.
    VlanAccess,
    /// As `V4`, on a VLAN on which another container is.
    SharedVlan,
    /// As `V4`, on a VLAN on which another program has put a container, without a record.
    ForeignVlan,
}

/// One call of one plugin.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// `macvlan`, `ipvlan`, or `host-local` by itself.
    pub plugin: &'static str,
    pub command: Command,
    pub layers: Layers,
    /// With hard links, IPAM is a function. With plain copies, it is a process.
    pub binaries: Binaries,
}

/// How a call with a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Failed,
    Succeeded,
    /// An abort without an error object: out of memory, or setns(2) back to the netns of the host failed.
    Aborted,
}

impl Layers {
    fn has_host_access(self) -> bool {
        matches!(self, Self::HostAccess | Self::VlanAccess)
    }

    fn has_vlan(self) -> bool {
        matches!(self, Self::Vlan | Self::VlanAccess | Self::SharedVlan | Self::ForeignVlan)
    }

    /// Returns true if another container is on the VLAN. Then the link of the VLAN stays after DEL.
    fn shares_vlan(self) -> bool {
        matches!(self, Self::SharedVlan | Self::ForeignVlan)
    }
}

impl Scenario {
    pub fn name(&self) -> String {
        let command = match self.command {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::AddAgain => "ADD again",
            Command::AddThenGc => "ADD and GC",
            Command::DelThenGc => "DEL and GC",
        };
        let layers = match self.layers {
            Layers::Two => "layer 2",
            Layers::V4 => "IPv4",
            Layers::Dual => "dual stack",
            Layers::HostAccess => "dual stack with host access",
            Layers::Take => "dual stack, takes the default route",
            Layers::Citizen => "dual stack, asks the LAN",
            Layers::Taken => "dual stack, another machine has the first address",
            Layers::Vlan => "IPv4 on a VLAN",
            Layers::VlanAccess => "IPv4 on a VLAN with host access",
            Layers::SharedVlan => "IPv4 on a VLAN with another container",
            Layers::ForeignVlan => "IPv4 on a VLAN with a container of another program",
        };
        let ipam = match (self.plugin, self.layers, self.binaries) {
            ("host-local", _, _) | (_, Layers::Two, _) => "",
            (_, _, Binaries::HardLinks) => ", IPAM as a function",
            (_, _, _) => ", IPAM as a process",
        };
        format!("{} {command}, {layers}{ipam}", self.plugin)
    }

    /// As [`Scenario::run`], for a test. Panics if there is a leak.
    pub fn survives(&self, selection: &Selection) {
        let figures = self.run(selection);
        assert!(figures.injected > 0, "no fault was injected in {}", figures.name);
        assert!(figures.leaks.is_empty(), "{} leaks:\n{}", figures.leaks.len(), figures.leaks.join("\n"));
    }

    /// Injects the selected faults.
    pub fn run(&self, selection: &Selection) -> Figures {
        let begun = Instant::now();
        let mut site = Site::new(*self);
        let steps = site.learn();
        let all: Vec<Fault> = steps.iter().flat_map(calls::faults).collect();
        let mut figures = Figures::new(self.name(), steps.len(), all.len());
        for fault in selection.choose(&all) {
            let what = calls::describe(fault);
            match catch_unwind(AssertUnwindSafe(|| site.suffer(fault))) {
                Ok((end, struck)) => figures.count(end, struck),
                Err(panic) => {
                    figures.leak(format!("{}: {what}: {}", self.name(), words(panic.as_ref())));
                    // The next fault gets a new site.
                    site = Site::new(*self);
                }
            }
            figures.report_progress(begun);
        }
        figures.end(begun)
    }
}

/// The selected faults of a call with these system calls, for a test that has its own site.
pub fn selected(steps: &[Step], selection: &Selection) -> Vec<Fault> {
    let all: Vec<Fault> = steps.iter().flat_map(calls::faults).collect();
    selection.choose(&all).into_iter().cloned().collect()
}

/// Names a fault in a message.
pub fn describe(fault: &Fault) -> String {
    calls::describe(fault)
}

/// The text of a panic.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// How the call ended. Panics if the error object is wrong.
fn judge(command: Command, fault: &Fault, outcome: &Outcome, struck: bool) -> End {
    use std::os::unix::process::ExitStatusExt;
    match (outcome.status.code(), outcome.status.signal()) {
        (Some(0), _) => End::Succeeded,
        (_, Some(9)) if struck && fault.deed == Deed::Kill => End::Killed,
        (_, Some(6)) if may_abort(fault) => End::Aborted,
        // The error object could not be written to stdout, so stderr has it.
        (Some(1), _) if outcome.stdout.is_empty() && writes(fault) => {
            assert!(outcome.stderr.contains("(and stdout: "), "no error on stderr: {}", outcome.text());
            End::Failed
        }
        _ => {
            let error = outcome.error();
            let refused = command == Command::AddAgain && error.code == 7;
            assert!(struck || refused, "failed without a fault: {}", outcome.text());
            assert!(
                error.code > 0 && !error.msg.is_empty(),
                "an error without a code or a message: {}",
                outcome.text()
            );
            let version = outcome.json()["cniVersion"].clone();
            // If the configuration cannot be read, its version is unknown.
            let unread = error.msg.contains("on stdin: read: ") && version == "1.1.0";
            assert!(version == "1.0.0" || unread, "an error object of another version: {}", outcome.text());
            assert_ne!(error.code, 999, "a bug: {}", outcome.text());
            End::Failed
        }
    }
}

/// The program aborts if it gets no memory, or if it cannot leave the netns of the container: its next calls would
/// change the wrong network.
fn may_abort(fault: &Fault) -> bool {
    calls::takes_memory(fault) || calls::name(fault.step.number) == "setns"
}

fn writes(fault: &Fault) -> bool {
    matches!(fault.deed, Deed::Fail(_)) && calls::name(fault.step.number) == "write"
}

/// Makes a test of each line: a plugin, and three words of a [`Scenario`]. `count` is the default number of faults of
/// each.
/// `needs` has the kernel features ([`crate::needs`]).
#[macro_export]
macro_rules! scenarios {
    (
        count: $count:literal,
        needs: $needs:expr,
        $($name:ident: $plugin:literal $command:ident $layers:ident $binaries:ident,)+
    ) => {
        $(
            #[test]
            fn $name() {
                if $crate::needs::here($needs) {
                    let scenario = $crate::faults::Scenario {
                        plugin: $plugin,
                        command: $crate::faults::Command::$command,
                        layers: $crate::faults::Layers::$layers,
                        binaries: $crate::Binaries::$binaries,
                    };
                    scenario.survives(&$crate::faults::Selection::from_environment($count));
                }
            }
        )+
    };
}
