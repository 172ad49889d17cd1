//! The steps of an attachment. Each step has its own file and implements [`Step`] for [`crate::life`].

pub(crate) mod addresses;
pub(crate) mod announce;
pub(crate) mod detection;
pub(crate) mod gateway;
mod held;
pub(crate) mod host_access;
pub(crate) mod keep_addresses;
pub(crate) mod lease;
pub(crate) mod link;
pub(crate) mod own_host;
pub(crate) mod probe;
pub(crate) mod routes;
pub(crate) mod slaac;
pub(crate) mod sysctls;
pub(crate) mod up;
pub(crate) mod vlan;
pub(crate) mod wishes;

use std::net::IpAddr;

use cni::AddResult;
use ipnet::IpNet;
use linux::{ArpSocket, Link, Mac, NdpSocket, Netns, NewLink, Rtnl, file};

use crate::error::{Error, Result};
use crate::lan::{Found, Supply};
use crate::record::{self, Home, Place, Record};
use crate::{DefaultRoute, HostAccess, Settings, Task, Wished, container, parent};

/// An ADD tries at most so many addresses that other machines have.
const MOST_CONFLICTS: usize = 10;

/// One part of an attachment. A method that a step does not implement does nothing.
pub(crate) trait Step<'a> {
    /// ADD: plans the work, as soon as the addresses are known. Changes nothing.
    fn plan(&mut self, _known: &mut Known<'_>) -> Result<()> {
        Ok(())
    }

    /// ADD: does the work.
    fn apply(&mut self, _making: &mut Making<'a>) -> Result<()> {
        Ok(())
    }

    /// ADD: takes the work back, because other machines have leased addresses. The last step comes first. Returns true if
    /// the ADD must begin again with this step.
    fn take_back(&mut self, _making: &mut Making<'a>, _found: &[Found]) -> Result<bool> {
        Ok(false)
    }

    /// ADD: waits for slow changes and checks the outcome, when all steps are applied. The last step comes first.
    fn finish(&mut self, _making: &mut Making<'a>) -> Result<()> {
        Ok(())
    }

    /// CHECK: compares the attachment with the result of ADD.
    fn verify(&self, _seeing: &mut Checking<'_>) -> Result<()> {
        Ok(())
    }

    /// Before an undo: finds what must be undone. After a failed ADD, that is the work of this ADD; for a DEL, the work
    /// of any ADD. There may be no network namespace, no parent and no earlier result.
    fn find(&mut self, _taking: &mut Undoing<'a, '_>) -> Result<()> {
        Ok(())
    }

    /// Tells parallel calls that an undo begins, before any step is undone.
    fn begin_undo(&mut self, _taking: &mut Undoing<'a, '_>) -> Result<()> {
        Ok(())
    }

    /// Undoes the work. A missing object counts as undone. The kernel removes everything else with the namespace.
    fn undo(&mut self, _taking: &mut Undoing<'a, '_>) -> Result<Undone> {
        Ok(Undone::Whole)
    }
}

/// The outcome of an undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    Whole,
    /// The step must wait for others. It is undone a second time after them, and then stays as it is.
    Later,
}

/// The known facts when the steps are planned.
pub(crate) struct Known<'a> {
    pub(crate) ifname: &'a str,
    /// The MTU of the link, in bytes.
    pub(crate) mtu: u32,
    pub(crate) leased: &'a AddResult,
    /// `None` if a result is judged without an ADD.
    pub(crate) settings: Option<&'a Settings<'a>>,
    /// Keys below /proc/sys with their values. They are set together while the link is down. Every step may add some.
    pub(crate) sysctls: Vec<(String, &'static str)>,
}

impl Known<'_> {
    /// Returns true if there is an IPv6 address, or one is expected.
    pub(crate) fn has_v6(&self) -> bool {
        self.leased.ips.iter().any(|ip| ip.address.addr().is_ipv6()) || self.awaits_router()
    }

    /// Returns true if an address from a router advertisement is expected.
    pub(crate) fn awaits_router(&self) -> bool {
        self.settings.is_some_and(|settings| settings.slaac_timeout.is_some())
    }

    /// `None` if the configuration does not ask for it.
    pub(crate) fn host_access(&self) -> Option<&HostAccess> {
        self.settings.and_then(|settings| settings.host_access)
    }

    pub(crate) fn default_route(&self) -> DefaultRoute {
        self.settings.map_or(DefaultRoute::Usual, |settings| settings.default_route)
    }

    /// Adds a sysctl of the link, such as `ipv4/conf` with `arp_notify`.
    pub(crate) fn set(&mut self, folder: &str, key: &str, value: &'static str) {
        self.sysctls.push((format!("net/{folder}/{}/{key}", self.ifname), value));
    }
}

