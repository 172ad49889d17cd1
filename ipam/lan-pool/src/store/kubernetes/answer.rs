//! Tells if a response says something about the lease that was asked for.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::object::{Page, ReadObject, Status};
use super::response::Response;
use crate::lease::{Block, Held, Lease, Uid};

/// Objects of a list. A LAN has fewer.
const LARGEST_LIST: usize = 1 << 18;

/// A response that is none of the expected ones.
pub(super) enum Unread {
    /// Its content is wrong.
    Wrong(String),
    /// Its status says something else.
    Refused,
}

/// Our own structures have texts as keys, and no values that JSON lacks.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

pub(super) fn read<T: DeserializeOwned>(response: &Response) -> Result<T, String> {
    if !response.is_json {
        return Err("the answer is not JSON".to_owned());
    }
    serde_json::from_slice(&response.body).map_err(|error| format!("the answer is wrong: {error}"))
}

/// The lease of a response, if it has this name.
pub(super) fn lease_of(response: &Response, name: &str) -> Result<Held, Unread> {
    let object: ReadObject = read(response).map_err(Unread::Wrong)?;
    let held = object.held(response.date).map_err(Unread::Wrong)?;
    if held.lease.name() != name {
        return Err(Unread::Wrong(format!("the answer is about {}", held.lease.name())));
    }
    Ok(held)
}

pub(super) fn is_lease(response: &Response, name: &str) -> bool {
    lease_of(response, name).is_ok()
}

/// True for a status with this reason about this lease. If the whole resource is missing, the answer is a text, or names no
/// lease.
pub(super) fn is(response: &Response, reason: &str, name: &str) -> bool {
    Status::of(response.status, &response.body)
        .is_some_and(|status| status.reason.as_deref() == Some(reason) && status.is_about_lease(name))
}

pub(super) fn is_missing_node(response: &Response, name: &str) -> bool {
    Status::of(response.status, &response.body)
        .is_some_and(|status| status.reason.as_deref() == Some("NotFound") && status.is_about("", "nodes", name))
}

/// True if the delete was for another creation of the lease. Both texts of the API server have this word.
/// (k8s.io/apiserver: pkg/registry/rest/delete.go, pkg/storage/interfaces.go)
pub(super) fn is_other_uid(response: &Response, name: &str) -> bool {
    let names_precondition =
        |status: Status| status.message.is_some_and(|text| text.to_lowercase().contains("precondition"));
    is(response, "Conflict", name) && Status::of(response.status, &response.body).is_some_and(names_precondition)
}

/// Fails unless the response says that this creation of the lease is deleted. The answer is the object itself if it has
/// finalizers: then it is not deleted yet.
pub(super) fn deleted(response: &Response, name: &str, uid: &Uid) -> Result<(), Unread> {
    let status: Status = read(response).map_err(Unread::Wrong)?;
    if status.kind == "LanAddress" {
        return Err(Unread::Wrong("the lease is not deleted yet: has it finalizers?".to_owned()));
    }
    let is_success = status.kind == "Status" && status.status.as_deref() == Some("Success");
    let has_uid = status.details.as_ref().is_some_and(|details| details.uid.as_deref() == Some(uid.0.as_str()));
    if is_success && has_uid && status.is_about_lease(name) {
        return Ok(());
    }
    Err(Unread::Wrong("the answer does not say that the lease is deleted".to_owned()))
}

/// Adds the leases of a page, and returns the token of the next page.
pub(super) fn page(
    response: &Response,
    fields: &[(&str, &str)],
    leases: &mut Vec<Held>,
) -> Result<Option<String>, String> {
    let page: Page = read(response)?;
    if page.kind != Page::KIND {
        return Err(format!("the answer is no {}", Page::KIND));
    }
    for object in page.items {
        let held = object.held(response.date)?;
        let Lease { lan, node, address, .. } = &held.lease;
        let has = |(key, value): &(&str, &str)| match *key {
            "spec.node" => node.name == *value,
            "spec.lan" => lan == value,
            _ => Block::of(*address).name(lan) == *value,
        };
        if !fields.iter().all(has) {
            return Err(format!("the answer has {}, which was not asked for", held.lease.name()));
        }
        leases.push(held);
    }
    if leases.len() > LARGEST_LIST {
        return Err(format!("more than {LARGEST_LIST} leases"));
    }
    Ok(page.metadata.next.filter(|next| !next.is_empty()))
}

/// A value of a field selector. (k8s.io/apimachinery: pkg/fields, `EscapeValue`)
pub(super) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

/// A text as one segment of a path, or as one value of a query. (RFC 3986, section 2)
pub(super) fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
