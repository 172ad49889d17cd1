//! ADD: look without touching, then make it, and undo all of it on any failure, a panic too.
//!
//! The link comes first. Its name can be taken once, so it is the lock of the attachment: a second ADD for the same
//! interface fails there, before IPAM is asked, and cannot release the addresses of the first when it is undone.

use std::panic::{self, AssertUnwindSafe};

use cni::{AddResult, Attachment, Call, Ipam};
use ipnet::IpNet;
use linux::{Errno, Link, Netns, NewLink, Rtnl, sysctl};

use crate::config::Keys;
use crate::container;
use crate::dad::Detection;
use crate::dismantle::{LEAVING, Order, delete_temporary, describe, dismantle, temporary_name};
use crate::error::{self, Error, Result};
use crate::held;
use crate::parent;
use crate::plan::{self, Plan};
use crate::{Choice, Kind, Permit, Place};

/// How often a router may advertise itself just between two messages to the kernel.
const QUICKER_ROUTER: usize = 4;

/// ADD.
pub fn add(
    call: &Call<'_>,
    attachment: &Attachment,
    kind: &dyn Kind,
    choice: &Choice,
    mut keys: Keys,
) -> std::result::Result<AddResult, cni::Error> {
    let ipam = Ipam::find(call)?;
    let reads_previous = kind.chains() && (ipam.is_none() || keys.master.is_none());
    let previous = if reads_previous { call.prev_result()? } else { None };
    if let Some(previous) = &previous {
        keys.take_master(previous)?;
    }
    let chained = previous.filter(|_| ipam.is_none());
    let asked = Asked { call, attachment, kind, choice, keys: &keys };
    let mut attempt = Attempt::look(asked, ipam, chained)?;
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

/// What an ADD is asked for.
struct Asked<'a> {
    call: &'a Call<'a>,
    attachment: &'a Attachment,
    kind: &'a dyn Kind,
    choice: &'a Choice,
    keys: &'a Keys,
}

