//! The API server of the tests: its clients, `kubectl`, and the end of its processes.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use e2e::patience::{PATIENCE, await_within};
use e2e::{Binaries, Lab};
use kubernetes::ApiServer;
use kubernetes::api_server::pool::{LEASES, lease};
use serde_json::json;

use crate::{Shared, make, path};

#[test]
fn kubectl_shows_address_node_pod_and_age() {
    let shared = Shared::get();
    let server = &shared.server;
    let mut unused = lease("columns", "fd77::201", "node2");
    let spec = unused["spec"].as_object_mut().unwrap();
    for field in ["containerID", "ifname", "netns", "pod"] {
        spec.remove(field);
    }
    spec.insert("conflict".to_owned(), json!({"mac": "02:00:00:00:00:01"}));
    make(&server.node_api("node1"), &lease("columns", "10.77.0.200", "node1"));
    make(&server.node_api("node2"), &unused);
    let table = |options: &[&str]| {
        let command = ["get", "lanip", "--field-selector=spec.lan=columns", "--no-headers=false"];
        let table = server.kubectl(&server.admin_kubeconfig(), &[&command[..], options].concat(), "").unwrap();
        // Columns are separated by at least three spaces.
        let words = |line: &str| -> Vec<String> {
            line.split("   ").map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
        };
        table.lines().map(words).collect::<Vec<_>>()
    };
    let long = "columns.fd77-0000-0000-0000-0000-0000-0000-0201";
    let [head, first, second]: [_; 3] = table(&[]).try_into().unwrap();
    assert_eq!(head, ["NAME", "ADDRESS", "NODE", "POD", "AGE"]);
    assert_eq!(first[..4], ["columns.10.77.0.200", "10.77.0.200", "node1", "default/web-0"]);
    assert_eq!(second[..3], [long, "fd77::201", "node2"]);
    let [head, first, second]: [_; 3] = table(&["--output=wide"]).try_into().unwrap();
    assert_eq!(head[5..], ["LAN", "CONTAINER", "INTERFACE", "CONFLICT"]);
    assert_eq!(first[5..], ["columns", "container-1", "eth0"]);
    assert_eq!(second[4..], ["columns", "02:00:00:00:00:01"]);
}

#[test]
fn a_node_uses_its_kubeconfig_before_and_after_its_certificate_is_renewed() {
    let shared = Shared::get();
    let server = &shared.server;
    let kubeconfig = server.node_kubeconfig("renewed");
    let text = fs::read_to_string(&kubeconfig).unwrap();
    let pem = text.lines().find_map(|line| line.trim().strip_prefix("client-certificate: ")).unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let who = server.kubectl(&kubeconfig, &["auth", "whoami", "--output=json"], "").unwrap();
        assert!(who.contains("\"system:node:renewed\"") && who.contains("\"system:nodes\""), "{who}");
        seen.push(fs::read_to_string(pem).unwrap());
        server.renew_node_certificate("renewed");
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(fs::read_to_string(&kubeconfig).unwrap(), text);
    let user = server.kubectl(&server.user_kubeconfig("dave"), &["get", "lanip"], "").unwrap_err();
    assert!(user.contains("User \\\"dave\\\" cannot list resource"), "{user}");
}

#[test]
fn leases_survive_the_end_of_the_api_server_and_of_one_of_three_members() {
    let lab = Lab::new(Binaries::HardLinks);
    let server = ApiServer::start(&lab, 3);
    server.set_up_lan_pool();
    let api = server.node_api("node1");
    let first = make(&api, &lease("members", "10.77.0.200", "node1"));
    server.daemon().stop();
    assert!(api.request("GET", &path(&first), None).is_err());
    server.daemon().start();
    server.await_readiness();
    assert_eq!(api.get(&path(&first)), first);
    server.etcd_member(0).stop();
    // If this member was the leader, the answer is an error, and the lease can exist nevertheless. So the same request is
    // sent again.
    let second = lease("members", "10.77.0.201", "node1");
    await_within(PATIENCE, "a lease with two members", || match api.request("POST", LEASES, Some(&second))? {
        answer if [201, 409].contains(&answer.status) => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    server.etcd_member(0).start();
    server.await_readiness();
    assert_eq!(api.get(&path(&first)), first);
    assert_eq!(api.list(LEASES).unwrap().len(), 2);
}

#[test]
fn an_api_server_that_is_cut_off_or_paused_does_not_answer() {
    let lab = Lab::new(Binaries::HardLinks);
    let server = ApiServer::start(&lab, 1);
    let daemon = server.daemon();
    let address = server.server_url().trim_start_matches("https://").parse().expect("an address with a port");
    let connect = || lab.neighbour.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(200)));
    // A TLS server of Go answers plain HTTP with an error.
    let ask = |stream: &mut TcpStream| stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("send a request");
    let read = |stream: &mut TcpStream, patience: Duration| {
        stream.set_read_timeout(Some(patience)).expect("set a timeout");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    lab.cut_off(&daemon.node.machine);
    connect().expect_err("no way to the API server");
    server.admin_api().get("/version");
    lab.connect(&daemon.node.machine);
    await_within(PATIENCE, "the API server is reached again", || connect().map_err(|e| e.to_string()));

    daemon.pause();
    let mut stream = connect().expect("the kernel accepts the connection");
    ask(&mut stream);
    let error = read(&mut stream, Duration::from_millis(200)).expect_err("a paused server does not answer");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    daemon.resume();
    let answer = read(&mut stream, PATIENCE).expect("an answer");
    assert!(answer.contains("400 Bad Request"), "{answer}");
}
