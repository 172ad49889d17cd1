//! ADD: look without touching, then make it, and undo all of it on any failure, a panic too.
//!
//! The link comes first. Its name can be taken once, so it is the lock of the attachment: a second ADD for the same
//! interface fails there, before IPAM is asked, and cannot release the addresses of the first when it is undone.

use std::thread;
use std::time::{Duration, Instant};

use cni::{AddResult, Attachment, Call, Ipam};
use linux::{Errno, Link, Netns, NewLink, Rtnl, sysctl};

use crate::config::Keys;
use crate::container;
use crate::dad::Detection;
use crate::dismantle::{delete_temporary, describe, dismantle, temporary_name};
use crate::error::{self, Error, Result};
use crate::parent;
use crate::plan::{self, Plan};
use crate::{Choice, Kind, Permit, Place};

/// How long another holder of the same MAC or IPv6 address, such as a container that is just ending, may take to go.
pub(crate) const HOLDER_GOES_WITHIN: Duration = Duration::from_secs(5);
/// ADD.
pub fn add(
    call: &Call<'_>,
    attachment: &Attachment,
    kind: &dyn Kind,
    choice: &Choice,
    mut keys: Keys,
) -> std::result::Result<AddResult, cni::Error> {
    let ipam = Ipam::find(call)?;
    let chained = match &ipam {
        None if kind.chains() => call.prev_result()?,
        _ => None,
    };
    if let Some(previous) = &chained {
        keys.take_master(previous)?;
    }
    let mut attempt = Attempt::look(call, attachment, kind, choice, &keys, ipam, chained)?;
    match attempt.make() {
        Ok(result) => {
            attempt.made = None;
            attempt.leased = false;
            Ok(result)
        }
        Err(error) => {
            let failures = attempt.undo();
            Err(failures.into_iter().fold(error, |error, failure| error.with_detail(format_args!("undo: {failure}"))))
        }
    }
}

/// An ADD in progress. Dropped before it has succeeded, it undoes what it did.
struct Attempt<'a> {
    call: &'a Call<'a>,
    attachment: &'a Attachment,
    kind: &'a dyn Kind,
    choice: &'a Choice,
    keys: &'a Keys,
    ipam: Option<Ipam<'a>>,
    /// What the plugin before this one in a chain has leased, in place of IPAM.
    chained: Option<AddResult>,
    home: Netns,
    host: Rtnl,
    inside: Rtnl,
    netns: Netns,
    parent: Link,
    made: Option<Made>,
    leased: bool,
}

/// A link of ours: known by its name alone until the kernel has told its ifindex.
struct Made {
    name: String,
    ifindex: Option<u32>,
}

impl<'a> Attempt<'a> {
    /// Opens and judges everything that the attachment needs. Changes nothing.
    fn look(
        call: &'a Call<'a>,
        attachment: &'a Attachment,
        kind: &'a dyn Kind,
        choice: &'a Choice,
        keys: &'a Keys,
        ipam: Option<Ipam<'a>>,
        chained: Option<AddResult>,
    ) -> std::result::Result<Self, cni::Error> {
        let netns = container::open(call, attachment)?;
        let open = || -> Result<_> {
            let home = Netns::current()?;
            let mut host = Rtnl::open()?;
            let mut inside = Rtnl::open_in(&netns)?;
            let beside_parent = if keys.link_in_container { &mut inside } else { &mut host };
            let parent = parent::find(beside_parent, keys.master.as_deref())?;
            parent::refuse_mtu(&parent, keys.mtu)?;
            if let Some(link) = inside.link(&attachment.ifname)? {
                return Err(Error::NameTaken { ifname: attachment.ifname.clone(), what: describe(&link) });
            }
            Ok((home, host, inside, parent))
        };
        let (home, host, inside, parent) = open()?;
        Ok(Self {
            call,
            attachment,
            kind,
            choice,
            keys,
            ipam,
            chained,
            home,
            host,
            inside,
            netns,
            parent,
            made: None,
            leased: false,
        })
    }

