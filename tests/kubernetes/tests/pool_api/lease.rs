//! The rules of a lease, which the CRD has.

use kubernetes::Api;
use kubernetes::api_server::pool::{LEASES, lease};
use serde_json::{Value, json};

use crate::{Shared, make, path, refused};

/// A valid lease on the LAN `rules`, with some fields of its `spec` replaced. `null` removes a field.
fn changed(address: &str, fields: Value) -> Value {
    let mut lease = lease("rules", address, "node1");
    for (key, value) in fields.as_object().expect("fields") {
        let spec = lease["spec"].as_object_mut().expect("a spec");
        if value.is_null() {
            spec.remove(key)
        } else {
            spec.insert(key.clone(), value.clone())
        };
    }
    lease
}

fn named(name: &str, address: &str, fields: Value) -> Value {
    let mut lease = changed(address, fields);
    lease["metadata"]["name"] = json!(name);
    lease
}

/// The creation of this lease must be refused with status 422 and this text after `NAME is invalid: `.
#[track_caller]
fn invalid(api: &Api, lease: &Value, text: &str) {
    let name = &lease["metadata"]["name"];
    let text = format!("LanAddress.underlay.internal {name} is invalid: {text}");
    refused(api, ("POST", &format!("{LEASES}?fieldValidation=Strict")), Some(lease), (422, &text));
}

const NAME_V4: &str = "metadata.name: Invalid value: the name is not LAN.ADDRESS";
const NAME_V6: &str = "metadata.name: Invalid value: the name is not LAN.ADDRESS with 8 groups of 4 digits";
const BLOCK: &str = "spec.block: Invalid value: the block is not LAN.ADDRESS of the first address in the block";
const ADDRESS: &str = "spec.address: Invalid value: the address is not in its canonical form";
const HOLDER: &str = "spec: Invalid value: a lease has either containerID and ifname, or conflict";

/// The API server adds this if a lease does not even fit the schema.
const UNCHECKED: &str = "<nil>: Invalid value: null: some validation rules were not checked because the object was \
                         invalid; correct the existing errors to complete validation";

#[test]
fn a_lease_of_either_family_and_a_lease_of_another_machine_are_accepted() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    let conflict =
        |mac: Value| json!({"containerID": null, "ifname": null, "netns": null, "pod": null, "conflict": mac});
    for lease in [
        lease("accepted", "10.77.0.200", "node1"),
        lease("accepted", "10.77.0.0", "node1"),
        lease("accepted", "fd77::200", "node1"),
        lease("accepted", "fd77:0:0:1::", "node1"),
        lease("accepted", "fd77::a:ffff", "node1"),
        lease(&"a".repeat(63), "2001:db8:1111:2222:3333:4444:5555:6666", "node1"),
        changed("10.77.0.201", json!({"pod": null, "netns": null})),
        changed("10.77.0.202", conflict(json!({"mac": "02:00:00:00:00:01"}))),
        changed("fd77::202", conflict(json!({}))),
    ] {
        let made = make(&api, &lease);
        assert_eq!(made["spec"], lease["spec"]);
        assert_eq!(api.get(&path(&lease))["metadata"]["uid"], made["metadata"]["uid"]);
    }
}

#[test]
fn a_misspelt_or_missing_field_is_refused() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    let strict = format!("{LEASES}?fieldValidation=Strict");
    let text = "LanAddress in version \"v1\" cannot be handled as a LanAddress: strict decoding error: ";
    let misspelt = changed("10.77.0.200", json!({"containerId": "container-1"}));
    let unknown = format!("{text}unknown field \"spec.containerId\"");
    refused(&api, ("POST", &strict), Some(&misspelt), (400, &unknown));
    let mut misspelt = changed("10.77.0.200", json!({}));
    misspelt["metadata"]["nam"] = json!("rules.10.77.0.200");
    let unknown = format!("{text}unknown field \"metadata.nam\"");
    refused(&api, ("POST", &strict), Some(&misspelt), (400, &unknown));
    for field in ["address", "lan", "block", "node", "boot", "machine"] {
        let text = format!("[spec.{field}: Required value, {UNCHECKED}]");
        invalid(&api, &changed("10.77.0.200", json!({field: null})), &text);
    }
}

