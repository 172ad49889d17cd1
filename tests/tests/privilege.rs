//! Input and files of untrusted users. The plugin follows no link, never waits without end, reads a limited number of
//! bytes, and passes nothing on. docs/security.md says who is trusted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use e2e::plugin::write_script;
use e2e::scenario::{address, call};
use e2e::with;
use e2e::{Binaries, Call, Lab, Plugin};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};

const PRECIOUS: &str = "precious";

/// A Lab with a lease directory and a file that must not change.
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

    /// A configuration with more keys in `ipam`.
    fn with(&self, keys: Value) -> Value {
        let mut conf = self.lab.conf_of_ten(3);
        let more = keys.as_object().expect("an object").clone();
        conf["ipam"].as_object_mut().expect("an object").extend(more);
        conf
    }

    fn call(&self, command: &str, id: &str, conf: &Value) -> Call<'_> {
        call(&self.lab.host_local(), command, id, conf)
    }

    fn add(&self, id: &str) -> String {
        address(&self.call("ADD", id, &self.conf()).run())
    }

    fn entry(&self, name: &str) -> PathBuf {
        self.lab.lease_file(name)
    }

    /// The file has not changed, and outside of the lease directory there is no new file.
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

fn fifo(path: &Path) {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).expect("make a FIFO");
}

/// A device whose bytes never end.
fn zero(path: &Path) {
    mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(1, 5)).expect("make a device node");
}

/// ADD, CHECK, STATUS and DEL of two containers, with the planted files in the lease directory. Returns the addresses.
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
fn a_link_in_place_of_a_lease_counts_as_leased_and_is_not_followed() {
    let place = Place::new();
    symlink(&place.precious, place.entry("10.0.0.10")).expect("plant a link");
    assert_eq!(lives(&place), ["10.0.0.11", "10.0.0.12"]);
    assert!(place.entry("10.0.0.10").is_symlink());
}

#[test]
fn links_in_place_of_the_other_files_are_not_written_through() {
    let place = Place::new();
    for name in ["lock", "last_reserved_ip.0", ".lease.tmp", "c1:eth0"] {
        symlink(&place.precious, place.entry(name)).expect("plant a link");
    }
    assert_eq!(lives(&place), ["10.0.0.10", "10.0.0.11"]);
}

#[test]
fn a_dangling_link_creates_no_file_at_its_target() {
    let place = Place::new();
    let elsewhere = place.lab.path("elsewhere");
    for name in ["last_reserved_ip.0", ".lease.tmp", "10.0.0.10"] {
        symlink(&elsewhere, place.entry(name)).expect("plant a link");
    }
    assert_eq!(lives(&place), ["10.0.0.11", "10.0.0.12"]);
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
    // The file looks like a lease of a container named "precious".
    assert_eq!(lives(&place), ["10.0.0.11", "10.0.0.12"]);
}

#[test]
fn a_fifo_with_the_name_of_any_file_does_not_block() {
    let place = Place::new();
    for name in ["10.0.0.10", "lock", "last_reserved_ip.0", ".lease.tmp", "c1:eth0"] {
        fifo(&place.entry(name));
    }
    assert_eq!(lives(&place), ["10.0.0.11", "10.0.0.12"]);
}

#[test]
fn a_device_in_place_of_a_file_is_not_read() {
    let place = Place::new();
    for name in ["10.0.0.10", "last_reserved_ip.0", ".lease.tmp"] {
        zero(&place.entry(name));
    }
    assert_eq!(lives(&place), ["10.0.0.11", "10.0.0.12"]);
}

#[test]
fn directories_in_place_of_files_stay() {
    let place = Place::new();
    for name in ["10.0.0.10", "last_reserved_ip.0"] {
        fs::create_dir(place.entry(name)).expect("plant a directory");
    }
    assert_eq!(lives(&place), ["10.0.0.11", "10.0.0.12"]);
    fs::create_dir(place.entry(".lease.tmp")).expect("plant a directory");
    let text = format!("create {}: File exists (os error 17)", place.entry("10.0.0.11").display());
    let error = place.call("ADD", "c3", &place.conf()).run().fails(5, &[]);
    assert_eq!(error.msg, text);
    place.assert_untouched();
}

