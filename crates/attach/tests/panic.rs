//! A panic in the middle of an ADD, wherever it comes from, is undone like any failure. On a real kernel, in network
//! namespaces of their own, with a table of plugins of which some panic: needs root.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use attach::{Choice, Kind, Permit, Place, SubInterface};
use cni::env::Variables;
use cni::{AddResult, Args, Attachment, Call, Error, Ip, NetConf, Object, Plugin, Program};
use linux::{LinkKind, MacvlanMode, Netns, Rtnl};

const IN_ADD: &str = "a bug in the ADD of IPAM";
const IN_DEL: &str = "a bug in the DEL of IPAM";
const IN_PERMIT: &str = "a bug in a permit";

thread_local! {
    /// What IPAM was asked for. It is called as a function, so by the thread of its test.
    static ASKED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// IPAM that leases 192.0.2.7, or has bugs.
struct Leases {
    add_panics: bool,
    del_panics: bool,
}

impl Plugin for Leases {
    fn about(&self) -> &'static str {
        "leases one address"
    }

    fn is_ipam(&self) -> bool {
        true
    }

    fn add(&self, _call: &Call<'_>, _attachment: &Attachment) -> Result<AddResult, Error> {
        ASKED.with_borrow_mut(|asked| asked.push("ADD"));
        if self.add_panics {
            panic!("{IN_ADD}");
        }
        let address = "192.0.2.7/24".parse().expect("an address");
        Ok(AddResult { ips: vec![Ip { interface: None, address, gateway: None }], ..AddResult::default() })
    }

    fn del(&self, _call: &Call<'_>, _attachment: &Attachment) -> Result<(), Error> {
        ASKED.with_borrow_mut(|asked| asked.push("DEL"));
        if self.del_panics {
            panic!("{IN_DEL}");
        }
        Ok(())
    }

    fn check(&self, _call: &Call<'_>, _attachment: &Attachment) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, _call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn gc(&self, _call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// A macvlan, which may have a bug of its own.
struct Macvlan {
    permit_panics: bool,
}

impl Kind for Macvlan {
    fn name(&self) -> &'static str {
        "macvlan"
    }

    fn about(&self) -> &'static str {
        "a macvlan, or a bug"
    }

    fn choose(&self, _call: &Call<'_>, _attachment: Option<&Attachment>) -> Result<Choice, Error> {
        Ok(Choice { link: LinkKind::Macvlan { mode: MacvlanMode::Bridge, bcqueuelen: None }, mac: None })
    }

    fn permit(&self, _choice: &Choice, _place: &mut Place<'_>) -> Result<Permit, Error> {
        if self.permit_panics {
            panic!("{IN_PERMIT}");
        }
        Ok(Permit::default())
    }
}

const SOUND: SubInterface<Macvlan> = SubInterface(Macvlan { permit_panics: false });
const UNSOUND: SubInterface<Macvlan> = SubInterface(Macvlan { permit_panics: true });

static PROGRAM: Program = Program {
    name: "panic",
    release: "0",
    plugins: &[
        ("sound", &Leases { add_panics: false, del_panics: false }),
        ("panics", &Leases { add_panics: true, del_panics: false }),
        ("panics-twice", &Leases { add_panics: true, del_panics: true }),
    ],
    commands: "",
};

/// A host with a NIC named `nic0`, a container, and a CNI_PATH that leads to this very executable by the names of its
/// plugins.
struct Stage {
    host: Netns,
    container: Netns,
    folder: PathBuf,
}

impl Stage {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Beside the executable, on its file system: a hard link does not lead to another.
        let name = format!("panic-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).expect("make a folder");
        let executable = std::env::current_exe().expect("the path of this executable");
        for (name, _) in PROGRAM.plugins {
            fs::hard_link(&executable, folder.join(name)).expect("link this executable");
        }
        let stage = Self { host: netns(), container: netns(), folder };
        stage.host.enter(|| ip("link add nic0 type veth peer name wire0")).expect("enter the host");
        for name in ["nic0", "wire0"] {
            stage.host.enter(|| ip(&format!("link set {name} up"))).expect("enter the host");
        }
        stage
    }