/// The state of an ADD.
pub(crate) struct Making<'a> {
    pub(crate) task: &'a Task<'a>,
    pub(crate) settings: &'a Settings<'a>,
    home: Netns,
    /// A socket in the home namespace.
    pub(crate) host: Rtnl,
    /// A socket in the container.
    pub(crate) inside: Rtnl,
    pub(crate) netns: Netns,
    pub(crate) parent: Link,
    /// The link, after the first step.
    pub(crate) link: Option<Link>,
    /// The leased addresses and routes, after the second step. Later, routes that were not added are removed.
    pub(crate) leased: Option<AddResult>,
    /// Addresses that other machines have, in the order in which they were leased.
    pub(crate) found: Vec<Found>,
    /// So many of these were named to IPAM.
    pub(crate) named: usize,
    /// The sysctls that the steps have planned.
    pub(crate) sysctls: Vec<(String, &'static str)>,
    /// The running detection of IPv6 addresses.
    pub(crate) dad: Option<detection::Running>,
    /// The socket of the probes: on the link, or with ipvlan on the parent.
    pub(crate) arp: Option<ArpSocket>,
    /// The socket that hears which machine has an IPv6 address.
    pub(crate) ndp: Option<NdpSocket>,
    /// True if the link was up before it had its IPv4 addresses. Then the kernel does not announce them.
    pub(crate) was_up_without_v4: bool,
    /// The VLAN link that is the parent, if the configuration asks for one.
    pub(crate) vlan: Option<record::Vlan>,
    /// The lock of the host's side, until a new link shows that its VLAN link is in use.
    pub(crate) host_lock: Option<file::Lock>,
}

impl<'a> Making<'a> {
    /// Opens and checks everything that the attachment needs. Changes nothing.
    pub(crate) fn look(task: &'a Task<'a>, settings: &'a Settings<'a>) -> Result<Self> {
        let (netns, home) = container::open(task)?;
        let mut host = Rtnl::open()?;
        let mut inside = Rtnl::open_in(&netns)?;
        let kind = settings.link.name();
        let parent = match settings.link_in_container {
            true => parent::find(&mut inside, || Rtnl::open_in(&netns), settings.parent, kind)?,
            false => parent::find(&mut host, Rtnl::open, settings.parent, kind)?,
        };
        parent::judge_mtu(&parent, settings.mtu)?;
        if let Some(access) = settings.host_access {
            access.judge_kind(&settings.link, settings.link_in_container)?;
            HostAccess::judge_parent(&settings.link, &parent)?;
        }
        Ok(Self {
            task,
            settings,
            home,
            host,
            inside,
            netns,
            parent,
            link: None,
            leased: None,
            found: Vec::new(),
            named: 0,
            sysctls: Vec::new(),
            dad: None,
            arp: None,
            ndp: None,
            was_up_without_v4: false,
            vlan: None,
            host_lock: None,
        })
    }

    /// The record of the attachment.
    pub(crate) fn record(&self, access: Option<record::Access>) -> Result<Record> {
        let attachment = &self.task.attachment;
        let path = attachment.netns.ok_or(Error::NetnsUnset)?;
        Ok(Record {
            schema: record::SCHEMA,
            network: self.task.network.to_owned(),
            container_id: attachment.container_id.to_owned(),
            ifname: attachment.ifname.to_owned(),
            home: Home::here(&self.host)?,
            container: Place::new(path, &self.netns, &self.inside)?,
            vlan: self.vlan,
            access,
        })
    }

    /// Creates a link in the container's namespace, on a parent on the host.
    pub(crate) fn new_link_from_host(&mut self, link: &NewLink<'_>) -> linux::Result<()> {
        self.host.new_link(&NewLink { netns: Some(&self.netns), ..*link })
    }

    /// Returns a socket in the parent's namespace.
    pub(crate) fn beside_parent(&mut self) -> &mut Rtnl {
        if self.settings.link_in_container { &mut self.inside } else { &mut self.host }
    }

    /// Returns the addresses in the parent's namespace. A link-local address of IPv6 counts only on the parent: the same one
    /// on another link is another address.
    pub(crate) fn addresses_beside_parent(&mut self) -> Result<Vec<IpAddr>> {
        let parent = self.parent.ifindex;
        let is_elsewhere = |address: &linux::Address| {
            matches!(address.address.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local()) && address.ifindex != parent
        };
        let mut present = self.beside_parent().all_addresses()?;
        present.retain(|address| !is_elsewhere(address));
        Ok(present.into_iter().map(|address| address.address.addr()).collect())
    }

