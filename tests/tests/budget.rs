//! The processes, memory, system calls and instructions of a call. A test fails if a call needs more than its budget.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::{env, fs};

use e2e::lab::Families;
use e2e::{Binaries, Lab, cases, with};
use serde_json::{Value, json};

/// The memory that a process of an ADD may use.
const PEAK_KIB: u64 = 2048;

/// Returns false for a build without optimisation.
fn is_release(lab: &Lab) -> bool {
    fs::metadata(lab.bin().join("macvlan")).expect("the program").size() < 4 << 20
}

/// The budgets are eight per cent above the measured figures. Calls differ by 0.1 %, because of the seeds of hashes.
/// The C library also selects other code for other processors.
#[cfg(target_arch = "x86_64")]
#[test]
fn instructions_stay_in_their_budget() {
    let lab = Lab::new(Binaries::HardLinks);
    assert!(is_release(&lab), "instructions are counted on a release build");
    assert_instructions(&lab, "macvlan", &lab.conf_with(json!({})), &Budget { add: 155_000, del: 114_000 });
    assert_instructions(&lab, "host-local", &lab.conf(), &Budget { add: 180_000, del: 144_000 });
}

/// The budgets of an ADD and of its DEL.
struct Budget {
    add: u64,
    del: u64,
}

/// Runs an ADD and its DEL on a node that has another attachment already. Returns what `spent` gives after each.
fn count<T>(lab: &Lab, name: &str, conf: &Value, words: &str, spent: impl Fn() -> T) -> (T, T) {
    let (other, container) = (lab.container(), lab.container());
    lab.plugin(name).add(&other, "eth0", conf).run().result();
    let plugin = lab.under(words, name);
    let result = plugin.add(&container, "eth0", conf).run().result();
    let add = spent();
    let conf = with(conf.clone(), "prevResult", result);
    plugin.del(&container, "eth0", &conf).run().done();
    let del = spent();
    // A later call would remove what is left of it.
    lab.plugin(name).del(&other, "eth0", &conf).run().done();
    (add, del)
}

/// If a call has become cheaper, its budget can be lowered.
#[track_caller]
fn assert_spent(what: impl Display, spent: u64, budget: u64, see: impl Display) {
    let over = spent.saturating_sub(budget);
    assert!(spent <= budget, "{what}: {spent}, over the budget of {budget} by {over}; to see where: {see}");
}

/// The tables of `strace -f -c` of an ADD and its DEL.
fn system_calls(lab: &Lab, conf: &Value) -> (String, String) {
    let table = lab.path("system-calls");
    let read = || fs::read_to_string(&table).expect("read strace's table");
    count(lab, "macvlan", conf, &format!("strace -f -c -o {}", table.display()), read)
}

/// The sum of a table of strace. Its columns are per cent, seconds, microseconds for each call, calls, errors.
fn total(table: &str) -> u64 {
    let total = table.lines().find(|line| line.ends_with(" total")).expect("strace counts in the end");
    total.split_whitespace().nth(3).and_then(|calls| calls.parse().ok()).expect("a number of calls")
}

/// System calls of all processes of a call.
#[track_caller]
fn assert_system_calls(lab: &Lab, what: &str, conf: &Value, budget: &Budget) {
    let (add, del) = system_calls(lab, conf);
    for (command, table, budget) in [("ADD", add, budget.add), ("DEL", del, budget.del)] {
        let see = format_args!("strace -f bin/macvlan, and this table of strace -f -c\n{table}");
        assert_spent(format_args!("{command}, {what}: system calls"), total(&table), budget, see);
    }
}

/// Attachments that have a record, a route and a neighbour on the host, and need no container.
fn pretend(lab: &Lab, attachments: usize) {
    const RECORDS: &str = "/run/underlay/attachments";
    let link =
        lab.host.links().into_iter().find(|link| link.name.starts_with("underlay")).expect("the host's link").name;
    lab.host.run(|| {
        let entry = fs::read_dir(RECORDS).expect("read the records").next().expect("a record");
        let name = entry.expect("read the records").file_name().into_string().expect("a name");
        let text = fs::read_to_string(format!("{RECORDS}/{name}")).expect("read a record");
        let id = name.split(':').next().expect("an ID");
        for number in 0..attachments {
            let text = text.replace(id, &format!("pretended-{number}"));
            fs::write(format!("{RECORDS}/pretended-{number}:eth0"), text).expect("write a record");
        }
    });
    for number in 0..attachments {
        let address = format!("10.200.{}.{}", number / 250, number % 250);
        lab.host.ip(&format!("route add {address} dev {link} protocol 117"));
        lab.host.ip(&format!("neighbour add {address} lladdr 02:00:00:00:00:01 dev {link} nud permanent"));
    }
}