    /// Calls a plugin on the host, with that IPAM plugin in its configuration. The outer error is what it panicked with.
    fn call<T>(&self, ipam: &str, deed: impl FnOnce(&Call<'_>, &Attachment) -> T) -> Result<T, String> {
        let json =
            format!(r#"{{"cniVersion": "1.0.0", "name": "lan", "master": "nic0", "ipam": {{"type": "{ipam}"}}}}"#);
        let map = cni::config::parse(json.as_bytes()).expect("a JSON object");
        let conf = NetConf::read(Object::root(&map)).expect("a network configuration");
        let variables = Variables { path: Some(self.folder.clone().into()), ..Variables::default() };
        let call =
            Call { plugin: "macvlan", program: &PROGRAM, variables: &variables, stdin: json.as_bytes(), conf: &conf };
        let attachment = Attachment {
            container_id: "container".into(),
            ifname: "eth0".into(),
            netns: Some(format!("/proc/self/fd/{}", self.container.as_fd().as_raw_fd()).into()),
            args: Ok(Args::default()),
        };
        let caught =
            self.host.enter(|| panic::catch_unwind(AssertUnwindSafe(|| deed(&call, &attachment)))).expect("enter");
        caught.map_err(|payload| match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(_) => "something else than text".into(),
        })
    }

    fn add(&self, plugin: &SubInterface<Macvlan>, ipam: &str) -> Result<Result<AddResult, Error>, String> {
        self.call(ipam, |call, attachment| plugin.add(call, attachment))
    }

    fn del(&self, ipam: &str) -> Result<Result<(), Error>, String> {
        self.call(ipam, |call, attachment| SOUND.del(call, attachment))
    }

    /// The names of the container's links.
    fn links(&self) -> Vec<String> {
        let mut rtnl = Rtnl::open_in(&self.container).expect("a socket in the container");
        rtnl.links().expect("the links of the container").into_iter().map(|link| link.name).collect()
    }

    /// An ADD without a bug works: nothing is in its way.
    fn assert_can_be_attached(&self) {
        let _ = asked();
        let result = self.add(&SOUND, "sound").expect("no panic").expect("an ADD");
        assert_eq!(result.ips[0].address.to_string(), "192.0.2.7/24");
        assert_eq!(self.links(), ["lo", "eth0"]);
        self.del("sound").expect("no panic").expect("a DEL");
        assert_eq!(self.links(), ["lo"]);
        // In this process: nobody else could have noted it.
        assert_eq!(asked(), ["ADD", "DEL"]);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A folder that stays in the way of nothing is no reason to fail a test.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A new network namespace: that of a process which needs not live any longer than until it is opened.
fn netns() -> Netns {
    let spawned = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.expect("start unshare");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    // What cat repeats says that it is cat by now, in its new namespace.
    stdin.write_all(b"!").expect("write to cat");
    stdout.read_exact(&mut [0]).expect("a network namespace of one's own: needs root");
    let netns = Netns::open(Path::new(&format!("/proc/{}/ns/net", child.id()))).expect("open the new namespace");
    drop(stdin);
    child.wait().expect("wait for cat");
    netns
}

/// Runs `ip` in the namespace of the calling thread.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("start ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What IPAM was asked for since the last time.
fn asked() -> Vec<&'static str> {
    ASKED.take()
}

#[test]
fn without_a_panic_a_container_is_attached_and_detached() {
    Stage::new().assert_can_be_attached();
}

#[test]
fn a_panic_of_ipam_leaves_no_link_and_gives_the_lease_back() {
    let stage = Stage::new();
    assert_eq!(stage.add(&SOUND, "panics"), Err(IN_ADD.into()));
    assert_eq!(stage.links(), ["lo"]);
    assert_eq!(asked(), ["ADD", "DEL"]);
    stage.assert_can_be_attached();
}

/// Two panics at once would end the process before it has said anything.
#[test]
fn a_second_panic_while_the_first_is_undone_is_no_end_and_del_cleans_up() {
    let stage = Stage::new();
    assert_eq!(stage.add(&SOUND, "panics-twice"), Err(IN_ADD.into()));
    assert_eq!(asked(), ["ADD", "DEL"]);
    stage.del("sound").expect("no panic").expect("a DEL");
    assert_eq!(stage.links(), ["lo"]);
    stage.assert_can_be_attached();
}

#[test]
fn a_panic_of_a_permit_leaves_no_link_and_leases_nothing() {
    let stage = Stage::new();
    assert_eq!(stage.add(&UNSOUND, "sound"), Err(IN_PERMIT.into()));
    assert_eq!(stage.links(), ["lo"]);
    assert_eq!(asked(), [""; 0]);
    stage.assert_can_be_attached();
}
