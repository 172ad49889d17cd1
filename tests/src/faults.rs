//! What becomes of an attachment when something goes wrong in the middle of a call: a run without a fault shows the
//! system calls, and then each goes wrong in every way that fits it, in a run of its own. Afterwards DEL has to leave
//! nothing, and another ADD has to work.

mod calls;
mod figures;
mod selection;
mod site;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

pub use figures::Figures;
pub use selection::{COUNT_VARIABLE, Selection};

use crate::trace::{Deed, Fault};
use crate::{Binaries, Outcome};
use site::Site;

/// The call in which things go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// ADD.
    Add,
    /// DEL of what an ADD has made.
    Del,
    /// ADD of what is attached already, and must stay so.
    AddAgain,
}

/// What is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// A link without addresses.
    Two,
    /// With an IPv4 address and a default route.
    V4,
    /// With an address and a default route of each family.
    Dual,
}

/// One call of one plugin.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// `macvlan`, `ipvlan`, or `host-local` by itself.
    pub plugin: &'static str,
    pub command: Command,
    pub layers: Layers,
    /// Hard links: IPAM is a function; plain copies: a process.
    pub binaries: Binaries,
}

/// How a call with a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Failed,
    Succeeded,
    /// Without memory, or without a way home, nothing can be said any more.
    Aborted,
}

impl Scenario {
    /// In words.
    pub fn name(&self) -> String {
        let command = match self.command {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::AddAgain => "ADD again",
        };
        let layers = match self.layers {
            Layers::Two => "layer 2",
            Layers::V4 => "IPv4",
            Layers::Dual => "dual stack",
        };
        let ipam = match (self.plugin, self.layers, self.binaries) {
            ("host-local", _, _) | (_, Layers::Two, _) => "",
            (_, _, Binaries::HardLinks) => ", IPAM as a function",
            (_, _, _) => ", IPAM as a process",
        };
        format!("{} {command}, {layers}{ipam}", self.plugin)
    }

    /// As [`Scenario::run`], for a test.
    ///
    /// # Panics
    ///
    /// Over everything that is not as it was promised.
    pub fn survives(&self, selection: &Selection) {
        let figures = self.run(selection);
        assert!(figures.injected > 0, "nothing went wrong in {}", figures.name);
        assert!(figures.leaks.is_empty(), "{} leaks:\n{}", figures.leaks.len(), figures.leaks.join("\n"));
    }

    /// Lets everything go wrong that is selected.
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
                    // Whatever is wrong there shall not be held against the next one.
                    site = Site::new(*self);
                }
            }
            figures.report_progress(begun);
        }
        figures.end(begun)
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// How it ended, and that it did so in an orderly way.
fn judge(command: Command, fault: &Fault, outcome: &Outcome, struck: bool) -> End {
    use std::os::unix::process::ExitStatusExt;
    match (outcome.status.code(), outcome.status.signal()) {
        (Some(0), _) => End::Succeeded,
        (_, Some(9)) if struck && fault.deed == Deed::Kill => End::Killed,
        (_, Some(6)) if may_abort(fault) => End::Aborted,
        // The error object itself could not be written: then stderr has it.
        (Some(1), _) if outcome.stdout.is_empty() && writes(fault) => {
            assert!(outcome.stderr.contains("(and stdout: "), "not even stderr: {}", outcome.text());
            End::Failed
        }
        _ => {
            let error = outcome.error();
            let refused = command == Command::AddAgain && error.code == 7;
            assert!(struck || refused, "nothing went wrong, and yet: {}", outcome.text());
            assert!(error.code > 0 && !error.msg.is_empty(), "an error that says nothing: {}", outcome.text());
            let version = outcome.json()["cniVersion"].clone();
            // Of a configuration that could not be read, nobody knows the version.
            let unread = error.msg.contains("on stdin: read: ") && version == "1.1.0";
            assert!(version == "1.0.0" || unread, "an error object of another version: {}", outcome.text());
            assert_ne!(error.code, 999, "a bug: {}", outcome.text());
            End::Failed
        }
    }
}

/// The program ends there and then where it gets no memory, and where it cannot leave the container's netns again:
/// whatever it did next would happen to the wrong network.
fn may_abort(fault: &Fault) -> bool {
    calls::takes_memory(fault) || calls::name(fault.step.number) == "setns"
}

fn writes(fault: &Fault) -> bool {
    matches!(fault.deed, Deed::Fail(_)) && calls::name(fault.step.number) == "write"
}

/// Turns each line into a test of that name: a plugin, and three words of [`Scenario`]'s. `count` is how many faults each
/// of them gets where nothing else is asked for; `needs` is what the kernel must have ([`crate::needs`]).
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
