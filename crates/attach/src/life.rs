//! The life of an attachment: the list of its steps, and the loops over it.
//!
//! ADD applies the steps in their order, and undoes those of a failed ADD in the opposite order. DEL finds what there is of
//! an attachment, and undoes it in that order too. CHECK compares in the order of ADD.
//!
//! The link comes first: its name can be taken once in a container, so it is the attachment's lock. A second ADD for the same
//! interface fails there, before IPAM is asked, and cannot release the addresses of the first when it is undone.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

use cni::{AddResult, Code};
use linux::{LinkKind, Rtnl};

use crate::error::{self, Error};
use crate::steps::{self, Known, Making, Seeing, Step, Taking, Undone, Why};
use crate::{Settings, Task, container, result};

/// An attachment, in the order in which ADD makes it.
fn steps<'a>() -> Vec<Box<dyn Step<'a> + 'a>> {
    vec![
        Box::<steps::link::TheLink>::default(),
        Box::<steps::lease::TheLease<'a>>::default(),
        // From here on the addresses are known. Sysctls and addresses are set while the link is down, so that the kernel
        // itself announces the addresses when it comes up.
        Box::<steps::sysctls::Sysctls>::default(),
        Box::<steps::keep_addresses::KeepAddresses>::default(),
        Box::<steps::detection::Detection>::default(),
        Box::<steps::addresses::Addresses>::default(),
        Box::<steps::up::Up>::default(),
        // From here on the container is on the LAN.
        Box::<steps::routes::Routes>::default(),
    ]
}

/// Plans an attachment that is never made.
pub(crate) fn judge(ifname: &str, mtu: u32, leased: &AddResult) -> error::Result<()> {
    plan(&mut steps(), ifname, mtu, leased).map(drop)
}

/// As soon as the addresses are known, every step decides what it will do. What cannot be is refused before more is touched.
/// Returns the sysctls of all steps.
fn plan<'a>(
    steps: &mut [Box<dyn Step<'a> + 'a>],
    ifname: &str,
    mtu: u32,
    leased: &AddResult,
) -> error::Result<Vec<(String, &'static str)>> {
    let mut known = Known { ifname, mtu, leased, sysctls: Vec::new() };
    steps.iter_mut().try_for_each(|step| step.plan(&mut known))?;
    Ok(known.sysctls)
}

/// An ADD in progress. Dropped before it has ended, which is a panic, it undoes what it did.
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
        for at in 0..self.steps.len() {
            let were_known = self.making.leased.is_some();
            self.steps[at].apply(&mut self.making)?;
            if let Some(leased) = self.making.leased.as_ref().filter(|_| !were_known) {
                let ifname = self.making.task.attachment.ifname;
                self.making.sysctls = plan(&mut self.steps, ifname, self.making.mtu(), leased)?;
            }
        }
        self.steps.iter_mut().rev().try_for_each(|step| step.finish(&mut self.making))
    }

    /// "No such device" in the middle of an ADD has one cause.
    fn blame_the_gone(&mut self, error: Error) -> Error {
        let is_about_link = matches!(&error, Error::Linux(cause) if error::is_gone(cause));
        match is_about_link && self.making.link_is_gone() {
            true => Error::LinkGone(format!("create {}", self.making.task.attachment.ifname)),
            false => error,
        }
    }

    /// Undoes what was done, and says what could not be.
    fn undo(&mut self) -> Vec<cni::Error> {
        let mut taking = Taking::new(self.making.task, Some(&mut self.making.inside), Why::Failed);
        match find(&mut self.steps, &mut taking) {
            Ok(()) => undo(&mut self.steps, &mut taking),
            Err(error) => vec![error.into()],
        }
    }
}

impl Drop for Attempt<'_> {
    /// What cannot be undone here is a DEL's to clean. A second panic on the way would end the process before it has said
    /// anything.
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
        let mut taking = Taking::new(task, inside.as_mut(), Why::Del { kind, previous });
        find(&mut steps, &mut taking)?;
        if is_second_look && taking.links.is_empty() {
            break;
        }
        let is_settled = taking.inside.is_none() || taking.has_seen_link;
        failures.extend(undo(&mut steps, &mut taking));
        if is_settled {
            break;
        }
        // An ADD beside us may have made its link after we looked, and have leased before we released: its link would live
        // on with an address that is anybody's.
    }
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => Err(failures.fold(first, cni::Error::with_detail)),
    }
}

fn find<'a>(steps: &mut [Box<dyn Step<'a> + 'a>], taking: &mut Taking<'a, '_>) -> error::Result<()> {
    steps.iter_mut().try_for_each(|step| step.find(taking))
}

/// Undoes all steps, the last one first. Goes on after a failure and after a panic, and returns all of them.
fn undo<'a>(steps: &mut [Box<dyn Step<'a> + 'a>], taking: &mut Taking<'a, '_>) -> Vec<cni::Error> {
    let mut failures = Vec::new();
    for step in steps.iter_mut() {
        caught(taking, &mut failures, |taking| step.begin_undo(taking));
    }
    let mut left: Vec<_> = steps.iter_mut().rev().collect();
    // Those that have to wait for others come once more.
    for _ in 0..2 {
        left.retain_mut(|step| {
            let mut is_later = false;
            caught(taking, &mut failures, |taking| {
                is_later = step.undo(taking)? == Undone::Later;
                Ok(())
            });
            is_later
        });
    }
    failures
}

fn caught<'a, 'r>(
    taking: &mut Taking<'a, 'r>,
    failures: &mut Vec<cni::Error>,
    work: impl FnOnce(&mut Taking<'a, 'r>) -> error::Result<()>,
) {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| work(taking)));
    let failure = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.into(),
        Err(payload) => cni::Error::new(Code::INTERNAL, format!("bug: {}", words(payload.as_ref()))),
    };
    taking.is_in_doubt = true;
    failures.push(failure);
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

pub(crate) fn check<'a>(task: &'a Task<'a>, kind: &'a LinkKind, expected: &'a AddResult) -> Result<(), cni::Error> {
    let (netns, _) = container::open(task)?;
    let rtnl = Rtnl::open_in(&netns).map_err(Error::from)?;
    let mut seeing = Seeing { task, kind, expected, rtnl, link: None };
    Ok(steps().iter().try_for_each(|step| step.verify(&mut seeing))?)
}
