//! Input and files from untrusted users: the plugin follows no link, never waits without end, reads a limited number
//! of bytes, and passes nothing on. docs/security.md says who is trusted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use e2e::plugin::write_script;
use e2e::with;
use e2e::{Binaries, Call, Lab, Plugin};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};

const PRECIOUS: &str = "precious";

/// A Lab with a file that must stay as it is, and a lease directory that is there.
struct Place {
    lab: Lab,
    precious: PathBuf,
}

impl Place {
    fn new() -> Self {
        let lab = Lab::new(Binaries::HardLinks);
        let precious = lab.path(PRECIOUS);
        fs::write(&precious, PRECIOUS).expect("write a file");
        fs::create_dir_all(lab.data_dir().join("lan")).expect("make a directory");
        Self { lab, precious }
    }

    fn conf(&self) -> Value {
        self.with(json!({}))
    }

    /// With these keys in `ipam` too.
    fn with(&self, keys: Value) -> Value {
        let mut ipam = json!({
            "type": "host-local", "dataDir": self.lab.data_dir(), "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.12",
        });
        let more = keys.as_object().expect("an object").clone();
        ipam.as_object_mut().expect("an object").extend(more);
        self.lab.conf_with(ipam)
    }

    fn call(&self, command: &str, id: &str, conf: &Value) -> Call<'_> {
        call(&self.lab.host_local(), command, id, conf)
    }

    fn add(&self, id: &str) -> String {
        let result = self.call("ADD", id, &self.conf()).run().result();
        result["ips"][0]["address"].as_str().expect("an address").to_owned()
    }

    fn entry(&self, name: &str) -> PathBuf {
        self.lab.data_dir().join("lan").join(name)
    }

    /// The one file, and every other place than the directory of leases, is as it was.
    fn assert_untouched(&self) {
        assert_eq!(fs::read_to_string(&self.precious).expect("read a file"), PRECIOUS);
        let entries = fs::read_dir(self.lab.path("")).expect("read a directory");
        let names: BTreeSet<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        let expected = [PRECIOUS, "leases"].map(Into::into);
        assert_eq!(names, BTreeSet::from(expected));
        let networks = fs::read_dir(self.lab.data_dir()).expect("read a directory");
        let networks: Vec<_> = networks.map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(networks, ["lan"]);
    }
}

fn call<'a>(plugin: &Plugin<'a>, command: &str, id: &str, conf: &Value) -> Call<'a> {
    let call = plugin.call(command, conf).env("CNI_CONTAINERID", id);
    call.env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/run/netns/none")
}

fn fifo(path: &Path) {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).expect("make a FIFO");
}

/// A device that answers reads without end.
fn zero(path: &Path) {
    mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(1, 5)).expect("make a device node");
}

/// ADD, CHECK, STATUS and DEL for two containers, with the planted files in place.
fn lives(place: &Place) -> [String; 2] {
    let addresses = ["c1", "c2"].map(|id| place.add(id));
    place.call("CHECK", "c1", &place.conf()).run().done();
    let conf = with(place.conf(), "cniVersion", json!("1.1.0"));
    place.call("STATUS", "c1", &conf).run();
    for id in ["c1", "c2"] {
        place.call("DEL", id, &place.conf()).run().done();
    }
    place.assert_untouched();
    addresses
}

#[test]
fn a_link_in_place_of_a_lease_is_a_taken_address_and_is_not_followed() {
    let place = Place::new();
    symlink(&place.precious, place.entry("10.0.0.10")).expect("plant a link");
    assert_eq!(lives(&place), ["10.0.0.11/24", "10.0.0.12/24"]);
    assert!(place.entry("10.0.0.10").is_symlink());
}

#[test]
fn links_in_place_of_the_other_files_are_not_written_through() {
    let place = Place::new();
    for name in ["lock", "last_reserved_ip.0", ".lease.tmp", "c1:eth0"] {
        symlink(&place.precious, place.entry(name)).expect("plant a link");
    }
    assert_eq!(lives(&place), ["10.0.0.10/24", "10.0.0.11/24"]);
}

