//! The CNI protocol: environment, input, commands that are not about an attachment, and help.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::lab::lan4;
use e2e::traffic::assert_reaches;
use e2e::{Call, Lab, cases, with, without};
use nix::pty::openpty;
use serde_json::{Value, json};

/// A valid configuration that is longer than a plugin reads.
fn ten_megabytes(conf: &Value) -> String {
    let conf = with(conf.clone(), "padding", json!("x".repeat(10 << 20)));
    conf.to_string()
}

fn versions_of(lab: &Lab, program: &str) -> Value {
    lab.plugin(program).bare().env("CNI_COMMAND", "VERSION").stdin(r#"{"cniVersion":"0.4.0"}"#).run().result()
}

/// Runs the program at a terminal, which is all three streams. Returns its exit code and its text.
fn at_a_terminal(lab: &Lab, program: &str) -> (Option<i32>, String) {
    let pty = openpty(None, None).expect("open a pseudoterminal");
    let stream = || Stdio::from(pty.slave.try_clone().expect("one more descriptor"));
    let mut child = Command::new(lab.bin().join(program))
        .env_clear()
        .stdin(stream())
        .stdout(stream())
        .stderr(stream())
        .spawn()
        .expect("start a plugin");
    let status = child.wait().expect("wait for a plugin");
    drop(pty.slave);
    let mut text = Vec::new();
    // Reading a terminal whose other side is closed ends with EIO.
    let end = File::from(pty.master).read_to_end(&mut text);
    assert!(end.is_err_and(|e| e.raw_os_error() == Some(nix::libc::EIO)), "a terminal that does not end");
    (status.code(), String::from_utf8(text).expect("help is text"))
}

/// An ADD to a new container, changed by `change`, must fail and change nothing.
#[track_caller]
fn add_fails<'a>(lab: &'a Lab, change: impl FnOnce(Call<'a>) -> Call<'a>, code: u64, names: &[&str]) {
    let container = lab.container();
    let call = change(lab.macvlan().add(&container, "eth0", &lab.conf()));
    lab.unchanged(&[&container], || call.run()).fails(code, names);
}

cases! {
    #[reference(fails: "without cniVersion")]
    fn all_missing_variables_are_named_at_once(lab) {
        for command in ["ADD", "CHECK"] {
            lab.unchanged(&[], || lab.macvlan().call(command, &lab.conf()).run())
                .fails(4, &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]);
        }
    }

    #[reference(fails: "without cniVersion")]
    fn del_does_not_need_cni_netns(lab) {
        let error = lab.macvlan().call("DEL", &lab.conf()).run().fails(4, &["CNI_CONTAINERID", "CNI_IFNAME"]);
        assert!(!error.msg.contains("CNI_NETNS"), "{error:?}");
    }

    #[reference(fails: "did not fail")]
    fn without_a_command_and_without_a_terminal_it_is_an_error(lab) {
        lab.macvlan().bare().stdin(lab.conf().to_string()).run().fails(4, &["CNI_COMMAND"]);
    }

    #[reference(not_run: "it prints one line on stderr")]
    fn without_a_command_at_a_terminal_it_prints_two_lines_of_help(lab) {
        for program in ["macvlan", "host-local"] {
            let (status, text) = at_a_terminal(lab, program);
            assert_eq!(status, Some(0), "{text}");
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 2, "{text}");
            assert!(lines[0].starts_with(&format!("{program}: ")), "{text}");
            assert!(lines[0].contains(env!("CARGO_PKG_VERSION")), "{text}");
            assert!(lines[1].ends_with("0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{text}");
        }
    }

    #[reference(not_run: "it ignores the word and reads its input")]
    fn a_misspelt_word_on_the_command_line_is_an_error(lab) {
        let program = lab.bin().join("macvlan");
        let outcome = Command::new(&program).arg("instal").env_remove("CNI_COMMAND").output().expect("run the program");
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
        assert_eq!(outcome.stdout, b"", "{outcome:?}");
        assert_eq!(outcome.stderr, b"macvlan: unexpected argument \"instal\"; see macvlan --help\n", "{outcome:?}");
    }

    #[reference(fails: "without cniVersion")]
    fn an_unknown_command_is_named(lab) {
        add_fails(lab, |call| call.env("CNI_COMMAND", "UPDATE"), 4, &["CNI_COMMAND", "UPDATE"]);
    }

    #[reference(fails: "the message does not name")]
    fn container_ids_that_break_the_rules_are_refused(lab) {
        for id in ["../x", "-a", "_a", ".a", "a/b", "a b", "a:b", "a\nb", "ä"] {
            add_fails(lab, |call| call.env("CNI_CONTAINERID", id), 4, &["CNI_CONTAINERID", id]);
        }
    }

    #[reference(fails: "the message does not name")]
    fn interface_names_that_break_the_kernels_rules_are_refused(lab) {
        for name in ["sixteen-letters-", "a/b", "a:b", "a b", ".", "..", "eth%d"] {
            add_fails(lab, |call| call.env("CNI_IFNAME", name), 4, &["CNI_IFNAME", name]);
        }
    }

    #[reference(not_run: "it names only the first one")]
    fn all_malformed_lines_are_named_at_once(lab) {
        let names = ["CNI_CONTAINERID", "../x", "CNI_IFNAME", "a/b", "CNI_NETNS"];
        let call = lab.macvlan().call("ADD", &lab.conf()).env("CNI_CONTAINERID", "../x").env("CNI_IFNAME", "a/b");
        lab.unchanged(&[], || call.run()).fails(4, &names);
    }

    /// Multus and the kubelet put the names of pods into CNI_ARGS.
    #[reference(passes)]
    fn foreign_keys_in_cni_args_are_ignored_with_ignore_unknown(lab) {
        for word in ["1", "true"] {
            let container = lab.container();
            let args = format!("IgnoreUnknown={word};K8S_POD_NAMESPACE=default;K8S_POD_NAME=web");
            lab.macvlan().add(&container, "eth0", &lab.conf()).args(&args).run().result();
        }
    }

    #[reference(fails: "another code")]
    fn foreign_keys_in_cni_args_are_refused_without_ignore_unknown(lab) {
        add_fails(lab, |call| call.args("K8S_POD_NAME=web"), 4, &["CNI_ARGS", "K8S_POD_NAME"]);
    }

    #[reference(fails: "another code")]
    fn cni_args_that_are_not_pairs_are_refused(lab) {
        add_fails(lab, |call| call.args("IP"), 4, &["CNI_ARGS", "\"IP\""]);
    }

    #[reference(fails: "the message does not name")]
    fn input_that_is_empty_is_refused(lab) {
        add_fails(lab, |call| call.stdin(""), 6, &["empty"]);
    }

    #[reference(fails: "the message does not name")]
    fn input_that_is_not_json_is_refused_with_the_place(lab) {
        add_fails(lab, |call| call.stdin("{\"cniVersion\": \"1.0.0\",\n nonsense}"), 6, &["line 2"]);
    }

    #[reference(fails: "the message does not name")]
    fn input_that_is_not_an_object_is_refused(lab) {
        for text in ["[1]", "\"lan\"", "7", "null"] {
            add_fails(lab, |call| call.stdin(text), 6, &["not a JSON object"]);
        }
    }

    #[reference(not_run: "it reads all of it")]
    fn input_of_ten_megabytes_is_refused(lab) {
        add_fails(lab, |call| call.stdin(ten_megabytes(&lab.conf())), 6, &[]);
    }

    #[reference(fails: "the message does not name")]
    fn an_unknown_version_is_refused(lab) {
        let conf = with(lab.conf(), "cniVersion", json!("2.0.0"));
        lab.macvlan().refuses(lab, &conf, 1, &["cniVersion", "2.0.0"]);
    }

    /// The oldest configurations have no cniVersion. libcni and the reference assume 0.1.0.
    #[reference(passes)]
    fn a_configuration_without_a_version_has_version_0_1_0(lab) {
        let (_, result) = lab.macvlan().attached(lab, &without(lab.conf(), "cniVersion"));
        assert_eq!(result["cniVersion"], "0.1.0");
        assert_eq!(result["ip4"]["ip"], "192.168.50.100/24");
    }

    #[reference(passes)]
    fn unknown_keys_are_ignored(lab) {
        let mut conf = with(lab.conf(), "example.org/key", json!({"deep": [1, null]}));
        conf["ipam"]["unknown"] = json!("value");
        lab.macvlan().attach(lab, &conf);
    }

    /// With `mastr`, the container was on another LAN. With `vlan`, it was in no VLAN. There was no message.
    #[reference(fails: "left == right")]
    fn a_key_that_has_no_effect_is_named_with_the_key_that_was_probably_meant(lab) {
        let (container, mut conf) = (lab.container(), lab.conf());
        let misspelt = [("mastr", json!("ens4")), ("trunk", json!(true)), ("dns", json!({"nameserver": ["192.0.2.1"]}))];
        // A list of plugins is not the configuration of a plugin: somebody has passed a whole conflist.
        conf["plugins"] = json!([{"type": "macvlan"}]);
        // Keys of the runtime, of the specification and of Multus, and comments.
        let others = [
            ("_comment", json!("a key for people")),
            ("args", json!({"labels": {"a": "b"}})),
            ("capabilities", json!({"mac": true})),
            ("deviceID", json!("0000:01:00.0")),
            ("disableCheck", json!(true)),
            ("ipMasq", json!(false)),
            ("runtimeConfig", json!({"portMappings": []})),
            ("whatever", Value::Null),
        ];
        misspelt.into_iter().chain(others).for_each(|(key, value)| conf[key] = value);
        conf["MTU"] = json!(1400);
        conf["ipam"]["range"] = json!("10.0.0.0/24");
        conf["ipam"]["ranges"][0][0]["gatway"] = json!("10.0.0.254");
        let outcome = lab.macvlan().add(&container, "eth0", &conf).run();
        outcome.result();
        let said = |plugin: &str, key: &str, hint: &str| {
            format!("{plugin}: ADD: the key \"{key}\" is not known and has no effect{hint}")
        };
        let mut lines: Vec<&str> = outcome.stderr.lines().collect();
        lines.sort_unstable();
        let expected = [
            said("host-local", "ipam.range", "; did you mean \"ipam.ranges\"?"),
            said("host-local", "ipam.ranges[0][0].gatway", "; did you mean \"ipam.ranges[0][0].gateway\"?"),
            said("macvlan", "dns.nameserver", "; did you mean \"dns.nameservers\"?"),
            said("macvlan", "mastr", "; did you mean \"master\"?"),
            said("macvlan", "plugins", ""),
            said("macvlan", "trunk", ""),
        ];
        assert_eq!(lines, expected);
        let quiet = lab.macvlan().del(&container, "eth0", &conf).run();
        assert_eq!(quiet.done().stderr, "");
    }

    /// The range had a misspelt key, and the error only named the missing key.
    #[reference(fails: "another code")]
    fn a_misspelt_key_is_named_together_with_the_error_that_it_causes(lab) {
        let mut conf = lab.conf();
        conf["ipam"]["range"] = conf["ipam"]["ranges"].take();
        let outcome = lab.macvlan().add(&lab.container(), "eth0", &conf).run();
        outcome.fails(7, &["ipam.ranges: is not set"]);
        assert!(outcome.stderr.contains("did you mean \"ipam.ranges\"?"), "{}", outcome.text());
    }

    #[reference(fails: "the message does not name")]
    fn a_network_name_with_a_path_in_it_is_refused(lab) {
        for name in ["../lan", "lan/../..", "/lan", ".", "..", ""] {
            lab.macvlan().refuses(lab, &with(lab.conf(), "name", json!(name)), 7, &["name", &format!("{name:?}")]);
        }
    }

    #[reference(fails: "left == right")]
    fn version_lists_all_seven_versions_and_answers_in_the_version_of_the_request(lab) {
        for program in ["macvlan", "host-local"] {
            assert_eq!(
                versions_of(lab, program),
                json!({
                    "cniVersion": "0.4.0",
                    "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
                })
            );
        }
    }

    #[reference(passes)]
    fn status_of_a_healthy_network_prints_nothing(lab) {
        let conf = with(lab.conf(), "cniVersion", json!("1.1.0"));
        lab.unchanged(&[], || lab.macvlan().call("STATUS", &conf).run()).done();
        lab.unchanged(&[], || lab.host_local().call("STATUS", &conf).run()).done();
    }

    #[reference(fails: "the message does not name")]
    fn status_before_1_1_0_is_an_error_of_the_version(lab) {
        for program in ["macvlan", "host-local"] {
            lab.plugin(program).call("STATUS", &lab.conf()).run().fails(1, &["STATUS", "1.0.0"]);
        }
    }

    #[reference(fails: "the message does not name")]
    fn gc_before_1_1_0_is_an_error_of_the_version_and_frees_nothing(lab) {
        let (container, _) = lab.macvlan().attach(lab, &lab.conf());
        let mut conf = lab.conf();
        conf["cni.dev/valid-attachments"] = json!([]);
        for program in ["macvlan", "host-local"] {
            lab.unchanged(&[&container], || lab.plugin(program).call("GC", &conf).run()).fails(1, &["GC", "1.0.0"]);
        }
    }

    /// Without the list, GC would free all attachments.
    #[reference(fails: "did not fail")]
    fn gc_without_a_list_is_refused_and_frees_nothing(lab) {
        let (container, _) = lab.macvlan().attach(lab, &lab.conf());
        let conf = with(lab.conf(), "cniVersion", json!("1.1.0"));
        lab.unchanged(&[&container], || lab.macvlan().call("GC", &conf).run())
            .fails(7, &["cni.dev/valid-attachments"]);
    }

    #[reference(fails: "another code")]
    fn a_netns_that_is_missing_is_refused(lab) {
        let missing = lab.path("no-such-netns");
        add_fails(lab, |call| call.env("CNI_NETNS", &missing), 8, &["CNI_NETNS", &missing.to_string_lossy()]);
    }

    #[reference(fails: "another code")]
    fn a_file_that_is_not_a_netns_is_refused(lab) {
        let plain = lab.path("plain-file");
        File::create(&plain).expect("create a file");
        let [below, socket] = lab.odd_paths();
        for path in [plain, "/proc/self/ns/uts".into(), below, socket] {
            add_fails(lab, |call| call.env("CNI_NETNS", &path), 8, &["CNI_NETNS", &path.to_string_lossy()]);
        }
    }

    #[reference(fails: "something was changed")]
    fn the_hosts_own_netns_is_refused(lab) {
        let netns = lab.host.path();
        add_fails(lab, |call| call.env("CNI_NETNS", netns), 8, &["CNI_NETNS", &netns.to_string_lossy()]);
    }

    #[reference(passes)]
    fn the_hosts_own_netns_is_allowed_with_the_override(lab) {
        let container = lab.container();
        let conf = lab.conf();
        let here = |call: e2e::Call<'_>| {
            call.env("CNI_NETNS", lab.host.path()).env("CNI_NETNS_OVERRIDE", "1").run()
        };
        here(lab.macvlan().add(&container, "lan0", &conf)).result();
        assert_eq!(lab.host.link("lan0").kind.as_deref(), Some("macvlan"));
        here(lab.macvlan().del(&container, "lan0", &conf)).done();
        assert!(!lab.host.has_link("lan0"));
        assert_eq!(lab.leases(), [""; 0]);
    }

    /// The undo of the second ADD must not release the address of the first one.
    #[reference(fails: "another code")]
    fn a_second_add_of_an_interface_leaves_the_first_attachment_complete(lab) {
        let (container, result) = lab.macvlan().attached(lab, &lab.conf());
        lab.unchanged(&[&container], || lab.macvlan().add(&container, "eth0", &lab.conf()).run())
            .fails(7, &["CNI_IFNAME", "eth0"]);
        assert_eq!(lab.leases(), ["192.168.50.100"]);
        let ip = result["ips"][0]["address"].as_str().expect("an address").trim_end_matches("/24");
        assert_reaches(&lab.neighbour, ip.parse().expect("an address"));
    }

    #[reference(fails: "another code")]
    fn an_interface_name_that_a_foreign_link_has_is_refused(lab) {
        let container = lab.container();
        container.create_stray("eth0");
        lab.unchanged(&[&container], || lab.macvlan().add(&container, "eth0", &lab.conf()).run())
            .fails(7, &["CNI_IFNAME", "eth0"]);
        assert_eq!(lab.lease_files(), [""; 0]);
    }

    /// In /proc/sys/net, these names mean all interfaces.
    #[reference(fails: "another code")]
    fn interface_names_that_mean_all_interfaces_are_refused(lab) {
        for name in ["all", "default"] {
            add_fails(lab, |call| call.env("CNI_IFNAME", name), 4, &["CNI_IFNAME", name]);
        }
    }

    /// Some callers never close stdin.
    #[reference(passes)]
    fn version_does_not_wait_for_a_stdin_that_stays_open(lab) {
        nix::unistd::mkfifo(&lab.path("silence"), nix::sys::stat::Mode::S_IRWXU).expect("make a FIFO");
        let outcome = lab.behind("exec $PLUGIN <>$LAB/silence").call("VERSION", &json!({})).run();
        let versions = outcome.result();
        let spoken = versions["supportedVersions"].as_array().expect("a list");
        assert!(spoken.contains(&json!("1.0.0")), "{}", outcome.text());
        assert!(outcome.wall < Duration::from_secs(3), "{}", outcome.text());
    }

    /// The runtime of Rust opens /dev/null in place of a closed stdout. So the result was lost, and ADD succeeded.
    #[reference(fails: "something was changed")]
    fn an_add_whose_stdout_is_closed_fails_and_leaves_nothing(lab) {
        let container = lab.container();
        let outcome = lab.unchanged(&[&container], || {
            lab.behind("exec $PLUGIN >&-").add(&container, "eth0", &lab.conf()).run()
        });
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.text());
        assert!(outcome.stderr.contains("stdout: it is closed"), "{}", outcome.text());
    }

    /// A stdout that was /dev/null, opened also for reading, was taken for a closed one. Python's subprocess.DEVNULL is
    /// so.
    #[reference(passes)]
    fn an_add_whose_stdout_is_dev_null_works(lab) {
        for (at, to_null) in (100..).zip([">", "1<>"]) {
            let container = lab.container();
            let plugin = lab.behind(&format!("exec $PLUGIN {to_null}/dev/null"));
            plugin.add(&container, "eth0", &lab.conf()).run().done();
            assert_eq!(container.address_texts("eth0"), [format!("{}/24", lan4(at))]);
            assert_reaches(&lab.neighbour, lan4(at));
        }
    }
}