#[test]
fn an_address_that_is_not_canonical_is_refused() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    for address in ["10.77.0.020", "10.77.0.0/24", "10.77.0", "::ffff:10.77.0.200", "fe80::1%eth0", "office", ""] {
        invalid(&api, &changed("10.77.0.200", json!({"address": address})), ADDRESS);
    }
    for address in ["FD77::200", "fd77:0::200", "fd77:0:0:0:0:0:0:200", "fd77::0200"] {
        invalid(&api, &changed("fd77::200", json!({"address": address})), ADDRESS);
    }
}

#[test]
fn a_second_name_for_an_address_is_refused() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    invalid(&api, &named("rules.10.77.0.201", "10.77.0.200", json!({})), NAME_V4);
    invalid(&api, &named("10.77.0.200", "10.77.0.200", json!({})), &format!("[{NAME_V4}, {BLOCK}]"));
    invalid(&api, &named("other.10.77.0.200", "10.77.0.200", json!({})), &format!("[{NAME_V4}, {BLOCK}]"));
    invalid(&api, &named("rules.fd77-0000-0000-0000-0000-0000-0000-0201", "fd77::200", json!({})), NAME_V6);
    for name in [
        "rules.fd77-0-0-0-0-0-0-200",
        "rules.x.fd77-0000-0000-0000-0000-0000-0000-0200",
        "other.fd77-0000-0000-0000-0000-0000-0000-0200",
        "fd77-0000-0000-0000-0000-0000-0000-0200",
    ] {
        invalid(&api, &named(name, "fd77::200", json!({})), &format!("[{NAME_V6}, {BLOCK}]"));
    }
}

#[test]
fn a_name_that_the_api_server_chooses_is_refused() {
    let shared = Shared::get();
    let mut lease = lease("rules", "10.77.0.200", "node1");
    lease["metadata"] = json!({"generateName": "rules.10.77.0.200"});
    let answer = shared.server.node_api("node1").request("POST", LEASES, Some(&lease)).unwrap();
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.body["message"].as_str().unwrap().contains(NAME_V4), "{answer:?}");
}

#[test]
fn a_block_that_is_not_that_of_the_address_is_refused() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    for block in ["rules.10.77.0", "rules.10.77.0.1", "rules.10.77.1.0", "other.10.77.0.0", "rules.10.77.0.200", ""] {
        invalid(&api, &changed("10.77.0.200", json!({"block": block})), BLOCK);
    }
    for block in [
        "rules.fd77-0000-0000-0000-0000-0000-0000-0000",
        "rules.fd77-0000-0000-0000-0000-0000-0000-02",
        "rules.fd77::200",
    ] {
        invalid(&api, &changed("fd77::200", json!({"block": block})), BLOCK);
    }
}

#[test]
fn a_lan_whose_name_is_not_one_label_is_refused() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    for lan in ["a.b", "Rules", "-rules", ""] {
        let text = format!(
            "spec.lan: Invalid value: \"{lan}\": spec.lan in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'"
        );
        let lease = named("rules.10.77.0.200", "10.77.0.200", json!({"lan": lan}));
        invalid(&api, &lease, &format!("[{text}, {NAME_V4}]"));
    }
    let long = "a".repeat(64);
    let lease = named(&format!("{long}.10.77.0.200"), "10.77.0.200", json!({"lan": long}));
    invalid(&api, &lease, &format!("[spec.lan: Too long: may not be more than 63 bytes, {UNCHECKED}]"));
}

#[test]
fn a_lease_of_a_container_and_of_another_machine_at_once_is_refused() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    let machine = json!({"mac": "02:00:00:00:00:01"});
    invalid(&api, &changed("10.77.0.200", json!({"conflict": machine})), HOLDER);
    for field in ["containerID", "ifname"] {
        invalid(&api, &changed("10.77.0.200", json!({field: null})), HOLDER);
    }
    let mut fields = json!({"containerID": null, "ifname": null, "netns": null, "pod": null, "conflict": machine});
    for (field, value) in [("netns", json!(1)), ("pod", json!("default/web-0")), ("ifname", json!("eth0"))] {
        fields[field] = value;
        invalid(&api, &changed("10.77.0.200", fields.clone()), HOLDER);
        fields[field] = Value::Null;
    }
}

