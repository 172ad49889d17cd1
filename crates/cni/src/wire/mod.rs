//! The JSON shapes of a result, one module each, named after their first version. Shapes are converted to the model
//! and back, never to another shape.
//!
//! A shape loses what it cannot hold. 0.1 and 0.2 hold one address per family and no interfaces. Only 1.1 holds an
//! interface's `mtu`, `socketPath` and `pciID`. A route keeps its attributes in every shape: readers of older
//! versions skip unknown keys.

mod v0_2;
mod v0_3;

use ipnet::IpNet;

use crate::error::{Code, Error};
use crate::object::{self, Object};
use crate::result::AddResult;
use crate::version::Version;

/// The result in the shape of `version`, with a newline.
pub fn encode(result: &AddResult, version: Version) -> Vec<u8> {
    let json = match version {
        Version::V0_1_0 | Version::V0_2_0 => serde_json::to_vec(&v0_2::Shape::new(result, version)),
        _ => serde_json::to_vec(&v0_3::Shape::new(result, version)),
    };
    // This cannot fail: the target is memory.
    let mut json = json.unwrap_or_default();
    json.push(b'\n');
    json
}

/// Reads a result in the shape of its own `cniVersion`, or of `expected` if it has none.
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

/// Decodes the result of another plugin. `whose` names it in the error. Code 1 for an unknown version, otherwise code
/// 6.
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

/// A required address with its prefix length.
fn address(keys: &Object<'_>, key: &'static str) -> Result<IpNet, Error> {
    let address = keys.network(key, "an address with a prefix length such as 10.0.0.2/24")?;
    address.ok_or_else(|| keys.refuse(key, "is missing"))
}

#[cfg(test)]
mod tests;
