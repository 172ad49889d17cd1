//! host-local on file systems that fail, are full, or lack a feature. Leases stay, a failed call can be repeated, and
//! the error names the path.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use e2e::mounts;
use e2e::patience::await_that;
use e2e::scenario::{address, call, leases};
use e2e::trace::{Deed, Fault};
use e2e::{Binaries, Lab, Outcome, Plugin, with};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

fn conf(lab: &Lab) -> Value {
    lab.conf_of_ten(90)
}

/// Does something with a new file system on the lease directory, which only this thread sees. It goes with the thread:
/// umount(2) would fail with EBUSY while a program of another test that searches /proc holds it.
fn on(lab: &Lab, kind: &str, options: &str, work: impl FnOnce() + Send) {
    fs::create_dir_all(lab.data_dir()).expect("make a directory");
    lab.host.run(|| {
        mounts::own();
        mounts::file_system(kind, &lab.data_dir(), options);
        work();
    });
}

fn traced<'a>(lab: &'a Lab, words: &str) -> Plugin<'a> {
    lab.under(&format!("strace -f -y -qq -o {} {words}", lab.path("trace").display()), "host-local")
}

/// The system calls on the lease directory: the name, and how many calls of that name came before it.
fn steps(lab: &Lab, command: &str, conf: &Value) -> Vec<(String, usize)> {
    call(&traced(lab, ""), command, "traced", conf).run();
    let trace = fs::read_to_string(lab.path("trace")).expect("read a trace");
    let (mut counts, mut steps) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for line in trace.lines() {
        let Some((name, arguments)) = line.split_once(' ').and_then(|(_, call)| call.trim_start().split_once('('))
        else {
            continue;
        };
        let count = counts.entry(name).or_default();
        *count += 1;
        // These do not fail in this way, or strace cannot change them.
        if arguments.contains(lab.data_dir().to_str().expect("a path")) && !["close", "fcntl", "execve"].contains(&name)
        {
            steps.push((name.to_owned(), *count));
        }
    }
    steps
}

/// Each system call on the directory fails, in a separate run.
#[test]
fn an_add_that_fails_at_any_call_leaves_the_other_leases_and_can_be_repeated() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    call(&ours, "ADD", "first", &conf).run().result();
    let steps = steps(&lab, "ADD", &conf);
    assert!(steps.len() > 10, "{steps:?}");
    call(&ours, "DEL", "traced", &conf).run().done();
    let before = leases(&lab);
    let mut failed = 0;
    for errno in ["ENOSPC", "EDQUOT", "EROFS", "EIO"] {
        for (name, count) in &steps {
            let words = format!("-e inject={name}:error={errno}:when={count}");
            let outcome = call(&traced(&lab, &words), "ADD", "second", &conf).run();
            if outcome.status.success() {
                let ip = address(&outcome);
                assert_eq!(leases(&lab).get(&ip).map(String::as_str), Some("second\r\neth0"), "{words}");
            } else {
                failed += 1;
                outcome.fails(5, &[lab.data_dir().to_str().expect("a path")]);
                assert_eq!(leases(&lab), before, "{words}: {}", outcome.text());
            }
            call(&ours, "ADD", "second", &conf).run().result();
            assert_eq!(leases(&lab).len(), before.len() + 1, "{words}");
            call(&ours, "DEL", "second", &conf).run().done();
            assert_eq!(leases(&lab), before, "{words}");
        }
    }
    assert!(failed > 4, "only {failed} calls failed");
}