#[test]
fn a_dangling_link_makes_nothing_where_it_points() {
    let place = Place::new();
    let elsewhere = place.lab.path("elsewhere");
    for name in ["last_reserved_ip.0", ".lease.tmp", "10.0.0.10"] {
        symlink(&elsewhere, place.entry(name)).expect("plant a link");
    }
    assert_eq!(lives(&place), ["10.0.0.11/24", "10.0.0.12/24"]);
    symlink(&elsewhere, place.entry("lock.tmp")).expect("plant a link");
    fs::remove_file(place.entry("lock")).expect("remove the lock");
    fs::rename(place.entry("lock.tmp"), place.entry("lock")).expect("plant a link");
    let text = format!("open {}: No such file or directory (os error 2)", place.entry("lock").display());
    let error = place.call("ADD", "c1", &place.conf()).run().fails(5, &[]);
    assert_eq!(error.msg, text);
    place.assert_untouched();
}

#[test]
fn a_file_that_has_another_name_elsewhere_is_not_written() {
    let place = Place::new();
    for name in ["lock", "last_reserved_ip.0", ".lease.tmp", "10.0.0.10"] {
        fs::hard_link(&place.precious, place.entry(name)).expect("plant a link");
    }
    // It looks like a lease in the old form, of a container named "precious".
    assert_eq!(lives(&place), ["10.0.0.11/24", "10.0.0.12/24"]);
}

#[test]
fn a_fifo_is_not_waited_for_whatever_its_name() {
    let place = Place::new();
    for name in ["10.0.0.10", "lock", "last_reserved_ip.0", ".lease.tmp", "c1:eth0"] {
        fifo(&place.entry(name));
    }
    assert_eq!(lives(&place), ["10.0.0.11/24", "10.0.0.12/24"]);
}

#[test]
fn a_device_in_place_of_a_file_is_not_read() {
    let place = Place::new();
    for name in ["10.0.0.10", "last_reserved_ip.0", ".lease.tmp"] {
        zero(&place.entry(name));
    }
    assert_eq!(lives(&place), ["10.0.0.11/24", "10.0.0.12/24"]);
}

#[test]
fn folders_in_place_of_files_are_left_alone() {
    let place = Place::new();
    for name in ["10.0.0.10", "last_reserved_ip.0"] {
        fs::create_dir(place.entry(name)).expect("plant a folder");
    }
    assert_eq!(lives(&place), ["10.0.0.11/24", "10.0.0.12/24"]);
    fs::create_dir(place.entry(".lease.tmp")).expect("plant a folder");
    let text = format!("create {}: File exists (os error 17)", place.entry("10.0.0.11").display());
    let error = place.call("ADD", "c3", &place.conf()).run().fails(5, &[]);
    assert_eq!(error.msg, text);
    place.assert_untouched();
}

/// Sparse, a terabyte each: to read one whole would take hours or all memory.
#[test]
fn files_without_end_are_read_no_farther_than_makes_sense() {
    let place = Place::new();
    for name in ["10.0.0.10", "lock", "last_reserved_ip.0"] {
        let file = fs::File::create(place.entry(name)).expect("make a file");
        file.set_len(1 << 40).expect("make it long");
    }
    let call = place.call("ADD", "c1", &place.conf());
    let (outcome, trace) = call.run_traced();
    assert_eq!(outcome.result()["ips"][0]["address"], "10.0.0.11/24");
    let peak = trace.peaks_kib.iter().max().copied().unwrap_or_default();
    assert!(peak < 8 << 10, "{peak} KiB");
    place.call("DEL", "c1", &place.conf()).run().done();
    place.assert_untouched();
}

