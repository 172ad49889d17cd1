//! critest, the conformance tests of the Container Runtime Interface. The results with our plugins and with the
//! reference plugins must be the same.

use std::collections::BTreeMap;
use std::fs;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use e2e::binaries::peers;
use e2e::runtime::IMAGE;
use e2e::{Binaries, Lab};
use kubernetes::Node;
use kubernetes::cluster::{copy_plugins, network};
use serde_json::Value;

/// The names of the images that critest uses. The test image gets these names, so nothing is downloaded. These specs
/// use only busybox and a web server on port 80, and the test image has both.
const IMAGES: [&str; 2] =
    ["registry.k8s.io/e2e-test-images/busybox:1.29-2", "registry.k8s.io/e2e-test-images/nginx:1.14-2"];

/// The groups of specs that run, and the pattern that selects them.
const GROUPS: [&str; 2] = ["[k8s.io] Networking", "[k8s.io] PodSandbox"];
const FOCUS: &str = r"\[k8s\.io\] (Networking|PodSandbox)";

/// The specs that pass.
const PASSING: [&str; 11] = [
    "DNS config [Conformance]",
    "listing pod sandbox metrics [Conformance]",
    "port mapping with only container port [Conformance]",
    "preserving PodSandbox attributes [Conformance]",
    "removing PodSandbox [Conformance]",
    "returning metrics descriptors [Conformance]",
    "running PodSandbox [Conformance]",
    "safe sysctls",
    "set hostname [Conformance]",
    "stopping PodSandbox [Conformance]",
    "unsafe sysctls",
];

/// The specs that are left out, each with the reason.
const LEFT_OUT: [(&str, &str); 3] = [
    (
        "port mapping with host port and container port [Conformance]",
        "it needs the plugin portmap, and with the reference a node does not reach its own macvlan links",
    ),
    ("benchmark about lifecycle of PodSandbox", "a measurement, which runs only with --benchmark"),
    ("benchmark about start a container from scratch", "a measurement, which runs only with --benchmark"),
];

/// The state of each spec, by its name, with the reason of a failure.
type Outcomes = BTreeMap<String, String>;

fn run(binaries: Binaries) -> Outcomes {
    let lab = Lab::new(binaries);
    let node = Node::new("node1", lab.machine(11), &lab.path("node1"));
    copy_plugins(lab.bin(), &node.plugin_dir());
    node.set_network(&network(&node));
    node.start_containerd();
    fs::create_dir(lab.path("images")).expect("make a directory for images");
    node.import_test_images(&lab.path("images"));
    for name in IMAGES {
        node.ctr(&["image", "tag", IMAGE, name]);
    }
    let report = lab.path("report.json");
    let skip: Vec<String> = LEFT_OUT.iter().map(|(spec, _)| spec.replace('[', r"\[").replace(']', r"\]")).collect();
    let arguments = [
        format!("--runtime-endpoint=unix://{}", node.socket().display()),
        format!("--ginkgo.focus={FOCUS}"),
        format!("--ginkgo.skip={}", skip.join("|")),
        format!("--ginkgo.json-report={}", report.display()),
        "--ginkgo.no-color".to_owned(),
    ];
    // critest fetches a page from a pod. With the reference, a node does not reach its own macvlan links, but the
    // machines of the LAN do.
    let output = lab
        .neighbour
        .run(|| Command::new(peers("containerd").join("critest")).args(&arguments).output().expect("start critest"));
    let text = || format!("{}\n{}", String::from_utf8_lossy(&output.stdout), node.log_ends(30));
    let report = fs::read_to_string(&report).unwrap_or_else(|e| panic!("read the report: {e}: {}", text()));
    let report: Value = serde_json::from_str(&report).expect("the report is JSON");
    let specs = report[0]["SpecReports"].as_array().unwrap_or_else(|| panic!("no specs: {}", text()));
    assert_eq!(node.leases(), [""; 0], "leases are left: {}", text());
    specs.iter().filter_map(outcome).collect()
}

fn outcome(spec: &Value) -> Option<(String, String)> {
    let groups = spec["ContainerHierarchyTexts"].as_array()?.iter().filter_map(Value::as_str);
    let is_in_focus = groups.into_iter().next().is_some_and(|group| GROUPS.contains(&group));
    if spec["LeafNodeType"] != "It" || !is_in_focus {
        return None;
    }
    let name = spec["LeafNodeText"].as_str()?;
    let name = name.trim_start_matches("runtime ").trim_start_matches("should support ");
    let (state, reason) = (spec["State"].as_str()?, spec["Failure"]["Message"].as_str().unwrap_or_default());
    Some((name.to_owned(), format!("{state} {reason}").trim().to_owned()))
}

#[test]
fn critest_has_the_same_results_with_ours_and_with_the_reference() {
    let [ours, theirs] = thread::scope(|scope| {
        [Binaries::HardLinks, Binaries::Reference]
            .map(|binaries| scope.spawn(move || run(binaries)))
            .map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let passing = PASSING.iter().map(|name| ((*name).to_owned(), "passed".to_owned()));
    let left_out = LEFT_OUT.iter().map(|(name, _)| ((*name).to_owned(), "skipped".to_owned()));
    let expected: Outcomes = passing.chain(left_out).collect();
    assert_eq!(ours, expected);
    assert_eq!(theirs, ours);
}