/// An ADD in progress. Dropped before it has succeeded, it undoes what it did.
struct Attempt<'a> {
    asked: Asked<'a>,
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
        asked: Asked<'a>,
        ipam: Option<Ipam<'a>>,
        chained: Option<AddResult>,
    ) -> std::result::Result<Self, cni::Error> {
        let keys = asked.keys;
        let (netns, home) = container::open_from_home(asked.call, asked.attachment)?;
        let open = || -> Result<_> {
            let mut host = Rtnl::open()?;
            let mut inside = Rtnl::open_in(&netns)?;
            let beside_parent = if keys.link_in_container { &mut inside } else { &mut host };
            let parent = parent::find(beside_parent, keys.master.as_deref())?;
            parent::refuse_mtu(&parent, keys.mtu)?;
            Ok((host, inside, parent))
        };
        let (host, inside, parent) = open()?;
        let mut attempt = Self { asked, ipam, chained, home, host, inside, netns, parent, made: None, leased: false };
        // The kernel would say so as well. But where its answer is lost, what has the name could be taken for ours.
        attempt.refuse_taken_name()?;
        Ok(attempt)
    }

    fn make(&mut self) -> std::result::Result<AddResult, cni::Error> {
        // Whoever has to be asked for a permit may make a link of this name for an instant.
        self.made = Some(Made { name: temporary_name(self.asked.attachment), ifindex: None });
        let permit = self.permit()?;
        self.made = None;
        let link = self.create()?;
        drop(permit);
        let mut leased = match &self.ipam {
            Some(ipam) => {
                // Also when it fails: a plugin that was killed half way may have leased something.
                self.leased = true;
                // Its result has no interfaces, by the specification (section 4); what it has is none of ours.
                AddResult { interfaces: Vec::new(), ..ipam.add(self.asked.attachment)? }
            }
            None => self.chained.take().unwrap_or_default(),
        };
        self.furnish(&link, &mut leased).map_err(|error| self.blame_the_gone(error))?;
        Ok(plan::result(self.asked.attachment, &link, leased, &self.asked.keys.dns))
    }

    fn permit(&mut self) -> std::result::Result<Permit, cni::Error> {
        let in_container = self.asked.keys.link_in_container;
        let mut place = Place {
            beside_parent: if in_container { &mut self.inside } else { &mut self.host },
            parent_netns: if in_container { &self.netns } else { &self.home },
            parent: &self.parent,
            netns: &self.netns,
            temporary_name: temporary_name(self.asked.attachment),
        };
        self.asked.kind.permit(self.asked.choice, &mut place)
    }

    /// Makes the link in the container's netns at once, down, with its final name.
    fn create(&mut self) -> Result<Link> {
        let ifname = &self.asked.attachment.ifname;
        let operation = format!("create {} {ifname} on {}", self.asked.choice.link.name(), self.parent.name);
        let refused = match self.new_link(ifname) {
            Ok(()) => return self.created(ifname.clone(), &operation),
            Err(error) => error,
        };
        if !is_verdict(&refused) {
            // It may have been made all the same.
            self.made = Some(Made { name: ifname.clone(), ifindex: None });
            return Err(refused.during(operation).into());
        }
        if refused.errno() != Some(Errno::EEXIST) {
            let rtnl = if self.asked.keys.link_in_container { &mut self.inside } else { &mut self.host };
            return Err(parent::explain(rtnl, &self.parent, &self.asked.choice.link, refused.during(operation)));
        }
        self.refuse_taken_name()?;
        // An older kernel (6.1) minds a link of that name on the host, where this one will never be.
        let temporary = temporary_name(self.asked.attachment);
        delete_temporary(&mut self.inside, &temporary)?;
        if let Err(error) = self.new_link(&temporary) {
            self.made = (!is_verdict(&error)).then_some(Made { name: temporary, ifindex: None });
            return Err(error.during(operation).into());
        }
        let link = self.created(temporary, &operation)?;
        if let Err(error) = self.inside.rename(link.ifindex, ifname) {
            self.refuse_taken_name()?;
            return Err(error.during(operation).into());
        }
        Ok(link)
    }

    fn refuse_taken_name(&mut self) -> Result<()> {
        let ifname = &self.asked.attachment.ifname;
        match self.inside.link(ifname)? {
            Some(link) => Err(Error::NameTaken { ifname: ifname.clone(), what: describe(&link) }),
            None => Ok(()),
        }
    }

    fn new_link(&mut self, name: &str) -> linux::Result<()> {
        let link = NewLink {
            name,
            kind: self.asked.choice.link,
            parent: self.parent.ifindex,
            mtu: self.asked.keys.mtu,
            mac: self.asked.choice.mac,
            netns: (!self.asked.keys.link_in_container).then_some(&self.netns),
        };
        let rtnl = if self.asked.keys.link_in_container { &mut self.inside } else { &mut self.host };
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
    fn furnish(&mut self, link: &Link, leased: &mut AddResult) -> Result<()> {
        let (ifname, ifindex) = (&self.asked.attachment.ifname, link.ifindex);
        let plan = Plan::new(ifname, link.mtu, leased)?;
        if !plan.sysctls.is_empty() {
            let pairs: Vec<_> = plan.sysctls.iter().map(|(key, value)| (key.as_str(), *value)).collect();
            for error in sysctl::write_all(&self.netns, &pairs).into_iter().filter_map(linux::Result::err) {
                self.asked.call.warn(format_args!("ADD: {error}"));
            }
        }
        let detection = Detection::begin(&self.netns, ifname, plan.ipv6())?;
        for address in &plan.addresses {
            self.assign(ifindex, *address)?;
        }
        self.set_up(ifindex)?;
        self.add_routes(ifindex, &plan.routes, leased)?;
        for text in
            [parent::silence(&self.parent), parent::doubt(&self.parent, &self.asked.choice.link)].into_iter().flatten()
        {
            self.asked.call.warn(format_args!("ADD: {text}"));
        }
        if let Some(detection) = detection
            && !detection.end(&self.netns, &mut self.inside, ifindex)?
        {
            self.asked
                .call
                .warn(format_args!("ADD: {ifname} has no carrier: IPv6 addresses stay tentative until it has"));
        }
        self.see_it_stays(ifindex)
    }

    /// Brings the link up. Its MAC may be that of another container; the kernel says so only now.
    fn set_up(&mut self, ifindex: u32) -> Result<()> {
        let outcome = held::retry(|| self.inside.set_up(ifindex));
        outcome.map_err(|error| {
            let mac = self.asked.choice.mac.map(|mac| mac.to_string()).unwrap_or_default();
            self.explain_held(
                error.during(format!("set {} up", self.asked.attachment.ifname)),
                &format!("the MAC {mac}"),
            )
        })
    }

    fn assign(&mut self, ifindex: u32, address: IpNet) -> Result<()> {
        let outcome = held::retry(|| self.inside.new_address(ifindex, address));
        outcome.map_err(|error| {
            let operation = format!("assign {address} to {}", self.asked.attachment.ifname);
            self.explain_held(error.during(operation), "this address")
        })
    }

    fn explain_held(&self, error: linux::Error, what: &str) -> Error {
        if error.errno() != Some(Errno::EADDRINUSE) {
            return error.into();
        }
        let (parent, after) = (&self.parent.name, held::GOES_WITHIN);
        Error::Explained {
            error,
            why: format!("another interface on {parent} has {what}, and still had it after {after:?}"),
        }
    }

    /// Adds the routes, and takes those out of the result that the container had already.
    fn add_routes(&mut self, ifindex: u32, routes: &[linux::Route], leased: &mut AddResult) -> Result<()> {
        let ifname = &self.asked.attachment.ifname;
        let mut added = Vec::with_capacity(routes.len());
        for route in routes {
            let route = linux::Route { oif: Some(ifindex), ..route.clone() };
            let outcome = self.add_route(&route);
            added.push(outcome.is_ok());
            match outcome {
                Ok(()) => {}
                // The first one stays: often the default route of another network of this container.
                Err(error) if error.errno() == Some(Errno::EEXIST) => {
                    self.asked
                        .call
                        .warn(format_args!("ADD: the container already has a route to {}: it is kept", route.dst));
                }
                Err(error) => {
                    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
                    return Err(error.during(format!("add route {}{via} dev {ifname}", route.dst)).into());
                }
            }
        }
        let mut added = added.into_iter();
        leased.routes.retain(|_| added.next().unwrap_or(true));
        Ok(())
    }

    /// Adds a route beside those that are on this very link, which IPv6 can: another one of this result, by another
    /// gateway, or one that a router on the LAN has advertised meanwhile.
    fn add_route(&mut self, route: &linux::Route) -> linux::Result<()> {
        let is_there =
            |outcome: &linux::Result<()>| outcome.as_ref().is_err_and(|error| error.errno() == Some(Errno::EEXIST));
        let mut outcome = self.inside.new_route(route);
        if !is_there(&outcome) || route.dst.addr().is_ipv4() || !self.inside.can_stand_beside(route)? {
            return outcome;
        }
        outcome = self.inside.append_route(route);
        for _ in 0..QUICKER_ROUTER {
            if !is_there(&outcome) {
                break;
            }
            // The router that advertises itself is the gateway. Its route would end with the advertisement.
            self.inside.delete_advertised(route)?;
            outcome = self.inside.append_route(route);
        }
        outcome
    }

    /// The last look. A DEL that came meanwhile has marked the link before it released anything: what was leased after
    /// that is released here.
    fn see_it_stays(&mut self, ifindex: u32) -> Result<()> {
        match self.inside.link_by_index(ifindex)? {
            Some(link) if link.group != LEAVING => Ok(()),
            _ => Err(Error::LinkGone(format!("create {}", self.asked.attachment.ifname))),
        }
    }

    /// "No such device" in the middle of an ADD has one cause.
    fn blame_the_gone(&mut self, error: Error) -> Error {
        match &error {
            Error::Linux(cause) if error::is_gone(cause) => {
                let gone = self.made.as_ref().and_then(|made| made.ifindex);
                let gone = gone.is_some_and(|ifindex| matches!(self.inside.link_by_index(ifindex), Ok(None)));
                if gone { Error::LinkGone(format!("create {}", self.asked.attachment.ifname)) } else { error }
            }
            _ => error,
        }
    }

    /// Undoes what was done, and says what could not be.
    fn undo(&mut self) -> Vec<cni::Error> {
        let found = match self.made.take() {
            // Whether it was made is not known. Nothing had the name a moment ago, but another ADD may have made it since;
            // one that is up is that one's.
            Some(Made { ifindex: None, name }) => {
                self.inside.link(&name).map(|link| link.filter(|link| !link.up).map(|link| link.ifindex))
            }
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
        let release = || ipam.map_or(Ok(()), |ipam| ipam.del(self.asked.attachment));
        dismantle(ifindex.map(|ifindex| (&mut self.inside, ifindex)), Order::of(ipam), release)
    }
}

impl Drop for Attempt<'_> {
    /// A panic. What cannot be undone then is a DEL's to clean; a second panic on the way would end the process before
    /// it has said anything.
    fn drop(&mut self) {
        let _ = panic::catch_unwind(AssertUnwindSafe(|| self.undo()));
    }
}

/// Whether the kernel itself answered no, or was not even asked. Any other failure leaves open what it did.
fn is_verdict(error: &linux::Error) -> bool {
    matches!(error, linux::Error::Kernel { .. } | linux::Error::InterfaceName { .. })
}
