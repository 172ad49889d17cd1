//! The plugin on a directory of its own for each test. Its stderr, and its use together with the reference, are
//! tested with the built program.

mod add;
mod bad_input;
mod conflicts;
mod gc_status;
mod heal;
mod model;
mod release;
mod turns;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cni::env::Variables;
use cni::{AddResult, Args, Attachment, Call, Error, NetConf, Program};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::machine::Machine;

static PROGRAM: Program = Program {
    name: "test",
    release: "0",
    plugins: &[("host-local", &crate::HostLocal)],
    commands: "",
    run: cni::RUN_NOTHING,
};

/// One network with its directory of leases.
struct Network {
    folder: TempDir,
    /// The network configuration, without `ipam.dataDir`.
    conf: Value,
    machine: Machine,
}

impl Network {
    /// With these keys in `ipam`.
    fn new(ipam: Value) -> Self {
        let mut conf = json!({"cniVersion": "1.1.0", "name": "lan", "type": "macvlan"});
        conf["ipam"] = ipam;
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine { proc: folder.path().join("proc"), boots: folder.path().join("boots") };
        fs::create_dir_all(machine.proc.join("sys/kernel/random")).unwrap();
        let network = Self { folder, conf, machine };
        network.boot("boot-1");
        network.uptime(100);
        network
    }

    /// Reboots the machine.
    fn boot(&self, id: &str) {
        fs::write(self.machine.proc.join("sys/kernel/random/boot_id"), format!("{id}\n")).unwrap();
    }

    /// Lets time pass.
    fn uptime(&self, seconds: u64) {
        fs::write(self.machine.proc.join("uptime"), format!("{seconds}.50 7.00\n")).unwrap();
    }

    /// With these sets, each a list of subnets.
    fn of(sets: &[&[&str]]) -> Self {
        let set = |subnets: &&[&str]| subnets.iter().map(|subnet| json!({"subnet": subnet})).collect::<Value>();
        Self::new(json!({"ranges": sets.iter().map(set).collect::<Value>()}))
    }

    /// With another key beside `ipam`.
    fn with(mut self, key: &str, value: Value) -> Self {
        self.conf[key] = value;
        self
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("networks")
    }

    fn path(&self) -> PathBuf {
        self.data_dir().join("lan")
    }

    fn call<T>(&self, command: impl FnOnce(&Call<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let mut conf = self.conf.clone();
        if conf["ipam"].is_object() && conf["ipam"].get("dataDir").is_none() {
            conf["ipam"]["dataDir"] = json!(self.data_dir());
        }
        let stdin = serde_json::to_vec(&conf).unwrap();
        let map = cni::config::parse(&stdin).unwrap();
        let conf = NetConf::read(cni::Object::root(&map)).unwrap();
        let variables = Variables::default();
        command(&Call { plugin: "host-local", program: &PROGRAM, variables: &variables, stdin: &stdin, conf: &conf })
    }

    fn add(&self, id: &str) -> Result<AddResult, Error> {
        self.call(|call| crate::add(&self.machine, call, &attachment(id, "eth0", "")))
    }

    /// With CNI_ARGS.
    fn add_with(&self, id: &str, args: &str) -> Result<AddResult, Error> {
        self.call(|call| crate::add(&self.machine, call, &attachment(id, "eth0", args)))
    }

    fn del(&self, id: &str) -> Result<(), Error> {
        self.call(|call| crate::del(&self.machine, call, &attachment(id, "eth0", "")))
    }

    fn check(&self, id: &str) -> Result<(), Error> {
        self.call(|call| crate::check(&self.machine, call, &attachment(id, "eth0", "")))
    }

    fn status(&self) -> Result<(), Error> {
        self.call(|call| crate::status(&self.machine, call))
    }

    fn gc(&self) -> Result<(), Error> {
        self.call(|call| crate::gc(&self.machine, call))
    }

    /// Writes a file, as another program would.
    fn put(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path()).unwrap();
        fs::write(self.path().join(name), content).unwrap();
    }

    /// Every owner's record, by the name of its link.
    fn records(&self) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.path()) else { return BTreeMap::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names = names.filter(|name| crate::record::owner(name).is_some());
        names
            .map(|name| {
                (name.clone(), fs::read_link(self.path().join(name)).unwrap().into_os_string().into_string().unwrap())
            })
            .collect()
    }

    /// Every file in the directory but the lock and the records, by name; what is no file, by what it is.
    fn files(&self) -> BTreeMap<String, String> {
        listing(&self.path())
    }

    /// Only those named like an address.
    fn leases(&self) -> BTreeMap<String, String> {
        let mut files = self.files();
        files.retain(|name, _| crate::lease::address(name).is_some());
        files
    }
}

fn listing(path: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(path) else { return BTreeMap::new() };
    let entries = entries.map(Result::unwrap).filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name != "lock" && crate::record::owner(&name).is_none()
    });
    let content = |entry: &fs::DirEntry| match entry.file_type().unwrap() {
        kind if kind.is_file() => fs::read_to_string(entry.path()).unwrap(),
        kind if kind.is_dir() => "a folder".into(),
        _ => "a link".into(),
    };
    entries.map(|entry| (entry.file_name().into_string().unwrap(), content(&entry))).collect()
}

fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

fn attachment(id: &str, ifname: &str, args: &str) -> Attachment {
    Attachment {
        container_id: id.into(),
        ifname: ifname.into(),
        // It names nothing: that is no condition for a lease.
        netns: Some("/run/netns/none".into()),
        args: Args::parse(args.as_ref()),
    }
}

/// The addresses of a result, as text.
fn addresses(result: Result<AddResult, Error>) -> Vec<String> {
    result.unwrap().ips.iter().map(|ip| ip.address.to_string()).collect()
}

/// The code and the message of a failure.
fn failure<T: std::fmt::Debug>(result: Result<T, Error>) -> (u32, String) {
    let error = result.unwrap_err();
    (error.code.0, error.msg)
}
