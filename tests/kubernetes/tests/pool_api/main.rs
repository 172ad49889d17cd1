//! The manifest of lan-pool in a real API server: each rule refuses one request, with its status and its text.

mod client;
mod fixture;
mod lease;
mod policy;
mod rights;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use e2e::{Binaries, Lab};
use kubernetes::api_server::pool::LEASES;
use kubernetes::{Api, ApiServer};
use serde_json::{Value, json};

/// An API server with the manifest, which the tests share. Each test uses a LAN of its own.
struct Shared {
    server: ApiServer,
    // Dropped after the API server.
    lab: Lab,
}

impl Shared {
    /// The first test starts it. It ends when no test holds the value.
    fn get() -> Arc<Self> {
        static CURRENT: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        current.upgrade().unwrap_or_else(|| {
            let shared = Arc::new(Self::start());
            *current = Arc::downgrade(&shared);
            shared
        })
    }

    fn start() -> Self {
        let lab = Lab::new(Binaries::HardLinks);
        let server = ApiServer::start(&lab, 1);
        server.set_up_lan_pool();
        Self { server, lab }
    }
}

/// Makes a lease that must be accepted. Returns the object.
#[track_caller]
fn make(api: &Api, lease: &Value) -> Value {
    api.create(&format!("{LEASES}?fieldValidation=Strict"), lease)
}

/// The path of a lease.
fn path(lease: &Value) -> String {
    format!("{LEASES}/{}", lease["metadata"]["name"].as_str().expect("a lease has a name"))
}

/// The options of a DELETE that deletes only the object with this uid.
fn only(lease: &Value) -> Value {
    json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": lease["metadata"]["uid"]}})
}

/// A request must fail with this status and exactly this text.
#[track_caller]
fn refused(api: &Api, (method, path): (&str, &str), body: Option<&Value>, (status, text): (u16, &str)) {
    let answer = api.request(method, path, body).unwrap_or_else(|error| panic!("{error}"));
    let message = answer.body["message"].as_str().unwrap_or_default();
    assert_eq!((answer.status, message), (status, text), "{method} {path}: {}", answer.body);
}

/// Binds a role to a user.
fn bind(server: &ApiServer, role: &str, user: &str) {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("test-{role}-{}", user.replace(':', "-"))},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    server.apply(&binding.to_string());
}