#[test]
fn a_resolv_conf_is_a_regular_file_of_a_sensible_length() {
    let place = Place::new();
    let path = place.lab.data_dir().join("resolv.conf");
    let add = || {
        let conf = place.with(json!({"resolvConf": path}));
        place.call("ADD", "c1", &conf).run()
    };
    let shown = path.display();
    fifo(&path);
    assert_eq!(add().fails(5, &[]).msg, format!("read {shown}: not a regular file"));
    fs::remove_file(&path).expect("remove a FIFO");
    zero(&path);
    assert_eq!(add().fails(5, &[]).msg, format!("read {shown}: not a regular file"));
    fs::remove_file(&path).expect("remove a device node");
    fs::File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("make a long file");
    assert_eq!(add().fails(7, &[]).msg, format!("ipam.resolvConf {shown}: is longer than 65536 bytes"));
    fs::remove_file(&path).expect("remove a file");
    // A link is what many systems have there.
    symlink(place.lab.path("stub"), &path).expect("make a link");
    fs::write(place.lab.path("stub"), "nameserver 192.0.2.1\n").expect("write a file");
    assert_eq!(add().result()["dns"]["nameservers"], json!(["192.0.2.1"]));
}

#[test]
fn names_that_are_paths_reach_no_file() {
    let place = Place::new();
    let conf = place.conf();
    for name in ["..", ".", "../lan", "lan/..", "/etc", "a/b", "", "lan\0x", "~", "-rf"] {
        let mut conf = conf.clone();
        conf["name"] = json!(name);
        let error = place.call("ADD", "c1", &conf).run().fails(7, &[]);
        assert!(error.msg.starts_with(&format!("name \"{name}\": ")), "{}", error.msg);
    }
    for id in ["..", ".", "../lan", "a/b", "/etc", ":", "a:b", "$(id)", "a b", "a\nb"] {
        let error = place.call("ADD", id, &conf).run().fails(4, &[]);
        assert!(error.msg.starts_with(&format!("CNI_CONTAINERID \"{id}\" ")), "{}", error.msg);
        place.call("DEL", id, &conf).run().fails(4, &[]);
    }
    for ifname in ["..", ".", "a/b", "all", "default", "a:b", "../../x", "eth%d", "a\nb"] {
        for command in ["ADD", "DEL"] {
            let error = place.call(command, "c1", &conf).env("CNI_IFNAME", ifname).run().fails(4, &[]);
            assert!(error.msg.starts_with(&format!("CNI_IFNAME \"{ifname}\" ")), "{}", error.msg);
        }
    }
    for plugin in ["../host-local", "/bin/sh", ".", "..", "a/b"] {
        let mut conf = place.lab.conf();
        conf["ipam"]["type"] = json!(plugin);
        let container = place.lab.container();
        let error = place.lab.macvlan().add(&container, "eth0", &conf).run().fails(7, &[]);
        assert_eq!(error.msg, format!("ipam.type \"{plugin}\": is a path, not the name of a plugin"));
    }
    assert!(fs::read_dir(place.entry("")).expect("read a directory").next().is_none(), "something was made");
    place.assert_untouched();
}

