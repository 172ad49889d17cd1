//! The plugin `macvlan`: puts a container on the parent's LAN with its own MAC. This crate has the keys that only
//! macvlan has. The rest is in [`frontend`].
#![forbid(unsafe_code)]

use cni::{Attachment, Call, Code, Error};
use frontend::{Choice, Kind, SubInterface};
use linux::{LinkKind, Mac, MacvlanMode};

/// The plugin `macvlan`.
pub static PLUGIN: SubInterface<Macvlan> = SubInterface(Macvlan);

/// Implements [`Kind`] for macvlan.
pub struct Macvlan;

impl Kind for Macvlan {
    fn name(&self) -> &'static str {
        "macvlan"
    }

    fn about(&self) -> &'static str {
        "puts a container on the host's LAN with its own MAC"
    }

    fn choose(&self, call: &Call<'_>, attachment: Option<&Attachment>) -> Result<Choice, Error> {
        let keys = call.keys();
        let mode = mode(keys.text("mode")?)?;
        let runtime = keys.object("runtimeConfig")?;
        // The order of precedence is that of the reference plugin.
        let args = attachment.map(Attachment::args).transpose()?;
        let args = args.and_then(|args| args.get("MAC")).filter(|mac| !mac.is_empty());
        let mac = match (runtime.text("mac")?, args, keys.text("mac")?) {
            (Some(mac), _, _) => Some(parse_mac("runtimeConfig.mac", mac)?),
            (None, Some(mac), _) => {
                let refused = |error| Error { code: Code::INVALID_ENVIRONMENT, ..error };
                Some(parse_mac("CNI_ARGS MAC", mac).map_err(refused)?)
            }
            (None, None, Some(mac)) => Some(parse_mac("mac", mac)?),
            (None, None, None) => None,
        };
        Ok(Choice { link: LinkKind::Macvlan { mode, bcqueuelen: keys.non_zero("bcqueuelen")? }, mac })
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
