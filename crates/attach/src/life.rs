//! The list of steps, and the loops of ADD, CHECK and DEL over it.
//!
//! ADD applies the steps in the order of the list. CHECK compares them in the same order. A failed ADD and a DEL find
//! the parts of the attachment and undo them in the opposite order.
//!
//! The link comes first, after the VLAN link on which it may stand. A container can have only one link with this name,
//! so the link is the lock of the attachment. A second ADD for the same interface fails there, before it asks IPAM. So
//! its undo cannot release the addresses of the first.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

use cni::{AddResult, Code};
use linux::Rtnl;

use crate::error::{self, Error};
use crate::lan::{self, Found};
use crate::steps::{self, Checking, Known, Making, Step, Undoing, Undone, Why};
use crate::{Settings, Task, Wished, container, result};

/// The steps, in the order of ADD.
fn steps<'a>() -> Vec<Box<dyn Step<'a> + 'a>> {
    vec![
        // The link stands on it. So it is undone after the link.
        Box::<steps::vlan::OnVlan>::default(),
        Box::<steps::link::TheLink>::default(),
        // An IPAM plugin may set the link up, as dhcp does. So what a router may do is decided before.
        Box::<steps::wishes::Wishes>::default(),
        // It finishes after the gateways were asked, so that nothing is left if one does not answer.
        Box::<steps::announce::Repeat>::default(),
        // It finishes after the detection of duplicate addresses.
        Box::<steps::gateway::Gateways>::default(),
        Box::<steps::lease::TheLease<'a>>::default(),
        // Now the addresses are known. Sysctls and addresses are set while the link is down. So the kernel announces
        // the addresses when the link comes up.
        Box::<steps::sysctls::Sysctls>::default(),
        Box::<steps::keep_addresses::KeepAddresses>::default(),
        Box::<steps::detection::Detection>::default(),
        Box::<steps::slaac::Slaac>::default(),
        Box::<steps::own_host::OwnHost>::default(),
        Box::<steps::addresses::Addresses>::default(),
        Box::<steps::up::Up>::default(),
        Box::<steps::probe::Probe>::default(),
        Box::<steps::announce::Announce>::default(),
        // Now the container is on the LAN.
        Box::<steps::routes::Routes>::default(),
        Box::<steps::host_access::HostAccess>::default(),
    ]
}

/// Plans an attachment that is not created.
pub(crate) fn judge(ifname: &str, mtu: u32, leased: &AddResult) -> error::Result<()> {
    plan(&mut steps(), ifname, mtu, leased, None).map(drop)
}

/// Lets every step plan its work when the addresses are known. So a mistake is refused before anything else is changed.
/// Returns the sysctls of all steps.
fn plan<'a>(
    steps: &mut [Box<dyn Step<'a> + 'a>],
    ifname: &str,
    mtu: u32,
    leased: &AddResult,
    settings: Option<&Settings<'_>>,
) -> error::Result<Vec<(String, &'static str)>> {
    let mut known = Known { ifname, mtu, leased, settings, sysctls: Vec::new() };
    steps.iter_mut().try_for_each(|step| step.plan(&mut known))?;
    Ok(known.sysctls)
}

/// An ADD in progress. If it is dropped before it has ended, because of a panic, it is undone.
struct Attempt<'a> {
    steps: Vec<Box<dyn Step<'a> + 'a>>,
    making: Making<'a>,
    has_ended: bool,
}

pub(crate) fn add<'a>(task: &'a Task<'a>, settings: &'a Settings<'a>) -> Result<AddResult, cni::Error> {
    let mut attempt = Attempt { steps: steps(), making: Making::look(task, settings)?, has_ended: false };
    let made = attempt.make().map_err(|error| attempt.blame_the_gone(error));
    attempt.has_ended = true;
    match made {
        Ok(()) => Ok(result::of(&mut attempt.making)),
        Err(error) => {
            let failures = attempt.undo().into_iter();
            Err(failures
                .fold(error.into(), |error: cni::Error, cause| error.with_detail(format_args!("undo: {cause}"))))
        }
    }
}

