//! The steps of an attachment, one file each, and the contract between them and [`crate::life`].

pub(crate) mod addresses;
pub(crate) mod detection;
mod held;
pub(crate) mod keep_addresses;
pub(crate) mod lease;
pub(crate) mod link;
pub(crate) mod routes;
pub(crate) mod sysctls;
pub(crate) mod up;

use cni::AddResult;
use linux::{Link, LinkKind, Netns, NewLink, Rtnl};

use crate::error::{Error, Result};
use crate::{Settings, Task, container, parent};

/// One concern of an attachment. Whatever is not said here does nothing.
pub(crate) trait Step<'a> {
    /// ADD: decides what will be done, as soon as the addresses are known. Touches nothing.
    fn plan(&mut self, _known: &mut Known<'_>) -> Result<()> {
        Ok(())
    }

    /// ADD: does it.
    fn apply(&mut self, _making: &mut Making<'a>) -> Result<()> {
        Ok(())
    }

    /// ADD, when all steps are applied: waits for what takes its time, and looks once more. The last step comes first.
    fn finish(&mut self, _making: &mut Making<'a>) -> Result<()> {
        Ok(())
    }

    /// CHECK: compares.
    fn verify(&self, _seeing: &mut Seeing<'_>) -> Result<()> {
        Ok(())
    }

    /// Before an undo: finds what there is to be undone. After a failed ADD, that is what this very ADD did; on DEL, what
    /// any ADD may have left. There may be no network namespace, no parent and no earlier result.
    fn find(&mut self, _taking: &mut Taking<'a, '_>) -> Result<()> {
        Ok(())
    }

    /// Tells others that an undo begins, before any step is undone.
    fn begin_undo(&mut self, _taking: &mut Taking<'a, '_>) -> Result<()> {
        Ok(())
    }

    /// Takes it back. What is gone already is undone. What lies in the container goes with its namespace.
    fn undo(&mut self, _taking: &mut Taking<'a, '_>) -> Result<Undone> {
        Ok(Undone::Whole)
    }
}

/// How far a step is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    Whole,
    /// It has to wait for others. After a second time it stays.
    Later,
}

/// What is known when the steps are planned.
pub(crate) struct Known<'a> {
    pub(crate) ifname: &'a str,
    /// Of the link, in bytes.
    pub(crate) mtu: u32,
    pub(crate) leased: &'a AddResult,
    /// Keys below /proc/sys with their values, which are set all at once while the link is down. Any step may add to them.
    pub(crate) sysctls: Vec<(String, &'static str)>,
}

impl Known<'_> {
    /// Returns true if one of the addresses is of IPv6.
    pub(crate) fn has_v6(&self) -> bool {
        self.leased.ips.iter().any(|ip| ip.address.addr().is_ipv6())
    }

    /// Sets a key of the link below /proc/sys/net, such as `ipv4/conf` with `arp_notify`.
    pub(crate) fn set(&mut self, folder: &str, key: &str, value: &'static str) {
        self.sysctls.push((format!("net/{folder}/{}/{key}", self.ifname), value));
    }
}

/// An attachment that is being made.
pub(crate) struct Making<'a> {
    pub(crate) task: &'a Task<'a>,
    pub(crate) settings: &'a Settings<'a>,
    /// This process's own namespace, which is the host's.
    home: Netns,
    host: Rtnl,
    /// A socket in the container.
    pub(crate) inside: Rtnl,
    pub(crate) netns: Netns,
    pub(crate) parent: Link,
    /// The link, from the first step on.
    pub(crate) link: Option<Link>,
    /// What is leased, and later what is in effect of it, from the second step on.
    pub(crate) leased: Option<AddResult>,
    /// What the steps have planned.
    pub(crate) sysctls: Vec<(String, &'static str)>,
}

impl<'a> Making<'a> {
    /// Opens and judges everything that the attachment needs. Changes nothing.
    pub(crate) fn look(task: &'a Task<'a>, settings: &'a Settings<'a>) -> Result<Self> {
        let (netns, home) = container::open(task)?;
        let mut host = Rtnl::open()?;
        let mut inside = Rtnl::open_in(&netns)?;
        let parent = match settings.link_in_container {
            true => parent::find(&mut inside, || Rtnl::open_in(&netns), settings.master)?,
            false => parent::find(&mut host, Rtnl::open, settings.master)?,
        };
        parent::judge_mtu(&parent, settings.mtu)?;
        Ok(Self { task, settings, home, host, inside, netns, parent, link: None, leased: None, sysctls: Vec::new() })
    }

