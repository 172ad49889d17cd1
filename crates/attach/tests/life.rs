//! ADD and DEL through the types of this crate, without a CNI environment or configuration. The tests need root. Each
//! runs in its own network namespaces.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use attach::mark::Mark;
use attach::{Attachment, DefaultRoute, Guard, Ipam, Lan, Permit, Settings, Site, Supply, Task, Wish, Wished};
use cni::{AddResult, Conflict, Dns, Error, Ip, Leased};
use linux::{Link, LinkKind, MacvlanMode, Netns, Rtnl};

const IN_ADD: &str = "a bug in the ADD of IPAM";
const IN_DEL: &str = "a bug in the DEL of IPAM";
const IN_PERMIT: &str = "a bug in a permit";

const BRIDGE: LinkKind = LinkKind::Macvlan { mode: MacvlanMode::Bridge, bcqueuelen: None };

/// An IPAM that leases 192.0.2.7. It can have bugs.
#[derive(Default)]
struct Leases {
    add_panics: bool,
    del_panics: bool,
    can_give_back: bool,
    /// The calls so far.
    asked: RefCell<Vec<&'static str>>,
    /// Runs during ADD.
    meanwhile: RefCell<Option<Box<dyn FnOnce()>>>,
    /// True if a link had an address during the last DEL.
    was_on_link: Cell<bool>,
    /// The container in which DEL looks for that.
    container: Cell<Option<&'static Netns>>,
}

impl Leases {
    fn note(&self, what: &'static str) {
        self.asked.borrow_mut().push(what);
    }

    /// The calls since the last call of this function.
    fn asked(&self) -> Vec<&'static str> {
        self.asked.take()
    }
}

impl Ipam for Leases {
    fn add(&self) -> Result<Leased<'_>, Error> {
        self.note("ADD");
        if self.add_panics {
            panic!("{IN_ADD}");
        }
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        let address = "192.0.2.7/24".parse().expect("an address");
        let result = AddResult { ips: vec![Ip { interface: None, address, gateway: None }], ..AddResult::default() };
        let give_back = || -> Result<(), Error> {
            self.note("give back");
            Ok(())
        };
        Ok(Leased { result, give_back: self.can_give_back.then(|| Box::new(give_back) as _) })
    }

    fn del(&self) -> Result<(), Error> {
        self.note("DEL");
        if let Some(container) = self.container.get() {
            self.was_on_link.set(!addresses(container).is_empty());
        }
        if self.del_panics {
            panic!("{IN_DEL}");
        }
        Ok(())
    }

    fn reject(&self, _conflicts: &[Conflict]) -> Result<(), Error> {
        self.note("reject");
        Ok(())
    }

    fn supply(&self, _address: IpAddr) -> Supply {
        Supply::Others
    }

    fn may_set_up(&self) -> bool {
        false
    }

    fn check(&self) -> Result<(), Error> {
        self.note("CHECK");
        Ok(())
    }

    fn is_held(&self) -> Option<bool> {
        None
    }

    fn releases_from_its_address(&self) -> bool {
        false
    }
}

/// A guard with a bug.
struct Unsound;

impl Guard for Unsound {
    fn permit(&self, _link: &LinkKind, _site: &mut Site<'_>) -> Result<Permit, Error> {
        panic!("{IN_PERMIT}");
    }
}

