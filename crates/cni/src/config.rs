//! The network configuration on stdin: how it is decoded, and the keys that every plugin shares.
//!
//! Input is read in two stages. A serde struct as close to the JSON as can be comes first, in which null and a zero
//! value mean "not set", as they do to the reference; then the plugin makes a type of it in which nothing is optional
//! that should be set. Unknown keys are left alone.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::env::refuse_identifier;
use crate::error::{Code, Error};
use crate::version::Version;

/// How much is read from stdin, in bytes. A list of 60,000 valid attachments for GC takes about 6 MB.
pub const MAX_BYTES: usize = 8 << 20;

/// Reads a JSON object into `T`.
///
/// Text that is not JSON, or not an object, is code 6 with the line and column; a known key with a value of the wrong
/// kind is code 7 with the key's path and the value.
pub fn decode<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, Error> {
    let undecodable = |cause: &str| Error::new(Code::DECODING_FAILURE, cause.to_owned());
    match json.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(undecodable("empty: a JSON object was expected")),
        Some(b'{') => {}
        // Another JSON value and no JSON at all want different cures, so look which it is.
        Some(_) => {
            return Err(match serde_json::from_slice::<serde::de::IgnoredAny>(json) {
                Ok(_) => undecodable("not a JSON object"),
                Err(error) => undecodable(&format!("not JSON: {error}")),
            });
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            Category::Data if path == "." => Error::new(Code::INVALID_NETWORK_CONFIG, inner.to_string()),
            Category::Data => Error::new(Code::INVALID_NETWORK_CONFIG, format!("{path}: {inner}")),
            _ => undecodable(&format!("not JSON: {inner}")),
        }
    })?;
    deserializer.end().map_err(|error| undecodable(&format!("not JSON: {error}")))?;
    Ok(value)
}

/// A JSON object. serde's own structs take a list as well, so that `"ipam": []` would quietly mean `"ipam": {}`.
#[derive(Debug, Clone, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Keys<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Keys(PhantomData))
    }
}

/// The keys that every command of every plugin needs. A plugin decodes its own from the same bytes.
#[derive(Debug)]
pub struct NetConf<'a> {
    /// `cniVersion`.
    pub version: Version,
    /// `name`: the network's; safe to be part of a path.
    pub name: String,
    /// `ipam.type`; none means that there is nothing to delegate.
    pub ipam_type: Option<String>,
    /// `prevResult`, not decoded: DEL does without where it is broken.
    pub prev_result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Version_ {
    #[serde(rename = "cniVersion")]
    cni_version: Option<String>,
}

#[derive(Deserialize)]
struct Typed<'a> {
    name: Option<String>,
    ipam: Option<Object<Ipam>>,
    #[serde(borrow, rename = "prevResult")]
    prev_result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Ipam {
    #[serde(rename = "type", default, deserialize_with = "crate::wire::non_empty")]
    type_: Option<String>,
}

/// Reads `cniVersion` alone: it has to be known before anything else can be said, errors included.
pub fn version(json: &[u8]) -> Result<Version, Error> {
    let text = decode::<Version_>(json)?.cni_version.unwrap_or_default();
    Version::parse(&text).ok_or_else(|| {
        let known = Version::list();
        Error::new(Code::INCOMPATIBLE_VERSION, format!("cniVersion \"{text}\" is not one of {known}"))
    })
}

impl<'a> NetConf<'a> {
    /// Reads the shared keys.
    pub fn parse(json: &'a [u8]) -> Result<Self, Error> {
        let version = version(json)?;
        let typed: Typed<'a> = decode(json)?;
        let name = typed.name.unwrap_or_default();
        if let Some(cause) = refuse_identifier(&name) {
            return Err(Error::config("name", format_args!("\"{name}\""), cause));
        }
        let ipam_type = typed.ipam.and_then(|Object(ipam)| ipam.type_);
        Ok(Self { version, name, ipam_type, prev_result: typed.prev_result })
    }
}

/// One entry of a GC's list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct ValidAttachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The name of the interface in it.
    pub ifname: String,
}