    /// Makes a link from the host in the container's namespace.
    pub(crate) fn new_link_from_host(&mut self, link: &NewLink<'_>) -> linux::Result<()> {
        self.host.new_link(&NewLink { netns: Some(&self.netns), ..*link })
    }

    /// A socket in the parent's namespace.
    pub(crate) fn beside_parent(&mut self) -> &mut Rtnl {
        if self.settings.link_in_container { &mut self.inside } else { &mut self.host }
    }

    pub(crate) fn site(&mut self) -> crate::Site<'_> {
        let (beside_parent, parent_netns) = match self.settings.link_in_container {
            true => (&mut self.inside, &self.netns),
            false => (&mut self.host, &self.home),
        };
        crate::Site { beside_parent, parent_netns, parent: &self.parent }
    }

    /// The number of the link; 0, which no link has, before it is made.
    pub(crate) fn ifindex(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.ifindex)
    }

    pub(crate) fn mtu(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.mtu)
    }

    /// Returns true if the link was made and is no more.
    pub(crate) fn link_is_gone(&mut self) -> bool {
        self.link.is_some() && matches!(self.inside.link_by_index(self.ifindex()), Ok(None))
    }
}

/// An attachment that is being taken apart.
pub(crate) struct Taking<'a, 'r> {
    pub(crate) task: &'a Task<'a>,
    pub(crate) why: Why<'a>,
    /// A socket in the container; none without a network namespace.
    pub(crate) inside: Option<&'r mut Rtnl>,
    /// The attachment's links that are still there. It is one as a rule.
    pub(crate) links: Vec<u32>,
    /// Whether there is such a link, or one of another owner under its name.
    pub(crate) has_seen_link: bool,
    /// Whether a step could not be undone, so that a link may still answer for its addresses.
    pub(crate) is_in_doubt: bool,
    /// Whether IPAM needs the address on the link to release it.
    pub(crate) needs_address_for_release: bool,
}

/// The reason for an undo.
#[derive(Clone, Copy)]
pub(crate) enum Why<'a> {
    /// An ADD has failed.
    Failed,
    Del {
        /// The kind of the link.
        kind: &'a str,
        /// What ADD has returned.
        previous: &'a dyn Fn() -> Option<AddResult>,
    },
}

impl<'a, 'r> Taking<'a, 'r> {
    pub(crate) fn new(task: &'a Task<'a>, inside: Option<&'r mut Rtnl>, why: Why<'a>) -> Self {
        Self {
            task,
            why,
            inside,
            links: Vec::new(),
            has_seen_link: false,
            is_in_doubt: false,
            needs_address_for_release: false,
        }
    }
}

/// An attachment that is being looked at.
pub(crate) struct Seeing<'a> {
    pub(crate) task: &'a Task<'a>,
    /// The kind of the link with its mode.
    pub(crate) kind: &'a LinkKind,
    /// What ADD has returned, with what later plugins have made of it.
    pub(crate) expected: &'a AddResult,
    /// A socket in the container.
    pub(crate) rtnl: Rtnl,
    /// The link, from the first step on.
    pub(crate) link: Option<Link>,
}

impl Seeing<'_> {
    /// The number of the link; 0, which no link has, before it is found.
    pub(crate) fn ifindex(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.ifindex)
    }

    pub(crate) fn differs(&self, what: String) -> Error {
        Error::Differs { ifname: self.task.attachment.ifname.to_owned(), what }
    }
}

#[cfg(test)]
mod tests {
    use cni::Ip;

    use super::*;

    /// What IPAM leases in the tests of the steps.
    pub(crate) fn leased() -> AddResult {
        let ip = |address: &str, gateway: Option<&str>| Ip {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
        };
        AddResult { ips: vec![ip("10.0.0.5/24", Some("10.0.0.1")), ip("fd00::5/64", None)], ..AddResult::default() }
    }

    pub(crate) fn known(leased: &AddResult) -> Known<'_> {
        Known { ifname: "eth0.5", mtu: 1500, leased, sysctls: Vec::new() }
    }

    /// The sysctls that a step plans.
    pub(crate) fn keys<'a, S: Step<'a> + Default>(leased: &AddResult) -> Vec<String> {
        let mut known = known(leased);
        S::default().plan(&mut known).unwrap();
        known.sysctls.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}
