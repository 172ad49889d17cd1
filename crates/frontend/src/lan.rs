//! The keys about other machines on the LAN, and the file with the defaults of a node.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use attach::{GatewayCheck, Lan};
use cni::{Code, Error, Object, config};

/// The defaults for all networks of this node. The file may be missing.
const DEFAULTS: &str = "/etc/underlay.conf";

/// The keys that the file can set.
const KEYS: [&str; 4] = ["detectIPConflict", "detectTimeout", "announce", "detectGateway"];

/// The keys of `announce`.
const ANNOUNCE_KEYS: [&str; 2] = ["count", "interval"];

/// An answer takes up to 3 ms on a wired LAN, and up to 300 ms with stations that save power. Runtimes do not wait long.
const DETECT_TIMEOUTS: (u32, u32) = (50, 10_000);
const COUNTS: (u32, u32) = (1, 10);
const INTERVALS: (u32, u32) = (100, 10_000);

/// Reads the keys. A key that is not set has the value of the node's file.
pub(crate) fn read(keys: &Object<'_>) -> Result<Lan, Error> {
    read_over(keys, defaults()?)
}

/// Reads [`DEFAULTS`].
fn defaults() -> Result<Lan, Error> {
    let bytes = match fs::read(DEFAULTS) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Lan::default()),
        Err(error) => return Err(Error::new(Code::IO_FAILURE, format!("read {DEFAULTS}: {error}"))),
    };
    parse_defaults(&bytes).map_err(|error| Error { msg: format!("{DEFAULTS}: {}", error.msg), ..error })
}

fn parse_defaults(bytes: &[u8]) -> Result<Lan, Error> {
    let map = config::parse(bytes)?;
    let keys = Object::root(&map);
    refuse_others("", map.keys(), &KEYS)?;
    let announce = map.iter().find(|(key, _)| key.eq_ignore_ascii_case("announce"));
    if let Some(announce) = announce.and_then(|(_, value)| value.as_object()) {
        refuse_others("announce.", announce.keys(), &ANNOUNCE_KEYS)?;
    }
    read_over(&keys, Lan::default())
}

/// Refuses a key of the file that is not known. `path` is the path of the object.
fn refuse_others<'a>(path: &str, mut keys: impl Iterator<Item = &'a String>, known: &[&str]) -> Result<(), Error> {
    match keys.find(|key| known.iter().all(|known| !known.eq_ignore_ascii_case(key))) {
        None => Ok(()),
        Some(other) => {
            let cause = format!("is not one of the keys that this file can set: {}", known.join(", "));
            Err(Error::new(Code::INVALID_NETWORK_CONFIG, format!("{path}{other}: {cause}")))
        }
    }
}

fn read_over(keys: &Object<'_>, defaults: Lan) -> Result<Lan, Error> {
    let timeout = milliseconds(keys, "detectTimeout", DETECT_TIMEOUTS)?;
    let detects = match keys.item("detectIPConflict") {
        Some(item) => item.flag().ok_or_else(|| item.refuse("is neither true nor false"))?,
        None => defaults.detects,
    };
    let announce = keys.object("announce")?;
    let (announcements, announce_every) = match announce.is_set() {
        true => (
            within(&announce, "count", COUNTS, "")?.unwrap_or(1),
            milliseconds(&announce, "interval", INTERVALS)?.unwrap_or(Lan::default().announce_every),
        ),
        false => (defaults.announcements, defaults.announce_every),
    };
    Ok(Lan {
        detects,
        detect_within: timeout.unwrap_or(defaults.detect_within),
        announcements,
        announce_every,
        gateway: gateway(keys)?.unwrap_or(defaults.gateway),
    })
}

fn gateway(keys: &Object<'_>) -> Result<Option<GatewayCheck>, Error> {
    let Some(item) = keys.item("detectGateway") else { return Ok(None) };
    match (item.flag(), item.text()) {
        (Some(false), _) => Ok(Some(GatewayCheck::Off)),
        (Some(true), _) => Ok(Some(GatewayCheck::Refuse)),
        (None, Ok("warn")) => Ok(Some(GatewayCheck::Warn)),
        _ => Err(item.refuse("is neither true, nor false, nor \"warn\"")),
    }
}

fn milliseconds(keys: &Object<'_>, key: &'static str, range: (u32, u32)) -> Result<Option<Duration>, Error> {
    Ok(within(keys, key, range, " milliseconds")?.map(|number| Duration::from_millis(number.into())))
}

fn within(keys: &Object<'_>, key: &'static str, (least, most): (u32, u32), unit: &str) -> Result<Option<u32>, Error> {
    match keys.number(key)? {
        Some(number) if number < least || number > most => {
            Err(keys.refuse(key, &format!("is not between {least} and {most}{unit}")))
        }
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(conf: &str, defaults: Lan) -> Result<Lan, String> {
        let map = config::parse(conf.as_bytes()).unwrap();
        read_over(&Object::root(&map), defaults).map_err(|error| error.msg)
    }

    #[test]
    fn a_network_comes_before_the_node() {
        let file =
            br#"{"detectIPConflict": true, "detectTimeout": 300, "announce": {"count": 3}, "detectGateway": "warn"}"#;
        let node = parse_defaults(file).unwrap();
        let expected = Lan {
            detects: true,
            detect_within: Duration::from_millis(300),
            announcements: 3,
            announce_every: Duration::from_secs(1),
            gateway: GatewayCheck::Warn,
        };
        assert_eq!(node, expected);
        assert_eq!(read("{}", node).unwrap(), expected);
        let conf = r#"{"detectIPConflict": false, "announce": {"interval": 500}, "detectGateway": false}"#;
        let own = read(conf, node).unwrap();
        assert_eq!((own.detects, own.announcements, own.gateway), (false, 1, GatewayCheck::Off));
        assert_eq!(own.announce_every, Duration::from_millis(500));
        assert_eq!(own.detect_within, Duration::from_millis(300));
    }

    #[test]
    fn wrong_values_are_named() {
        for (conf, expected) in [
            (r#"{"detectIPConflict": "perhaps"}"#, "detectIPConflict \"perhaps\": is neither true nor false"),
            (r#"{"detectTimeout": 49}"#, "detectTimeout 49: is not between 50 and 10000 milliseconds"),
            (r#"{"announce": {"count": 0}}"#, "announce.count 0: is not between 1 and 10"),
            (
                r#"{"announce": {"interval": 10001}}"#,
                "announce.interval 10001: is not between 100 and 10000 milliseconds",
            ),
            (r#"{"detectGateway": "yes"}"#, "detectGateway \"yes\": is neither true, nor false, nor \"warn\""),
        ] {
            assert_eq!(read(conf, Lan::default()).unwrap_err(), expected);
        }
    }

    #[test]
    fn the_file_of_the_node_has_no_other_keys() {
        let expected = "mtu: is not one of the keys that this file can set: detectIPConflict, detectTimeout, announce, \
                        detectGateway";
        assert_eq!(parse_defaults(br#"{"mtu": 1400}"#).unwrap_err().msg, expected);
        let nested = parse_defaults(br#"{"announce": {"often": true}}"#).unwrap_err().msg;
        assert_eq!(nested, "announce.often: is not one of the keys that this file can set: count, interval");
    }
}