/// The attachments that a GC must leave alone: `cni.dev/valid-attachments`, and `cni.dev/attachments`, the name that
/// some runtimes use, together. Neither key is an error (code 7): an empty list frees everything, and has to be meant.
pub fn valid_attachments(json: &[u8]) -> Result<Vec<ValidAttachment>, Error> {
    #[derive(Deserialize)]
    struct Lists {
        #[serde(rename = "cni.dev/valid-attachments")]
        valid: Option<Vec<Object<ValidAttachment>>>,
        #[serde(rename = "cni.dev/attachments")]
        attachments: Option<Vec<Object<ValidAttachment>>>,
    }
    let lists: Lists = decode(json)?;
    if lists.valid.is_none() && lists.attachments.is_none() {
        return Err(Error::new(
            Code::INVALID_NETWORK_CONFIG,
            "cni.dev/valid-attachments is missing: without it GC would have to free every attachment",
        ));
    }
    let both = lists.valid.into_iter().chain(lists.attachments);
    Ok(both.flatten().map(|Object(attachment)| attachment).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> (u32, String) {
        let error = NetConf::parse(json.as_bytes()).unwrap_err();
        (error.code.0, error.msg)
    }

    #[test]
    fn shared_keys_and_the_values_that_mean_not_set() {
        let json = br#"{"cniVersion":"1.0.0","name":"lan","ipam":{"type":"host-local"},"prevResult":{"ips":[]}}"#;
        let conf = NetConf::parse(json).unwrap();
        assert_eq!((conf.version, conf.name.as_str()), (Version::V1_0_0, "lan"));
        assert_eq!(conf.ipam_type.as_deref(), Some("host-local"));
        assert_eq!(conf.prev_result.unwrap().get(), r#"{"ips":[]}"#);

        let conf = NetConf::parse(br#" {"cniVersion":null,"name":"lan","ipam":null,"prevResult":null} "#).unwrap();
        assert_eq!(conf.version, Version::V0_1_0);
        assert_eq!(conf.ipam_type, None);
        assert!(conf.prev_result.is_none());

        let conf = NetConf::parse(br#"{"name":"lan","ipam":{"type":""}}"#).unwrap();
        assert_eq!(conf.ipam_type, None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        assert_eq!(refused(""), (6, "empty: a JSON object was expected".into()));
        assert_eq!(refused("[1]"), (6, "not a JSON object".into()));
        assert_eq!(refused("lan"), (6, "not JSON: expected value at line 1 column 1".into()));
        assert_eq!(refused("{\"name\":"), (6, "not JSON: EOF while parsing a value at line 1 column 8".into()));
        assert_eq!(refused("{} {}"), (6, "not JSON: trailing characters at line 1 column 4".into()));
        assert_eq!(
            refused(r#"{"name":7}"#),
            (7, "name: invalid type: integer `7`, expected a string at line 1 column 9".into())
        );
        assert_eq!(
            refused(r#"{"name":"lan","ipam":[]}"#),
            (7, "ipam: invalid type: sequence, expected an object at line 1 column 21".into())
        );
        assert_eq!(
            refused(r#"{"name":"lan","ipam":{"type":{}}}"#),
            (7, "ipam.type: invalid type: map, expected a string at line 1 column 29".into())
        );
        assert_eq!(
            refused(r#"{"cniVersion":"2.0.0"}"#),
            (1, "cniVersion \"2.0.0\" is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0".into())
        );
        for name in ["", "../x", "a/b", ".", "a b"] {
            let (code, message) = refused(&format!(r#"{{"name":"{name}"}}"#));
            assert_eq!(code, 7);
            assert!(message.starts_with(&format!("name \"{name}\": ")), "{message}");
        }
    }

    #[test]
    fn both_names_of_the_list_of_valid_attachments_count() {
        let parse = |json: &str| valid_attachments(json.as_bytes());
        let one = |id: &str| ValidAttachment { container_id: id.into(), ifname: "eth0".into() };
        let both = r#"{"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],
                       "cni.dev/attachments":[{"containerID":"b","ifname":"eth0"}]}"#;
        assert_eq!(parse(both).unwrap(), [one("a"), one("b")]);
        assert_eq!(parse(r#"{"cni.dev/attachments":[]}"#).unwrap(), []);
        assert_eq!(parse("{}").unwrap_err().code, Code::INVALID_NETWORK_CONFIG);
        assert_eq!(parse(r#"{"cni.dev/attachments":null}"#).unwrap_err().code, Code::INVALID_NETWORK_CONFIG);
    }
}