/// What a pod's owner says in annotations comes as CNI_ARGS, `args` and `runtimeConfig`: words for the addresses and the
/// MAC, and nothing else of it counts.
#[test]
fn what_a_pods_owner_says_chooses_an_address_of_the_range_and_nothing_more() {
    let place = Place::new();
    let mut other = place.conf();
    other["name"] = json!("other");
    place.call("ADD", "victim", &other).run().result();
    let before = fs::read(place.lab.data_dir().join("other/10.0.0.10")).expect("read a lease");

    let mut conf = place.conf();
    conf["args"] = json!({"cni": {
        "ips": ["10.0.0.12"], "dataDir": "/tmp", "name": "other", "type": "sh", "resolvConf": "/etc/shadow",
        "ipam": {"dataDir": "/tmp"}, "routes": [{"dst": "0.0.0.0/0"}],
    }});
    let args = "IgnoreUnknown=1;K8S_POD_NAME=$(touch /x);K8S_POD_NAMESPACE=../other;dataDir=/tmp;NETNS=/proc/1/ns/net";
    let result = place.call("ADD", "c1", &conf).args(args).run().result();
    assert_eq!(result["ips"][0]["address"], "10.0.0.12/24");
    assert_eq!(result.get("routes"), None);
    assert_eq!(result.get("dns"), None);

    for ip in ["10.0.0.1", "10.0.0.9", "10.9.9.9", "fd00::1"] {
        place.call("ADD", "c2", &place.conf()).args(&format!("IP={ip}")).run().fails(7, &["CNI_ARGS IP", ip]);
    }
    for ip in ["../10.0.0.10", "10.0.0.10\n", "10.0.0.10/../x", "$(id)", "010.0.0.10"] {
        place.call("ADD", "c2", &place.conf()).args(&format!("IP={ip}")).run().fails(4, &["is not an IP address"]);
    }
    let taken = place.call("ADD", "c2", &place.conf()).args("IP=10.0.0.12").run().fails(101, &[]);
    assert_eq!(taken.msg, "CNI_ARGS IP 10.0.0.12: leased to c1 eth0");
    assert_eq!(fs::read(place.lab.data_dir().join("other/10.0.0.10")).expect("read a lease"), before);
    assert_eq!(place.lab.leases(), ["10.0.0.12"]);
}

/// 500,000 requested addresses are refused as fast as they are read: each was once compared with each.
#[test]
fn a_long_list_of_requested_addresses_is_refused_at_once() {
    let place = Place::new();
    let mut conf = place.conf();
    let ip = |number: u32| std::net::Ipv4Addr::from_bits(0x0a00_000a + number).to_string();
    conf["runtimeConfig"] = json!({"ips": (0..500_000).map(ip).collect::<Vec<_>>()});
    let outcome = place.call("ADD", "c1", &conf).run();
    let error = outcome.fails(7, &[]);
    let text = "runtimeConfig.ips[1] 10.0.0.11: runtimeConfig.ips[0] 10.0.0.10 is in ipam.subnet too";
    assert!(error.msg.starts_with(text), "{}", error.msg);
    assert!(outcome.wall.as_secs() < 10, "{}", outcome.text());
}

/// Whatever the runtime's umask. The reference's lease files are 0644, for all users to read.
#[test]
fn files_are_for_root_alone_and_directories_as_the_reference_makes_them() {
    for (umask, expected) in [("000", 0o755), ("022", 0o755), ("077", 0o700)] {
        for binaries in [Binaries::HardLinks, Binaries::Reference] {
            let lab = Lab::new(binaries);
            let script = lab.path("under-umask");
            write_script(&script, &format!("umask {umask}; exec {}", lab.bin().join("host-local").display()));
            let mut conf = lab.conf();
            conf["ipam"]["dataDir"] = json!(lab.path("made/leases"));
            call(&Plugin::new(&lab.host, script).search(lab.bin()), "ADD", "c1", &conf).run().result();
            let mode = |path: &str| fs::symlink_metadata(lab.path(path)).expect("it is there").mode() & 0o7777;
            for directory in ["made", "made/leases", "made/leases/lan"] {
                assert_eq!(mode(directory), expected, "{binaries:?}, umask {umask}: {directory}");
            }
            if binaries == Binaries::HardLinks {
                for file in ["lock", "last_reserved_ip.0", "192.168.50.100"] {
                    assert_eq!(mode(&format!("made/leases/lan/{file}")), 0o600, "umask {umask}: {file}");
                }
            }
        }
    }
}