#[test]
fn a_value_in_another_form_is_refused() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    let should = |field: &str, value: Value, what: &str| {
        format!("spec.{field}: Invalid value: {value}: spec.{field} in body should {what}")
    };
    let pod = json!("web-0");
    invalid(&api, &changed("10.77.0.200", json!({"pod": pod})), &should("pod", pod, "match '^[^/]+/[^/]+$'"));
    let netns = json!(0);
    invalid(
        &api,
        &changed("10.77.0.200", json!({"netns": netns})),
        &should("netns", netns, "be greater than or equal to 1"),
    );
    let mac = json!("02:00:00:00:00:0A");
    let fields = json!({"containerID": null, "ifname": null, "netns": null, "pod": null, "conflict": {"mac": mac}});
    invalid(
        &api,
        &changed("10.77.0.200", fields),
        &should("conflict.mac", mac, "match '^([0-9a-f]{2}:){5}[0-9a-f]{2}$'"),
    );
}

#[test]
fn a_second_lease_of_an_address_is_refused() {
    let shared = Shared::get();
    let (first, second) = (shared.server.node_api("node1"), shared.server.node_api("node2"));
    for address in ["10.77.0.200", "fd77::200"] {
        let made = make(&first, &lease("twice", address, "node1"));
        let name = made["metadata"]["name"].as_str().unwrap();
        let text = format!("lanaddresses.underlay.internal \"{name}\" already exists");
        for (api, node) in [(&first, "node1"), (&second, "node2")] {
            refused(api, ("POST", LEASES), Some(&lease("twice", address, node)), (409, &text));
        }
        assert_eq!(first.get(&path(&made)), made);
    }
}

#[test]
fn the_spec_of_a_lease_cannot_be_changed_by_an_administrator() {
    let shared = Shared::get();
    let made = make(&shared.server.node_api("node1"), &lease("fixed", "10.77.0.200", "node1"));
    let admin = shared.server.admin_api();
    let text =
        "LanAddress.underlay.internal \"fixed.10.77.0.200\" is invalid: spec: Invalid value: a lease cannot be changed";
    for spec in [json!({"node": "node2"}), json!({"pod": null}), json!({"containerID": "container-2"})] {
        refused(&admin, ("PATCH", &path(&made)), Some(&json!({"spec": spec})), (422, text));
    }
    let mut whole = made.clone();
    whole["spec"]["boot"] = json!("00000000-0000-4000-8000-000000000002");
    refused(&admin, ("PUT", &path(&made)), Some(&whole), (422, text));
    assert_eq!(admin.get(&path(&made)), made);
}

#[test]
fn leases_are_listed_by_lan_node_container_and_block() {
    let shared = Shared::get();
    let api = shared.server.node_api("node1");
    let mut other = lease("listed", "10.77.1.200", "node1");
    other["spec"]["containerID"] = json!("container-of-listed");
    make(&api, &lease("listed", "10.77.0.200", "node1"));
    make(&api, &other);
    make(&shared.server.node_api("listed"), &lease("listed", "fd77::200", "listed"));
    let names = |selector: &str| -> Vec<String> {
        let items = api.list(&format!("{LEASES}?fieldSelector={selector}")).expect("a list");
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        items.iter().map(name).collect()
    };
    let (v4, other, v6) =
        ("listed.10.77.0.200", "listed.10.77.1.200", "listed.fd77-0000-0000-0000-0000-0000-0000-0200");
    assert_eq!(names("spec.lan=listed"), [v4, other, v6]);
    assert_eq!(names("spec.lan=listed,spec.node=node1"), [v4, other]);
    assert_eq!(names("spec.node=listed"), [v6]);
    assert_eq!(names("spec.containerID=container-of-listed"), [other]);
    assert_eq!(names("spec.block=listed.10.77.1.0"), [other]);
    let text = "field label not supported: spec.pod";
    refused(&api, ("GET", &format!("{LEASES}?fieldSelector=spec.pod=default/web-0")), None, (400, text));
}