    fn make(&mut self) -> std::result::Result<AddResult, cni::Error> {
        let permit = self.permit()?;
        let link = self.create()?;
        drop(permit);
        let mut leased = match &self.ipam {
            Some(ipam) => {
                // Also when it fails: a plugin that was killed half way may have leased something.
                self.leased = true;
                // Its result has no interfaces, by the specification (section 4); what it has is none of ours.
                AddResult { interfaces: Vec::new(), ..ipam.add(self.attachment)? }
            }
            None => self.chained.take().unwrap_or_default(),
        };
        self.furnish(link.ifindex, &mut leased).map_err(|error| self.blame_the_gone(error))?;
        Ok(plan::result(self.attachment, &link, leased, self.keys.dns()))
    }

    fn permit(&mut self) -> std::result::Result<Permit, cni::Error> {
        let in_container = self.keys.link_in_container;
        let mut place = Place {
            beside_parent: if in_container { &mut self.inside } else { &mut self.host },
            parent_netns: if in_container { &self.netns } else { &self.home },
            parent: &self.parent,
            netns: &self.netns,
            temporary_name: temporary_name(self.attachment),
        };
        self.kind.permit(self.choice, &mut place)
    }

    /// Makes the link in the container's netns at once, down, with its final name.
    fn create(&mut self) -> Result<Link> {
        let ifname = &self.attachment.ifname;
        let operation = format!("create {} {ifname} on {}", self.choice.link.name(), self.parent.name);
        let refused = match self.new_link(ifname) {
            Ok(()) => return self.created(ifname.clone(), &operation),
            Err(error) => error,
        };
        if refused.errno() != Some(Errno::EEXIST) || self.keys.link_in_container {
            let rtnl = if self.keys.link_in_container { &mut self.inside } else { &mut self.host };
            return Err(parent::explain(rtnl, &self.parent, self.choice.link.name(), refused.during(operation)));
        }
        // An older kernel minds a link of that name on the host, where this one will never be (FACTS: Linux 6.1).
        let temporary = temporary_name(self.attachment);
        delete_temporary(&mut self.inside, &temporary)?;
        self.new_link(&temporary).map_err(|error| error.during(operation.as_str()))?;
        let link = self.created(temporary, &operation)?;
        self.inside.rename(link.ifindex, ifname).map_err(|error| error.during(operation.as_str()))?;
        Ok(link)
    }

    fn new_link(&mut self, name: &str) -> linux::Result<()> {
        let link = NewLink {
            name,
            kind: self.choice.link,
            parent: self.parent.ifindex,
            mtu: self.keys.mtu,
            mac: self.choice.mac,
            netns: (!self.keys.link_in_container).then_some(&self.netns),
        };
        let rtnl = if self.keys.link_in_container { &mut self.inside } else { &mut self.host };
        rtnl.new_link(&link)
    }

    /// Notes a link that the kernel has just made, and reads what the kernel chose for it.
    fn created(&mut self, name: String, operation: &str) -> Result<Link> {
        let made = self.made.insert(Made { name, ifindex: None });
        let link = self.inside.link(&made.name)?.ok_or_else(|| Error::LinkGone(operation.to_owned()))?;
        made.ifindex = Some(link.ifindex);
        Ok(link)
    }