#[test]
fn a_del_that_fails_at_any_call_frees_the_lease_or_says_why_not() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    call(&ours, "ADD", "first", &conf).run().result();
    let before = leases(&lab);
    call(&ours, "ADD", "traced", &conf).run().result();
    let steps = steps(&lab, "DEL", &conf);
    assert!(steps.len() > 8, "{steps:?}");
    assert_eq!(leases(&lab), before);
    let mut failed = 0;
    for errno in ["ENOSPC", "EDQUOT", "EROFS", "EIO"] {
        for (name, count) in &steps {
            call(&ours, "ADD", "second", &conf).run().result();
            let with = leases(&lab);
            let words = format!("-e inject={name}:error={errno}:when={count}");
            let outcome = call(&traced(&lab, &words), "DEL", "second", &conf).run();
            if outcome.status.success() {
                assert_eq!(leases(&lab), before, "{words}");
            } else {
                failed += 1;
                outcome.fails(5, &[lab.data_dir().to_str().expect("a path")]);
                assert_eq!(leases(&lab), with, "{words}: {}", outcome.text());
            }
            call(&ours, "DEL", "second", &conf).run().done();
            assert_eq!(leases(&lab), before, "{words}");
        }
    }
    assert!(failed > 3, "only {failed} calls failed");
}

/// STATUS writes a file and removes it. If the removal failed, the file stayed, and every later ADD of a new container
/// failed with "File exists".
#[test]
fn a_status_that_fails_at_any_call_does_not_disturb_later_calls() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, mut conf) = (lab.host_local(), conf(&lab));
    conf["cniVersion"] = json!("1.1.0");
    call(&ours, "ADD", "first", &conf).run().result();
    let before = leases(&lab);
    let steps = steps(&lab, "STATUS", &conf);
    assert!(steps.iter().any(|(name, _)| name.starts_with("unlink")), "{steps:?}");
    let mut failed = 0;
    for errno in ["ENOSPC", "EACCES", "EIO", "EBUSY"] {
        for (name, count) in &steps {
            let words = format!("-e inject={name}:error={errno}:when={count}");
            let outcome = call(&traced(&lab, &words), "STATUS", "none", &conf).run();
            failed += usize::from(!outcome.status.success());
            call(&ours, "ADD", "second", &conf).run().result();
            call(&ours, "DEL", "second", &conf).run().done();
            assert_eq!(leases(&lab), before, "{words}");
            let left = lab.lease_files();
            assert!(!left.iter().any(|name| name.ends_with(".tmp")), "{words}: {left:?}");
        }
    }
    assert!(failed > 4, "only {failed} calls failed");
}

/// The first scan made a record for only one of the owner's leases. DEL trusted the record, so the other lease stayed.
#[test]
fn a_lease_that_got_no_record_is_freed_with_the_others_of_its_owner() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    for ip in ["10.0.0.50", "fd00::50"] {
        lab.write_lease(ip, "both\r\neth0");
    }
    let plugin = traced(&lab, "-e inject=symlink,symlinkat:error=ENOSPC:when=1");
    call(&plugin, "ADD", "other", &conf).run().result();
    // The record is a dangling link.
    let record = fs::read_link(lab.lease_file("both:eth0")).expect("read a record");
    let record = record.to_string_lossy();
    assert!(record.contains("10.0.0.50=") != record.contains("fd00::50="), "{record}");
    call(&ours, "DEL", "both", &conf).run().done();
    assert_eq!(leases(&lab).into_keys().collect::<Vec<_>>(), ["10.0.0.10"]);
}

#[test]
fn without_hard_links_a_lease_is_renamed_into_place_and_never_over_another() {
    let lab = Lab::new(Binaries::HardLinks);
    let conf = conf(&lab);
    for errno in ["EPERM", "EOPNOTSUPP", "EMLINK", "ENOSYS"] {
        let plugin = traced(&lab, &format!("-e inject=?link,linkat:error={errno}"));
        assert_eq!(address(&call(&plugin, "ADD", "first", &conf).args("IP=10.0.0.50").run()), "10.0.0.50");
        call(&plugin, "ADD", "second", &conf).args("IP=10.0.0.50").run().fails(101, &["10.0.0.50", "first eth0"]);
        let other = address(&call(&plugin, "ADD", "second", &conf).run());
        assert_ne!(other, "10.0.0.50");
        assert_eq!(leases(&lab)["10.0.0.50"], "first\r\neth0", "{errno}");
        assert_eq!(lab.lease_files().len(), 4, "{:?}", lab.lease_files());
        for id in ["first", "second"] {
            call(&plugin, "DEL", id, &conf).run().done();
        }
        assert_eq!(leases(&lab), BTreeMap::new());
    }
}

