//! What a review of macvlan and host-local found, one test or more for each defect: a failure at an odd moment, two
//! calls at once, and refusals that said too little. Longer than other files, since the review was one.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::lab::{Families, NIC, lan4};
use e2e::plugin::write_script;
use e2e::traffic::{assert_reaches, assert_silent, readable};
use e2e::{Binaries, Call, Container, Lab, Namespace, Outcome, Plugin, cases};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

/// Where scripts find their programs: a plugin's environment is what the test says, no more.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// CHECK found something amiss.
const DIFFERS: u64 = 102;

/// More system calls of one sort than any call makes.
const MANY: usize = 200;

fn with(mut conf: Value, key: &str, value: Value) -> Value {
    conf[key] = value;
    conf
}

fn prefix(text: &str) -> ipnet::IpNet {
    text.parse().expect("an address with its prefix length")
}

/// A container, and a configuration with the result in it.
fn attached(lab: &Lab, conf: &Value) -> (Container, Value) {
    let container = lab.container();
    let result = lab.macvlan().add(&container, "eth0", conf).run().result();
    (container, with(conf.clone(), "prevResult", result))
}

#[track_caller]
fn assert_gone(lab: &Lab, container: &Container) {
    assert_eq!(container.link_names(), ["lo"]);
    assert_eq!(lab.leases(), [""; 0]);
}

/// An ADD that fails so, and leaves everything as it was.
#[track_caller]
fn refused(lab: &Lab, conf: &Value, code: u64, names: &[&str]) {
    let container = lab.container();
    lab.unchanged(&[&container], || lab.macvlan().add(&container, "eth0", conf).run()).fails(code, names);
}

/// Waits for what another thread's call will bring about; each look is a question to the kernel.
fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::yield_now();
    }
}

/// What the Lab has no words for, as an administrator would do it.
fn ip(netns: &Namespace, arguments: &str) {
    let output = netns.run(|| Command::new("ip").args(arguments.split_whitespace()).output().expect("start ip"));
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The program `macvlan` behind a line of shell, in which `$PLUGIN` is its path and `$LAB` the Lab's directory.
fn behind<'a>(lab: &'a Lab, line: &str) -> Plugin<'a> {
    let directory = tempfile::tempdir_in(lab.path("")).expect("make a directory").keep();
    let script = directory.join("macvlan");
    let (plugin, lab_directory) = (lab.bin().join("macvlan"), lab.path(""));
    let names = format!("PLUGIN={} LAB={}", plugin.display(), lab_directory.display());
    write_script(&script, &format!("{names}\nexport PATH={PATH}\n{line}"));
    Plugin::new(&lab.host, script).search(search_path(lab))
}

/// The program `macvlan` under strace, which makes system calls fail. Of its main thread: nobody's child fails.
fn failing<'a>(lab: &'a Lab, calls: &str, errno: &str, when: usize) -> Plugin<'a> {
    behind(
        lab,
        &format!(
            "exec strace -o $LAB/strace -e trace={calls},sendto -e inject={calls}:error={errno}:when={when} $PLUGIN"
        ),
    )
}

/// What strace has noted, up to the call that it made fail; none when it made none fail.
fn until_injected(lab: &Lab) -> Option<Vec<String>> {
    let log = fs::read_to_string(lab.path("strace")).expect("the log of strace");
    let lines: Vec<String> = log.lines().map(str::to_owned).collect();
    let at = lines.iter().position(|line| line.contains("(INJECTED)"))?;
    Some(lines[..at].to_vec())
}

/// Whether strace says of a request that it is an RTM_NEWLINK with NLM_F_CREATE and NLM_F_EXCL. It has words for them
/// where it can find out which protocol the socket speaks, and numbers elsewhere.
fn creates_a_link(request: &str) -> bool {
    let says = |word: &str, number: &str| request.contains(word) || request.contains(number);
    says("nlmsg_type=RTM_NEWLINK,", "nlmsg_type=0x10 ") && says("NLM_F_EXCL|NLM_F_CREATE", "|0x600,")
}

