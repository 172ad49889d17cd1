//! The macvlan plugin: a container with a MAC of its own on the parent's LAN. Everything but the keys that only
//! macvlan has is in [`attach`].
#![forbid(unsafe_code)]

use attach::{Choice, Kind, SubInterface};
use cni::config::Object;
use cni::{Attachment, Call, Code, Error};
use linux::{LinkKind, Mac, MacvlanMode};
use serde::Deserialize;

/// The plugin.
pub static PLUGIN: SubInterface<Macvlan> = SubInterface(Macvlan);

/// The kind.
pub struct Macvlan;

/// Keys as typed: null, "" and 0 mean not set.
#[derive(Deserialize)]
struct Keys {
    #[serde(default, deserialize_with = "cni::wire::non_empty")]
    mode: Option<String>,
    #[serde(default, deserialize_with = "cni::wire::non_empty")]
    mac: Option<String>,
    #[serde(default, deserialize_with = "cni::wire::non_zero")]
    bcqueuelen: Option<u32>,
    #[serde(default, rename = "runtimeConfig", deserialize_with = "cni::wire::nullable")]
    runtime_config: Object<RuntimeConfig>,
}

#[derive(Default, Deserialize)]
struct RuntimeConfig {
    #[serde(default, deserialize_with = "cni::wire::non_empty")]
    mac: Option<String>,
}

impl Kind for Macvlan {
    fn name(&self) -> &'static str {
        "macvlan"
    }

    fn about(&self) -> &'static str {
        "puts a container on the host's LAN under a MAC of its own"
    }

    fn choose(&self, call: &Call<'_>, attachment: Option<&Attachment>) -> Result<Choice, Error> {
        let keys: Keys = call.decode()?;
        let mode = mode(keys.mode.as_deref())?;
        // The last one that is set wins, as in the reference.
        let from_args = attachment.and_then(|attachment| attachment.args.get("MAC")).filter(|mac| !mac.is_empty());
        let mac = if let Some(mac) = keys.runtime_config.0.mac.as_deref() {
            Some(parse_mac("runtimeConfig.mac", mac)?)
        } else if let Some(mac) = from_args {
            Some(parse_mac("CNI_ARGS MAC", mac).map_err(|error| Error { code: Code::INVALID_ENVIRONMENT, ..error })?)
        } else if let Some(mac) = keys.mac.as_deref() {
            Some(parse_mac("mac", mac)?)
        } else {
            None
        };
        Ok(Choice { link: LinkKind::Macvlan { mode, bcqueuelen: keys.bcqueuelen }, mac })
    }
}

fn mode(text: Option<&str>) -> Result<MacvlanMode, Error> {
    let Some(text) = text else { return Ok(MacvlanMode::Bridge) };
    text.parse().map_err(|_| {
        let cause = format!("mode \"{text}\": macvlan knows bridge, private, vepa and passthru");
        Error::new(Code::UNSUPPORTED_FIELD, cause)
    })
}

fn parse_mac(key: &str, text: &str) -> Result<Mac, Error> {
    let refuse = |cause: &str| Error::config(key, format_args!("\"{text}\""), cause);
    let mac: Mac = text.parse().map_err(|_| refuse("is not a hardware address such as 02:00:5e:10:00:01"))?;
    if mac.is_zero() {
        return Err(refuse("no interface can have the zero address"));
    }
    if mac.is_multicast() {
        return Err(refuse("no interface can have a multicast address"));
    }
    Ok(mac)
}
