//! Addresses that other machines on the LAN have: the key of ours `addressConflicts` in the DEL of an IPAM plugin.
//!
//! ```json
//! "addressConflicts": [{"address": "192.168.50.20", "mac": "52:54:00:12:34:56"}]
//! ```

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::error::Error;
use crate::object::Object;

/// The key, at the top level of the network configuration.
pub const KEY: &str = "addressConflicts";

/// The longest MAC in bytes. (include/linux/netdevice.h, MAX_ADDR_LEN)
const MAX_MAC: usize = 32;

/// A leased address that another machine on the LAN has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The address. An IPv4 address is never in the form of IPv6.
    pub address: IpAddr,
    /// The MAC of the machine, as text with colons. `None` if it is not known.
    pub mac: Option<String>,
}

impl Conflict {
    /// Reads the key [`KEY`]. Without the key, the list is empty.
    ///
    /// A wrong value is an error of code 7 that names key and value.
    pub fn read(keys: &Object<'_>) -> Result<Vec<Self>, Error> {
        let read = |conflict: &Object<'_>| {
            let address = conflict.parsed::<IpAddr>("address", "an IP address")?;
            let address = address.ok_or_else(|| conflict.refuse("address", "is missing"))?;
            let mac = conflict.text("mac")?;
            if mac.is_some_and(|mac| !is_mac(mac)) {
                return Err(conflict.refuse("mac", "is not a MAC address"));
            }
            Ok(Self { address: address.to_canonical(), mac: mac.map(str::to_owned) })
        };
        keys.objects(KEY)?.iter().map(read).collect()
    }

    /// Adds the key [`KEY`] to a network configuration, which must be a JSON object. No other byte changes. If the key
    /// is there already, readers use the new one, because it is the last.
    pub fn add_to(conf: &[u8], conflicts: &[Self]) -> Vec<u8> {
        let text = conf.trim_ascii_end();
        let open = text.strip_suffix(b"}").unwrap_or(text).trim_ascii_end();
        let comma: &[u8] = if open.ends_with(b"{") { b"" } else { b"," };
        let list = Value::Array(conflicts.iter().map(Self::value).collect()).to_string();
        [open, comma, b"\"", KEY.as_bytes(), b"\":", list.as_bytes(), b"}"].concat()
    }

    fn value(&self) -> Value {
        let mut object = Map::new();
        object.insert("address".into(), self.address.to_string().into());
        if let Some(mac) = &self.mac {
            object.insert("mac".into(), mac.as_str().into());
        }
        Value::Object(object)
    }
}

/// Returns true for two hexadecimal digits for each byte, with colons between them.
fn is_mac(text: &str) -> bool {
    let is_byte = |byte: &str| byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
    text.split(':').count() <= MAX_MAC && text.split(':').all(is_byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::parse;
    use crate::error::Code;

    fn conflict(address: &str, mac: Option<&str>) -> Conflict {
        Conflict { address: address.parse().unwrap(), mac: mac.map(str::to_owned) }
    }

    fn read(json: &[u8]) -> Result<Vec<Conflict>, (Code, String)> {
        let map = parse(json).unwrap();
        Conflict::read(&Object::root(&map)).map_err(|error| (error.code, error.msg))
    }

    #[test]
    fn the_key_is_a_list_of_addresses_with_the_macs_that_are_known() {
        let json = br#"{"addressConflicts": [{"address": "192.168.50.20", "mac": "52:54:00:12:34:56"},
                        {"address": "::ffff:10.0.0.7", "mac": ""}, null, {"address": "fd00::2", "mac": null, "x": 1}]}"#;
        let expected = [
            conflict("192.168.50.20", Some("52:54:00:12:34:56")),
            conflict("10.0.0.7", None),
            conflict("fd00::2", None),
        ];
        assert_eq!(read(json).unwrap(), expected);
        for none in ["{}", r#"{"addressConflicts":null}"#, r#"{"addressConflicts":[]}"#] {
            assert_eq!(read(none.as_bytes()), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        for (value, message) in [
            (r#"{}"#, "addressConflicts {}: is not a list"),
            (r#"[7]"#, "addressConflicts[0] 7: is not an object"),
            (r#"[{}]"#, "addressConflicts[0].address: is missing"),
            (r#"[{"address":"x"}]"#, "addressConflicts[0].address \"x\": is not an IP address"),
            (r#"[{"address":"::1","mac":7}]"#, "addressConflicts[0].mac 7: is not text"),
            (r#"[{"address":"::1","mac":"5:4"}]"#, "addressConflicts[0].mac \"5:4\": is not a MAC address"),
            (r#"[{"address":"::1","mac":"+5:é"}]"#, "addressConflicts[0].mac \"+5:é\": is not a MAC address"),
        ] {
            let json = format!(r#"{{"addressConflicts":{value}}}"#);
            assert_eq!(read(json.as_bytes()), Err((Code::INVALID_NETWORK_CONFIG, message.into())), "{json}");
        }
    }

    #[test]
    fn the_new_key_comes_behind_all_others_which_do_not_change() {
        let added = |conf: &str| {
            let conflicts = [conflict("10.0.0.7", Some("52:54:00:12:34:56")), conflict("fd00::2", None)];
            String::from_utf8(Conflict::add_to(conf.as_bytes(), &conflicts)).unwrap()
        };
        let list = r#""addressConflicts":[{"address":"10.0.0.7","mac":"52:54:00:12:34:56"},{"address":"fd00::2"}]"#;
        assert_eq!(added("{}"), format!("{{{list}}}"));
        assert_eq!(added(" { \n}\n"), format!(" {{{list}}}"));
        let conf = r#"{"name":"lan", "a": {"b" : 1.50E+3}, "big":123456789012345678901234567890}"#;
        assert_eq!(added(conf), format!("{},{list}}}", &conf[..conf.len() - 1]));
        // The key of an earlier call is not the answer.
        let old = r#"{"addressConflicts":[{"address":"10.0.0.9"}]}"#;
        assert_eq!(read(added(old).as_bytes()).unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            addresses in proptest::collection::vec(any::<IpAddr>(), 0..4), mac in any::<Option<[u8; 6]>>(),
        ) {
            let mac = mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
            let conflict = |ip: &IpAddr| Conflict { address: ip.to_canonical(), mac: mac.clone() };
            let conflicts: Vec<_> = addresses.iter().map(conflict).collect();
            let json = Conflict::add_to(br#"{"name":"lan"}"#, &conflicts);
            prop_assert_eq!(read(&json), Ok(conflicts));
        }
    }
}
