//! The JSON shapes of a result, one module each, named after the version that brought it: always shape to model and
//! model to shape, never shape to shape.
//!
//! What a shape cannot say is lost on the way out: 0.1 and 0.2 hold one address per family and no interfaces, and only
//! 1.1 holds an interface's `mtu`, `socketPath` and `pciID`. A route keeps its attributes in every shape: nobody sets
//! one without meaning it, and readers of older versions skip keys that they do not know.

mod v0_2;
mod v0_3;

use ipnet::IpNet;

use crate::error::{Code, Error};
use crate::object::{self, Object};
use crate::result::AddResult;
use crate::version::Version;

/// The result as `version` spells it, with a newline.
pub fn encode(result: &AddResult, version: Version) -> Vec<u8> {
    let json = match version {
        Version::V0_1_0 | Version::V0_2_0 => serde_json::to_vec(&v0_2::Shape::new(result, version)),
        _ => serde_json::to_vec(&v0_3::Shape::new(result, version)),
    };
    // Strings, numbers and lists into memory: nothing that can fail.
    let mut json = json.unwrap_or_default();
    json.push(b'\n');
    json
}

/// Reads a result. Its own `cniVersion` says its shape; `expected` does where it has none.
///
/// Code 1 for an unknown version, code 7 with path and value for a wrong value.
pub fn read(keys: &Object<'_>, expected: Version) -> Result<AddResult, Error> {
    let version = match keys.text("cniVersion")? {
        None => expected,
        Some(text) => Version::parse(text)
            .ok_or_else(|| Error::new(Code::INCOMPATIBLE_VERSION, format!("cniVersion \"{text}\" is not known")))?,
    };
    match version {
        Version::V0_1_0 | Version::V0_2_0 => v0_2::read(keys),
        _ => v0_3::read(keys),
    }
}

/// Decodes another plugin's result. `whose` names it in the error, which is code 6 whatever is wrong with it, but code
/// 1 for an unknown version.
pub fn decode(json: &[u8], expected: Version, whose: &str) -> Result<AddResult, Error> {
    let read = object::parse(json, &[]).and_then(|map| read(&Object::root(&map), expected));
    read.map_err(|error| {
        let code = if error.code == Code::INCOMPATIBLE_VERSION { error.code } else { Code::DECODING_FAILURE };
        Error { code, msg: format!("{whose}: {}", error.msg), ..error }
    })
}

impl Error {
    /// Reads the error object of another plugin. Returns `None` if it is none.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let map = object::parse(json, &[]).ok()?;
        let keys = Object::root(&map);
        let text = |key| Some(keys.text(key).ok()?.unwrap_or_default().to_owned());
        Some(Self { code: Code(keys.number("code").ok()??), msg: text("msg")?, details: text("details")? })
    }
}

/// An address that has to be there, with its prefix length.
fn address(keys: &Object<'_>, key: &'static str) -> Result<IpNet, Error> {
    let address = keys.network(key, "an address with a prefix length such as 10.0.0.2/24")?;
    address.ok_or_else(|| keys.refuse(key, "is missing"))
}

#[cfg(test)]
mod tests;