    pub(crate) fn site(&mut self) -> crate::Site<'_> {
        let (beside_parent, parent_netns) = match self.settings.link_in_container {
            true => (&mut self.inside, &self.netns),
            false => (&mut self.host, &self.home),
        };
        crate::Site { beside_parent, parent_netns, parent: &self.parent }
    }

    /// Returns the ifindex of the link. Returns 0, which no link has, before it is created.
    pub(crate) fn ifindex(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.ifindex)
    }

    pub(crate) fn mtu(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.mtu)
    }

    /// Returns the MAC of the link. Returns zeros before it is created.
    pub(crate) fn mac(&self) -> Mac {
        self.link.as_ref().and_then(|link| link.mac).unwrap_or(Mac::from([0; 6]))
    }

    /// The leased addresses with their prefix lengths.
    pub(crate) fn leased_nets(&self) -> impl Iterator<Item = IpNet> {
        self.leased.iter().flat_map(|leased| &leased.ips).map(|ip| ip.address)
    }

    /// The leased addresses.
    pub(crate) fn leased_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.leased_nets().map(|net| net.addr())
    }

    /// Returns whether IPAM can give another address in place of this one. Without IPAM, the addresses are those of an earlier
    /// plugin.
    pub(crate) fn supply(&self, address: IpAddr) -> Supply {
        self.task.ipam.map_or(Supply::Fixed, |ipam| ipam.supply(address))
    }

    /// Notes addresses that other machines have. Returns the error of this step, after which the ADD continues with other
    /// addresses if there can be some.
    pub(crate) fn refuse(&mut self, found: Vec<Found>) -> Error {
        self.found.extend(&found);
        let (ifname, parent) = (self.task.attachment.ifname.to_owned(), self.parent.name.clone());
        match found.iter().all(|found| self.supply(found.address) == Supply::Others) {
            true if self.found.len() < MOST_CONFLICTS => Error::Conflict(found),
            true => Error::AllInUse { found: self.found.clone(), ifname, parent },
            false => Error::InUse { found, ifname, parent },
        }
    }

    /// Waits before other addresses are leased, if another host has asked for the same ones.
    pub(crate) fn pause_after(&self, found: &[Found]) {
        probe::pause_if_asked(found, self.settings.lan.detect_within);
    }

    /// Returns true if the link was created and does not exist any more.
    pub(crate) fn link_is_gone(&mut self) -> bool {
        self.link.is_some() && matches!(self.inside.link_by_index(self.ifindex()), Ok(None))
    }
}

/// The state of an undo.
pub(crate) struct Undoing<'a, 'r> {
    pub(crate) task: &'a Task<'a>,
    pub(crate) why: Why<'a>,
    /// A socket in the container. `None` if there is no network namespace.
    pub(crate) inside: Option<&'r mut Rtnl>,
    /// The ifindexes of the existing links of the attachment, normally one.
    pub(crate) links: Vec<u32>,
    /// True if there is such a link, or a foreign one with the same name.
    pub(crate) has_seen_link: bool,
    /// True if a step could not be undone. Then a link may still answer for its addresses.
    pub(crate) is_in_doubt: bool,
    /// True if IPAM needs the address on the link to release it.
    pub(crate) needs_address_for_release: bool,
    /// Addresses that other machines have. IPAM keeps them from others.
    pub(crate) found: &'r [Found],
    /// Set after the host's routes to the container were removed. True if the attachment still has a record, which then
    /// names a VLAN. `None` if the record could not be read.
    pub(crate) has_record: Option<bool>,
}

/// The reason for an undo.
#[derive(Clone, Copy)]
pub(crate) enum Why<'a> {
    /// An ADD has failed.
    Failed,
    Del {
        /// The kind of the link.
        kind: &'a str,
        /// Returns the result of ADD.
        previous: &'a dyn Fn() -> Option<AddResult>,
    },
}

impl<'a, 'r> Undoing<'a, 'r> {
    pub(crate) fn new(task: &'a Task<'a>, inside: Option<&'r mut Rtnl>, why: Why<'a>) -> Self {
        Self {
            task,
            why,
            inside,
            links: Vec::new(),
            has_seen_link: false,
            is_in_doubt: false,
            needs_address_for_release: false,
            found: &[],
            has_record: None,
        }
    }
}

/// The state of a CHECK.
pub(crate) struct Checking<'a> {
    pub(crate) task: &'a Task<'a>,
    /// The configuration.
    pub(crate) wished: &'a Wished<'a>,
    /// The result of ADD, with the changes of later plugins.
    pub(crate) expected: &'a AddResult,
    /// A socket in the container.
    pub(crate) rtnl: Rtnl,
    /// The link, after the first step.
    pub(crate) link: Option<Link>,
}

impl Checking<'_> {
    /// Returns the ifindex of the link. Returns 0, which no link has, before it is found.
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

    /// A result of IPAM for the tests of the steps.
    pub(crate) fn leased() -> AddResult {
        let ip = |address: &str, gateway: Option<&str>| Ip {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
        };
        AddResult { ips: vec![ip("10.0.0.5/24", Some("10.0.0.1")), ip("fd00::5/64", None)], ..AddResult::default() }
    }

    pub(crate) fn known(leased: &AddResult) -> Known<'_> {
        Known { ifname: "eth0.5", mtu: 1500, leased, settings: None, sysctls: Vec::new() }
    }

    /// Returns the sysctls that a step plans.
    pub(crate) fn keys<'a, S: Step<'a> + Default>(leased: &AddResult) -> Vec<String> {
        let mut known = known(leased);
        S::default().plan(&mut known).unwrap();
        known.sysctls.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}
