//! The network configuration on stdin: the keys that every plugin shares.
//!
//! Input is read in two stages. [`Object`] reads single keys: null and zero values mean "not set", as in the
//! reference. Then each plugin makes a type of its own, in which nothing is optional that must be set.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::conflict;
use crate::env::why_no_identifier;
use crate::error::{Code, Error};
use crate::object::{self, Object};
use crate::version::Version;

/// Limit of stdin in bytes. A list of 60,000 valid attachments for GC takes about 6 MB.
pub const MAX_BYTES: usize = 8 << 20;

const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";
const ATTACHMENTS: &str = "cni.dev/attachments";

/// Keys for the runtime, for the IPAM plugin, or for all plugins (spec section 1). `deviceID` and `pciBusID` are
/// added by Multus, and `addressConflicts` is ours.
pub const KEYS_OF_OTHERS: [&str; 14] = [
    conflict::KEY,
    "args",
    "capabilities",
    "cniVersions",
    "deviceID",
    "disableCheck",
    "disableGC",
    "ipMasq",
    "ipam",
    "loadOnlyInlinedPlugins",
    "pciBusID",
    "prevResult",
    "runtimeConfig",
    "type",
];

/// Parses a network configuration without the lists of GC, which [`valid_attachments`] reads.
pub fn parse(json: &[u8]) -> Result<Map<String, Value>, Error> {
    object::parse(json, &[VALID_ATTACHMENTS, ATTACHMENTS])
}

/// The keys that every plugin needs, and the object to read other keys from.
#[derive(Debug, Clone)]
pub struct NetConf<'a> {
    /// `cniVersion`.
    pub version: Version,
    /// `name` of the network. It is safe as a part of a path.
    pub name: String,
    /// `ipam.type`. `None`: there is not an IPAM plugin.
    pub ipam_type: Option<&'a str>,
    /// The whole configuration.
    pub keys: Object<'a>,
}

/// Reads `cniVersion`. It is needed for every answer, also for errors.
pub fn version(keys: &Object<'_>) -> Result<Version, Error> {
    let text = keys.text("cniVersion")?.unwrap_or_default();
    Version::parse(text).ok_or_else(|| {
        let known = Version::list();
        Error::new(Code::INCOMPATIBLE_VERSION, format!("cniVersion \"{text}\" is not one of {known}"))
    })
}

impl<'a> NetConf<'a> {
    /// Reads the shared keys.
    pub fn read(keys: Object<'a>) -> Result<Self, Error> {
        let version = version(&keys)?;
        let name = keys.text("name")?.unwrap_or_default().to_owned();
        if keys.item("name").is_none() {
            let cause = "every network needs a name, because its leases are stored under it";
            return Err(Error::config("name", "is not set", cause));
        }
        if let Some(cause) = why_no_identifier(&name) {
            return Err(Error::config("name", format_args!("\"{name}\""), cause));
        }
        let ipam_type = keys.object("ipam")?.text("type")?;
        Ok(Self { version, name, ipam_type, keys })
    }
}

/// One entry in the list of GC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct ValidAttachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The name of the interface in it.
    pub ifname: String,
}