impl Attempt<'_> {
    fn make(&mut self) -> error::Result<()> {
        let mut at = 0;
        while at < self.steps.len() {
            at = match self.apply(at) {
                Err(Error::Conflict(found)) => self.take_back(at, &found)?,
                outcome => outcome.map(|()| at + 1)?,
            };
        }
        self.steps.iter_mut().rev().try_for_each(|step| step.finish(&mut self.making))
    }

    /// Applies one step. As soon as the addresses are known, all steps plan their work.
    fn apply(&mut self, at: usize) -> error::Result<()> {
        let were_known = self.making.leased.is_some();
        self.steps[at].apply(&mut self.making)?;
        if let Some(leased) = self.making.leased.as_ref().filter(|_| !were_known) {
            let ifname = self.making.task.attachment.ifname;
            let settings = self.making.settings;
            let mut sysctls = plan(&mut self.steps, ifname, self.making.mtu(), leased, Some(settings))?;
            // A sysctl of the configuration replaces a planned one.
            sysctls.retain(|(key, _)| !settings.sysctls.iter().any(|(wished, _)| wished == key));
            self.making.sysctls = sysctls;
        }
        Ok(())
    }

    /// Takes steps back, because other machines have leased addresses. Returns the step with which the ADD continues.
    fn take_back(&mut self, failed: usize, found: &[Found]) -> error::Result<usize> {
        for at in (0..=failed).rev() {
            if self.steps[at].take_back(&mut self.making, found)? {
                let found_text = lan::describe(found);
                (self.making.task.remark)(format_args!("{found_text}; another address is tried"));
                self.making.pause_after(found);
                return Ok(at);
            }
        }
        Err(Error::Conflict(found.to_vec()))
    }

    /// Replaces "no such device" by its cause, if the link was deleted during the ADD.
    fn blame_the_gone(&mut self, error: Error) -> Error {
        let is_about_link = matches!(&error, Error::Linux(cause) if error::is_gone(cause));
        match is_about_link && self.making.link_is_gone() {
            true => Error::LinkGone(format!("create {}", self.making.task.attachment.ifname)),
            false => error,
        }
    }

    /// Undoes all steps. Returns the errors.
    fn undo(&mut self) -> Vec<cni::Error> {
        self.making.host_lock = None;
        let mut undoing = Undoing::new(self.making.task, Some(&mut self.making.inside), Why::Failed);
        undoing.found = &self.making.found[self.making.named..];
        match find(&mut self.steps, &mut undoing) {
            Ok(()) => undo(&mut self.steps, &mut undoing),
            Err(error) => vec![error.into()],
        }
    }
}

impl Drop for Attempt<'_> {
    /// Ignores errors, because the runtime calls DEL. Catches a second panic, which would end the process without an
    /// answer.
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = panic::catch_unwind(AssertUnwindSafe(|| self.undo()));
        }
    }
}

pub(crate) fn del<'a>(
    task: &'a Task<'a>,
    kind: &'a str,
    previous: &'a dyn Fn() -> Option<AddResult>,
) -> Result<(), cni::Error> {
    let netns = container::open_if_there(task)?;
    let mut inside = netns.as_ref().map(Rtnl::open_in).transpose().map_err(Error::from)?;
    let mut failures = Vec::new();
    for is_second_look in [false, true] {
        let mut steps = steps();
        let mut undoing = Undoing::new(task, inside.as_mut(), Why::Del { kind, previous });
        find(&mut steps, &mut undoing)?;
        if is_second_look && undoing.links.is_empty() {
            break;
        }
        let is_settled = undoing.inside.is_none() || undoing.has_seen_link;
        failures.extend(undo(&mut steps, &mut undoing));
        if is_settled {
            break;
        }
        // A parallel ADD may have created its link after our search and leased before our release. Then its link has an
        // address that is free for others. So search again.
    }
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => Err(failures.fold(first, cni::Error::with_detail)),
    }
}

fn find<'a>(steps: &mut [Box<dyn Step<'a> + 'a>], undoing: &mut Undoing<'a, '_>) -> error::Result<()> {
    steps.iter_mut().try_for_each(|step| step.find(undoing))
}

/// Undoes all steps, the last one first. Continues after an error or a panic. Returns all errors.
fn undo<'a>(steps: &mut [Box<dyn Step<'a> + 'a>], undoing: &mut Undoing<'a, '_>) -> Vec<cni::Error> {
    let mut failures = Vec::new();
    for step in steps.iter_mut() {
        caught(undoing, &mut failures, |undoing| step.begin_undo(undoing));
    }
    let mut left: Vec<_> = steps.iter_mut().rev().collect();
    // A step that must wait for another one is undone in the second round.
    for _ in 0..2 {
        left.retain_mut(|step| {
            let mut is_later = false;
            caught(undoing, &mut failures, |undoing| {
                is_later = step.undo(undoing)? == Undone::Later;
                Ok(())
            });
            is_later
        });
    }
    failures
}

fn caught<'a, 'r>(
    undoing: &mut Undoing<'a, 'r>,
    failures: &mut Vec<cni::Error>,
    work: impl FnOnce(&mut Undoing<'a, 'r>) -> error::Result<()>,
) {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| work(undoing)));
    let failure = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.into(),
        Err(payload) => cni::Error::new(Code::INTERNAL, format!("bug: {}", words(payload.as_ref()))),
    };
    undoing.is_in_doubt = true;
    failures.push(failure);
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

pub(crate) fn check<'a>(task: &'a Task<'a>, wished: &'a Wished<'a>, expected: &'a AddResult) -> Result<(), cni::Error> {
    let (netns, _) = container::open(task)?;
    let rtnl = Rtnl::open_in(&netns).map_err(Error::from)?;
    let mut checking = Checking { task, wished, expected, rtnl, link: None };
    Ok(steps().iter().try_for_each(|step| step.verify(&mut checking))?)
}