    /// Everything inside the container, in the order in which it takes effect: sysctls and addresses while the link is
    /// down, so that the kernel itself announces them when it comes up; routes; and IPv6 addresses usable on return.
    fn furnish(&mut self, ifindex: u32, leased: &mut AddResult) -> Result<()> {
        let ifname = &self.attachment.ifname;
        let plan = Plan::new(ifname, leased)?;
        if !plan.sysctls.is_empty() {
            let pairs: Vec<_> = plan.sysctls.iter().map(|(key, value)| (key.as_str(), *value)).collect();
            for error in sysctl::write_all(&self.netns, &pairs).into_iter().filter_map(linux::Result::err) {
                self.call.warn(format_args!("ADD: {error}"));
            }
        }
        let detection = Detection::begin(&self.netns, ifname, plan.ipv6())?;
        for address in &plan.addresses {
            let assigned = self.inside.new_address(ifindex, *address);
            assigned.map_err(|error| error.during(format!("assign {address} to {ifname}")))?;
        }
        self.set_up(ifindex)?;
        let mut skipped = Vec::new();
        for (index, route) in plan.routes.iter().enumerate() {
            let route = linux::Route { oif: Some(ifindex), ..route.clone() };
            match self.inside.new_route(&route) {
                Ok(()) => {}
                // As the reference has it: the first one wins, often the default route of another network.
                Err(error) if error.errno() == Some(Errno::EEXIST) => {
                    self.call.warn(format_args!("ADD: the container already has a route to {}: it is kept", route.dst));
                    skipped.push(index);
                }
                Err(error) => {
                    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
                    return Err(error.during(format!("add route {}{via} dev {ifname}", route.dst)).into());
                }
            }
        }
        let mut index = 0..;
        leased.routes.retain(|_| !skipped.contains(&index.next().unwrap_or_default()));
        if let Some(text) = parent::silence(&self.parent) {
            self.call.warn(format_args!("ADD: {text}"));
        }
        let Some(detection) = detection else { return Ok(()) };
        if !detection.end(&self.netns, &mut self.inside, ifindex)? {
            self.call.warn(format_args!("ADD: {ifname} has no carrier: IPv6 addresses stay tentative until it has"));
        }
        Ok(())
    }

    /// Brings the link up. Its MAC may still be that of a container which is just ending; the kernel says so only now.
    fn set_up(&mut self, ifindex: u32) -> Result<()> {
        let deadline = Instant::now() + HOLDER_GOES_WITHIN;
        let mut pause = Duration::from_millis(5);
        loop {
            let error = match self.inside.set_up(ifindex) {
                Ok(()) => return Ok(()),
                Err(error) => error.during(format!("set {} up", self.attachment.ifname)),
            };
            if error.errno() != Some(Errno::EADDRINUSE) {
                return Err(error.into());
            }
            if Instant::now() >= deadline {
                let mac = self.choice.mac.map(|mac| mac.to_string()).unwrap_or_default();
                let parent = &self.parent.name;
                let why = format!(
                    "another interface on {parent} has the MAC {mac}, and still had it after {HOLDER_GOES_WITHIN:?}"
                );
                return Err(Error::Explained { error, why });
            }
            // It is in another netns, so no event tells us when it goes.
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// "No such device" in the middle of an ADD has one cause.
    fn blame_the_gone(&mut self, error: Error) -> Error {
        match &error {
            Error::Linux(cause) if error::is_gone(cause) => {
                let gone = self.made.as_ref().and_then(|made| made.ifindex);
                let gone = gone.is_some_and(|ifindex| matches!(self.inside.link_by_index(ifindex), Ok(None)));
                if gone { Error::LinkGone(format!("create {}", self.attachment.ifname)) } else { error }
            }
            _ => error,
        }
    }

    /// Undoes what was done, and says what could not be.
    fn undo(&mut self) -> Vec<cni::Error> {
        let found = match self.made.take() {
            Some(Made { ifindex: None, name }) => self.inside.link(&name).map(|link| link.map(|link| link.ifindex)),
            Some(Made { ifindex, .. }) => Ok(ifindex),
            None => Ok(None),
        };
        let ifindex = match found {
            Ok(ifindex) => ifindex,
            // It has no address yet, and nothing was leased.
            Err(error) => return vec![Error::from(error).into()],
        };
        let leased = std::mem::take(&mut self.leased);
        let ipam = self.ipam.as_ref().filter(|_| leased);
        let release = || ipam.map_or(Ok(()), |ipam| ipam.del(self.attachment));
        dismantle(ifindex.map(|ifindex| (&mut self.inside, ifindex)), release)
    }
}

impl Drop for Attempt<'_> {
    /// A panic. What cannot be undone then is a DEL's to clean.
    fn drop(&mut self) {
        self.undo();
    }
}
