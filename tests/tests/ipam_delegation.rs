//! The IPAM plugin as another program: what it is given, and every way in which it can fail.
//! The plugins here are shell scripts of the test's own.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use e2e::patience::await_that;
use e2e::plugin::{CniError, write_script};
use e2e::{Call, Container, Lab, cases};
use serde_json::{Value, json};

/// Puts a plugin named `fake` with that body into a directory of its own; each call notes its
/// command in the file `calls`. The body finds the Lab's directory in `$LAB`.
fn fake_ipam(lab: &Lab, body: &str) -> Value {
    fs::create_dir(lab.path("fake")).expect("make a directory");
    let lab_directory = lab.path("");
    let prelude = format!("LAB={}\necho $CNI_COMMAND >>$LAB/calls\n", lab_directory.display());
    write_script(&lab.path("fake/fake"), &(prelude + body));
    lab.conf_with(json!({"type": "fake"}))
}

/// The commands that the fake has seen.
fn calls(lab: &Lab) -> Vec<String> {
    let text = fs::read_to_string(lab.path("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Both directories, the fake's second.
fn search_path(lab: &Lab) -> String {
    format!("{}:{}", lab.bin().display(), lab.path("fake").display())
}

/// An ADD whose CNI_PATH leads to the fake too; scripts need a PATH for their own programs.
fn add<'a>(lab: &'a Lab, container: &Container, conf: &Value) -> Call<'a> {
    lab.macvlan().search(search_path(lab)).add(container, "eth0", conf).env("PATH", "/usr/bin:/bin")
}

/// An ADD that fails so, and leaves everything as it was.
#[track_caller]
fn refused(lab: &Lab, conf: &Value, code: u64, names: &[&str]) -> CniError {
    let container = lab.container();
    lab.unchanged(&[&container], || add(lab, &container, conf).run()).fails(code, names)
}

const ONE_ADDRESS: &str = r#"[ $CNI_COMMAND = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "ips": [{"address": "192.168.50.77/24", "gateway": "192.168.50.1"}]}'"#;

cases! {
    #[reference(passes)]
    fn it_gets_the_environment_and_the_untouched_input(lab) {
        let conf = fake_ipam(lab, &format!("env >$LAB/environment\ncat >$LAB/input\n{ONE_ADDRESS}"));
        let container = lab.container();
        // Spaces and a key that nobody knows: decoded and encoded again it would not be the same.
        let input = format!("  {conf:#}\n\n");
        let call = add(lab, &container, &conf).args("IgnoreUnknown=1;POD=web").stdin(input.clone());
        call.run().result();
        assert_eq!(fs::read_to_string(lab.path("input")).expect("what the fake has read"), input);
        let environment = fs::read_to_string(lab.path("environment")).expect("what the fake has seen");
        for (name, value) in call.environment() {
            let line = format!("{}={}", name.display(), value.display());
            assert!(environment.lines().any(|its| its == line), "no {line} in {environment}");
        }
        assert_eq!(container.address_texts("eth0"), ["192.168.50.77/24"]);
    }

    #[reference(passes)]
    fn it_is_asked_in_turn_on_add_and_del(lab) {
        let conf = fake_ipam(lab, ONE_ADDRESS);
        let container = lab.container();
        add(lab, &container, &conf).run().result();
        add(lab, &container, &conf).env("CNI_COMMAND", "DEL").run().done();
        assert_eq!(calls(lab), ["ADD", "DEL"]);
        assert_eq!(container.link_names(), ["lo"]);
    }

    #[reference(passes)]
    fn what_it_says_on_stderr_is_passed_on(lab) {
        let conf = fake_ipam(lab, &format!("echo 'the pool is getting small' >&2\n{ONE_ADDRESS}"));
        let outcome = add(lab, &lab.container(), &conf).run();
        outcome.result();
        assert!(outcome.stderr.contains("the pool is getting small"), "{}", outcome.text());
    }

    /// U1 is why nothing may stay: there the link did, and the retry failed with "file exists".
    #[reference(fails: "something was changed")]
    fn its_error_object_is_passed_on_with_its_code(lab) {
        let conf = fake_ipam(lab, concat!(
            "[ $CNI_COMMAND = ADD ] || exit 0\n",
            r#"echo '{"cniVersion": "1.0.0", "code": 142, "msg": "the pool is empty", "details": "since noon"}'; exit 1"#,
        ));
        let error = refused(lab, &conf, 142, &["the pool is empty"]);
        assert_eq!(error.details, "since noon");
    }

    #[reference(fails: "something was changed")]
    fn garbage_on_its_stdout_is_an_error_that_names_it(lab) {
        let conf = fake_ipam(lab, "[ $CNI_COMMAND = ADD ] || exit 0; echo 'usage: fake'");
        let program = lab.path("fake/fake");
        refused(lab, &conf, 6, &[&program.to_string_lossy()]);
    }

    #[reference(fails: "something was changed")]
    fn nothing_on_its_stdout_is_an_error_that_names_it(lab) {
        let conf = fake_ipam(lab, "exit 0");
        let program = lab.path("fake/fake");
        refused(lab, &conf, 6, &[&program.to_string_lossy()]);
    }

    #[reference(fails: "something was changed")]
    fn a_failure_without_an_error_object_shows_what_it_printed(lab) {
        let conf = fake_ipam(lab, "[ $CNI_COMMAND = ADD ] || exit 0; echo 'segmentation fault'; exit 3");
        refused(lab, &conf, 6, &["fake", "segmentation fault", "3"]);
    }

    /// Whatever it has leased is given back: the caller gets nothing to hand to a DEL.
    #[reference(fails: "something was changed")]
    fn a_result_without_addresses_is_refused_and_given_back(lab) {
        let conf = fake_ipam(lab, r#"[ $CNI_COMMAND = ADD ] || exit 0; echo '{"cniVersion": "1.0.0", "ips": []}'"#);
        refused(lab, &conf, 7, &["ipam.type", "fake", "no addresses"]);
        assert_eq!(calls(lab), ["ADD", "DEL"]);
    }

    #[reference(fails: "something was changed")]
    fn an_address_that_the_kernel_refuses_is_given_back(lab) {
        let conf = fake_ipam(lab, concat!(
            "[ $CNI_COMMAND = ADD ] || exit 0\n",
            r#"echo '{"cniVersion": "1.0.0", "ips": [{"address": "192.168.50.77/24"}], "#,
            r#""routes": [{"dst": "10.9.0.0/16", "gw": "172.31.0.1"}]}'"#,
        ));
        refused(lab, &conf, 100, &["10.9.0.0/16", "172.31.0.1"]);
        assert_eq!(calls(lab), ["ADD", "DEL"]);
    }

    /// It has closed its stdout, so no answer can come any more, and it does not end.
    #[reference(not_run: "it waits for ever")]
    fn one_that_hangs_is_killed_and_may_be_tried_again(lab) {
        let conf = fake_ipam(lab, concat!(
            "[ $CNI_COMMAND = ADD ] || exit 0\n",
            "echo $$ >$LAB/pid; exec >&- 2>&-; exec sleep 3600",
        ));
        let container = lab.container();
        let outcome = lab.unchanged(&[&container], || add(lab, &container, &conf).run());
        outcome.fails(11, &["fake"]);
        assert!(outcome.wall < Duration::from_secs(20), "{}", outcome.text());
        let pid = fs::read_to_string(lab.path("pid")).expect("the fake has noted its pid");
        let process = std::path::Path::new("/proc").join(pid.trim());
        assert!(!process.exists(), "the fake lives on as {}", process.display());
    }

    /// C2: killed while IPAM was at it, the caller left it running, and it leased an address after the DEL.
    #[reference(not_run: "its IPAM outlives it")]
    fn one_whose_caller_is_killed_ends_with_it(lab) {
        let conf = fake_ipam(lab, "echo $$ >$LAB/pid; exec 2>/dev/null; kill -KILL $PPID; exec sleep 3600");
        let container = lab.container();
        let outcome = add(lab, &container, &conf).run();
        assert_eq!(outcome.status.signal(), Some(9), "{}", outcome.text());
        let pid = fs::read_to_string(lab.path("pid")).expect("the fake has noted its pid");
        let process = std::path::Path::new("/proc").join(pid.trim());
        await_that("the fake has ended with its caller", || !process.exists());
        lab.macvlan().search(search_path(lab)).del(&container, "eth0", &lab.conf_with(json!({}))).run().done();
        assert_eq!(container.link_names(), ["lo"]);
    }

    /// The spec lets a plugin answer in any version it likes, older ones say cniVersion 0.2.0 or nothing.
    #[reference(passes)]
    fn its_result_may_be_of_another_version(lab) {
        let conf = fake_ipam(lab, concat!(
            "[ $CNI_COMMAND = ADD ] || exit 0\n",
            r#"echo '{"cniVersion": "0.2.0", "ip4": {"ip": "192.168.50.77/24", "gateway": "192.168.50.1"}}'"#,
        ));
        let container = lab.container();
        let result = add(lab, &container, &conf).run().result();
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(result["ips"][0]["address"], "192.168.50.77/24");
        assert_eq!(container.address_texts("eth0"), ["192.168.50.77/24"]);
    }

    #[reference(passes)]
    fn check_asks_it_too(lab) {
        let conf = fake_ipam(lab, ONE_ADDRESS);
        let container = lab.container();
        let mut checked = conf.clone();
        checked["prevResult"] = add(lab, &container, &conf).run().result();
        add(lab, &container, &checked).env("CNI_COMMAND", "CHECK").run().done();
        assert_eq!(calls(lab), ["ADD", "CHECK"]);
    }

    /// U9: GC was a no-op that reported success, and the IPAM plugin never heard of it.
    #[reference(fails: "left == right")]
    fn u9_status_and_gc_are_forwarded_to_it(lab) {
        let mut conf = fake_ipam(lab, "cat >$LAB/input; exit 0");
        conf["cniVersion"] = json!("1.1.0");
        conf["cni.dev/valid-attachments"] = json!([{"containerID": "container-1", "ifname": "eth0"}]);
        let plugin = lab.macvlan().search(search_path(lab));
        for command in ["STATUS", "GC"] {
            plugin.call(command, &conf).env("PATH", "/usr/bin:/bin").run().done();
        }
        assert_eq!(calls(lab), ["STATUS", "GC"]);
        assert_eq!(fs::read_to_string(lab.path("input")).expect("what the fake has read"), conf.to_string());
    }

    #[reference(fails: "without cniVersion")]
    fn an_error_of_its_status_is_passed_on(lab) {
        let mut conf = fake_ipam(lab, r#"echo '{"cniVersion": "1.1.0", "code": 51, "msg": "half asleep"}'; exit 1"#);
        conf["cniVersion"] = json!("1.1.0");
        let plugin = lab.macvlan().search(search_path(lab));
        plugin.call("STATUS", &conf).env("PATH", "/usr/bin:/bin").run().fails(51, &["half asleep"]);
    }
}