/// An ADD and a DEL look at a few records of others, and not at all of them.
#[test]
fn an_add_with_host_access_costs_the_same_with_ten_and_with_five_hundred_attachments() {
    let spent = [10, 500].map(|attachments| {
        let lab = Lab::new(Binaries::HardLinks);
        lab.host.give_own_run();
        let conf = with(lab.conf(), "hostAccess", json!(true));
        let bystander = lab.container();
        lab.macvlan().add(&bystander, "eth0", &conf).run().result();
        pretend(&lab, attachments);
        // If an address of the host changes during a list, the kernel is asked again. So the smallest number counts.
        let tables: Vec<_> = (0..3).map(|_| system_calls(&lab, &conf)).collect();
        let least = |of: fn(&(String, String)) -> &String| {
            tables.iter().map(of).min_by_key(|table| total(table)).expect("a table")
        };
        let (add, del) = (least(|tables| &tables.0), least(|tables| &tables.1));
        (total(add), total(del), add.clone())
    });
    let [(add, del, _), (add_many, del_many, table)] = &spent;
    assert_spent("ADD with host access: system calls", *add, 225, table);
    assert!(
        add_many.abs_diff(*add) <= 2,
        "ADD with 500 attachments: {add_many} system calls in place of {add}\n{table}"
    );
    // DEL asks the kernel if the link has other users: the answer has their routes, about 30 in a message.
    assert!(del_many.abs_diff(*del) <= 20, "DEL with 500 attachments: {del_many} system calls in place of {del}");
}

/// Instructions in user space of calls that are one process, as callgrind counts them. Under valgrind, a program that
/// asks for its own file gets that of valgrind, so macvlan would start IPAM as another process.
#[track_caller]
fn assert_instructions(lab: &Lab, name: &str, conf: &Value, budget: &Budget) {
    let log = lab.path("callgrind");
    let read = || {
        let text = fs::read_to_string(&log).expect("read callgrind's log");
        let collected = text.lines().find_map(|line| line.split_once("Collected : ")).expect("callgrind counts");
        collected.1.trim().parse::<u64>().expect("a number of instructions")
    };
    let words =
        format!("valgrind --tool=callgrind --vgdb=no --callgrind-out-file=/dev/null --log-file={}", log.display());
    let (add, del) = count(lab, name, conf, &words, read);
    for (command, spent, budget) in [("ADD", add, budget.add), ("DEL", del, budget.del)] {
        let see = "callgrind_annotate, after valgrind --tool=callgrind on a program that was built with \
                   CARGO_PROFILE_RELEASE_STRIP=none";
        assert_spent(format_args!("{command} of {name}: instructions"), spent, budget, see);
    }
}

cases! {
    /// On dual stack, each event of duplicate address detection costs about 10 calls. These budgets include one more
    /// event.
    #[reference(not_run: "its threads make every run another one")]
    fn system_calls_stay_in_their_budget(lab) {
        let copies = lab.binaries() == Binaries::PlainCopies;
        assert_system_calls(lab, "layer 2", &lab.conf_with(json!({})), &Budget { add: 61, del: 54 });
        let budget = if copies { Budget { add: 159, del: 132 } } else { Budget { add: 113, del: 91 } };
        assert_system_calls(lab, "IPv4", &lab.conf(), &budget);
        let budget = if copies { Budget { add: 243, del: 143 } } else { Budget { add: 196, del: 102 } };
        assert_system_calls(lab, "dual stack", &lab.conf_with(lab.ipam(Families::Dual)), &budget);
    }

    /// With hard links, macvlan and host-local are one program, so macvlan calls IPAM as a function.
    #[reference(fails: "left == right")]
    fn a_whole_add_is_one_process_on_hard_links_and_two_on_copies(lab) {
        let container = lab.container();
        for families in [Families::V4, Families::Dual] {
            let container = lab.container();
            let conf = lab.conf_with(lab.ipam(families));
            let (outcome, trace) = lab.macvlan().add(&container, "eth0", &conf).run_traced();
            outcome.result();
            let expected = if lab.binaries() == Binaries::PlainCopies { 2 } else { 1 };
            assert_eq!(trace.processes(), expected, "{trace:?}");
        }
        let (outcome, trace) = lab.macvlan().del(&container, "eth0", &lab.conf()).run_traced();
        outcome.done();
        assert!(trace.processes() <= 2, "{trace:?}");
    }

    /// The smallest peak of several calls, because the kernel maps more or fewer pages of a file in advance.
    #[reference(fails: "KiB at the peak")]
    fn every_process_of_an_add_stays_under_two_mebibytes(lab) {
        let is_theirs = lab.binaries() == Binaries::Reference;
        assert!(is_theirs || is_release(lab), "memory is measured on a release build");
        let conf = lab.conf_with(lab.ipam(Families::V4));
        let peak_of_one_add = || {
            let container = lab.container();
            let (outcome, trace) = lab.macvlan().add(&container, "eth0", &conf).run_traced();
            outcome.result();
            trace.peaks_kib.into_iter().max().expect("a process")
        };
        let peak = (0..5).map(|_| peak_of_one_add()).min().expect("a call");
        assert!(peak < PEAK_KIB, "{peak} KiB at the peak");
    }

    #[reference(passes)]
    fn it_needs_no_path_and_no_home(lab) {
        let container = lab.container();
        let call = lab.macvlan().add(&container, "eth0", &lab.conf());
        let names: Vec<_> = call.environment().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        assert!(names.iter().all(|name| name.starts_with("CNI_")), "{names:?}");
        assert!(env::var_os("PATH").is_some(), "the test has no PATH");
        call.run().result();
    }

    #[reference(passes)]
    fn a_success_prints_nothing_on_stderr(lab) {
        let container = lab.container();
        let mut conf = lab.conf_with(lab.ipam(Families::V4));
        let outcome = lab.macvlan().add(&container, "eth0", &conf).run();
        conf["prevResult"] = json!(outcome.result());
        assert_eq!(outcome.stderr, "");
        let outcome = lab.macvlan().del(&container, "eth0", &conf).run();
        assert_eq!(outcome.done().stderr, "");
    }
}
