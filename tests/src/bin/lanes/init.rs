//! Init of the guest: prepares mounts and modules, starts another process of this program for the tests, and always
//! ends the guest.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, wait};
use serde_json::{Value, json};

use crate::guest::{Exchange, PLAN_VARIABLE, UP};
use crate::lane::Lane;
use crate::modules::Modules;
use crate::suite::Suite;

const MODULES: &str = "/usr/lib/uml/modules";
/// The modules that the tests need.
const LOADED: &str = "unix ipv6 af_packet veth bridge macvlan ipvlan 8021q dummy bonding tun overlay vxlan sch_netem";
/// A signal frame of User-Mode Linux 6.1 has no space for AVX-512 registers. A signal handler that calls string
/// functions of the C library would change them for the interrupted code. So the C library must not use AVX-512.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512BW,-AVX512VL";
/// The argument of the second process.
pub(crate) const INSIDE: &str = "--inside";

/// PID 1. Powers the guest off at the end.
pub(crate) fn main() -> ! {
    let plan = PathBuf::from(env::var_os(PLAN_VARIABLE).unwrap_or_default());
    let exchange = Exchange::of_plan(&plan);
    let status = match serve(&exchange) {
        Ok(()) => "ok".to_owned(),
        Err(error) => error,
    };
    if let Err(e) = leave(&exchange.status(), &status) {
        println!("lanes: write {}: {e}", exchange.status().display());
    }
    nix::unistd::sync();
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF);
    // If init ends, the kernel panics, which also ends the guest.
    panic!("power off: {errno}");
}

/// The second process: runs the suite and writes the report, or runs a command.
pub(crate) fn inside() -> ExitCode {
    let plan = PathBuf::from(env::var_os(PLAN_VARIABLE).unwrap_or_default());
    let exchange = Exchange::of_plan(&plan);
    let outcome = read_plan(&exchange).and_then(|plan| {
        if let Some(command) = plan["command"].as_array() {
            return run(&command.iter().filter_map(Value::as_str).collect::<Vec<_>>());
        }
        let suite: Suite = serde_json::from_value(plan["suite"].clone()).map_err(|e| format!("read the plan: {e}"))?;
        let report = suite.run(Lane::Guest, Path::new("/tmp"))?;
        let path = exchange.report();
        leave(&path, &json!(report).to_string()).map_err(|e| format!("write {}: {e}", path.display()))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &[&str]) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("the plan has an empty command")?;
    let status = Command::new(program).args(arguments).env_remove(PLAN_VARIABLE).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(e) => Err(format!("start {program}: {e}")),
    }
}

fn serve(exchange: &Exchange) -> Result<(), String> {
    mount_kernel_file_systems()?;
    let plan = read_plan(exchange)?;
    let needed: Vec<PathBuf> = list(&plan["needed"]).map(PathBuf::from).collect();
    for place in ["/tmp", "/run"] {
        cover(Path::new(place), &exchange.cover(), &needed)?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|e| format!("read the release: {e}"))?;
    let directory = Path::new(MODULES).join(release.trim());
    let mut modules = Modules::read(&directory)?;
    for module in LOADED.split(' ') {
        modules.load(module)?;
    }
    println!("{UP}");
    let program = exchange.program();
    let environment = plan["environment"].as_array().into_iter().flatten();
    let environment = environment.filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)));
    let child = Command::new(&program)
        .arg(INSIDE)
        .env_clear()
        .envs(environment)
        .env(PLAN_VARIABLE, exchange.plan())
        .env("HOME", "/tmp")
        .env("TMPDIR", "/tmp")
        .env("GLIBC_TUNABLES", TUNABLES)
        .spawn()
        .map_err(|e| format!("start {}: {e}", program.display()))?;
    // Init also gets all orphans.
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == child.id().cast_signed() => {
                return if code == 0 { Ok(()) } else { Err(format!("the process inside ended with {code}")) };
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child.id().cast_signed() => {
                return Err(format!("the process inside was ended by {signal}"));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("wait for the process inside: {errno}")),
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn read_plan(exchange: &Exchange) -> Result<Value, String> {
    let path = exchange.plan();
    let text = fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("read {}: {e}", path.display()))
}

fn mount_kernel_file_systems() -> Result<(), String> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        attach(kind, Path::new(place))?;
    }
    for (kind, place) in [("devpts", "/dev/pts"), ("tmpfs", "/dev/shm")] {
        fs::create_dir_all(place).map_err(|e| format!("make {place}: {e}"))?;
        attach(kind, Path::new(place))?;
    }
    Ok(())
}

fn attach(kind: &str, place: &Path) -> Result<(), String> {
    let mounted = mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>);
    // EBUSY: it is mounted already, for example /dev.
    let mounted = mounted.or_else(|errno| if errno == Errno::EBUSY { Ok(()) } else { Err(errno) });
    mounted.map_err(|errno| format!("mount {kind} on {}: {errno}", place.display()))
}

/// Mounts a tmpfs on `place`. Only the needed paths of the old one stay visible.
fn cover(place: &Path, aside: &Path, needed: &[PathBuf]) -> Result<(), String> {
    let failed = |what: &str, path: &Path, why: &dyn std::fmt::Display| format!("{what} {}: {why}", path.display());
    attach("tmpfs", aside)?;
    for path in needed {
        let Ok(below) = path.strip_prefix(place) else { continue };
        let new = aside.join(below);
        fs::create_dir_all(&new).map_err(|e| failed("make", &new, &e))?;
        let bind = mount(Some(path), &new, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        bind.map_err(|errno| failed("bind", path, &errno))?;
    }
    let moved = mount(Some(aside), place, None::<&str>, MsFlags::MS_MOVE, None::<&str>);
    moved.map_err(|errno| failed("cover", place, &errno))
}

/// Writes a file that is complete or does not exist, also if the guest dies.
fn leave(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}
