//! The client of lan-pool with a real API server: each request, and each refusal of it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use e2e::patience::PATIENCE;
use e2e::{Binaries, Lab};
use kubernetes::ApiServer;
use lan_pool::lease::{Block, Holder};
use lan_pool::store::kubernetes::{Access, Client, Evidence};
use lan_pool::{Answer, Lease, Node, Owner, Request, Store, Uid};
use serde_json::json;

use crate::Shared;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn client(kubeconfig: PathBuf, lan: &str) -> Client {
    let access = Access { kubeconfig: Some(kubeconfig), context: None };
    Client::open(&access, lan, None, Some("host".to_owned()), soon()).expect("open the kubeconfig")
}

fn lease(lan: &str, address: &str, node: &str) -> Lease {
    Lease {
        lan: lan.to_owned(),
        address: address.parse().expect("an address"),
        node: Node { name: node.to_owned(), boot: "boot-1".to_owned(), machine: "machine-1".to_owned() },
        holder: Holder::Container {
            owner: Owner { container_id: "container-1".to_owned(), ifname: "eth0".to_owned() },
            netns: Some(4_026_532_281),
            pod: Some("default/web-0".to_owned()),
        },
    }
}

#[track_caller]
fn made(answer: Answer) -> Uid {
    match answer {
        Answer::Made(uid) => uid,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(answer: Answer) -> String {
    match answer {
        Answer::Refused(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_request_of_the_client_does_what_it_says() {
    let shared = Shared::get();
    shared.lab.neighbour.run(|| {
        let mut client = client(shared.server.node_kubeconfig("node1"), "client");
        assert_eq!(client.node(), "node1");
        client.look(soon()).expect("a store with a policy");
        let conflict = |address, mac: Option<&str>| Lease {
            holder: Holder::Machine { mac: mac.map(str::to_owned) },
            ..lease("client", address, "node1")
        };
        let leases = [
            lease("client", "10.77.0.200", "node1"),
            lease("client", "fd77::200", "node1"),
            conflict("10.77.0.201", Some("02:00:00:00:00:01")),
            conflict("10.77.1.201", None),
        ];
        let uids = leases.each_ref().map(|lease| made(client.ask(&Request::Create(lease.clone()), soon())));
        for (lease, uid) in leases.iter().zip(&uids) {
            assert_eq!(client.ask(&Request::Create(lease.clone()), soon()), Answer::Taken);
            match client.ask(&Request::Get(lease.address), soon()) {
                Answer::Found(Some(held)) => assert_eq!((&held.lease, &held.uid), (lease, uid)),
                other => panic!("{other:?}"),
            }
        }
        let addresses = |answer| match answer {
            Answer::Leases(leases) => {
                let mut addresses: Vec<_> = leases.iter().map(|held| held.lease.address.to_string()).collect();
                addresses.sort();
                addresses
            }
            other => panic!("{other:?}"),
        };
        let all = ["10.77.0.200", "10.77.0.201", "10.77.1.201", "fd77::200"];
        assert_eq!(addresses(client.ask(&Request::OfNode, soon())), all);
        // The list of a block may be old, so it is asked again until it has both leases.
        let block = Request::InBlock(Block::of(leases[0].address));
        e2e::patience::await_within(PATIENCE, "the leases of the block", || {
            match addresses(client.ask(&block, soon())) {
                found if found == all[..2] => Ok(()),
                found => Err(format!("{found:?}")),
            }
        });

        let address = leases[0].address;
        assert_eq!(client.ask(&Request::Delete(address, uids[1].clone()), soon()), Answer::Gone);
        assert!(matches!(client.ask(&Request::Get(address), soon()), Answer::Found(Some(_))), "another uid freed it");
        for _ in 0..2 {
            assert_eq!(client.ask(&Request::Delete(address, uids[0].clone()), soon()), Answer::Gone);
            assert_eq!(client.ask(&Request::Get(address), soon()), Answer::Found(None));
        }
        let again = made(client.ask(&Request::Create(leases[0].clone()), soon()));
        assert_ne!(again, uids[0]);
        assert_eq!(client.ask(&Request::Delete(address, uids[0].clone()), soon()), Answer::Gone);
        assert!(matches!(client.ask(&Request::Get(address), soon()), Answer::Found(Some(_))), "an old uid freed it");
    });
}

#[test]
fn a_list_of_several_pages_is_complete() {
    let shared = Shared::get();
    shared.lab.neighbour.run(|| {
        let mut client = client(shared.server.node_kubeconfig("node3"), "pages");
        let mut expected: Vec<_> =
            (0..3_u8).flat_map(|high| (0..=255_u8).map(move |low| Ipv4Addr::new(10, 78, high, low))).collect();
        for address in &expected {
            made(client.ask(&Request::Create(lease("pages", &address.to_string(), "node3")), soon()));
        }
        let mut found: Vec<_> =
            client.leases_of("node3", soon()).expect("a list").iter().map(|held| held.lease.address).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    });
}

#[test]
fn the_client_reads_refusals_and_renewed_certificates() {
    let shared = Shared::get();
    let server = &shared.server;
    shared.lab.neighbour.run(|| {
        let mut node2 = client(server.node_kubeconfig("node2"), "refused");
        let foreign = lease("refused", "10.77.0.200", "node1");
        let text = refused(node2.ask(&Request::Create(foreign.clone()), soon()));
        assert!(text.contains("this is a lease of node node1, and the request is from node node2"), "{text}");
        let uid =
            made(client(server.node_kubeconfig("node1"), "refused").ask(&Request::Create(foreign.clone()), soon()));
        let text = refused(node2.ask(&Request::Delete(foreign.address, uid), soon()));
        assert!(text.contains("this is a lease of node node1, and the request is from node node2"), "{text}");
        assert_eq!(node2.leases_of("node1", soon()).expect("a list").len(), 1);
        let wrong = Lease { lan: "Not A Name".to_owned(), ..foreign };
        let text = refused(node2.ask(&Request::Create(wrong), soon()));
        assert!(text.contains("is invalid"), "{text}");

        server.renew_node_certificate("node2");
        made(node2.ask(&Request::Create(lease("refused", "10.77.0.201", "node2")), soon()));

        // An administrator is exempt from the policy, so for him the dry run passes.
        let mut admin = client(server.admin_kubeconfig(), "refused");
        let text = admin.look(soon()).expect_err("the policy does not stop an administrator");
        assert!(
            text.ends_with("allowed, so this node can free the leases of other nodes: apply the policy of lan-pool"),
            "{text}"
        );
        let dry = Request::Get(Ipv4Addr::new(192, 0, 2, 1).into());
        assert_eq!(admin.ask(&dry, soon()), Answer::Found(None), "the dry run has made a lease");

        let mut stranger = client(server.user_kubeconfig("dave"), "refused");
        assert_eq!(stranger.node(), "host");
        let text = stranger.look(soon()).expect_err("no rights");
        assert!(text.contains("User \"dave\" cannot get resource"), "{text}");
    });
}

#[test]
fn the_client_reads_the_evidence_of_a_node() {
    let shared = Shared::get();
    let admin = shared.server.admin_api();
    for node in ["ready", "off", "lost"] {
        admin.create(
            "/api/v1/nodes",
            &json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": format!("evidence-{node}")}}),
        );
    }
    let out = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}});
    admin.patch("/api/v1/nodes/evidence-off", &out);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    admin.patch("/api/v1/nodes/evidence-ready/status", &ready);
    shared.lab.neighbour.run(|| {
        let mut client = client(shared.server.admin_kubeconfig(), "evidence");
        let mut of = |node: &str| client.node_evidence(&format!("evidence-{node}"), soon()).expect("evidence");
        assert_eq!(of("ready"), Evidence::Alive { ready: true });
        assert_eq!(of("off"), Evidence::OutOfService);
        assert_eq!(of("lost"), Evidence::Alive { ready: false });
        assert_eq!(of("gone"), Evidence::Missing);
    });
}

#[test]
fn the_client_tells_a_missing_manifest_and_a_silent_server() {
    let lab = Lab::new(Binaries::HardLinks);
    let server = ApiServer::start(&lab, 1);
    lab.neighbour.run(|| {
        let one = lease("none", "10.77.0.200", "node1");
        let mut client = client(server.admin_kubeconfig(), "none");
        let uid = Uid("1".to_owned());
        for request in [
            Request::Create(one.clone()),
            Request::Get(one.address),
            Request::Delete(one.address, uid),
            Request::OfNode,
            Request::InBlock(Block::of(one.address)),
        ] {
            let text = refused(client.ask(&request, soon()));
            let end = "the server has no lanaddresses.underlay.internal: apply the manifest of lan-pool first";
            assert!(text.ends_with(end), "{request:?}: {text}");
        }
        server.daemon().pause();
        let answer = client.ask(&Request::Get(one.address), Instant::now() + Duration::from_millis(500));
        // Its connection is open, so the request is sent.
        assert!(
            matches!(&answer, Answer::Lost(text) if text.ends_with("wait for the response: timed out")),
            "{answer:?}"
        );
        let text = refused(client.ask(&Request::Get(one.address), Instant::now() + Duration::from_millis(500)));
        assert!(text.ends_with("TLS handshake: timed out"), "{text}");
        server.daemon().resume();
        refused(client.ask(&Request::Get(one.address), soon()));
    });
}