#[test]
fn without_flock_nothing_is_leased_and_the_message_says_why() {
    let lab = Lab::new(Binaries::HardLinks);
    let conf = conf(&lab);
    let lock = lab.lease_file("lock");
    for errno in ["ENOLCK", "ENOSYS", "EOPNOTSUPP"] {
        let outcome = call(&traced(&lab, &format!("-e inject=flock:error={errno}")), "ADD", "c1", &conf).run();
        outcome.fails(
            5,
            &[&format!("lock {}: ", lock.display()), "without flock(2) two containers could get one address"],
        );
        assert_eq!(leases(&lab), BTreeMap::new());
    }
}

#[test]
fn on_a_full_file_system_del_frees_and_add_names_the_file() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    on(&lab, "tmpfs", "nr_inodes=40,size=200k", || {
        for id in ["c1", "c2", "c3"] {
            call(&ours, "ADD", id, &conf).run_here().result();
        }
        let fill = |name: String| fs::write(lab.data_dir().join(name), "x".repeat(4096));
        let full = (0..100).map(|number| fill(format!("ballast.{number}"))).find_map(Result::err);
        assert!(full.is_some(), "it is not full");
        call(&ours, "ADD", "c4", &conf).run_here().fails(5, &[&lab.lease_file("10.0.0.13").display().to_string()]);
        assert_eq!(leases(&lab).len(), 3);
        // Again without the lock file, which an operator may have removed to make space.
        call(&ours, "DEL", "c1", &conf).run_here().done();
        fs::remove_file(lab.lease_file("lock")).expect("remove the lock");
        let full = (100..200).map(|number| fill(format!("ballast.{number}"))).find_map(Result::err);
        assert!(full.is_some(), "it is not full");
        call(&ours, "DEL", "c2", &conf).run_here().done();
        assert_eq!(leases(&lab), BTreeMap::from([("10.0.0.12".to_owned(), "c3\r\neth0".to_owned())]));
        for number in 0..200 {
            let _ = fs::remove_file(lab.data_dir().join(format!("ballast.{number}")));
        }
        call(&ours, "ADD", "c4", &conf).run_here().result();
        for id in ["c3", "c4"] {
            call(&ours, "DEL", id, &conf).run_here().done();
        }
        assert_eq!(leases(&lab), BTreeMap::new());
    });
}

#[test]
fn on_a_read_only_file_system_the_answers_are_correct_and_nothing_changes() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    on(&lab, "tmpfs", "", || {
        let checked = with(conf.clone(), "prevResult", call(&ours, "ADD", "c1", &conf).run_here().result());
        let remount = |flags: MsFlags| {
            let flags = MsFlags::MS_REMOUNT | flags;
            mount(None::<&str>, &lab.data_dir(), None::<&str>, flags, None::<&str>).expect("remount");
        };
        remount(MsFlags::MS_RDONLY);
        let lease = lab.lease_file("10.0.0.10").display().to_string();
        call(&ours, "DEL", "c1", &conf).run_here().fails(5, &[&format!("remove {lease}: Read-only file system")]);
        call(&ours, "DEL", "nobody", &conf).run_here().done();
        call(&ours, "CHECK", "c1", &checked).run_here().done();
        assert_eq!(address(&call(&ours, "ADD", "c1", &conf).run_here()), "10.0.0.10");
        let next = lab.lease_file("10.0.0.11").display().to_string();
        call(&ours, "ADD", "c2", &conf).run_here().fails(5, &[&format!("create {next}: Read-only file system")]);
        remount(MsFlags::empty());
        assert_eq!(address(&call(&ours, "ADD", "c2", &conf).run_here()), "10.0.0.11");
        for id in ["c1", "c2"] {
            call(&ours, "DEL", id, &conf).run_here().done();
        }
        assert_eq!(leases(&lab), BTreeMap::new());
    });
}