/// An IPAM plugin of our own named `fake`, which leases 192.168.50.77 by making the file `lease`, and says in the file
/// `calls` what it was asked for.
fn fake_ipam(lab: &Lab, body: &str) -> Value {
    fs::create_dir(lab.path("fake")).expect("make a directory");
    let lab_directory = lab.path("");
    let prelude = format!(
        "LAB={}\necho $CNI_COMMAND >>$LAB/calls\n\
         answer='{{\"cniVersion\": \"1.0.0\", \"ips\": [{{\"address\": \"192.168.50.77/24\"}}]}}'\n",
        lab_directory.display()
    );
    write_script(&lab.path("fake/fake"), &(prelude + body));
    lab.conf_with(json!({"type": "fake"}))
}

/// The directory of the programs, and that of [`fake_ipam`].
fn search_path(lab: &Lab) -> String {
    format!("{}:{}", lab.bin().display(), lab.path("fake").display())
}

fn calls(lab: &Lab) -> Vec<String> {
    let text = fs::read_to_string(lab.path("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// An IPAM plugin that prints this on ADD.
fn answering(lab: &Lab, answer: &Value) -> Value {
    fake_ipam(lab, &format!("[ $CNI_COMMAND = ADD ] || exit 0\necho '{answer}'"))
}

fn foreign(lab: &Lab) -> Plugin<'_> {
    lab.macvlan().search(search_path(lab))
}

/// A FIFO that two sides meet at; opened both ways, so that opening waits for nobody.
struct Gate(fs::File);

impl Gate {
    fn new(lab: &Lab, name: &str) -> Self {
        let path = lab.path(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("make a FIFO");
        Self(fs::OpenOptions::new().read(true).write(true).open(&path).expect("open a FIFO"))
    }

    /// Waits until the other side has written a line. In vain is not the end yet: calls that wait have to be let go.
    #[must_use]
    fn wait(&mut self) -> bool {
        let asked = readable(&self.0, Instant::now() + PATIENCE).expect("wait for a FIFO");
        if asked {
            self.0.read_exact(&mut [0]).expect("read from a FIFO");
        }
        asked
    }

    /// Lets the other side go on.
    fn open(&mut self) {
        writeln!(self.0, "go").expect("write to a FIFO");
    }
}

/// IPAM that leases slowly, and releases slowly for the runtime's DEL, not for that of a failed ADD: both tell when they
/// were asked, and wait to be told to go on.
struct SlowIpam {
    conf: Value,
    add_asked: Gate,
    add_go: Gate,
    del_asked: Gate,
    del_go: Gate,
}

impl SlowIpam {
    /// The runtime's DEL.
    fn del<'a>(&self, lab: &'a Lab, container: &Container) -> Call<'a> {
        foreign(lab).del(container, "eth0", &self.conf).args("IgnoreUnknown=1;SLOW=1")
    }

    fn leasing(lab: &Lab, address: &str) -> Self {
        let conf = fake_ipam(
            lab,
            &format!(
                "case $CNI_COMMAND in\n\
                 ADD) echo >$LAB/add-asked; read word <$LAB/add-go; >$LAB/lease\n\
                 echo '{{\"cniVersion\": \"1.0.0\", \"ips\": [{{\"address\": \"{address}\"}}]}}';;\n\
                 DEL) rm -f $LAB/lease\n\
                 case $CNI_ARGS in *SLOW*) echo >$LAB/del-asked; read word <$LAB/del-go;; esac;;\n\
                 esac"
            ),
        );
        let gate = |name| Gate::new(lab, name);
        let (add_asked, add_go) = (gate("add-asked"), gate("add-go"));
        Self { conf, add_asked, add_go, del_asked: gate("del-asked"), del_go: gate("del-go") }
    }
}

/// An ADD and a DEL of one attachment, both with IPAM at work, of which the one that is named comes to its end first.
fn add_fails_beside_del(lab: &Lab, first: &str) {
    let mut ipam = SlowIpam::leasing(lab, "192.168.50.77/24");
    let (container, conf) = (lab.container(), ipam.conf.clone());
    let (add, del) = thread::scope(|scope| {
        let add = scope.spawn(|| foreign(lab).add(&container, "eth0", &conf).run());
        let mut asked = ipam.add_asked.wait();
        let call = ipam.del(lab, &container);
        let del = scope.spawn(move || call.run());
        asked &= ipam.del_asked.wait();
        let end_add = || {
            ipam.add_go.open();
            add.join().expect("an ADD")
        };
        let end_del = || {
            ipam.del_go.open();
            del.join().expect("a DEL")
        };
        let (add, del) = match first {
            "ADD" => (end_add(), end_del()),
            _ => {
                let del = end_del();
                (end_add(), del)
            }
        };
        assert!(asked, "IPAM was not asked: {}\n{}", add.text(), del.text());
        (add, del)
    });
    add.fails(100, &["eth0", "somebody deleted it"]);
    del.done();
    assert_eq!(container.link_names(), ["lo"]);
    assert!(!lab.path("lease").exists(), "the lease stayed: {:?}", calls(lab));
}

/// A call in a thread of its own, from which the others are told apart by what became of them.
fn all_at_once(count: usize, call: impl Fn() -> Outcome + Sync) -> Vec<Outcome> {
    thread::scope(|scope| {
        let calls: Vec<_> = (0..count).map(|_| scope.spawn(&call)).collect();
        calls.into_iter().map(|call| call.join().expect("a call")).collect()
    })
}

fn del_at(lab: &Lab, netns: &Path) {
    let (container, conf) = attached(lab, &lab.conf());
    assert_eq!(lab.leases().len(), 1);
    lab.macvlan().del(&container, "eth0", &conf).env("CNI_NETNS", netns).run().done();
    assert_eq!(lab.leases(), [""; 0]);
}

fn add_at<'a>(lab: &'a Lab, container: &Container, netns: impl AsRef<OsStr>) -> Call<'a> {
    lab.macvlan().add(container, "eth0", &lab.conf()).env("CNI_NETNS", netns)
}

