//! The example plugin, called as a runtime and another plugin call it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// cargo builds the examples of a package together with its tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a program");
    let built = test.ancestors().nth(2).expect("target/debug").join("examples/fixed-address");
    assert!(built.is_file(), "{} is missing: run `cargo build -p cni --examples`", built.display());
    built
}

fn call(command: &str, ipam: Value, previous: Option<Value>) -> Output {
    let mut conf = json!({"cniVersion": "1.1.0", "name": "lan", "type": "macvlan", "ipam": ipam});
    if let Some(previous) = previous {
        conf["prevResult"] = previous;
    }
    let mut child = Command::new(program())
        .env_clear()
        .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", "web"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/")])
        .env("CNI_NETNS", "/proc/self/ns/net")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the example");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(conf.to_string().as_bytes()).expect("write the example's input");
    drop(stdin);
    child.wait_with_output().expect("wait for the example")
}

fn ipam() -> Value {
    json!({
        "type": "fixed-address",
        "address": "10.0.0.5/24",
        "gateway": "10.0.0.1",
        "routes": [{"dst": "0.0.0.0/0"}],
    })
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// The code and the message of an error.
#[track_caller]
fn refused(output: &Output) -> (u64, String) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = answer(output);
    (error["code"].as_u64().expect("a code"), error["msg"].as_str().expect("a message").to_owned())
}

#[test]
fn all_commands_succeed() {
    let added = call("ADD", ipam(), None);
    assert!(added.status.success(), "{added:?}");
    let result = answer(&added);
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["ips"], json!([{"address": "10.0.0.5/24", "gateway": "10.0.0.1"}]));
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0"}]));
    for command in ["CHECK", "DEL", "STATUS", "GC"] {
        let output = call(command, ipam(), Some(result.clone()));
        assert!(output.status.success() && output.stdout.is_empty(), "{command}: {output:?}");
    }
}

#[test]
fn an_error_names_the_field_and_has_a_code() {
    let without = call("ADD", json!({"type": "fixed-address"}), None);
    assert_eq!(refused(&without), (7, "ipam.address: is missing".to_owned()));
    let wrong = call("STATUS", json!({"type": "fixed-address", "address": "here"}), None);
    assert_eq!(refused(&wrong), (7, "ipam.address \"here\": is not an address such as 10.0.0.5/24".to_owned()));
    let other = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.6/24"}]});
    assert_eq!(refused(&call("CHECK", ipam(), Some(other))), (102, "web: has no address 10.0.0.5/24".to_owned()));
}

#[test]
fn it_supports_all_versions_and_prints_help() {
    let output = call("VERSION", ipam(), None);
    assert_eq!(answer(&output)["supportedVersions"].as_array().map(Vec::len), Some(7), "{output:?}");
    let help = Command::new(program()).env_clear().arg("--help").output().expect("start the example");
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(text.starts_with("fixed-address: gives the one address that the configuration names"), "{text}");
}

/// The documentation of the crate says so.
#[test]
fn the_example_has_fewer_than_sixty_lines() {
    let text = include_str!("../examples/fixed-address.rs");
    assert!(text.lines().count() < 60, "{} lines", text.lines().count());
}