/// A host with a NIC named `nic0`, and a container.
struct Stage {
    host: Netns,
    container: Netns,
    path: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let (host, container) = (netns(), netns());
        let path = path_of(&container);
        let stage = Self { host, container, path };
        stage.host.enter(|| ip("link add nic0 type veth peer name wire0")).expect("enter the host");
        for name in ["nic0", "wire0"] {
            stage.host.enter(|| ip(&format!("link set {name} up"))).expect("enter the host");
        }
        stage
    }

    fn attachment(&self) -> Attachment<'_> {
        Attachment { container_id: "container", ifname: "eth0", netns: Some(&self.path), may_be_home: false }
    }

    /// Works on a task on the host. The outer error is the text of a panic.
    fn with<T>(&self, ipam: &Leases, work: impl FnOnce(&Task<'_>) -> T) -> Result<T, String> {
        let task = Task { attachment: self.attachment(), network: "lan", ipam: Some(ipam), remark: &|_| {} };
        let caught = self.host.enter(|| panic::catch_unwind(AssertUnwindSafe(|| work(&task)))).expect("enter");
        caught.map_err(|payload| match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(_) => "a panic without a text".into(),
        })
    }

    fn add_with(&self, ipam: &Leases, guard: Option<&dyn Guard>) -> Result<Result<AddResult, Error>, String> {
        let dns = Dns::default();
        let settings = Settings {
            link: BRIDGE,
            mac: None,
            guard,
            parent: &Wish::Named(vec!["nic0".to_owned()]),
            vlan: None,
            mtu: None,
            link_in_container: false,
            dns: &dns,
            leased: None,
            host_access: None,
            default_route: DefaultRoute::Usual,
            sysctls: &[],
            slaac_timeout: None,
            lan: Lan::default(),
        };
        self.with(ipam, |task| task.add(&settings))
    }

    fn add(&self, ipam: &Leases) -> Result<Result<AddResult, Error>, String> {
        self.add_with(ipam, None)
    }

    fn del(&self, ipam: &Leases) -> Result<Result<(), Error>, String> {
        self.with(ipam, |task| task.del("macvlan", &|| None))
    }

    fn links(&self) -> Vec<Link> {
        links(&self.container)
    }

    /// The names of the links of the container.
    fn names(&self) -> Vec<String> {
        self.links().into_iter().map(|link| link.name).collect()
    }

    /// Asserts that ADD, CHECK and DEL succeed.
    fn assert_can_be_attached(&self) {
        let ipam = Leases::default();
        let result = self.add(&ipam).expect("no panic").expect("an ADD");
        assert_eq!(result.ips[0].address.to_string(), "192.0.2.7/24");
        assert_eq!(self.names(), ["lo", "eth0"]);
        let wished = Wished { link: &BRIDGE, parent: &Wish::DefaultRoute, vlan: None, has_host_access: false };
        self.with(&ipam, |task| task.check(&wished, &result)).expect("no panic").expect("a CHECK");
        self.del(&ipam).expect("no panic").expect("a DEL");
        assert_eq!(self.names(), ["lo"]);
        assert_eq!(ipam.asked(), ["ADD", "CHECK", "DEL"]);
    }
}

fn links(container: &Netns) -> Vec<Link> {
    Rtnl::open_in(container).expect("a socket in the container").links().expect("the links of the container")
}

/// The IPv4 addresses of `eth0`.
fn addresses(container: &Netns) -> Vec<String> {
    let mut rtnl = Rtnl::open_in(container).expect("a socket in the container");
    let Some(link) = rtnl.link("eth0").expect("look for eth0") else { return Vec::new() };
    let addresses = rtnl.addresses(link.ifindex).expect("the addresses of eth0").into_iter();
    addresses.filter(|one| one.address.addr().is_ipv4()).map(|one| one.address.to_string()).collect()
}

/// A new network namespace. A process creates it, and ends when this function has opened it.
fn netns() -> Netns {
    let spawned = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.expect("start unshare");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    // When cat answers, it runs in the new namespace.
    stdin.write_all(b"!").expect("write to cat");
    stdout.read_exact(&mut [0]).expect("a new network namespace needs root");
    let netns = Netns::open(Path::new(&format!("/proc/{}/ns/net", child.id()))).expect("open the new namespace");
    drop(stdin);
    child.wait().expect("wait for cat");
    netns
}

fn path_of(netns: &Netns) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd()))
}

/// Runs `ip` in the namespace of the calling thread.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("start ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_container_is_attached_checked_and_detached() {
    Stage::new().assert_can_be_attached();
}

#[test]
fn the_link_has_the_mark_of_its_attachment() {
    let stage = Stage::new();
    stage.add(&Leases::default()).expect("no panic").expect("an ADD");
    let link = stage.links().pop().expect("a link");
    assert_eq!((link.name.as_str(), link.group), ("eth0", Mark::of(&stage.attachment()).group()));
}

#[test]
fn the_link_loses_its_address_before_ipam_releases_it() {
    let stage = Stage::new();
    let container: &'static Netns =
        Box::leak(Box::new(Netns::open(&stage.path).expect("open the container a second time")));
    let ipam = Leases { container: Cell::new(Some(container)), ..Leases::default() };
    stage.add(&ipam).expect("no panic").expect("an ADD");
    assert_eq!(addresses(container), ["192.0.2.7/24"]);
    ipam.was_on_link.set(true);
    stage.del(&ipam).expect("no panic").expect("a DEL");
    assert!(!ipam.was_on_link.get(), "a link had the address during its release");
}

