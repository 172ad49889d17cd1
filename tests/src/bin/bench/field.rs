//! The Lab of a benchmark: a host with a NIC, the leases of each side, and containers.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use e2e::lab::NIC;
use e2e::{Binaries, Call, Lab, Namespace, Plugin};
use serde_json::Value;
use tempfile::TempDir;

use crate::Result;
use crate::launch::{children_cpu, milliseconds, prepare};
use crate::scenario::Scenario;
use crate::side::{Programs, Side};

pub(crate) const IFNAME: &str = "eth0";
const MARKER: &str = "marker";
/// Far more than the kernel needs to remove a few hundred namespaces.
const GONE_WITHIN: Duration = Duration::from_secs(120);

pub(crate) struct Field {
    pub(crate) lab: Lab,
    parent: u32,
    data: PathBuf,
    pods: AtomicU32,
}

/// One container of one side.
pub(crate) struct Pod {
    pub(crate) side: Side,
    id: String,
    pub(crate) netns: Namespace,
    addresses: String,
    result: Value,
}

impl Pod {
    /// Stores the result of an ADD.
    pub(crate) fn learn(&mut self, command: &str, stdout: &[u8]) -> Result<()> {
        if command == "ADD" && !stdout.is_empty() {
            self.result = serde_json::from_slice(stdout)?;
        }
        Ok(())
    }
}

/// The time of an ADD or DEL of a whole chain.
pub(crate) struct Done {
    /// In milliseconds.
    pub(crate) wall: f64,
    /// User and system time, in milliseconds. It is wrong if other calls ran at the same time.
    pub(crate) cpu: f64,
}

impl Field {
    /// Creates `data` for the leases.
    pub(crate) fn new(data: PathBuf) -> Result<Self> {
        fs::create_dir(&data)?;
        let lab = Lab::new(Binaries::HardLinks);
        // The records of host access are there.
        lab.host.give_own_run();
        let parent = lab.host.link(NIC).ifindex;
        Ok(Self { lab, parent, data, pods: AtomicU32::new(0) })
    }

    /// The directory of a side's leases in a scenario. It has that of the network, which the floor needs.
    pub(crate) fn leases(&self, scenario: &Scenario, side: Side) -> Result<PathBuf> {
        let path = self.data.join(format!("{}-{}", scenario.key, side.key()));
        fs::create_dir_all(path.join("lan"))?;
        Ok(path)
    }

    pub(crate) fn pod(&self, scenario: &Scenario, side: Side) -> Pod {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        // The length is that of the IDs of runtimes.
        let id = format!("{number:064x}");
        Pod { side, id, netns: Namespace::new(), addresses: scenario.floor_addresses(number), result: Value::Null }
    }

    /// Makes the calls of an ADD or DEL of a chain. `run` makes a call and returns its stdout. In ADD, each plugin gets
    /// the result of the one before. In DEL, all get the last result.
    pub(crate) fn perform<'a>(
        &'a self,
        programs: &Programs,
        scenario: &Scenario,
        pod: &mut Pod,
        command: &str,
        mut run: impl FnMut(&Call<'a>) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let places = 0..scenario.chain.len();
        let places: Vec<usize> = if command == "DEL" { places.rev().collect() } else { places.collect() };
        for place in places {
            let call = self.call(programs, scenario, place, pod, command)?;
            let stdout = run(&call)?;
            pod.learn(command, &stdout)?;
        }
        Ok(())
    }

    /// The call of one plugin of the chain.
    pub(crate) fn call<'a>(
        &'a self,
        programs: &Programs,
        scenario: &Scenario,
        place: usize,
        pod: &Pod,
        command: &str,
    ) -> Result<Call<'a>> {
        let leases = self.leases(scenario, pod.side)?;
        // The other plugins of a chain are always those of the reference.
        let from = if place == 0 { pod.side } else { Side::Reference };
        let plugin = scenario.chain[place];
        let mut conf = scenario.conf(plugin, pod.side, NIC, &leases);
        if pod.result != Value::Null {
            conf["prevResult"] = pod.result.clone();
        }
        let program = Plugin::new(&self.lab.host, programs.program(from, plugin)).search(programs.directory(from));
        let mut call = program
            .call(command, &conf)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", pod.netns.path())
            .env("CNI_IFNAME", IFNAME);
        if pod.side == Side::Floor {
            call = call.env("FLOOR_ADDRESSES", &pod.addresses);
            if scenario.has_link() {
                call = call.env("FLOOR_PARENT", self.parent.to_string());
            }
            if !pod.addresses.is_empty() {
                call = call.env("FLOOR_LEASES", leases.join("lan"));
            }
        }
        Ok(call)
    }

    /// A call of a static program that ends at once.
    pub(crate) fn idle<'a>(&'a self, programs: &Programs) -> Call<'a> {
        Plugin::new(&self.lab.host, programs.floor.clone()).bare()
    }

    /// Measures an ADD or DEL. The calling thread must be in the netns of the host.
    pub(crate) fn time(&self, programs: &Programs, scenario: &Scenario, pod: &mut Pod, command: &str) -> Result<Done> {
        let mut done = Done { wall: 0.0, cpu: 0.0 };
        self.perform(programs, scenario, pod, command, |call| {
            let before = children_cpu()?;
            let ended = prepare(call)?.go()?;
            done.cpu += milliseconds(children_cpu()? - before);
            done.wall += milliseconds(ended.wall);
            Ok(ended.success(call)?.to_owned())
        })?;
        Ok(done)
    }

    /// Returns an error if the ADD has not reached the end state of the scenario.
    pub(crate) fn inspect(&self, scenario: &Scenario, pod: &Pod) -> Result<()> {
        let wrong = |what: &str| Err(format!("{}, {}: {what} after ADD", scenario.title, pod.side.name()).into());
        let ranges = [scenario.leases.v4(), scenario.leases.v6()].into_iter().filter(|has| *has).count();
        let leased = fs::read_dir(self.leases(scenario, pod.side)?.join("lan"))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<IpAddr>().ok());
        if leased.count() < ranges {
            return wrong("no lease");
        }
        if !scenario.has_link() {
            return Ok(());
        }
        match pod.netns.find_link(IFNAME) {
            Some(link) if link.up && link.kind.as_deref() == Some("macvlan") => {}
            other => return wrong(&format!("the link is {other:?}")),
        }
        let addresses = pod.netns.addresses(IFNAME);
        if addresses.len() != ranges || addresses.iter().any(|address| address.tentative() || address.duplicate()) {
            return wrong(&format!("the addresses are {addresses:?}"));
        }
        let routes = pod.netns.routes_of(IFNAME);
        if routes.iter().filter(|route| route.dst.prefix_len() == 0).count() != ranges {
            return wrong(&format!("the routes are {routes:?}"));
        }
        Ok(())
    }

    /// Drops namespaces, and waits until the kernel has removed their links. Otherwise that would disturb the next
    /// calls.
    pub(crate) fn retire(&self, pods: Vec<Pod>) -> Result<()> {
        let last = Namespace::new();
        self.lab.host.create_veth(MARKER, &last, MARKER);
        drop(pods);
        drop(last);
        let deadline = Instant::now() + GONE_WITHIN;
        while self.lab.host.has_link(MARKER) {
            if Instant::now() > deadline {
                return Err("the kernel does not remove namespaces".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// A directory for leases: in memory, unless TMPDIR is set. Other programs share the journal of a disk.
pub(crate) fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("underlay-bench.");
    let in_memory = memory.is_dir() && env::var_os("TMPDIR").is_none();
    Ok(if in_memory { builder.tempdir_in(memory)? } else { builder.tempdir()? })
}