/// A path below a plain file, and one of a socket.
fn odd_paths(lab: &Lab) -> [PathBuf; 2] {
    let (file, socket) = (lab.path("plain"), lab.path("socket"));
    fs::write(&file, "").expect("write a file");
    // The file stays when the listener goes.
    UnixListener::bind(&socket).expect("make a socket");
    [file.join("netns"), socket]
}

cases! {
    /// Our own link plugin as IPAM asked itself for an address, and so on, until the stack was full: the process died,
    /// and the link stayed.
    #[reference(not_run: "it calls itself until the machine is full of processes")]
    fn ipam_that_is_one_of_our_link_plugins_is_refused(lab) {
        for name in ["macvlan", "ipvlan"] {
            let conf = with(lab.conf(), "ipam", json!({"type": name}));
            let names = ["ipam.type", name, "is no IPAM plugin"];
            refused(lab, &conf, 7, &names);
            let conf = with(conf, "cniVersion", json!("1.1.0"));
            let conf = with(conf, "cni.dev/valid-attachments", json!([]));
            lab.macvlan().call("GC", &conf).run().fails(7, &names);
            // STATUS has a code of its own for whatever keeps an ADD from working.
            lab.macvlan().call("STATUS", &conf).run().fails(50, &names);
        }
    }

    /// The configuration was edited so after the ADD. The container can go; that its lease cannot is said.
    #[reference(not_run: "it calls itself until the machine is full of processes")]
    fn del_with_such_ipam_takes_the_link_and_says_that_the_lease_stays(lab) {
        let (container, conf) = attached(lab, &lab.conf());
        let edited = with(conf.clone(), "ipam", json!({"type": "macvlan"}));
        lab.macvlan().del(&container, "eth0", &edited).run().fails(7, &["ipam.type", "macvlan", "is no IPAM plugin"]);
        assert_eq!(container.link_names(), ["lo"]);
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert_gone(lab, &container);
    }

    /// DEL took the link for somebody else's, released the address, and left it answering for that.
    #[reference(passes)]
    fn del_knows_a_link_whose_container_has_changed_its_mac(lab) {
        let (container, conf) = attached(lab, &lab.conf());
        ip(&container, "link set eth0 address 02:00:00:00:00:99");
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert_gone(lab, &container);
        assert_silent(&lab.neighbour, lan4(100));
    }

    #[reference(passes)]
    fn del_knows_a_passthru_link_whose_parent_has_changed_its_mac(lab) {
        let (container, conf) = attached(lab, &with(lab.conf(), "mode", json!("passthru")));
        ip(&lab.host, &format!("link set {NIC} address 02:00:00:00:00:77"));
        assert_eq!(container.link("eth0").mac, "02:00:00:00:00:77");
        lab.macvlan().del(&container, "eth0", &conf).run().done();
        assert_gone(lab, &container);
    }

    #[reference(fails: "did not succeed")]
    fn check_of_a_passthru_link_whose_parent_has_changed_its_mac_is_content(lab) {
        let (container, conf) = attached(lab, &with(lab.conf(), "mode", json!("passthru")));
        ip(&lab.host, &format!("link set {NIC} address 02:00:00:00:00:77"));
        lab.unchanged(&[&container], || lab.macvlan().check(&container, "eth0", &conf).run()).done();
    }

    /// U6 as it may not come back: the addresses are another container's, so the link is too.
    #[reference(fails: "the foreign link is gone")]
    fn del_in_a_recycled_netns_leaves_a_macvlan_with_other_addresses(lab) {
        let (container, conf) = attached(lab, &lab.conf());
        container.delete_link("eth0");
        lab.host.create_macvlan_in(&container, "eth0", NIC);
        container.add_address("eth0", prefix("192.168.50.200/24"));
        container.set_up("eth0");
        let outcome = lab.macvlan().del(&container, "eth0", &conf).run();
        assert!(container.has_link("eth0"), "the foreign link is gone: {}", outcome.text());
        outcome.done();
        assert!(outcome.stderr.contains("eth0"), "no warning: {}", outcome.text());
        assert_reaches(&lab.neighbour, lan4(200));
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// ... and so it is when it has even the address, which is another container's by now.
    #[reference(fails: "the foreign link is gone")]
    fn del_in_a_recycled_netns_leaves_a_macvlan_with_the_address_that_is_leased_to_another(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["ranges"][0][0]["rangeEnd"] = json!("192.168.50.100");
        let (old, old_conf) = attached(lab, &conf);
        // Gone without a DEL, as a netns goes.
        old.delete_link("eth0");
        fs::remove_file(lab.data_dir().join("lan/192.168.50.100")).expect("remove the lease");
        let new_owner = |call: Call<'_>| call.env("CNI_CONTAINERID", "the-next-one").run();
        new_owner(lab.macvlan().add(&old, "eth0", &conf)).result();
        let outcome = lab.macvlan().del(&old, "eth0", &old_conf).run();
        assert!(old.has_link("eth0"), "the foreign link is gone: {}", outcome.text());
        outcome.done();
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        assert_reaches(&lab.neighbour, lan4(100));
        new_owner(lab.macvlan().del(&old, "eth0", &conf)).done();
        assert_gone(lab, &old);
    }

    /// At the limit of processes or threads ADD panicked, or left the IPAM plugin running. Whichever of its clones
    /// fails, it says so, and can be tried again.
    #[reference(not_run: "its threads make every run another one")]
    fn without_another_process_or_thread_add_is_to_be_tried_again_and_leaves_nothing(lab) {
        let conf = fake_ipam(lab, "echo $$ >>$LAB/pids\n[ $CNI_COMMAND = ADD ] && echo \"$answer\"; exit 0");
        for (failed, when) in (1..MANY).enumerate() {
            let container = lab.container();
            let add = || failing(lab, "clone,clone3,vfork", "EAGAIN", when).add(&container, "eth0", &conf).run();
            let outcome = lab.unchanged(&[&container], || {
                let outcome = add();
                if outcome.status.success() {
                    foreign(lab).del(&container, "eth0", &conf).run().done();
                }
                outcome
            });
            for pid in fs::read_to_string(lab.path("pids")).unwrap_or_default().lines() {
                assert!(!Path::new("/proc").join(pid).exists(), "an IPAM plugin lives on as {pid}: {}", outcome.text());
            }
            if until_injected(lab).is_none() {
                outcome.result();
                // The child, and a thread for its output. The pipe takes so short an input whole.
                assert_eq!(failed, 2);
                return;
            }
            outcome.fails(11, &["fake"]);
        }
        panic!("it never comes to its end");
    }

    /// C6: at the limit of threads, waiting for the lock of the leases was a panic, with code 999.
    #[reference(not_run: "its threads make every run another one")]
    fn without_a_thread_to_wait_in_for_the_lock_an_add_is_to_be_tried_again(lab) {
        fs::create_dir_all(lab.data_dir().join("lan")).expect("make a directory");
        let path = lab.data_dir().join("lan/lock");
        let lock = fs::File::create(&path).expect("make the lock");
        lock.lock().expect("take the lock");
        let container = lab.container();
        let without_threads = "exec strace -o $LAB/strace -e inject=clone,clone3,vfork:error=EAGAIN $PLUGIN";
        let add = || behind(lab, without_threads).add(&container, "eth0", &lab.conf()).run();
        let outcome = lab.unchanged(&[&container], add);
        // Where IPAM is a program of its own, that one cannot be started.
        let cause = if lab.binaries() == Binaries::HardLinks { "no thread is to be had to wait in" } else { "host-local" };
        outcome.fails(11, &[cause]);
    }

    /// Of two DELs of one attachment the second failed on what the first had just taken away.
    #[reference(not_run: "one of them fails now and then")]
    fn four_dels_at_once_succeed_thirty_times(lab) {
        for _ in 0..30 {
            let (container, conf) = attached(lab, &lab.conf());
            for outcome in all_at_once(4, || lab.macvlan().del(&container, "eth0", &conf).run()) {
                outcome.done();
            }
            assert_gone(lab, &container);
        }
    }

    #[reference(fails: "did not succeed")]
    fn del_with_a_netns_below_a_plain_file_releases_the_address(lab) {
        let [path, _] = odd_paths(lab);
        del_at(lab, &path);
    }

    #[reference(fails: "did not succeed")]
    fn del_with_a_netns_that_is_a_socket_releases_the_address(lab) {
        let [_, path] = odd_paths(lab);
        del_at(lab, &path);
    }

    #[reference(fails: "another code")]
    fn add_with_a_netns_that_cannot_be_one_names_it(lab) {
        for path in odd_paths(lab) {
            let container = lab.container();
            let outcome = lab.unchanged(&[&container], || add_at(lab, &container, &path).run());
            outcome.fails(8, &["CNI_NETNS", &path.to_string_lossy()]);
        }
    }

    /// DEL came before the address was leased, so it released nothing; ADD had its link already, saw nothing amiss and
    /// succeeded; and then DEL took the link. Both were content, and the lease stayed for ever.
    #[reference(fails: "did not fail")]
    fn a_del_that_is_under_way_when_the_address_is_leased_makes_add_fail(lab) {
        add_fails_beside_del(lab, "ADD");
    }

    #[reference(fails: "another code")]
    fn a_del_that_is_over_when_the_address_is_leased_makes_add_fail(lab) {
        add_fails_beside_del(lab, "DEL");
    }

    #[reference(fails: "another code")]
    fn an_mtu_below_what_an_interface_can_have_is_refused_by_its_key(lab) {
        refused(lab, &with(lab.conf(), "mtu", json!(10)), 7, &["mtu", "10", "68"]);
    }

    #[reference(fails: "another code")]
    fn a_tun_interface_is_refused_as_a_parent_by_its_key(lab) {
        ip(&lab.host, "tuntap add tun0 mode tun");
        ip(&lab.host, "link set tun0 up");
        refused(lab, &with(lab.conf(), "master", json!("tun0")), 7, &["master", "tun0", "Ethernet"]);
    }

    /// The kernel has directories of these names in /proc/sys/net, which are those of every interface.
    #[reference(fails: "another code")]
    fn interface_names_that_stand_for_all_of_them_are_refused(lab) {
        for name in ["all", "default"] {
            let container = lab.container();
            let outcome = lab.unchanged(&[&container], || lab.macvlan().add(&container, name, &lab.conf()).run());
            outcome.fails(4, &["CNI_IFNAME", name]);
        }
    }

    #[reference(fails: "another code")]
    fn ipv6_on_an_mtu_that_is_too_small_for_it_is_refused_by_its_key(lab) {
        let container = lab.container();
        let conf = with(lab.conf_with(lab.ipam(Families::V6)), "mtu", json!(1000));
        lab.macvlan().add(&container, "eth0", &conf).run().fails(7, &["mtu", "1000", "1280"]);
        assert_gone(lab, &container);
    }

    #[reference(fails: "another code")]
    fn passthru_beside_others_is_refused_with_the_reason(lab) {
        let (first, _) = attached(lab, &lab.conf());
        let container = lab.container();
        let conf = with(lab.conf(), "mode", json!("passthru"));
        let outcome = lab.unchanged(&[&first, &container], || lab.macvlan().add(&container, "eth0", &conf).run());
        outcome.fails(100, &["eth0", NIC, "passthru", "needs its parent alone"]);
        assert_reaches(&lab.neighbour, lan4(100));
    }

    #[reference(fails: "another code")]
    fn a_port_of_a_bridge_is_refused_as_a_parent_with_the_reason(lab) {
        lab.host.create_bridge("br7");
        lab.host.make_port(NIC, "br7");
        refused(lab, &lab.conf(), 100, &["busy", NIC, "port of bridge br7", "master"]);
    }

    /// DEL takes the address off the link first, and that was taken for an address that another machine had: an operator
    /// went looking for that.
    #[reference(fails: "did not fail")]
    fn a_del_during_duplicate_address_detection_is_no_other_machines_fault(lab) {
        let mut ipam = SlowIpam::leasing(lab, "fd50::77/64");
        let (container, conf) = (lab.container(), ipam.conf.clone());
        // Long enough for a DEL to come in between.
        container.set_sysctl("net/ipv6/conf/default/dad_transmits", "10");
        let (add, del) = thread::scope(|scope| {
            let add = scope.spawn(|| foreign(lab).add(&container, "eth0", &conf).run());
            ipam.add_go.open();
            wait_until("an address that is tentative, or an ADD that is over", || {
                let up = container.find_link("eth0").is_some_and(|link| link.up);
                let detected = container.all_addresses().iter().any(|its| !its.link_local() && its.tentative());
                up && detected || add.is_finished()
            });
            let call = ipam.del(lab, &container);
            let del = scope.spawn(move || call.run());
            // The address is gone by now, and the link is not.
            let asked = ipam.del_asked.wait();
            let add = add.join().expect("an ADD");
            ipam.del_go.open();
            let del = del.join().expect("a DEL");
            assert!(asked, "IPAM was not asked: {}\n{}", add.text(), del.text());
            (add, del)
        });
        let error = add.fails(100, &["eth0", "somebody deleted it"]);
        assert!(!format!("{error:?}").contains("another machine"), "{}", add.text());
        del.done();
        assert_eq!(container.link_names(), ["lo"]);
        assert!(!lab.path("lease").exists(), "the lease stayed: {:?}", calls(lab));
    }

    #[reference(fails: "did not fail")]
    fn check_names_a_default_route_that_leads_nowhere(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        let (container, conf) = attached(lab, &conf);
        lab.macvlan().check(&container, "eth0", &conf).run().done();
        ip(&container, "route del default");
        ip(&container, "route add blackhole default");
        let check = || lab.macvlan().check(&container, "eth0", &conf).run();
        lab.unchanged(&[&container], check).fails(DIFFERS, &["eth0", "0.0.0.0/0", "192.168.50.1"]);
    }

    #[reference(fails: "did not fail")]
    fn check_names_a_default_route_by_another_gateway(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        let (container, conf) = attached(lab, &conf);
        ip(&container, "route replace default via 192.168.50.99");
        let check = || lab.macvlan().check(&container, "eth0", &conf).run();
        lab.unchanged(&[&container], check).fails(DIFFERS, &["eth0", "0.0.0.0/0", "192.168.50.1"]);
    }

    /// The kernel had made the link, and ADD, which did not hear of it, left it there. Every answer is lost once.
    #[reference(not_run: "its threads make every run another one")]
    fn an_add_that_misses_an_answer_of_the_kernel_leaves_nothing_and_can_be_tried_again(lab) {
        let mut of_the_creation = 0;
        for when in 1..MANY {
            let container = lab.container();
            let conf = lab.conf();
            let outcome = failing(lab, "recvmsg", "ENOBUFS", when).add(&container, "eth0", &conf).run();
            let Some(before) = until_injected(lab) else {
                outcome.result();
                assert_eq!(of_the_creation, 1, "the acknowledgement of the new link was never lost");
                return;
            };
            let request = before.iter().rfind(|line| line.starts_with("sendto")).expect("a request before an answer");
            of_the_creation += usize::from(creates_a_link(request));
            let error = outcome.error();
            assert_eq!(error.code, 11, "answer {when}: {}", outcome.text());
            assert_eq!(error.details, "", "answer {when}: {}", outcome.text());
            assert_gone(lab, &container);
            let retried = lab.macvlan().add(&container, "eth0", &conf).run().result();
            assert_eq!(container.address_texts("eth0"), [retried["ips"][0]["address"].as_str().expect("an address")]);
            lab.macvlan().del(&container, "eth0", &conf).run().done();
        }
        panic!("it never comes to its end");
    }

    /// The kernel leaves them out, so such configurations work elsewhere.
    #[reference(passes)]
    fn an_ipv6_route_with_host_bits_is_that_of_its_network(lab) {
        let mut conf = lab.conf_with(lab.ipam(Families::V6));
        conf["ipam"]["routes"] = json!([{"dst": "fd99::1/48"}]);
        let (container, _) = attached(lab, &conf);
        assert_eq!(container.route_to("fd99::/48").gateway, "fd50::1".parse().ok());
    }

    #[reference(passes)]
    fn an_ipv6_route_with_host_bits_from_foreign_ipam_is_that_of_its_network(lab) {
        let conf = answering(lab, &json!({
            "cniVersion": "1.0.0",
            "ips": [{"address": "fd50::77/64"}],
            "routes": [{"dst": "fd99::1/48", "gw": "fd50::fe"}],
        }));
        let container = lab.container();
        foreign(lab).add(&container, "eth0", &conf).run().result();
        assert_eq!(container.route_to("fd99::/48").gateway, "fd50::fe".parse().ok());
    }

    /// The kernel refuses it with "invalid argument", and no more.
    #[reference(fails: "something was changed")]
    fn an_ipv4_route_with_host_bits_is_refused_with_its_network(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["routes"] = json!([{"dst": "10.20.0.1/16"}]);
        refused(lab, &conf, 7, &["routes", "10.20.0.1/16", "10.20.0.0/16"]);
    }

    /// Some call it with a stdin that they never close: VERSION has nothing to read there.
    #[reference(passes)]
    fn version_does_not_wait_for_a_stdin_that_stays_open(lab) {
        let _gate = Gate::new(lab, "silence");
        let outcome = behind(lab, "exec $PLUGIN <>$LAB/silence").call("VERSION", &json!({})).run();
        let versions = outcome.result();
        let spoken = versions["supportedVersions"].as_array().expect("a list");
        assert!(spoken.contains(&json!("1.0.0")), "{}", outcome.text());
        assert!(outcome.wall < Duration::from_secs(3), "{}", outcome.text());
    }

    /// Nobody can learn of the attachment. /dev/null was opened in the place of a closed stdout, and the result was
    /// written to that with success.
    #[reference(fails: "something was changed")]
    fn an_add_whose_stdout_is_closed_fails_and_leaves_nothing(lab) {
        let container = lab.container();
        let outcome = lab.unchanged(&[&container], || {
            behind(lab, "exec $PLUGIN >&-").add(&container, "eth0", &lab.conf()).run()
        });
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.text());
        assert!(outcome.stderr.contains("stdout: it is closed"), "{}", outcome.text());
    }

    /// Who sends the result to /dev/null means it. Opened for reading too, as Python's subprocess.DEVNULL is, it was
    /// taken for a closed one.
    #[reference(passes)]
    fn an_add_whose_stdout_is_dev_null_works(lab) {
        for (at, to_null) in (100..).zip([">", "1<>"]) {
            let container = lab.container();
            let plugin = behind(lab, &format!("exec $PLUGIN {to_null}/dev/null"));
            plugin.add(&container, "eth0", &lab.conf()).run().done();
            assert_eq!(container.address_texts("eth0"), [format!("{}/24", lan4(at))]);
            assert_reaches(&lab.neighbour, lan4(at));
        }
    }

    /// The notation of some switches, which the reference takes.
    #[reference(passes)]
    fn a_mac_in_the_dotted_form_is_taken(lab) {
        let (container, conf) = attached(lab, &with(lab.conf(), "mac", json!("0200.5e10.0001")));
        assert_eq!(container.link("eth0").mac, "02:00:5e:10:00:01");
        assert_eq!(conf["prevResult"]["interfaces"][0]["mac"], "02:00:5e:10:00:01");
    }

    /// Some losers said "file exists", and nothing more.
    #[reference(fails: "another code")]
    fn of_eight_adds_of_one_attachment_one_wins_and_the_others_say_why_not_twenty_times(lab) {
        for _ in 0..20 {
            let (container, conf) = (lab.container(), lab.conf());
            let outcomes = all_at_once(8, || lab.macvlan().add(&container, "eth0", &conf).run());
            let (winners, losers): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| outcome.status.success());
            for loser in losers {
                loser.fails(7, &["CNI_IFNAME", "eth0", "already"]);
            }
            let [winner] = winners[..] else { panic!("{} winners", winners.len()) };
            let address = winner.result()["ips"][0]["address"].as_str().expect("an address").to_owned();
            assert_eq!(container.address_texts("eth0"), [address.as_str()]);
            assert_eq!(lab.leases(), [address.trim_end_matches("/24")]);
            lab.macvlan().del(&container, "eth0", &conf).run().done();
            assert_gone(lab, &container);
        }
    }

    /// "It returned no addresses" was all that the user saw of it.
    #[reference(fails: "something was changed")]
    fn an_error_object_of_ipam_that_exits_with_0_is_passed_on(lab) {
        let conf = answering(lab, &json!({
            "cniVersion": "1.0.0", "code": 142, "msg": "the pool is empty", "details": "since noon",
        }));
        let container = lab.container();
        let error = lab.unchanged(&[&container], || foreign(lab).add(&container, "eth0", &conf).run())
            .fails(142, &["the pool is empty"]);
        assert_eq!(error.details, "since noon");
    }
}
