//! The store is away, refuses, or has lost something.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::plugin::slowness;
use kubernetes::api_server::pool::{LEASES, manifest};
use serde_json::json;

use crate::site::{Shared, addresses};

#[test]
fn a_node_that_is_cut_off_gets_no_new_address_and_its_containers_end() {
    let shared = Shared::get();
    let node = shared.node("cut", "cut-1");
    let (conf, first, second) = (node.conf(10, 20), node.container(), node.container());
    node.add(&first, &conf).result();
    shared.lab.cut_off(&node.machine);
    let add = node.add(&second, &conf);
    add.fails(11, &["store"]);
    assert!(add.wall < Duration::from_secs(11) * slowness(), "{}", add.text());
    let del = node.del(&second, &conf);
    del.done();
    let del = node.del(&first, &conf);
    del.done();
    assert!(del.wall < Duration::from_secs(5) * slowness(), "{}", del.text());
    assert!(del.stderr.contains("a later call on this node releases 10.77.0."), "{}", del.text());
    node.plugin().call("STATUS", &conf).run().done();
    assert_eq!(shared.leases("cut").len(), 2);
    shared.lab.connect(&node.machine);
    let third = node.container();
    let given = addresses(&node.add(&third, &conf).result());
    let leases = shared.leases("cut");
    assert!(leases.iter().all(|lease| given.iter().any(|ip| lease["address"] == ip.as_str())), "{leases:?}");
    assert_eq!(leases.len(), 2, "{leases:?}");
}

#[test]
fn a_wrong_credential_is_code_50_for_status_and_no_obstacle_for_a_del() {
    let shared = Shared::get();
    let node = shared.node("wrong", "wrong-1");
    let container = node.container();
    let good = node.conf(10, 20);
    node.add(&container, &good).result();
    let mut conf = good.clone();
    conf["ipam"]["store"]["kubernetes"]["kubeconfig"] = json!("/nonexistent/kubelet.conf");
    node.plugin().call("STATUS", &conf).run().fails(50, &["/nonexistent/kubelet.conf"]);
    let del = node.del(&container, &conf);
    del.done();
    assert!(del.stderr.contains("/nonexistent/kubelet.conf"), "{}", del.text());
    node.gc(&good).done();
    assert_eq!(shared.leases("wrong"), [json!(null); 0]);
}

#[test]
fn a_certificate_that_is_renewed_between_two_calls_is_used() {
    let shared = Shared::get();
    let node = shared.node("renew", "renew-1");
    let (conf, container) = (node.conf(10, 20), node.container());
    node.add(&container, &conf).result();
    shared.server.renew_node_certificate("renew-1");
    node.del(&container, &conf).done();
    assert_eq!(shared.leases("renew"), [json!(null); 0]);
}

#[test]
fn a_node_cannot_lease_in_the_name_of_another_one() {
    let shared = Shared::get();
    let node = shared.node("name", "name-1");
    let mut conf = node.conf(10, 20);
    conf["ipam"]["node"] = json!("name-2");
    node.add(&node.container(), &conf)
        .fails(11, &["this is a lease of node name-2, and the request is from node name-1"]);
    assert_eq!(shared.leases("name"), [json!(null); 0]);
}

#[test]
fn a_lost_journal_is_made_again_and_nothing_is_deleted_by_that_call() {
    let shared = Shared::get();
    let node = shared.node("journal", "journal-1");
    let (conf, container) = (node.conf(10, 20), node.container());
    let given = addresses(&node.add(&container, &conf).result());
    fs::remove_dir_all(&node.data).unwrap();
    node.gc(&conf).done();
    assert_eq!(addresses(&node.add(&container, &conf).result()), given);
    assert_eq!(shared.leases("journal").len(), 2);
    node.del(&container, &conf).done();
    assert_eq!(shared.leases("journal"), [json!(null); 0]);
}

#[test]
fn leases_that_were_deleted_with_their_definition_are_made_again() {
    let shared = Shared::start();
    let node = shared.node("crd", "crd-1");
    let (conf, container) = (node.conf(10, 20), node.container());
    let given = addresses(&node.add(&container, &conf).result());
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/lanaddresses.underlay.internal";
    shared.server.admin_api().delete(definition);
    e2e::patience::await_within(Duration::from_secs(60), "the leases are gone", || {
        match shared.server.admin_api().request("GET", LEASES, None)?.status {
            404 => Ok(()),
            status => Err(format!("{status}")),
        }
    });
    node.add(&node.container(), &conf).fails(11, &["apply the manifest of lan-pool first"]);
    node.plugin().call("STATUS", &conf).run().done();
    shared.server.apply(&manifest());
    shared.server.set_up_lan_pool();
    node.gc(&conf).done();
    let leases = shared.leases("crd");
    assert_eq!(leases.len(), 2, "{leases:?}");
    assert!(leases.iter().all(|lease| given.iter().any(|ip| lease["address"] == ip.as_str())), "{leases:?}");
    node.del(&container, &conf).done();
    assert_eq!(shared.leases("crd"), [json!(null); 0]);
}

/// After a restore, the store has leases of containers that have ended since, and lacks those of newer ones.
#[test]
fn an_old_backup_of_etcd_is_brought_up_to_date_by_one_sweep() {
    let shared = Shared::start();
    let node = shared.node("backup", "backup-1");
    let (conf, before, after) = (node.conf(10, 20), node.container(), node.container());
    node.add(&before, &conf).result();
    let etcd = shared.server.etcd_member(0);
    let data = etcd.node.root().join("var/lib/etcd");
    let backup = shared.lab.path("backup-of-etcd");
    let copy = |from: &Path, to: &Path| {
        let status = Command::new("cp").arg("--archive").args([from, to]).status().expect("start cp");
        assert!(status.success(), "copy {} to {}", from.display(), to.display());
    };
    etcd.stop();
    copy(&data, &backup);
    etcd.start();
    shared.server.restart();

    node.del(&before, &conf).done();
    drop(before);
    let given = addresses(&node.add(&after, &conf).result());

    etcd.stop();
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    etcd.start();
    shared.server.restart();
    let stale = shared.leases("backup");
    assert_eq!(stale.len(), 2);
    assert!(stale.iter().all(|lease| lease["containerID"] != after.id.as_str()), "{stale:?}");

    node.gc(&conf).done();
    let leases = shared.leases("backup");
    assert_eq!(leases.len(), 2, "{leases:?}");
    for lease in &leases {
        assert_eq!(lease["containerID"], after.id.as_str(), "{leases:?}");
        assert!(given.iter().any(|ip| lease["address"] == ip.as_str()), "{given:?} {leases:?}");
    }
    node.del(&after, &conf).done();
    assert_eq!(shared.leases("backup"), [json!(null); 0]);
}

/// STATUS says it in a remark. It must not fail: the runtime would make every node NotReady.
#[test]
fn a_policy_that_is_not_in_force_is_a_remark() {
    let shared = Shared::start();
    let node = shared.node("policy", "policy-1");
    let conf = node.conf(10, 20);
    let status = node.plugin().call("STATUS", &conf).run();
    status.done();
    assert_eq!(status.stderr, "", "{}", status.text());
    let binding = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/lan-pool-own-node";
    shared.server.admin_api().delete(binding);
    e2e::patience::await_within(Duration::from_secs(30), "STATUS says that the policy is not in force", || {
        let status = node.plugin().call("STATUS", &conf).run();
        status.done();
        if status.stderr.contains("policy") { Ok(()) } else { Err(status.text()) }
    });
}