#[test]
fn a_panic_in_the_add_of_ipam_leaves_no_link_and_no_lease() {
    let stage = Stage::new();
    let ipam = Leases { add_panics: true, ..Leases::default() };
    assert_eq!(stage.add(&ipam), Err(IN_ADD.into()));
    assert_eq!(stage.names(), ["lo"]);
    assert_eq!(ipam.asked(), ["ADD", "DEL"]);
    stage.assert_can_be_attached();
}

/// A panic during a panic would end the process without a message, and the link would stay.
#[test]
fn a_second_panic_in_the_del_of_ipam_leaves_no_link() {
    let stage = Stage::new();
    let ipam = Leases { add_panics: true, del_panics: true, ..Leases::default() };
    assert_eq!(stage.add(&ipam), Err(IN_ADD.into()));
    assert_eq!(ipam.asked(), ["ADD", "DEL"]);
    assert_eq!(stage.names(), ["lo"]);
    stage.assert_can_be_attached();
}

/// DEL ended with the panic and left the link.
#[test]
fn del_deletes_the_link_after_a_panic_in_the_del_of_ipam() {
    let stage = Stage::new();
    let ipam = Leases { del_panics: true, ..Leases::default() };
    stage.add(&ipam).expect("no panic").expect("an ADD");
    let error = stage.del(&ipam).expect("no panic").expect_err("a bug");
    assert_eq!((error.code.0, error.msg), (999, format!("bug: {IN_DEL}")));
    assert_eq!(stage.names(), ["lo"]);
    stage.assert_can_be_attached();
}

#[test]
fn a_panic_in_a_permit_leaves_no_link_and_no_lease() {
    let stage = Stage::new();
    let ipam = Leases::default();
    assert_eq!(stage.add_with(&ipam, Some(&Unsound)), Err(IN_PERMIT.into()));
    assert_eq!(stage.names(), ["lo"]);
    assert_eq!(ipam.asked(), [""; 0]);
    stage.assert_can_be_attached();
}

/// While an ADD waited for IPAM, its link was deleted, and another ADD for the same interface succeeded. The first ADD
/// failed and released the lease of the second one, because IPAM knows only the owner. (C8)
#[test]
fn an_add_that_fails_late_keeps_the_lease_of_a_later_add() {
    for can_give_back in [false, true] {
        let stage = Stage::new();
        let host = Netns::open(&path_of(&stage.host)).expect("open the host a second time");
        let (group, path) = (Mark::of(&stage.attachment()).group(), stage.path.clone());
        let meanwhile = move || {
            let container = Netns::open(&path).expect("open the container");
            container.enter(|| ip("link delete eth0")).expect("enter the container");
            let parent = Rtnl::open_in(&host).expect("a socket").link("nic0").expect("look").expect("nic0").ifindex;
            let netns = Some(&container);
            let link =
                linux::NewLink { name: "eth0", kind: BRIDGE, parent, mtu: None, mac: None, group, arp: true, netns };
            Rtnl::open_in(&host).expect("a socket").new_link(&link).expect("make the later link");
        };
        let ipam = Leases { can_give_back, ..Leases::default() };
        ipam.meanwhile.replace(Some(Box::new(meanwhile)));
        let error = stage.add(&ipam).expect("no panic").expect_err("its link is gone");
        assert!(error.msg.ends_with("it was deleted during the ADD"), "{error}");
        assert_eq!((ipam.asked(), stage.names()), (vec!["ADD"], vec!["lo".to_owned(), "eth0".to_owned()]));
        stage.del(&ipam).expect("no panic").expect("a DEL");
        assert_eq!((ipam.asked(), stage.names()), (vec!["DEL"], vec!["lo".to_owned()]));
    }
}

/// If IPAM can give back a single lease, a failed ADD uses that, and otherwise the DEL of IPAM.
#[test]
fn a_failed_add_releases_its_own_lease() {
    for (can_give_back, expected) in [(false, "DEL"), (true, "give back")] {
        let stage = Stage::new();
        let path = stage.path.clone();
        let meanwhile = move || {
            let container = Netns::open(&path).expect("open the container");
            container.enter(|| ip("link delete eth0")).expect("enter the container");
        };
        let ipam = Leases { can_give_back, ..Leases::default() };
        ipam.meanwhile.replace(Some(Box::new(meanwhile)));
        stage.add(&ipam).expect("no panic").expect_err("its link is gone");
        assert_eq!(ipam.asked(), ["ADD", expected]);
    }
}