/// The attachments that GC must keep: `cni.dev/valid-attachments` and `cni.dev/attachments` together. Some runtimes
/// use the second name. If both keys are missing, this is an error (code 7), because an empty list frees everything.
pub fn valid_attachments(json: &[u8]) -> Result<Vec<ValidAttachment>, Error> {
    #[derive(Deserialize)]
    struct Lists {
        #[serde(rename = "cni.dev/valid-attachments")]
        valid: Option<Vec<ValidAttachment>>,
        #[serde(rename = "cni.dev/attachments")]
        attachments: Option<Vec<ValidAttachment>>,
    }
    let wrong = |cause: String| Error::new(Code::INVALID_NETWORK_CONFIG, format!("{VALID_ATTACHMENTS}: {cause}"));
    let lists: Lists = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    if lists.valid.is_none() && lists.attachments.is_none() {
        return Err(wrong("is not set; GC needs this list, because without it all leases would be freed".into()));
    }
    Ok(lists.valid.into_iter().chain(lists.attachments).flatten().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read<T>(json: &str, then: impl FnOnce(NetConf<'_>) -> T) -> Result<T, (u32, String)> {
        let conf = |map: &Map<String, Value>| NetConf::read(Object::root(map)).map(then);
        let read = parse(json.as_bytes()).and_then(|map| conf(&map));
        read.map_err(|error| (error.code.0, error.msg))
    }

    fn refused(json: &str) -> (u32, String) {
        read(json, |_| ()).unwrap_err()
    }

    #[test]
    fn shared_keys_and_the_values_that_mean_not_set() {
        let shared = |conf: NetConf<'_>| (conf.version, conf.name, conf.ipam_type.map(str::to_owned));
        let json = r#"{"cniVersion":"1.0.0","name":"lan","ipam":{"type":"host-local"}}"#;
        assert_eq!(read(json, shared).unwrap(), (Version::V1_0_0, "lan".into(), Some("host-local".into())));
        for json in [
            r#" {"cniVersion":null,"name":"lan","ipam":null} "#,
            r#"{"cniVersion":"","name":"lan","ipam":{"type":""}}"#,
            r#"{"name":"lan"}"#,
        ] {
            assert_eq!(read(json, shared).unwrap(), (Version::V0_1_0, "lan".into(), None));
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        assert_eq!(refused(r#"{"name":7}"#), (7, "name 7: is not text".into()));
        assert_eq!(refused(r#"{"name":"lan","ipam":[]}"#), (7, "ipam []: is not an object".into()));
        assert_eq!(refused(r#"{"name":"lan","ipam":{"type":{}}}"#), (7, "ipam.type {}: is not text".into()));
        assert_eq!(
            refused(r#"{"cniVersion":"2.0.0"}"#),
            (1, "cniVersion \"2.0.0\" is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0".into())
        );
        for absent in [r#"{}"#, r#"{"name":null}"#] {
            let expected = "name is not set: every network needs a name, because its leases are stored under it";
            assert_eq!(refused(absent), (7, expected.into()), "{absent}");
        }
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
        for json in [
            "{}",
            r#"{"cni.dev/attachments":null}"#,
            r#"{"cni.dev/attachments":{}}"#,
            r#"{"cni.dev/attachments":[{}]}"#,
        ] {
            let error = parse(json).unwrap_err();
            assert_eq!(error.code, Code::INVALID_NETWORK_CONFIG);
            assert!(error.msg.starts_with("cni.dev/valid-attachments: "), "{error}");
        }
    }

    fn any_attachments() -> impl Strategy<Value = Option<Vec<ValidAttachment>>> {
        let one = (any::<String>(), any::<String>());
        let one = one.prop_map(|(container_id, ifname)| ValidAttachment { container_id, ifname });
        proptest::option::of(proptest::collection::vec(one, 0..4))
    }

    fn written(list: &Option<Vec<ValidAttachment>>) -> Value {
        let entry = |its: &ValidAttachment| json!({"containerID": its.container_id, "ifname": its.ifname});
        list.as_ref().map_or(Value::Null, |list| list.iter().map(entry).collect())
    }

    proptest! {
        /// As a runtime writes what GC and STATUS read. Lost is which of the two lists an attachment was in, and whether
        /// one that names nothing was there.
        #[test]
        fn what_a_runtime_writes_reads_back(
            version in proptest::sample::select(&Version::ALL), name in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}",
            ipam in any::<Option<String>>(), valid in any_attachments(), attachments in any_attachments(),
        ) {
            let conf = json!({
                "cniVersion": version.as_str(), "name": name, "ipam": {"type": ipam},
                "cni.dev/valid-attachments": written(&valid), "cni.dev/attachments": written(&attachments),
            });
            let conf = conf.to_string();
            let shared = read(&conf, |conf| (conf.version, conf.name, conf.ipam_type.map(str::to_owned)));
            prop_assert_eq!(shared, Ok((version, name, ipam.filter(|name| !name.is_empty()))));

            let is_said = valid.is_some() || attachments.is_some();
            let expected: Vec<_> = valid.into_iter().chain(attachments).flatten().collect();
            prop_assert_eq!(valid_attachments(conf.as_bytes()).ok(), is_said.then_some(expected));
        }
    }
}