/// Sparse files of a terabyte each.
#[test]
fn only_the_beginning_of_endless_files_is_read() {
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
fn a_resolv_conf_must_be_a_regular_file_of_a_limited_length() {
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
    // Many systems have a link there.
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

/// The annotations of a pod come as CNI_ARGS, `args` and `runtimeConfig`. Only requested addresses and a MAC have an
/// effect.
#[test]
fn the_owner_of_a_pod_can_only_select_an_address_of_the_range() {
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

/// Each of 500,000 requested addresses was compared with all others.
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

/// With any umask. The lease files of the reference have mode 0644.
#[test]
fn only_root_can_read_the_files_and_directories_are_as_those_of_the_reference() {
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

/// An IPAM plugin that is executed gets the environment of the runtime, byte for byte, and no descriptor of ours.
#[test]
fn the_ipam_plugin_inherits_only_what_the_runtime_gave() {
    let lab = Lab::new(Binaries::PlainCopies);
    let said = |name: &str| lab.path(name);
    let conf = lab.fake_ipam(
        "cat /proc/$$/environ >$LAB/environment\nls -l /proc/$$/fd >$LAB/descriptors\ncat /proc/self/status >$LAB/status\n\
         readlink /proc/$$/cwd >$LAB/folder\necho \"$answer\"",
    );
    let container = lab.container();
    let call = lab.plugin_with_fake("macvlan").add(&container, "eth0", &conf).env("ODD", "a=b\nc");
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
        // The shell uses numbers from 10 on for its script and for redirections.
        let of_the_shell = number < 3 || (10..20).contains(&number);
        // The test passes on the descriptors that it was started with.
        let of_the_test =
            || fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|link| link == Path::new(target));
        assert!(of_the_shell || of_the_test(), "{number} is ours: {descriptors}");
        assert!(!target.starts_with("socket:") && !target.starts_with("net:["), "{descriptors}");
    }

    let status = fs::read_to_string(said("status")).expect("what the fake has seen");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
    // No signal is blocked, and SIGPIPE has its default action.
    assert_eq!(field("SigBlk:").as_deref(), Some("0000000000000000"), "{status}");
    let ignored = u64::from_str_radix(&field("SigIgn:").expect("a mask"), 16).expect("a number");
    assert_eq!(ignored & (1 << (13 - 1)), 0, "SIGPIPE is ignored: {status}");
    assert_eq!(fs::read_to_string(said("folder")).expect("what the fake has seen"), "/\n");
}

/// The file in place of a closed stderr was closed on exec. So the first file that the IPAM plugin opened was its
/// stderr.
#[test]
fn if_the_runtime_has_closed_our_stderr_that_of_the_ipam_plugin_is_dev_null() {
    let lab = Lab::new(Binaries::PlainCopies);
    let conf = lab.fake_ipam("readlink /proc/$$/fd/2 >$LAB/seen\necho \"$answer\"");
    lab.behind("exec $PLUGIN 2>&-").attach(&lab, &conf);
    assert_eq!(fs::read_to_string(lab.path("seen")).expect("what the fake has seen"), "/dev/null\n");
}

/// A file that we open must not get the number of a closed standard stream.
#[test]
fn no_file_of_ours_replaces_a_closed_standard_stream() {
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

/// The C library and the runtime of Rust read some of these variables. The program is static, so no loader reads them.
#[test]
fn variables_for_other_programs_have_no_effect() {
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
fn a_file_that_is_not_a_netns_does_not_block() {
    let place = Place::new();
    let lab = &place.lab;
    // Not in the lease directory, because the Lab reads that.
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