/// What another program as IPAM plugin is given: what the runtime gave us, byte for byte, and nothing that we opened.
#[test]
fn the_ipam_plugin_inherits_what_the_runtime_gave_and_nothing_of_ours() {
    let lab = Lab::new(Binaries::PlainCopies);
    let folder = lab.path("fake");
    fs::create_dir(&folder).expect("make a directory");
    let said = |name: &str| lab.path(name);
    write_script(
        &folder.join("fake"),
        &format!(
            "cat /proc/$$/environ >{}\nls -l /proc/$$/fd >{}\ncat /proc/self/status >{}\nreadlink /proc/$$/cwd >{}\n\
             echo '{{\"cniVersion\": \"1.0.0\", \"ips\": [{{\"address\": \"192.168.50.77/24\"}}]}}'",
            said("environment").display(),
            said("descriptors").display(),
            said("status").display(),
            said("folder").display(),
        ),
    );
    let conf = lab.conf_with(json!({"type": "fake"}));
    let container = lab.container();
    let search = format!("{}:{}", lab.bin().display(), folder.display());
    let call =
        lab.macvlan().search(search).add(&container, "eth0", &conf).env("PATH", "/usr/bin:/bin").env("ODD", "a=b\nc");
    call.run().result();

    let text = fs::read(said("environment")).expect("what the fake has seen");
    let mut environment: Vec<_> =
        text.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect();
    let word = |(name, value): (&std::ffi::OsStr, &std::ffi::OsStr)| format!("{}={}", name.display(), value.display());
    let mut expected: Vec<_> = call.environment().map(word).map(String::into_bytes).collect();
    environment.sort();
    expected.sort();
    assert_eq!(environment, expected);

    let descriptors = fs::read_to_string(said("descriptors")).expect("what the fake has seen");
    for line in descriptors.lines() {
        let Some((number, target)) = line.split_once(" -> ") else { continue };
        let number: u32 = number.split_whitespace().last().and_then(|word| word.parse().ok()).expect("a number");
        // From 10 on the shell keeps its script, and what it redirects for a moment.
        let its_own = number < 3 || (10..20).contains(&number);
        // What this very process was started with, it passes on.
        let from_afar = || fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|link| link == Path::new(target));
        assert!(its_own || from_afar(), "{number} is ours: {descriptors}");
        assert!(!target.starts_with("socket:") && !target.starts_with("net:["), "{descriptors}");
    }

    let status = fs::read_to_string(said("status")).expect("what the fake has seen");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
    // No signal blocked, and a broken pipe ends it as it ends anybody.
    assert_eq!(field("SigBlk:").as_deref(), Some("0000000000000000"), "{status}");
    let ignored = u64::from_str_radix(&field("SigIgn:").expect("a mask"), 16).expect("a number");
    assert_eq!(ignored & (1 << (13 - 1)), 0, "SIGPIPE is ignored: {status}");
    assert_eq!(fs::read_to_string(said("folder")).expect("what the fake has seen"), "/\n");
}

/// The stand-in for a closed stderr was closed on exec, so the first file that the IPAM plugin opened was its stderr.
#[test]
fn the_ipam_plugin_has_a_stderr_where_the_runtime_has_closed_ours() {
    let lab = Lab::new(Binaries::PlainCopies);
    let folder = lab.path("fake");
    fs::create_dir(&folder).expect("make a directory");
    let seen = lab.path("seen");
    write_script(
        &folder.join("fake"),
        &format!(
            "readlink /proc/$$/fd/2 >{}\necho '{{\"cniVersion\": \"1.0.0\", \"ips\": [{{\"address\": \"192.168.50.77/24\"}}]}}'",
            seen.display()
        ),
    );
    let script = lab.path("closing");
    write_script(&script, &format!("exec {} 2>&-", lab.bin().join("macvlan").display()));
    let plugin = Plugin::new(&lab.host, script).search(format!("{}:{}", lab.bin().display(), folder.display()));
    let container = lab.container();
    let call = plugin.add(&container, "eth0", &lab.conf_with(json!({"type": "fake"})));
    call.env("PATH", "/usr/bin:/bin").run().result();
    assert_eq!(fs::read_to_string(seen).expect("what the fake has seen"), "/dev/null\n");
}

