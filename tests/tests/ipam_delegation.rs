//! IPAM as a separate program: its input, and the ways in which it can fail. The IPAM plugins here are shell scripts.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use e2e::patience::await_that;
use e2e::{Call, Container, Lab, cases, with};
use serde_json::{Value, json};

/// An ADD whose CNI_PATH also has the fake.
fn add<'a>(lab: &'a Lab, container: &Container, conf: &Value) -> Call<'a> {
    lab.plugin_with_fake("macvlan").add(container, "eth0", conf)
}

/// Runs an ADD and a DEL of a program that a line of shell starts.
fn live_behind(lab: &Lab, line: &str) {
    let conf = lab.fake_ipam(ONE_ADDRESS);
    let container = lab.container();
    let plugin = lab.behind(line);
    plugin.add(&container, "eth0", &conf).run().result();
    plugin.del(&container, "eth0", &conf).run().done();
    assert_eq!(lab.fake_calls(), ["ADD", "DEL"]);
}

const ONE_ADDRESS: &str = "[ $CNI_COMMAND = ADD ] || exit 0\necho \"$answer\"";

cases! {
    #[reference(passes)]
    fn it_gets_the_environment_and_the_same_bytes_as_input(lab) {
        let conf = lab.fake_ipam(&format!("env >$LAB/environment\ncat >$LAB/input\n{ONE_ADDRESS}"));
        let container = lab.container();
        // The spaces would be lost if the input were decoded and encoded again.
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
    fn it_is_called_in_add_and_del(lab) {
        let conf = lab.fake_ipam(ONE_ADDRESS);
        let container = lab.container();
        add(lab, &container, &conf).run().result();
        add(lab, &container, &conf).env("CNI_COMMAND", "DEL").run().done();
        assert_eq!(lab.fake_calls(), ["ADD", "DEL"]);
        assert_eq!(container.link_names(), ["lo"]);
    }

    #[reference(passes)]
    fn the_stderr_of_an_ipam_plugin_is_passed_on(lab) {
        let conf = lab.fake_ipam(&format!("echo 'the pool is getting small' >&2\n{ONE_ADDRESS}"));
        let outcome = add(lab, &lab.container(), &conf).run();
        outcome.result();
        assert!(outcome.stderr.contains("the pool is getting small"), "{}", outcome.text());
    }

    #[reference(fails: "something was changed")]
    fn the_error_object_of_an_ipam_plugin_is_passed_on_with_its_code(lab) {
        let conf = lab.fake_ipam(concat!(
            "[ $CNI_COMMAND = ADD ] || exit 0\n",
            r#"echo '{"cniVersion": "1.0.0", "code": 142, "msg": "the pool is empty", "details": "since noon"}'"#,
            "\nexit 1",
        ));
        let error = lab.plugin_with_fake("macvlan").refuses(lab, &conf, 142, &["the pool is empty"]);
        assert_eq!(error.details, "since noon");
    }

    #[reference(fails: "something was changed")]
    fn garbage_on_its_stdout_is_an_error_that_names_it(lab) {
        let conf = lab.fake_ipam("[ $CNI_COMMAND = ADD ] || exit 0; echo 'usage: fake'");
        lab.plugin_with_fake("macvlan").refuses(lab, &conf, 6, &[&lab.path("fake/fake").to_string_lossy()]);
    }

    #[reference(fails: "something was changed")]
    fn an_ipam_plugin_without_an_answer_is_an_error_that_names_it(lab) {
        let conf = lab.fake_ipam("exit 0");
        lab.plugin_with_fake("macvlan").refuses(lab, &conf, 6, &[&lab.path("fake/fake").to_string_lossy()]);
    }

    #[reference(fails: "something was changed")]
    fn a_failure_without_an_error_object_shows_what_it_printed(lab) {
        let conf = lab.fake_ipam("[ $CNI_COMMAND = ADD ] || exit 0; echo 'segmentation fault'; exit 3");
        lab.plugin_with_fake("macvlan").refuses(lab, &conf, 6, &["fake", "segmentation fault", "3"]);
    }

    /// The caller gets no result, so it may never call DEL.
    #[reference(fails: "something was changed")]
    fn a_result_without_addresses_is_refused_and_released(lab) {
        let conf = lab.ipam_answering(&json!({"cniVersion": "1.0.0", "ips": []}));
        lab.plugin_with_fake("macvlan").refuses(lab, &conf, 7, &["ipam.type", "fake", "returned no address"]);
        assert_eq!(lab.fake_calls(), ["ADD", "DEL"]);
    }

    #[reference(fails: "something was changed")]
    fn if_the_kernel_refuses_a_route_the_address_is_released(lab) {
        let conf = lab.ipam_answering(&json!({
            "cniVersion": "1.0.0", "ips": [{"address": "192.168.50.77/24"}],
            "routes": [{"dst": "10.9.0.0/16", "gw": "172.31.0.1"}],
        }));
        lab.plugin_with_fake("macvlan").refuses(lab, &conf, 100, &["10.9.0.0/16", "172.31.0.1"]);
        assert_eq!(lab.fake_calls(), ["ADD", "DEL"]);
    }

    /// It closes its stdout, so there is no answer, and does not end.
    #[reference(not_run: "it waits for ever")]
    fn an_ipam_plugin_that_hangs_is_killed_and_the_error_says_to_try_again(lab) {
        let conf = lab.fake_ipam(concat!(
            "[ $CNI_COMMAND = ADD ] || exit 0\n",
            "echo $$ >$LAB/pid; exec >&- 2>&-; exec sleep 3600",
        ));
        let container = lab.container();
        let outcome = lab.unchanged(&[&container], || add(lab, &container, &conf).run());
        outcome.fails(11, &["fake"]);
        assert!(outcome.wall < Duration::from_secs(20), "{}", outcome.text());
        let pid = fs::read_to_string(lab.path("pid")).expect("the fake has noted its pid");
        let process = std::path::Path::new("/proc").join(pid.trim());
        assert!(!process.exists(), "the fake still runs as {}", process.display());
    }

    /// The caller was killed during the IPAM call. The IPAM plugin continued, and leased an address after the DEL.
    #[reference(not_run: "its IPAM outlives it")]
    fn an_ipam_plugin_ends_when_its_caller_is_killed(lab) {
        let conf = lab.fake_ipam("echo $$ >$LAB/pid; exec 2>/dev/null; kill -KILL $PPID; exec sleep 3600");
        let container = lab.container();
        let outcome = add(lab, &container, &conf).run();
        assert_eq!(outcome.status.signal(), Some(9), "{}", outcome.text());
        let pid = fs::read_to_string(lab.path("pid")).expect("the fake has noted its pid");
        let process = std::path::Path::new("/proc").join(pid.trim());
        await_that("the fake has ended with its caller", || !process.exists());
        lab.plugin_with_fake("macvlan").del(&container, "eth0", &lab.conf_with(json!({}))).run().done();
        assert_eq!(container.link_names(), ["lo"]);
    }

    /// With SIGCHLD ignored, the kernel keeps no status of a child. A DEL whose IPAM had succeeded failed.
    #[reference(not_run: "the shell starts our program")]
    fn the_caller_may_ignore_sigchld(lab) {
        live_behind(lab, "exec env --ignore-signal=CHLD $PLUGIN");
    }

    /// Then the parent of the IPAM plugin is in another namespace, and its pid is 0. It was taken for one that has ended.
    #[reference(not_run: "the shell starts our program")]
    fn the_caller_may_give_its_children_a_pid_namespace(lab) {
        live_behind(lab, "exec unshare --pid $PLUGIN");
    }

    /// The specification allows this.
    #[reference(passes)]
    fn its_result_may_be_of_another_version(lab) {
        let conf = lab.ipam_answering(&json!({
            "cniVersion": "0.2.0", "ip4": {"ip": "192.168.50.77/24", "gateway": "192.168.50.1"},
        }));
        let (container, result) = lab.plugin_with_fake("macvlan").attached(lab, &conf);
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(result["ips"][0]["address"], "192.168.50.77/24");
        assert_eq!(container.address_texts("eth0"), ["192.168.50.77/24"]);
    }

    #[reference(passes)]
    fn check_asks_it_too(lab) {
        let (container, conf) = lab.plugin_with_fake("macvlan").attach(lab, &lab.fake_ipam(ONE_ADDRESS));
        add(lab, &container, &conf).env("CNI_COMMAND", "CHECK").run().done();
        assert_eq!(lab.fake_calls(), ["ADD", "CHECK"]);
    }

    /// U9: GC reported success and did not call the IPAM plugin.
    #[reference(fails: "left == right")]
    fn u9_status_and_gc_are_forwarded_to_it(lab) {
        let mut conf = lab.fake_ipam("cat >$LAB/input; exit 0");
        conf["cniVersion"] = json!("1.1.0");
        conf["cni.dev/valid-attachments"] = json!([{"containerID": "container-1", "ifname": "eth0"}]);
        let plugin = lab.plugin_with_fake("macvlan");
        for command in ["STATUS", "GC"] {
            plugin.call(command, &conf).run().done();
        }
        assert_eq!(lab.fake_calls(), ["STATUS", "GC"]);
        assert_eq!(fs::read_to_string(lab.path("input")).expect("what the fake has read"), conf.to_string());
    }

    #[reference(fails: "without cniVersion")]
    fn an_error_of_its_status_is_passed_on(lab) {
        let mut conf = lab.fake_ipam(r#"echo '{"cniVersion": "1.1.0", "code": 51, "msg": "half asleep"}'; exit 1"#);
        conf["cniVersion"] = json!("1.1.0");
        let plugin = lab.plugin_with_fake("macvlan");
        plugin.call("STATUS", &conf).run().fails(51, &["half asleep"]);
    }

    /// Our link plugin called itself for an address, until the stack was full. The process died, and the link stayed.
    #[reference(not_run: "it calls itself without end")]
    fn ipam_that_is_one_of_our_link_plugins_is_refused(lab) {
        for name in ["macvlan", "ipvlan"] {
            let conf = with(lab.conf(), "ipam", json!({"type": name}));
            let names = ["ipam.type", name, "is not an IPAM plugin"];
            lab.macvlan().refuses(lab, &conf, 7, &names);
            let conf = with(conf, "cniVersion", json!("1.1.0"));
            let conf = with(conf, "cni.dev/valid-attachments", json!([]));
            lab.macvlan().call("GC", &conf).run().fails(7, &names);
            // In STATUS, the code says that an ADD would fail.
            lab.macvlan().call("STATUS", &conf).run().fails(50, &names);
        }
    }

    /// The configuration was edited after the ADD.
    #[reference(not_run: "it calls itself without end")]
    fn del_with_such_ipam_takes_the_link_and_says_that_the_lease_stays(lab) {
        let (container, conf) = lab.macvlan().attach(lab, &lab.conf());
        let edited = with(conf.clone(), "ipam", json!({"type": "macvlan"}));
        let del = lab.macvlan().del(&container, "eth0", &edited).run();
        del.fails(7, &["ipam.type", "macvlan", "is not an IPAM plugin"]);
        assert_eq!(container.link_names(), ["lo"]);
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        lab.macvlan().detach(lab, &container, &conf);
    }

    /// The message was only "it returned no addresses".
    #[reference(fails: "something was changed")]
    fn an_error_object_of_ipam_that_exits_with_0_is_passed_on(lab) {
        let conf = lab.ipam_answering(&json!({
            "cniVersion": "1.0.0", "code": 142, "msg": "the pool is empty", "details": "since noon",
        }));
        let error = lab.plugin_with_fake("macvlan").refuses(lab, &conf, 142, &["the pool is empty"]);
        assert_eq!(error.details, "since noon");
    }

    #[reference(passes)]
    fn the_host_bits_of_an_ipv6_route_of_foreign_ipam_are_ignored(lab) {
        let conf = lab.ipam_answering(&json!({
            "cniVersion": "1.0.0",
            "ips": [{"address": "fd50::77/64"}],
            "routes": [{"dst": "fd99::1/48", "gw": "fd50::fe"}],
        }));
        let (container, _) = lab.plugin_with_fake("macvlan").attach(lab, &conf);
        assert_eq!(container.route_to("fd99::/48").gateway, "fd50::fe".parse().ok());
    }
}
