//! What a call costs: processes and memory. The times are in docs/benchmarks.md, since they are
//! the machine's as much as ours.

use std::os::unix::fs::MetadataExt;
use std::{env, fs};

use e2e::lab::Families;
use e2e::{Binaries, Lab, cases};
use serde_json::json;

/// What a whole ADD may take at its peak: the promise to small nodes.
const PEAK_KIB: u64 = 2048;

/// Builds with debug information and without optimisation are for debugging.
fn is_release(lab: &Lab) -> bool {
    fs::metadata(lab.bin().join("macvlan")).expect("the program").size() < 4 << 20
}

cases! {
    /// On hard links macvlan is host-local too, and calls it as a function.
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

    /// The least of several calls: how many pages of a file the kernel maps ahead of need differs
    /// from call to call, and is not what the program asks for.
    #[reference(fails: "KiB at the peak")]
    fn every_process_of_an_add_stays_under_two_mebibytes(lab) {
        assert!(is_release(lab), "memory is measured on a release build");
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

    /// Nothing but the kernel, the leases and CNI_PATH: no shell, no library, no PATH.
    #[reference(passes)]
    fn it_needs_no_path_and_no_home(lab) {
        let container = lab.container();
        let call = lab.macvlan().add(&container, "eth0", &lab.conf());
        let names: Vec<_> = call.environment().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        assert!(names.iter().all(|name| name.starts_with("CNI_")), "{names:?}");
        assert!(env::var_os("PATH").is_some(), "the test has one, so this says something");
        call.run().result();
    }

    /// A runtime may have the program open for reading only, and hands down nothing.
    #[reference(passes)]
    fn nothing_is_printed_on_a_quiet_success(lab) {
        let container = lab.container();
        let mut conf = lab.conf_with(lab.ipam(Families::V4));
        let outcome = lab.macvlan().add(&container, "eth0", &conf).run();
        conf["prevResult"] = json!(outcome.result());
        assert_eq!(outcome.stderr, "");
        let outcome = lab.macvlan().del(&container, "eth0", &conf).run();
        assert_eq!(outcome.done().stderr, "");
    }
}