/// A runtime that has closed them must not find a lease or a namespace under their numbers.
#[test]
fn closed_standard_streams_are_not_taken_for_files_of_ours() {
    let place = Place::new();
    let script = place.lab.data_dir().join("closing");
    let program = place.lab.bin().join("host-local");
    for (closed, code) in [("<&-", Some(6)), ("2>&-", None), (">&-", Some(5))] {
        write_script(&script, &format!("exec {} {closed}", program.display()));
        let outcome = call(&Plugin::new(&place.lab.host, script.clone()), "ADD", "c1", &place.conf()).run();
        match (closed, code) {
            (">&-", _) => {
                assert_eq!(outcome.status.code(), Some(1), "{}", outcome.text());
                assert!(outcome.stderr.contains("write result to stdout: it is closed"), "{}", outcome.text());
            }
            (_, Some(code)) => drop(outcome.fails(code, &["network configuration on stdin: is empty"])),
            _ => {
                outcome.result();
                place.call("DEL", "c1", &place.conf()).run().done();
            }
        }
        assert_eq!(place.lab.leases(), [""; 0], "{closed}");
    }
}

/// Of a program that is linked statically, no loader reads these; the C library and the language read some.
#[test]
fn variables_that_other_programs_obey_change_nothing() {
    let place = Place::new();
    let run = |name: &str, value: &str| {
        let outcome = place.call("ADD", "c1", &place.conf()).env(name, value).run();
        assert_eq!(outcome.result()["ips"][0]["address"], "10.0.0.10/24", "{name}={value}");
        assert_eq!(outcome.stderr, "", "{name}={value}");
    };
    for (name, value) in [
        ("LD_PRELOAD", "/nonexistent.so"),
        ("LD_LIBRARY_PATH", "/nonexistent"),
        ("GLIBC_TUNABLES", "glibc.malloc.perturb=165:glibc.malloc.check=3:glibc.rtld.optional_static_tls=x"),
        ("MALLOC_PERTURB_", "165"),
        ("MALLOC_ARENA_MAX", "1"),
        ("RUST_BACKTRACE", "full"),
        ("RUST_LOG", "trace"),
        ("TMPDIR", "/nonexistent"),
        ("HOME", "/nonexistent"),
        ("LC_ALL", "de_DE.UTF-8"),
        ("TZ", ":/etc/shadow"),
        ("IFS", "/"),
    ] {
        run(name, value);
    }
    place.assert_untouched();
}

#[test]
fn what_is_no_netns_is_neither_waited_for_nor_entered() {
    let place = Place::new();
    let lab = &place.lab;
    // Not among the leases, which the Lab reads itself.
    let folder = lab.path("odd");
    fs::create_dir(&folder).expect("make a directory");
    fifo(&folder.join("fifo"));
    zero(&folder.join("zero"));
    symlink("/proc/self/ns/mnt", folder.join("mnt")).expect("make a link");
    symlink(&place.precious, folder.join("link")).expect("make a link");
    symlink(folder.join("loop"), folder.join("loop")).expect("make a link");
    for (name, cause) in [
        ("fifo", "is not a network namespace"),
        ("zero", "is not a network namespace"),
        ("mnt", "is not a network namespace"),
        ("link", "is not a network namespace"),
        ("loop", "there is no such network namespace"),
        ("gone", "there is no such network namespace"),
    ] {
        let path = folder.join(name);
        let container = lab.container();
        let add = lab.macvlan().add(&container, "eth0", &lab.conf()).env("CNI_NETNS", &path);
        let error = lab.unchanged(&[&container], || add.run()).fails(8, &[path.to_str().expect("a path")]);
        assert!(error.msg.starts_with("CNI_NETNS: "), "{cause}: {}", error.msg);
        lab.macvlan().del(&container, "eth0", &lab.conf()).env("CNI_NETNS", &path).run().done();
    }
}