/// As in a node that is a container: the leases of the image are in the lower layer.
#[test]
fn on_an_overlay_fifty_adds_at_once_get_fifty_addresses_and_pass_over_old_leases() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    let layers = lab.path("layers");
    fs::create_dir(&layers).expect("make a directory");
    lab.host.run(|| {
        mounts::own();
        mounts::file_system("tmpfs", &layers, "");
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| layers.join(name));
        for layer in [&lower.join("lan"), &upper, &work] {
            fs::create_dir_all(layer).expect("make a layer");
        }
        fs::write(lower.join("lan/10.0.0.10"), "old\r\neth0").expect("write a lease");
        fs::create_dir_all(lab.data_dir()).expect("make a directory");
        let show = |path: &Path| path.display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", show(&lower), show(&upper), show(&work));
        mounts::file_system("overlay", &lab.data_dir(), &options);

        let all = |command: &'static str| -> Vec<Outcome> {
            let one = |number: usize| call(&ours, command, &format!("c{number}"), &conf).run_here();
            thread::scope(|scope| {
                let calls: Vec<_> = (0..50).map(|number| scope.spawn(move || one(number))).collect();
                calls.into_iter().map(|call| call.join().expect("a call")).collect()
            })
        };
        let addresses: std::collections::BTreeSet<_> = all("ADD").iter().map(address).collect();
        assert_eq!(addresses.len(), 50);
        assert!(!addresses.contains("10.0.0.10"), "{addresses:?}");
        assert_eq!(leases(&lab).len(), 51);
        call(&ours, "DEL", "old", &conf).run_here().done();
        for outcome in all("DEL") {
            outcome.done();
        }
        assert_eq!(leases(&lab), BTreeMap::new());
    });
}

#[test]
fn gc_frees_nothing_if_proc_cannot_be_listed() {
    let lab = Lab::new(Binaries::HardLinks);
    let mut conf = conf(&lab);
    let (_container, _) = lab.host_local().attach(&lab, &conf);
    conf["cniVersion"] = json!("1.1.0");
    conf["cni.dev/valid-attachments"] = json!([]);
    let outcome = traced(&lab, "-P /proc -e inject=getdents64:error=EIO").call("GC", &conf).run();
    outcome.done();
    assert!(
        outcome.stderr.contains("may still exist, because not all namespaces could be searched"),
        "{}",
        outcome.text()
    );
    assert_eq!(lab.leases(), ["10.0.0.10"]);
}

/// A runtime that has lost its state gives GC a list without running containers.
#[test]
fn gc_keeps_a_lease_as_long_as_its_netns_exists() {
    let lab = Lab::new(Binaries::HardLinks);
    let ours = lab.host_local();
    let mut conf = conf(&lab);
    let (container, _) = ours.attach(&lab, &conf);
    call(&ours, "ADD", "nowhere", &conf).run().result();
    conf["cniVersion"] = json!("1.1.0");
    conf["cni.dev/valid-attachments"] = json!([]);
    let gc = || {
        let outcome = ours.call("GC", &conf).run();
        outcome.done();
        outcome.stderr
    };
    let said = gc();
    let kept = "kept 10.0.0.10 of container-1 eth0: it is not in the runtime's list of valid attachments, \
                but its network namespace (";
    assert!(said.contains(kept), "{said}");
    assert!(
        said.contains("freed 10.0.0.11 of nowhere eth0: it is not in the runtime's list of valid attachments"),
        "{said}"
    );
    assert_eq!(lab.leases(), ["10.0.0.10"]);

    drop(container);
    // The kernel removes the namespace a moment later, or a process of another test still has it.
    await_that("GC frees the lease", || {
        gc().contains("freed 10.0.0.10 of container-1 eth0: it is not in the runtime's list")
    });
    assert_eq!(lab.leases(), [""; 0]);
}

