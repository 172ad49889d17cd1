//! The answer of a call, key by key. The text of an error is not compared, only that there is one.

use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use super::state::Facts;
use crate::Outcome;

pub(super) const END: &str = "answer";

/// Adds how the call ended and what it printed.
pub(super) fn describe(outcome: &Outcome, facts: &mut Facts) {
    let status = outcome.status;
    let mut answer = match outcome.stdout.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&outcome.stdout)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&outcome.stdout).into_owned())),
    };
    let error = (!status.success()).then(|| answer.as_object_mut()).flatten();
    let end = match (status.code(), status.signal(), error) {
        (Some(0), ..) => "success".to_owned(),
        (Some(1), _, Some(error)) => {
            let said = error.remove("msg").is_some_and(|msg| msg.as_str().is_some_and(|msg| !msg.is_empty()));
            error.remove("details");
            let code = error.remove("code").unwrap_or_default();
            format!("error {code}{}", if said { "" } else { " without a word" })
        }
        (Some(code), ..) => format!("exit {code}"),
        (None, signal, _) => format!("signal {}", signal.unwrap_or_default()),
    };
    facts.add(END, "end", end);
    let name = if status.success() { "result" } else { "error" };
    flatten(name.to_owned(), &answer, facts);
}

/// Adds each value with its path.
fn flatten(path: String, value: &Value, facts: &mut Facts) {
    match value {
        Value::Object(keys) if !keys.is_empty() => {
            for (key, value) in keys {
                flatten(format!("{path}.{key}"), value, facts);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                flatten(format!("{path}[{at}]"), item, facts);
            }
        }
        // Nothing was printed, or only what `end` says.
        Value::Null => {}
        Value::Object(keys) if keys.is_empty() && path == "error" => {}
        leaf => {
            facts.add(END, &path, leaf.to_string());
        }
    }
}
