//! The JSON shapes of a result, one module each, named after the version that brought it: always shape to model and
//! model to shape, never shape to shape.
//!
//! What a shape cannot say is lost on the way out: 0.1 and 0.2 hold one address per family and no interfaces, and only
//! 1.1 holds an interface's `mtu`, `socketPath` and `pciID`. A route keeps its attributes in every shape: nobody sets
//! one without meaning it, and readers of older versions skip keys that they do not know.

mod v0_2;
mod v0_3;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::error::{Code, Error};
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
/// `whose` names it in the error (code 6, or 1 for an unknown version).
pub fn decode(json: &[u8], expected: Version, whose: &str) -> Result<AddResult, Error> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(rename = "cniVersion")]
        cni_version: Option<String>,
    }
    let bad = |error: Error| Error { code: Code::DECODING_FAILURE, msg: format!("{whose}: {}", error.msg), ..error };

    let head: Head = crate::config::decode(json).map_err(bad)?;
    let version = match head.cni_version.as_deref() {
        None | Some("") => expected,
        Some(text) => Version::parse(text).ok_or_else(|| {
            Error::new(Code::INCOMPATIBLE_VERSION, format!("{whose}: cniVersion \"{text}\" is not known"))
        })?,
    };
    match version {
        Version::V0_1_0 | Version::V0_2_0 => crate::config::decode::<v0_2::Shape>(json).map(v0_2::Shape::into_result),
        _ => crate::config::decode::<v0_3::Shape>(json).map(v0_3::Shape::into_result),
    }
    .map_err(bad)
}

/// Text that must be there, parsed; the message names the text.
fn parsed<'de, D: Deserializer<'de>, T: std::str::FromStr>(deserializer: D, what: &str) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom(format!("\"{text}\" is not {what}")))
}

/// A destination in CIDR form.
pub(crate) fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    parsed(deserializer, "a network such as 10.0.0.0/8")
}

/// An address with its prefix length.
pub(crate) fn interface_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    parsed(deserializer, "an address with a prefix length such as 10.0.0.2/24")
}

/// An address, where absent, null and the empty string mean none.
pub(crate) fn optional_ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    match non_empty(deserializer)? {
        None => Ok(None),
        Some(text) => {
            let ip = text.parse().map_err(|_| D::Error::custom(format!("\"{text}\" is not an IP address")))?;
            Ok(Some(ip))
        }
    }
}

/// Text, where null and the empty string mean none, as they do to the reference.
pub fn non_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// A number, where null and 0 mean none, as they do to the reference.
pub fn non_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<u32>::deserialize(deserializer)?.filter(|number| *number != 0))
}

/// Anything with a default, where null means that default.
pub fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