/// The standard library panics in this case.
#[test]
fn a_directory_whose_close_fails_with_eio_is_still_read() {
    let lab = Lab::new(Binaries::HardLinks);
    let plugin = lab.host_local();
    let first_scan = || {
        // The reference has written the directory.
        let _ = fs::remove_dir_all(lab.data_dir());
        lab.write_lease("10.0.0.10", "c0\r\neth0");
        call(&plugin, "ADD", "c1", &conf(&lab))
    };
    let (_, trace) = first_scan().run_stepwise(None);
    let closes: Vec<_> = trace.steps.into_iter().filter(|step| step.number == libc::SYS_close).collect();
    assert!(closes.len() > 2, "{closes:?}");
    for step in closes {
        let (outcome, trace) = first_scan().run_stepwise(Some(&Fault { step, deed: Deed::FailAfter(Errno::EIO) }));
        assert!(trace.struck, "this run did not make the call");
        assert_eq!(address(&outcome), "10.0.0.11");
    }
}

/// A disk error in one lease file, or its security label, made every DEL of the network fail.
#[test]
fn a_lease_file_that_cannot_be_read_does_not_stop_the_del_of_other_containers() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    for id in ["c1", "c2", "c3"] {
        call(&ours, "ADD", id, &conf).run().result();
    }
    let broken = lab.lease_file("10.0.0.10");
    let unreadable = || traced(&lab, &format!("-P {} -e inject=openat:error=EIO", broken.display()));
    // With the index, and without it.
    call(&unreadable(), "DEL", "c2", &conf).run().done();
    fs::write(lab.lease_file("lock"), "").expect("empty the index");
    let outcome = call(&unreadable(), "DEL", "c3", &conf).run();
    assert!(
        outcome.stderr.contains("ignored a file that cannot be read: read") && outcome.stderr.contains("10.0.0.10"),
        "{}",
        outcome.text()
    );
    outcome.done();
    assert_eq!(lab.leases(), ["10.0.0.10"]);
    // If the file of the container itself cannot be read, DEL must fail: the address may still be leased.
    call(&unreadable(), "DEL", "c1", &conf).run().fails(5, &["10.0.0.10", "Input/output error"]);
    call(&ours, "DEL", "c1", &conf).run().done();
    assert_eq!(lab.leases(), [""; 0]);
}

/// The record says which lease is of the interface. The lease of the other interface was freed in its place.
#[test]
fn a_del_whose_own_lease_cannot_be_read_frees_no_lease_without_an_interface() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    call(&ours, "ADD", "c1", &conf).run().result();
    // Old releases of the reference stored no interface.
    fs::write(lab.lease_file("10.0.0.12"), "c1").expect("write a lease");
    let broken = lab.lease_file("10.0.0.10");
    let unreadable = traced(&lab, &format!("-P {} -e inject=openat:error=EIO", broken.display()));
    call(&unreadable, "DEL", "c1", &conf).run().fails(5, &["10.0.0.10", "Input/output error"]);
    assert_eq!(lab.leases(), ["10.0.0.10", "10.0.0.12"]);
}

/// A record that cannot be read was taken for none, so DEL succeeded and the lease stayed.
#[test]
fn a_del_whose_lease_and_record_cannot_be_read_fails() {
    let lab = Lab::new(Binaries::HardLinks);
    let (ours, conf) = (lab.host_local(), conf(&lab));
    call(&ours, "ADD", "c1", &conf).run().result();
    let (lease, record) = (lab.lease_file("10.0.0.10"), lab.lease_file("c1:eth0"));
    let paths = format!("-P {} -P {}", lease.display(), record.display());
    let unreadable = traced(&lab, &format!("{paths} -e inject=openat,readlink,readlinkat:error=EIO"));
    call(&unreadable, "DEL", "c1", &conf).run().fails(5, &["10.0.0.10", "Input/output error"]);
    assert_eq!(lab.leases(), ["10.0.0.10"]);
    call(&ours, "DEL", "c1", &conf).run().done();
    assert_eq!(lab.leases(), [""; 0]);
}
